"""Commands of the control API: `pool purposes`, `request`, `grant`; more of the latter two in `exchange.cli.requests`.

`pool catalogue` is in `exchange.cli.catalogue`, `pool department` in `exchange.cli.directory`, `pool user`, `connector`
and `certificate` are in `exchange.cli.accounts`, `pool erase` in `exchange.cli.erase`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exchange.cli.grant_text import describe_filter, describe_grant
from exchange.cli.output import (
    CommandGroup,
    is_damaged,
    print_json,
    print_line,
    print_lines,
    print_rows,
    print_table,
)
from schemas.errors import InvalidError, Reason

if TYPE_CHECKING:
    from exchange.admin_client import AdminClient

__all__ = [
    "JsonOption",
    "ReasonOption",
    "add_to",
    "client",
    "connect",
    "grant",
    "read_document",
    "read_text",
    "request",
]

_Data = Annotated[
    Path | None,
    typer.Option("--data", help="the pool's folder: its address and authority, not a token", envvar="POOL_DATA"),
]
_Url = Annotated[str | None, typer.Option("--url", help="address of the control API")]
_Token = Annotated[Path | None, typer.Option("--token-file", help="file with the account's token")]
_Authority = Annotated[Path | None, typer.Option("--authority", help="the pool's certificate authority, PEM")]
JsonOption = Annotated[bool, typer.Option("--json", help="as a JSON document, with the fields of the HTTP answer")]
ReasonOption = Annotated[str, typer.Option("--reason", help="in words; it goes into the audit log")]


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    for name, group, text in (
        ("request", request, "Share requests (共享申请)."),
        ("grant", grant, "Grants (授权): approve, reject, suspend, resume, terminate."),
    ):
        app.add_typer(group, name=name, help=text, no_args_is_help=True)
    app.command("purposes")(purposes)


request, grant = (typer.Typer(cls=CommandGroup) for _ in range(2))


def client(context: typer.Context) -> "AdminClient":
    """Return the client that the options describe."""
    from exchange.admin_client import from_options

    if isinstance(context.obj, tuple):  # made once: a token may come from standard input
        context.obj = from_options(*context.obj)
    made: AdminClient = context.obj
    return made


def connect(
    context: typer.Context,
    data: _Data = None,
    url: _Url = None,
    token_file: _Token = None,
    authority: _Authority = None,
) -> None:
    """Store the options for `client`, which the command calls. They come before the command's name."""
    context.obj = (data, url, token_file, authority)


for _group in (request, grant):
    _group.callback()(connect)


@request.command("submit")
def request_submit(context: typer.Context, file: Path) -> None:
    """Submit a share request from a YAML or JSON file, and print it with its id."""
    print_json(client(context).post("/requests", read_document(file)))


@request.command("check")
def request_check(context: typer.Context, file: Path, as_json: JsonOption = False) -> None:
    """Check a share request from a YAML or JSON file without filing it, and print what its approver would read."""
    pool = client(context)
    document = pool.post("/requests/check", read_document(file))
    if as_json:
        print_json(document)
        return
    departments = {one["id"]: one["short_name"] for one in pool.list("/departments") if not is_damaged(one)}
    purposes = {one["id"]: f"{one['zh']} {one['en']}" for one in pool.list("/purposes") if not is_damaged(one)}
    due = f"; filed now, it has to be decided by {document['due_at']}" if document.get("due_at") else ""
    print_line(f"This request could be filed, and has not been{due}.")
    print_lines([*describe_grant({**document, "state": "not filed", "due": None}, departments, purposes)][1:])


@request.command("return-flow")
def request_return_flow(
    context: typer.Context,
    topic: Annotated[str, typer.Argument(help="resource and major of a department above yours, such as residents.v1")],
    division: Annotated[str, typer.Option(help="code, or its beginning; without it, your department's area")] = "",
    field: Annotated[str, typer.Option(help="division field of the schema, where it has several")] = "",
    purpose: Annotated[str, typer.Option(help="id of the purpose; see `pool purposes`")] = "",
    duty: Annotated[str, typer.Option(help="code of the item of your department's duty list")] = "",
    case: Annotated[str, typer.Option(help="standing case number")] = "",
) -> None:
    """Draft a request for the rows of your own area (回流), to be filed with `pool request submit`."""
    wanted = {"topic": topic, "division": division, "field": field, "purpose": purpose, "duty": duty, "case": case}
    print_json(client(context).post("/requests/return-flow", wanted))


