"""Commands of the catalogue: `pool catalogue`, entries, their full metadata, reviews, updates and end."""

from pathlib import Path
from typing import Annotated, Any

import typer

from exchange.cli.control import JsonOption, ReasonOption, client, connect, read_document, read_text
from exchange.cli.output import CommandGroup, one_of, print_fields, print_json, print_line, print_rows
from schemas.errors import InvalidError, Reason

__all__ = ["add_to"]

_FilingOption = Annotated[
    str, typer.Option("--filing", help="number under which it was negotiated and filed (decree 809, Art. 27)")
]

catalogue = typer.Typer(cls=CommandGroup)
catalogue.callback()(connect)


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    text = "Catalogue of information resources (政务信息资源目录)."
    app.add_typer(catalogue, name="catalogue", help=text, no_args_is_help=True)


@catalogue.command("draft")
def catalogue_draft(context: typer.Context, file: Path) -> None:
    """Draft an entry from a YAML or JSON file; with `topic` and `metadata` in it, one with full metadata."""
    document = read_document(file)
    if "metadata" not in document:
        print_json(client(context).post("/catalogue", document))
        return
    if document.keys() != {"topic", "metadata"}:
        raise InvalidError(
            Reason.CONFIG_INVALID, f"{file}: got {', '.join(sorted(document))[:200]}; expected topic and metadata"
        )
    print_json(client(context).post(f"/catalogue/{document['topic']}/metadata", document["metadata"]))


@catalogue.command("describe")
def catalogue_describe(context: typer.Context, topic: str, file: Path) -> None:
    """Set the full metadata of an entry from a YAML or JSON file: a draft, or an update that was begun."""
    document = read_document(file)
    print_json(client(context).post(f"/catalogue/{topic}/metadata", document.get("metadata", document)))


@catalogue.command("check")
def catalogue_check(context: typer.Context, file: Path, as_json: JsonOption = False) -> None:
    """Check metadata as its review would, and list every fault; nothing is stored. Exit code 1 if there are any."""
    document = read_document(file)
    faults = client(context).post("/catalogue/check", document.get("metadata", document))["faults"]
    print_rows(faults, ("element", "code", "clause", "en", "zh"), as_json=as_json)
    if faults:
        raise typer.Exit(1)


@catalogue.command("schema")
def catalogue_schema(context: typer.Context, topic: str, file: Path) -> None:
    """Register an Avro schema (.avsc) of a catalogued resource."""
    print_json(client(context).post(f"/catalogue/{topic}/schemas", {"text": read_text(file)}))


@catalogue.command("publish")
def catalogue_publish(context: typer.Context, topic: str) -> None:
    """Publish an entry, which makes its topic; one with full metadata as the authority, after its reviews."""
    print_json(client(context).post(f"/catalogue/{topic}/publication"))


@catalogue.command("archive")
def catalogue_archive(context: typer.Context, topic: str) -> None:
    """Archive an entry without full metadata; one that has it is announced and retired."""
    print_json(client(context).post(f"/catalogue/{topic}/archival"))


@catalogue.command("history")
def catalogue_history(
    context: typer.Context,
    topic: str,
    keep: Annotated[str, typer.Option(help="all, latest (of each key), or a number of days")],
) -> None:
    """Change what a resource keeps (保存期限). A shorter history removes records permanently."""
    history = {"days": int(keep)} if keep.isdecimal() else keep
    answer = client(context).post(f"/catalogue/{topic}/history", {"history": history})
    print_line(f"{topic}: keeps {keep}")
    if not answer["applied"]:
        print_line("Kafka does not follow yet: the operator runs `pool broker apply`", err=True)


