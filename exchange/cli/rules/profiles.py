"""Commands `pool profile` and `pool deadline`: rule profiles with their clauses, and one deadline computed by them."""

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from exchange.cli.control import JsonOption, ReasonOption, client, connect
from exchange.cli.output import CommandGroup, print_json, print_line, print_rows, print_table, write_text
from exchange.cli.rules.calendar import CHANGE_COLUMNS
from exchange.cli.rules.files import read_text
from exchange.deadlines.change_state import ChangeState, RuleKind
from schemas.errors import InvalidError, Reason

__all__ = ["add_to"]

_PROFILES = ("profile", "version", "place", "shipped", "rules", "names")
_RULES = ("rule", "limit", "extension", "after_pause", "profile", "basis", "clause")
_SHANGHAI = timezone(timedelta(hours=8))

profile, deadline = typer.Typer(cls=CommandGroup), typer.Typer(cls=CommandGroup)
for _group in (profile, deadline):
    _group.callback()(connect)


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    text = "Rule profiles (规则集): limits with their clauses, changed by two persons."
    app.add_typer(profile, name="profile", help=text, no_args_is_help=True)
    app.add_typer(
        deadline, name="deadline", help="Deadlines (时限): the rules in force, one computed.", no_args_is_help=True
    )


@profile.command("list")
def profile_list(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the rule profiles; `place`: in the order in which the pool follows them, the first before the others."""
    print_rows(client(context).list("/profiles"), _PROFILES, as_json=as_json, row=_both)


@profile.command("show")
def profile_show(context: typer.Context, name: str, as_json: JsonOption = False) -> None:
    """Show the rules of a profile, each with its clause and whether its text was read (`basis`)."""
    document = client(context).get(f"/profiles/{name}")
    if as_json:
        print_json(document)
        return
    title = document["names"]
    print_line(f"{document['profile']}, version {document['version']}: {title['en']} ({title['zh']})")
    print_table([_rule_row(one) for one in document["rules"]], tuple(name for name in _RULES if name != "profile"))


@profile.command("check")
def profile_check(file: Path) -> None:
    """Check a profile's file; each fault is named by line and column. Needs no pool."""
    from exchange.deadlines.profile_yaml import parse_profile

    parsed = parse_profile(read_text(file), name=str(file))
    print_line(f"{file}: {parsed.profile}, version {parsed.version}, {len(parsed.rules)} rules; no fault")
    print_line(parsed.digest)


@profile.command("propose")
def profile_propose(context: typer.Context, file: Path) -> None:
    """Propose a profile; another person of the data authority confirms it. A new one is followed when ordered so."""
    from exchange.deadlines.profile_yaml import parse_profile

    text = read_text(file)
    parse_profile(text, name=str(file))
    _print_proposed(client(context).post("/profiles", {"content": text}))


@profile.command("order")
def profile_order(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(help="profiles, the one with the highest precedence first")],
) -> None:
    """Propose which profiles the pool follows; another person of the data authority confirms it."""
    _print_proposed(client(context).post("/profiles/order", {"profiles": names}))


@profile.command("confirm")
def profile_confirm(context: typer.Context, change_id: str) -> None:
    """Confirm a profile, or an order of profiles, that another person proposed; deadlines follow it from now on."""
    answer = client(context).post(f"/rule-changes/{change_id}/confirmation", {"kind": _kind(context, change_id)})
    print_line(f"in force: {_named(answer)}")


@profile.command("reject")
def profile_reject(context: typer.Context, change_id: str, reason: ReasonOption) -> None:
    """Reject a profile or an order that was proposed, or withdraw your own."""
    body = {"kind": _kind(context, change_id), "reason": reason}
    print_line(f"rejected: {_named(client(context).post(f'/rule-changes/{change_id}/rejection', body))}")


@profile.command("changes")
def profile_changes(
    context: typer.Context,
    state: Annotated[ChangeState | None, typer.Option()] = None,
    as_json: JsonOption = False,
) -> None:
    """List proposed profiles and orders and who decided on them, newest first."""
    found = client(context).list("/rule-changes", {"state": state})
    kept = [one for one in found if one.get("kind") != RuleKind.CALENDAR]
    print_rows(kept, CHANGE_COLUMNS, as_json=as_json)


@profile.command("change")
def profile_change(context: typer.Context, change_id: str, as_json: JsonOption = False) -> None:
    """Show a profile or an order as it was proposed, before you confirm it."""
    document = client(context).get(f"/rule-changes/{change_id}")
    if as_json:
        print_json(document)
    else:
        write_text(document["content"])


@deadline.command("rules")
def deadline_rules(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the rules in force, each of the first profile that has it, with its clause."""
    print_rows(client(context).list("/rules"), _RULES, as_json=as_json, row=_rule_row)


@deadline.command("compute")
def deadline_compute(
    context: typer.Context,
    rule: Annotated[str, typer.Argument(help="such as reply.conditional; `pool deadline rules` lists them")],
    start: Annotated[
        str | None,
        typer.Option(help="the event: 2026-09-30, or with a time; in UTC+8 unless it says so; now if absent"),
    ] = None,
    extension: Annotated[int, typer.Option(help="that was granted, in the unit of the limit")] = 0,
    by: Annotated[str, typer.Option("--profile", help="by this profile alone, followed or not")] = "",
    as_json: JsonOption = False,
) -> None:
    """Compute until when something has to be done, and by which clause."""
    query: dict[str, Any] = {"start": _moment(start), "extension": extension or None, "profile": by or None}
    document = client(context).get(f"/deadlines/{rule}", query)
    if as_json:
        print_json(document)
        return
    clause, text = document["clause"], document["text"]
    more = f", extended by {document['granted']}" if document["granted"] else ""
    doubt = "; provisional: the working days of that year are not known yet" if document["provisional"] else ""
    print_line(f"{document['due_at']} ({document['due']}){doubt}")
    print_line(f"  last day   {document['day']}")
    print_line(f"  limit      {document['limit']}{more}, from {document['started_at']}")
    print_line(f"  rule       {document['rule']}: {text['en']} ({text['zh']})")
    print_line(f"  by         {document['profile']}, version {document['profile_version']} ({document['basis']})")
    print_line(f"  clause     {clause['en']} ({clause['zh']})")


def _moment(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidError(
            Reason.REQUEST_INVALID, f"--start: got {text[:40]!r}; expected a date or time such as 2026-09-30T09:00"
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=_SHANGHAI)).isoformat()


def _print_proposed(answer: dict[str, Any]) -> None:
    print_line(f"proposed: {_named(answer)}")
    print_line(f"another person of the data authority confirms it: pool profile confirm {answer['id']}")


def _kind(context: typer.Context, change_id: str) -> str:
    kind = client(context).get(f"/rule-changes/{change_id}")["kind"]
    return RuleKind.PROFILE.value if kind == RuleKind.CALENDAR else str(kind)  # a calendar is refused as no profile


def _named(change: dict[str, Any]) -> str:
    return f"profile {change['subject']}" if change["kind"] == RuleKind.PROFILE else "the order of the profiles"


def _both(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "names": f"{row['names']['en']} ({row['names']['zh']})"}


def _rule_row(row: dict[str, Any]) -> dict[str, Any]:
    more = row["extension"]
    return {
        **row,
        "clause": f"{row['clause']['en']} ({row['clause']['zh']})",
        "extension": "" if more is None else f"+{more['most']}, {more['consent']}",
    }