@grant.command("list")
def grant_list(
    context: typer.Context,
    unmasked: Annotated[
        bool, typer.Option("--unmasked", help="only grants that show unmasked what no request wrote out")
    ] = False,
    consumer: Annotated[str | None, typer.Option(help="internal id of the department that has or asks for it")] = None,
    provider: Annotated[str | None, typer.Option(help="internal id of the providing department")] = None,
    topic: Annotated[str | None, typer.Option(help="resource and major, such as residents.v1")] = None,
    resource: Annotated[str | None, typer.Option(help="name of a resource, in any major")] = None,
    state: Annotated[list[str] | None, typer.Option(help="such as submitted or active; may be repeated")] = None,
    expires_within: Annotated[int | None, typer.Option(help="days from now; not those that ended")] = None,
    due: Annotated[
        str | None, typer.Option(help="requests that wait, by their deadline: overdue, soon, or normal")
    ] = None,
    order: Annotated[str, typer.Option(help="id (oldest first), newest, or expires")] = "id",
    as_json: JsonOption = False,
) -> None:
    """List the grants that the account may see; `shows` says what each shows beyond the schema's masks.

    `due` and `due_at`: how near the deadline of a request is, and until when it has to be decided.
    """
    query = {
        "consumer": consumer,
        "provider": provider,
        "topic": topic,
        "resource": resource,
        "state": state or None,
        "expires_within": expires_within,
        "due": due,
        "order": order,
        "unmasked": "true" if unmasked else None,
    }
    rows = client(context).list("/grants", query)
    columns = (
        "id", "topic", "state", "consumer", "purpose", "fields", "masks", "rows", "case", "legal_basis", "history",
        "quota_per_day", "expires", "suspend_after", "flow", "shows", "due", "due_at",
    )  # fmt: skip
    print_rows(rows, columns, as_json=as_json, row=_grant_row)


@grant.command("show")
def grant_show(context: typer.Context, grant_id: str, as_json: JsonOption = False) -> None:
    """Show a grant in words: who asks for what, in which form, and what to know before a decision."""
    pool = client(context)
    document = pool.get(f"/grants/{grant_id}")
    if as_json:
        print_json(document)
        return
    departments = {one["id"]: one["short_name"] for one in pool.list("/departments") if not is_damaged(one)}
    purposes = {one["id"]: f"{one['zh']} {one['en']}" for one in pool.list("/purposes") if not is_damaged(one)}
    print_lines(describe_grant(document, departments, purposes))


@grant.command("rows")
def grant_rows(context: typer.Context, grant_id: str, as_json: JsonOption = False) -> None:
    """Show the rounded number of rows that a grant or a request keeps now, for its provider."""
    document = client(context).get(f"/grants/{grant_id}/rows")
    if as_json:
        print_json(document)
        return
    number = f"fewer than {document['rows']}" if document["fewer"] else f"about {document['rows']:,}"
    records = f"{document['read']:,} records" if document["whole"] else f"the newest {document['read']:,} records"
    print_line(f"{grant_id}: {number} rows, of {records}")


@grant.command("renew")
def grant_renew(
    context: typer.Context,
    grant_id: str,
    until: Annotated[str, typer.Option(help="end of the renewal, ISO 8601 with an offset")],
    basis: Annotated[str, typer.Option(help="law and article (使用依据), in words")],
    draft: Annotated[
        bool, typer.Option("--draft", help="print the request, to be changed and submitted; file nothing")
    ] = False,
) -> None:
    """Ask for the renewal of a grant (续期), with the same fields, masks and rows, and print the request with its id.

    The grant stays as it is until the renewal is approved; then the renewal goes on from the grant's position.
    """
    pool = client(context)
    body = {**pool.get(f"/grants/{grant_id}/renewal"), "expires": until, "legal_basis": basis}
    print_json(body if draft else pool.post("/requests", body))


@grant.command("versions")
def grant_versions(context: typer.Context, grant_id: str, as_json: JsonOption = False) -> None:
    """List the versions of a grant, each with the entry of the act that made it."""
    rows = client(context).list(f"/grants/{grant_id}/versions")
    print_rows(rows, ("version", "state", "at", "entry", "hash"), as_json=as_json)


@grant.command("use")
def grant_use(context: typer.Context, grant_id: str, as_json: JsonOption = False) -> None:
    """Show how often and how much was released under a grant in the last 31 days, and when last."""
    document = client(context).get(f"/grants/{grant_id}/use")
    if as_json:
        print_json(document)
        return
    last = document["last"]
    print_line(f"releases      {document['releases']}{' or more' if document['more'] else ''} in the last 31 days")
    print_line(
        f"last          {last['at']}, {last['records']} records, entry {last['entry']}"
        if last
        else "last          never"
    )
    for one in document["days"]:
        print_line(f"{one['day']}    {one['records']:,} records")