@catalogue.command("list")
def catalogue_list(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the catalogue."""
    columns = ("topic", "title", "share_type", "level", "zone", "state", "code", "history")
    print_rows(client(context).list("/catalogue"), columns, as_json=as_json)


@catalogue.command("show")
def catalogue_show(context: typer.Context, topic: str, as_json: JsonOption = False) -> None:
    """Show an entry of the catalogue, and its full metadata where it has them."""
    pool = client(context)
    entry = one_of(pool.list("/catalogue"), "catalogue entry", topic=topic)
    try:
        record: dict[str, Any] = pool.get(f"/catalogue/records/{topic}")
    except InvalidError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        print_fields(entry, as_json=as_json)
        return
    if as_json:
        print_json({**entry, "record": record})
        return
    print_fields(entry, as_json=False)
    print_line("")
    print_fields({"procedure": record["state"], "in_force": f"version {record['in_force']}"}, as_json=False)
    print_fields({name: value for name, value in record["metadata"].items() if name not in entry}, as_json=False)
    for name in ("change", "due_on", "due", "notice"):
        if record.get(name):
            print_fields({name: record[name]}, as_json=False)
    for fault in record["faults"]:
        print_line(f"lacks  {fault['en']}")


@catalogue.command("records")
def catalogue_records(
    context: typer.Context,
    state: Annotated[
        str | None, typer.Option(help="such as dept_review or authority_review: what waits for a signature")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the entries with full metadata, and where each stands: your department's, or all for the authority.

    `due` and `due_on`: how near the end of the time is in which an entry is updated, or the update reviewed.
    """
    rows = client(context).list("/catalogue/records", {"state": state})
    columns = ("topic", "title", "state", "version", "in_force", "code", "by", "at", "due", "due_on")
    print_rows(rows, columns, as_json=as_json, row=_record_row)


@catalogue.command("versions")
def catalogue_versions(context: typer.Context, topic: str, as_json: JsonOption = False) -> None:
    """List the versions of an entry's metadata, each with the act that made it."""
    rows = client(context).list(f"/catalogue/records/{topic}/versions")
    columns = ("version", "event", "state", "by", "at", "reason", "entry")
    print_rows(rows, columns, as_json=as_json, row=_record_row)


@catalogue.command("notices")
def catalogue_notices(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the resources that end or are suspended, of which your department has a grant in force."""
    columns = ("topic", "title", "state", "from_day", "filing", "reason")
    print_rows(client(context).list("/catalogue/notices"), columns, as_json=as_json, row=_notice_row)


@catalogue.command("submit")
def catalogue_submit(context: typer.Context, topic: str) -> None:
    """Send a draft to the review of its department; as the head, an update to the authority."""
    _post(context, topic, "submission")


@catalogue.command("approve")
def catalogue_approve(context: typer.Context, topic: str) -> None:
    """Consent to an entry as the head of the department's sharing office; the authority reviews it next."""
    _post(context, topic, "approval")


@catalogue.command("return")
def catalogue_return(context: typer.Context, topic: str, reason: ReasonOption) -> None:
    """Return an entry from a review to its draft."""
    _post(context, topic, "return", reason=reason)


@catalogue.command("change")
def catalogue_change(
    context: typer.Context,
    topic: str,
    changed_on: Annotated[str, typer.Option("--on", help="date of the change of law or duty, YYYY-MM-DD")],
    reason: ReasonOption,
) -> None:
    """Begin the update of a published entry (decree 809, Art. 17); what was published stays in force."""
    _post(context, topic, "change", changed_on=changed_on, reason=reason)


@catalogue.command("extend")
def catalogue_extend(context: typer.Context, topic: str, reason: ReasonOption) -> None:
    """Consent, as the authority, to more time for an update; once."""
    _post(context, topic, "extension", reason=reason)


@catalogue.command("suspend")
def catalogue_suspend(context: typer.Context, topic: str, filing: _FilingOption, reason: ReasonOption) -> None:
    """Suspend a published entry; once this has returned, nothing of it is published or drawn."""
    _post(context, topic, "suspension", filing=filing, reason=reason)


@catalogue.command("resume")
def catalogue_resume(context: typer.Context, topic: str, reason: ReasonOption) -> None:
    """Resume a suspended entry."""
    _post(context, topic, "resumption", reason=reason)


@catalogue.command("announce")
def catalogue_announce(
    context: typer.Context,
    topic: str,
    from_day: Annotated[str, typer.Option("--from", help="day from which it is not provided any more, YYYY-MM-DD")],
    filing: _FilingOption,
    reason: ReasonOption,
) -> None:
    """Announce that a resource ends; the departments that have a grant of it find it in `pool catalogue notices`."""
    record = _post(context, topic, "announcement", from_day=from_day, filing=filing, reason=reason)
    told = (record.get("notice") or {}).get("consumers", [])
    print_line(f"told: {', '.join(told) or 'nobody has a grant of it'}")


@catalogue.command("retire")
def catalogue_retire(context: typer.Context, topic: str, reason: ReasonOption) -> None:
    """Retire, as the authority, an entry whose end was announced; nothing of it is published or drawn any more."""
    _post(context, topic, "retirement", reason=reason)


@catalogue.command("withdraw")
def catalogue_withdraw(context: typer.Context, topic: str) -> None:
    """Withdraw a draft that was never in force."""
    _post(context, topic, "withdrawal")


def _post(context: typer.Context, topic: str, act: str, **body: str) -> dict[str, Any]:
    record: dict[str, Any] = client(context).post(f"/catalogue/{topic}/{act}", body or None)
    print_line(f"{topic}: {record['state']}, version {record['version']}")
    return record


def _record_row(row: dict[str, Any]) -> dict[str, Any]:
    return {**row["act"], **row, "title": row["metadata"]["title"]}


def _notice_row(row: dict[str, Any]) -> dict[str, Any]:
    return {**_record_row(row), **(row["notice"] or {})}
