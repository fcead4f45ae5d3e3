"""Commands `pool violation`: list, show and report violation cases (违规案件), and decide on them."""

from typing import Annotated, Any

import typer

from exchange.cli.control import JsonOption, client, connect
from exchange.cli.output import CommandGroup, is_damaged, print_fields, print_line, print_rows

__all__ = ["add_to"]

violation = typer.Typer(cls=CommandGroup)
violation.callback()(connect)

_Case = Annotated[str, typer.Argument(help="id of the case")]
_Reason = Annotated[str, typer.Option(help="in words; it goes into the audit log")]


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    text = "Violation cases (违规案件): what was seen or reported, and what the data authority decides."
    app.add_typer(violation, name="violation", help=text, no_args_is_help=True)


@violation.command("list")
def violation_list(
    context: typer.Context,
    state: Annotated[list[str] | None, typer.Option(help="such as detected or rectifying; may be repeated")] = None,
    code: Annotated[str | None, typer.Option(help="such as C2")] = None,
    department: Annotated[str | None, typer.Option(help="internal id of the department concerned")] = None,
    grant: Annotated[str | None, typer.Option(help="id of the grant or request")] = None,
    as_json: JsonOption = False,
) -> None:
    """List cases, newest first."""
    pool = client(context)
    asked = {"state": state, "code": code, "respondent": department, "grant": grant}
    rows: list[dict[str, Any]] = pool.list("/violations", {name: one for name, one in asked.items() if one})
    if as_json:
        print_rows(rows, (), as_json=True)
        return
    names = {one["id"]: one["short_name"] for one in pool.list("/departments") if not is_damaged(one)}
    shown = [
        one if is_damaged(one) else one | {"department": _name(one, names), "due": one["due"] or ""} for one in rows
    ]
    print_rows(shown, ("id", "state", "code", "sign", "department", "day", "grant", "due"), as_json=False)


@violation.command("show")
def violation_show(context: typer.Context, case: _Case, as_json: JsonOption = False) -> None:
    """Show a case, its history, and what can be done with it now."""
    pool = client(context)
    found = pool.get(f"/violations/{case}")
    if as_json:
        print_fields(found, as_json=True)
        return
    names = {one["id"]: one["short_name"] for one in pool.list("/departments") if not is_damaged(one)}
    text, clause, order, statement = found["text"], found["clause"], found["order"], found["statement"]
    lines = {
        "id": found["id"],
        "state": found["state"],
        "violation": f"{found['code']} {text['zh']} {text['en']}",
        "clause": f"{clause['zh']} {clause['en']}",
        "department": _name(found, names),
        "seen": f"{found['day']}, by {found['sign']}" + (f", {found['calls']} refused calls" if found["calls"] else ""),
        "grant": found["grant"],
        "resource": found["resource"],
        "entry": found["entry"],
        "reported by": found["reported_by"],
        "order": order
        and f"{order['at']}, until {found['due']}" + ("" if found["due_confirmed"] else " (provisional)"),
        "due": found["due_state"],
        "statement": statement and f"{statement['text']} ({statement['by']}{', late' if statement['late'] else ''})",
        "referral": found["referral"],
        "outcome": found["outcome"],
        "possible now": ", ".join(found["possible"]),
    }
    print_fields({name: value for name, value in lines.items() if value}, as_json=False)
    for step in found["steps"]:
        why = f": {step['reason']}" if step["reason"] else ""
        print_line(f"{step['at']}  {step['event']} by {step['by']}{why}")


@violation.command("codes")
def violation_codes(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the violation codes of decree 809, Art. 39 to 41, with their clauses."""
    rows = client(context).list("/violation-codes")
    if as_json:
        print_rows(rows, (), as_json=True)
        return
    shown = [one | {"zh": one["text"]["zh"], "en": one["text"]["en"], "clause": one["clause"]["en"]} for one in rows]
    print_rows(shown, ("code", "side", "zh", "en", "clause", "basis"), as_json=False)


@violation.command("report")
def violation_report(
    context: typer.Context,
    code: Annotated[str, typer.Argument(help="such as C3; see `pool violation codes`")],
    reason: _Reason,
    department: Annotated[str, typer.Option(help="internal id; without it, the grant's side of the code")] = "",
    grant: Annotated[str, typer.Option(help="grant or request that it is about; a department names its own")] = "",
    resource: Annotated[str, typer.Option(help="topic, such as residents.v1")] = "",
    day: Annotated[str, typer.Option(help="on which it was seen, such as 2026-05-04; without it, today")] = "",
    entry: Annotated[str, typer.Option(help="id of the log's entry that shows it")] = "",
    as_json: JsonOption = False,
) -> None:
    """Report a violation: as the data authority, or as the other party of a grant."""
    body = {
        "code": code,
        "reason": reason,
        "respondent": department,
        "grant": grant,
        "resource": resource,
        "entry": entry,
    }
    found = client(context).post("/violations", body | ({"day": day} if day else {}))
    _told(found, as_json=as_json)


def _add_decision(event: str, text: str) -> None:
    @violation.command(event, help=text)
    def decide(context: typer.Context, case: _Case, reason: _Reason, as_json: JsonOption = False) -> None:
        _decide(context, case, event, as_json=as_json, reason=reason)


for _event, _text in {
    "confirm": "Confirm that a case is a violation, as another person than who reported it.",
    "dismiss": "Dismiss a case that is none.",
    "order": "Order what is to be rectified, within the time of the rule profile; the consumer's grant is suspended.",
    "reply": "State your department's case: what happened, and after an order what was rectified.",
    "accept": "Accept what was rectified in time; the grant goes on.",
}.items():
    _add_decision(_event, _text)


@violation.command("escalate")
def violation_escalate(
    context: typer.Context,
    case: _Case,
    reason: _Reason,
    referral: Annotated[str, typer.Option(help="notice (通报) or discipline (处分)")],
    as_json: JsonOption = False,
) -> None:
    """Escalate a case that was not rectified; the consumer's grant ends."""
    _decide(context, case, "escalate", as_json=as_json, reason=reason, referral=referral)


_add_decision("close", "Close an escalated case, with what came of the referral.")


def _decide(context: typer.Context, case: str, event: str, *, as_json: bool, **body: str) -> None:
    _told(client(context).post(f"/violations/{case}/{event}", body), as_json=as_json)


def _told(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_fields(found, as_json=True)
        return
    names = ("id", "state", "code", "respondent", "grant", "due", "outcome")
    print_fields({name: found[name] for name in names if found[name]}, as_json=False)


def _name(case: dict[str, Any], names: dict[str, str]) -> str:
    respondent: str = case["respondent"]
    return names.get(respondent, respondent) if respondent else "data authority"
