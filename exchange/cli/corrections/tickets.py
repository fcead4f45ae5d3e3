"""Commands `pool correction`: doubt a value, answer as its source department, acknowledge what was corrected (校核)."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from exchange.cli.control import JsonOption, ReasonOption, client, connect
from exchange.cli.output import CommandGroup, is_damaged, print_fields, print_line, print_rows
from schemas.errors import InvalidError, Reason

__all__ = ["add_to"]

correction = typer.Typer(cls=CommandGroup)
correction.callback()(connect)

_COLUMNS = ("id", "topic", "field", "state", "raiser", "source", "received_at", "due", "due_at", "overdue_at", "told")
_NOTICES = ("id", "ticket", "topic", "field", "grant", "consumer", "record_key", "told_at", "acknowledged_at")
_Ticket = Annotated[str, typer.Argument(help="id of the ticket")]
_Grant = Annotated[str, typer.Argument(help="under which the value was received")]
_Record = Annotated[str, typer.Argument(help="record key that was delivered with it, 32 hexadecimal digits")]


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    text = "Corrections (校核): values that consumers doubt, and the answers of their source departments."
    app.add_typer(correction, name="correction", help=text, no_args_is_help=True)


@correction.command("open")
def correction_open(
    context: typer.Context,
    grant: _Grant,
    record_key: _Record,
    field: Annotated[str, typer.Argument(help="whose value is doubted")],
    claim_file: Annotated[
        Path,
        typer.Option(
            help="first line: the value that is right, or empty; then how it is known; - reads standard input",
            allow_dash=True,
        ),
    ],
    recorded_at: Annotated[
        str | None, typer.Option(help="time that was delivered with the record; the pool finds it faster")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Doubt a value that your department received. The claim is never an argument: arguments show in process lists."""
    claimed, _, evidence = _read(claim_file).partition("\n")
    body: dict[str, Any] = {
        "grant": grant,
        "record_key": record_key,
        "field": field,
        "claimed": claimed.strip(),
        "claim_evidence": evidence.strip(),
        "recorded_at": _moment(recorded_at),
    }
    _print(client(context).post("/corrections", body), as_json=as_json)