@grant.command("counts")
def grant_counts(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show how many grants that the account may see are in each state."""
    document = client(context).get("/grants/counts")
    if as_json:
        print_json(document)
        return
    more = set(document["more"])
    rows = [
        {"state": state, "grants": f"{count:,}{'+' if state in more else ''}"}
        for state, count in document["counts"].items()
    ]
    print_table(rows, ("state", "grants"))


@grant.command("may")
def grant_may(context: typer.Context, grant_id: str, as_json: JsonOption = False) -> None:
    """Show what your account may do with a grant now, and why it may not do the rest."""
    document = client(context).get(f"/grants/{grant_id}/may")
    if as_json:
        print_json(document)
        return

    def row(one: dict[str, Any]) -> dict[str, Any]:
        return {**one, "allowed": "yes" if one["allowed"] else "no"}

    print_table(map(row, document["events"]), ("event", "allowed", "reason", "message"))


@grant.command("confirm")
def grant_confirm(context: typer.Context, grant_id: str) -> None:
    """Sign a sensitive request as the provider's security officer, before its head or after; as `countersign`."""
    answer = client(context).post(f"/grants/{grant_id}/confirmation")
    print_line(f"{grant_id}: confirmed by {answer['confirmed_by']}")


@grant.command("approve")
def grant_approve(context: typer.Context, grant_id: str) -> None:
    """Sign a request as the head; it is in force when this returns, or waits for the security officer's signature."""
    print_json(client(context).post(f"/grants/{grant_id}/approval"))


def _event(event: str, text: str) -> Any:
    def command(context: typer.Context, grant_id: str, reason: ReasonOption = "") -> None:
        answer = client(context).post(f"/grants/{grant_id}/{event}", {"reason": reason})
        print_line(f"{grant_id}: {answer['state']}")

    command.__doc__ = text
    return command


@grant.command("reject")
def grant_reject(
    context: typer.Context,
    grant_id: str,
    clause: Annotated[str, typer.Option(help="law and article that forbid to share, in words")] = "",
    ground: Annotated[str, typer.Option(help="out_of_duty, incomplete_scope, conditions_not_met or not_shared")] = "",
    reason: ReasonOption = "",
) -> None:
    """Reject a request, which takes a reason and a clause: to share is the rule."""
    body = {"reason": reason, "clause": clause, "ground": ground or None}
    print_line(f"{grant_id}: {client(context).post(f'/grants/{grant_id}/reject', body)['state']}")


grant.command("suspend")(_event("suspend", "Suspend a grant; once this has returned, nothing is released under it."))
grant.command("resume")(_event("rectified", "Resume a suspended grant."))
grant.command("terminate")(_event("terminate", "Terminate a suspended grant, permanently."))


def purposes(
    context: typer.Context,
    as_json: JsonOption = False,
    data: _Data = None,
    url: _Url = None,
    token_file: _Token = None,
    authority: _Authority = None,
) -> None:
    """List the purposes that a request may name (使用目的)."""
    connect(context, data, url, token_file, authority)
    columns = ("id", "zh", "en", "parent", "case_form", "state")
    print_rows(client(context).list("/purposes"), columns, as_json=as_json)


def read_document(file: Path) -> dict[str, Any]:
    """Return the mapping in a YAML or JSON file, its times as ISO 8601 text.

    Raises:
        InvalidError: CONFIG_INVALID, it cannot be read, with line and column.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        value = YAML(typ="safe").load(read_text(file))
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        position = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else str(file)
        raise InvalidError(Reason.CONFIG_INVALID, f"{position}: {getattr(error, 'problem', 'is no YAML')}") from error
    except (ValueError, RecursionError) as error:
        message = f"{file}: a date that there is not, a number of thousands of digits, or hundreds of levels"
        raise InvalidError(Reason.CONFIG_INVALID, f"{message}; expected the members of its form") from error
    if not isinstance(value, dict):
        raise InvalidError(Reason.CONFIG_INVALID, f"{file}: got {type(value).__name__}; expected a mapping")
    # YAML has a type for times; the API takes ISO 8601 text.
    return {key: item.isoformat() if hasattr(item, "isoformat") else item for key, item in value.items()}


def read_text(file: Path) -> str:
    """Return the text of a file.

    Raises:
        InvalidError: CONFIG_INVALID, it cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidError(Reason.CONFIG_INVALID, f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidError(
            Reason.CONFIG_INVALID, f"{file}: got bytes that are no UTF-8; save it with the encoding UTF-8"
        ) from error


def _grant_row(row: dict[str, Any]) -> dict[str, Any]:
    labels = row["review"].get("labels", {})
    return row | {
        "rows": describe_filter(row["row_filter"], labels),
        "shows": "; ".join(row["review"]["words"]),
        "flow": row["review"].get("flow"),
    }
