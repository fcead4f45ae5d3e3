"""Commands `pool request` and `pool grant` of the law of requests: lists, supplements, signatures, disputes, the end.

`pool request submit`, `check` and `pool grant approve`, `reject`, `suspend`, `resume`, `terminate` are in
`exchange.cli.control`.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from exchange.cli.control import JsonOption, ReasonOption, client, grant, read_document, request
from exchange.cli.grant_text import describe_grant
from exchange.cli.output import is_damaged, print_json, print_line, print_lines, print_rows
from exchange.cli.requests.text import describe_request

__all__ = ["add_to_groups"]

_Clause = Annotated[str, typer.Option("--clause", help="law and article that forbid to share, in words")]
_Filing = Annotated[str, typer.Option(help="id of the filing of what was negotiated and agreed")]


def add_to_groups() -> None:
    """Register the commands with the groups `request` and `grant`: importing this module has done it."""


@request.command("list")
def request_list(
    context: typer.Context,
    state: Annotated[list[str] | None, typer.Option(help="such as submitted or supplement; may be repeated")] = None,
    due: Annotated[
        str | None, typer.Option(help="those with a clock that runs, by its end: overdue, soon, or normal")
    ] = None,
    consumer: Annotated[str | None, typer.Option(help="internal id of the department that asks")] = None,
    provider: Annotated[str | None, typer.Option(help="internal id of the providing department")] = None,
    resource: Annotated[str | None, typer.Option(help="name of a resource, in any major")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the requests that the account may see, each with its clock: which one runs, until when, how near that is."""
    query = {"state": state or None, "due": due, "consumer": consumer, "provider": provider, "resource": resource}
    rows = client(context).list("/requests", query)
    columns = (
        "id", "resource", "state", "share_type", "consumer", "provider", "purpose", "clock", "due", "due_at",
        "waits_for", "overdue",
    )  # fmt: skip
    print_rows(rows, columns, as_json=as_json)


@request.command("show")
def request_show(context: typer.Context, request_id: str, as_json: JsonOption = False) -> None:
    """Show a request in words: who asks for what, its clock, and every event with its article."""
    pool = client(context)
    document = pool.get(f"/requests/{request_id}")
    if as_json:
        print_json(document)
        return
    asked = pool.get(f"/grants/{request_id}")
    departments = {one["id"]: one["short_name"] for one in pool.list("/departments") if not is_damaged(one)}
    purposes = {one["id"]: f"{one['zh']} {one['en']}" for one in pool.list("/purposes") if not is_damaged(one)}
    print_lines(describe_grant(asked, departments, purposes))
    print_lines(describe_request(document))


@request.command("supplement-list")
def request_supplement_list(
    context: typer.Context,
    request_id: str,
    missing: Annotated[list[str], typer.Option("--missing", help="one thing that the request lacks; may be repeated")],
) -> None:
    """Tell the consumer, once and completely, what its request lacks; the reply clock restarts with its supplement."""
    _post(context, request_id, "need_more", {"missing": missing})


@request.command("resubmit")
def request_resubmit(context: typer.Context, request_id: str, file: Path) -> None:
    """Submit a request again with what it lacked, from a YAML or JSON file; what is not in it stays as it was."""
    answer = client(context).post(f"/requests/{request_id}/resubmission", read_document(file))
    print_line(f"{request_id}: {answer['state']}")


@request.command("withdraw")
def request_withdraw(context: typer.Context, request_id: str, reason: ReasonOption = "") -> None:
    """Withdraw a request of your department that is not approved yet."""
    _post(context, request_id, "withdraw", {"reason": reason})


@request.command("extend")
def request_extend(
    context: typer.Context,
    request_id: str,
    days: Annotated[int, typer.Option(help="working days more")],
    reason: ReasonOption = "",
) -> None:
    """Extend the reply to a request, as the data authority: once, and by no more than the rule profile allows."""
    _post(context, request_id, "extend", {"days": days, "reason": reason})


@request.command("dispute")
def request_dispute(
    context: typer.Context,
    request_id: str,
    record: Annotated[str, typer.Option(help="id of the record of negotiations with the provider")],
    reason: ReasonOption = "",
) -> None:
    """Take a refusal, or a reply that is overdue, to the data authority."""
    _post(context, request_id, "dispute", {"reference": record, "reason": reason})


@request.command("uphold")
def request_uphold(context: typer.Context, request_id: str, clause: _Clause = "", reason: ReasonOption = "") -> None:
    """Uphold a refusal in dispute, as the data authority: with a reason and a clause."""
    _post(context, request_id, "uphold", {"clause": clause, "reason": reason})


@request.command("overturn")
def request_overturn(context: typer.Context, request_id: str, reason: ReasonOption = "") -> None:
    """Overturn a refusal in dispute, as the data authority; its signature stands in place of the head's."""
    _post(context, request_id, "overturn", {"reason": reason})


@grant.command("countersign")
def grant_countersign(context: typer.Context, grant_id: str) -> None:
    """Sign a request as the provider's security officer, before its head or after."""
    print_line(f"{grant_id}: {client(context).post(f'/grants/{grant_id}/countersignature')['state']}")


@grant.command("provision")
def grant_provision(context: typer.Context, grant_id: str) -> None:
    """Activate a grant that everybody has signed, as the head of the provider's sharing office."""
    print_line(f"{grant_id}: {client(context).post(f'/grants/{grant_id}/approval')['state']}")


@grant.command("withdraw-signature")
def grant_withdraw_signature(context: typer.Context, grant_id: str, reason: ReasonOption = "") -> None:
    """Withdraw your signature before the request is approved; the request, or the dispute, is open again."""
    _post(context, grant_id, "withdraw_signature", {"reason": reason})


@grant.command("complete")
def grant_complete(
    context: typer.Context,
    grant_id: str,
    certificate: Annotated[str, typer.Option(help="number of the certificate of disposal (销毁证明)")],
    date: Annotated[str, typer.Option(help="on which what was received was disposed of, YYYY-MM-DD")],
    method: Annotated[str, typer.Option(help="how it was disposed of, in words")],
    person: Annotated[str, typer.Option(help="who answers for it; no national identity number")],
    reason: ReasonOption = "",
) -> None:
    """End a grant of your department that is not needed any more, with a certificate of disposal."""
    said = {"number": certificate, "date": date, "method": method, "person": person}
    _post(context, grant_id, "complete", {"certificate": said, "reason": reason})


@grant.command("change-service")
def grant_change_service(context: typer.Context, grant_id: str, filing: _Filing, reason: ReasonOption = "") -> None:
    """Record that the provider changes its service, after negotiation and filing; the grant stays in force."""
    _post(context, grant_id, "change_service", {"reference": filing, "reason": reason})


@grant.command("end-by-agreement")
def grant_end_by_agreement(context: typer.Context, grant_id: str, filing: _Filing, reason: ReasonOption = "") -> None:
    """End a grant by agreement, as its provider, after negotiation and filing."""
    _post(context, grant_id, "terminate_by_agreement", {"reference": filing, "reason": reason})


def _post(context: typer.Context, request_id: str, event: str, body: dict[str, Any]) -> None:
    answer = client(context).post(f"/grants/{request_id}/{event}", body)
    print_line(f"{request_id}: {answer['state']}")