@correction.command("list")
def correction_list(
    context: typer.Context,
    state: Annotated[list[str] | None, typer.Option(help="such as opened or verifying; may be repeated")] = None,
    topic: Annotated[str | None, typer.Option(help="resource and major, such as residents.v1")] = None,
    grant: Annotated[str | None, typer.Option(help="under which the value was received")] = None,
    source: Annotated[str | None, typer.Option(help="internal id of the department whose answer is due")] = None,
    due: Annotated[str | None, typer.Option(help="tickets that wait, by their deadline: overdue, soon, normal")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the tickets that the account may see; `due` and `due_at`: until when the source department has to answer."""
    pool = client(context)
    query = {"state": state or None, "topic": topic, "grant": grant, "source": source, "due": due}
    rows: list[dict[str, Any]] = pool.list("/corrections", query)
    names = {} if as_json else _names(pool)
    print_rows(rows, _COLUMNS, as_json=as_json, row=lambda one: _named(one, names))


@correction.command("show")
def correction_show(context: typer.Context, ticket: _Ticket, as_json: JsonOption = False) -> None:
    """Show a ticket: whose answer is due, until when, what it was, and who was told."""
    print_fields(client(context).get(f"/corrections/{ticket}"), as_json=as_json)


@correction.command("claim")
def correction_claim(context: typer.Context, ticket: _Ticket, as_json: JsonOption = False) -> None:
    """Show what is claimed, and to the source department its record, or the value alone of another's; it is logged."""
    print_fields(client(context).get(f"/corrections/{ticket}/claim"), as_json=as_json)


@correction.command("accept")
def correction_accept(context: typer.Context, ticket: _Ticket) -> None:
    """Take a ticket on, as the source department: your department verifies the value."""
    _act(context, ticket, "acceptance")


@correction.command("transfer")
def correction_transfer(
    context: typer.Context,
    ticket: _Ticket,
    to: Annotated[str, typer.Option(help="internal id of the department that is the source")],
    reason: ReasonOption,
) -> None:
    """Transfer a ticket to the department that is the source; the clock of its first receipt goes on."""
    _act(context, ticket, "transfer", {"department": to, "reason": reason})


@correction.command("correct")
def correction_correct(context: typer.Context, ticket: _Ticket, reason: ReasonOption = "") -> None:
    """Answer that the value is corrected; the record of operation `correct` must be in the pool already."""
    _act(context, ticket, "correction", {"reason": reason})


@correction.command("confirm")
def correction_confirm(context: typer.Context, ticket: _Ticket, reason: ReasonOption) -> None:
    """Answer that the value is right."""
    _act(context, ticket, "confirmation", {"reason": reason})


@correction.command("cannot-verify")
def correction_cannot_verify(context: typer.Context, ticket: _Ticket, reason: ReasonOption) -> None:
    """Answer that the value cannot be verified."""
    _act(context, ticket, "refusal", {"reason": reason})


@correction.command("withdraw")
def correction_withdraw(context: typer.Context, ticket: _Ticket, reason: ReasonOption) -> None:
    """Withdraw a ticket of your department that nobody verifies yet."""
    _act(context, ticket, "withdrawal", {"reason": reason})


@correction.command("disputed")
def correction_disputed(
    context: typer.Context, grant: _Grant, record_key: _Record, as_json: JsonOption = False
) -> None:
    """Show whether a record is disputed now. A person with valid paper proof is served all the same."""
    query = {"grant": grant, "record_key": record_key}
    document = client(context).get("/corrections/disputed", query)
    print_fields(document, as_json=as_json)


@correction.command("notices")
def correction_notices(
    context: typer.Context,
    ticket: Annotated[str | None, typer.Option(help="whose")] = None,
    waiting: Annotated[bool, typer.Option("--waiting", help="only those that are not acknowledged")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the notices to your department: it received a value that was corrected since, under which grant."""
    pool = client(context)
    query = {"ticket": ticket, "acknowledged": "false" if waiting else None}
    rows: list[dict[str, Any]] = pool.list("/correction-notices", query)
    names = {} if as_json else _names(pool)
    print_rows(rows, _NOTICES, as_json=as_json, row=lambda one: _named(one, names))


@correction.command("notice")
def correction_notice(
    context: typer.Context, notice: Annotated[str, typer.Argument(help="id of the notice")], as_json: JsonOption = False
) -> None:
    """Show a notice, with the entry of the release that delivered the old value."""
    print_fields(client(context).get(f"/correction-notices/{notice}"), as_json=as_json)


@correction.command("acknowledge")
def correction_acknowledge(
    context: typer.Context, notice: Annotated[str, typer.Argument(help="id of the notice")]
) -> None:
    """Acknowledge a notice: what was made of the old value is seen to."""
    print_fields(client(context).post(f"/correction-notices/{notice}/acknowledgement"), as_json=False)


def _act(context: typer.Context, ticket: str, what: str, body: dict[str, Any] | None = None) -> None:
    _print(client(context).post(f"/corrections/{ticket}/{what}", body), as_json=False)


def _print(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_fields(document, as_json=True)
        return
    print_line(f"{document['id']}: {document['state']}, due {document['due_at']}")


def _names(pool: Any) -> dict[str, str]:
    return {one["id"]: one["short_name"] for one in pool.list("/departments") if not is_damaged(one)}


def _named(row: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return row | {name: names.get(row[name], row[name]) for name in ("raiser", "source", "consumer") if name in row}


def _moment(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.utcoffset() is None:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"--recorded-at: got {text[:40]!r}; expected a time with its offset, such as 2026-09-30T09:00:00+00:00",
        )
    return moment.isoformat()


def _read(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InvalidError(
            Reason.CONFIG_INVALID, f"{file} cannot be read as UTF-8 text ({type(error).__name__}); expected the claim"
        ) from error
