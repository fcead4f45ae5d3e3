"""Commands `pool user`, `pool connector` and `pool certificate`: accounts, invitations, certificates.

A token is made by the account's holder (`pool user token`), who tells its fingerprint to the two persons that make the
account. No token is ever an argument, and none is shown but to its holder.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from exchange.cli.control import JsonOption, ReasonOption, client, connect
from exchange.cli.output import (
    CommandGroup,
    is_damaged,
    one_of,
    print_fields,
    print_json,
    print_line,
    print_lines,
    print_rows,
)
from exchange.identity.proposal_state import ProposalState
from schemas.access import Role
from schemas.errors import InvalidError, Reason

__all__ = ["add_to"]

_ACCOUNTS = ("name", "role", "department", "staff_number", "state", "expires_at", "last_used", "created_by")
_PROPOSALS = (
    "id",
    "kind",
    "department",
    "subject",
    "role",
    "staff_number",
    "state",
    "proposed_by",
    "decided_by",
    "expires_at",
)
_CONNECTORS = (
    "department",
    "connector",
    "zone",
    "status",
    "program",
    "streams",
    "unacknowledged",
    "quarantined",
    "last_batch",
    "state",
    "not_after",
    "certificates",
    "serial",
)
_INVITATIONS = ("id", "department", "connector", "state", "invited_by", "created_at", "expires_at", "used_at")
_COUNTS = ("read", "published", "quarantined", "unchanged", "voided")
_SINCE = {"late": "late: last report {}", "silent": "silent since {}", "ended": "ended at {}"}
_CERTIFICATES = ("serial", "department", "connector", "state", "not_before", "not_after", "revoked_by")

_StaffNumber = Annotated[
    str, typer.Option("--staff-number", help="of the person (工号), unique in the pool; no national identity number")
]
_Fingerprint = Annotated[
    str, typer.Option("--token-fingerprint", help="from the account's holder, who gets it from `pool user token`")
]

user, connector, certificate = (
    typer.Typer(cls=CommandGroup),
    typer.Typer(cls=CommandGroup),
    typer.Typer(cls=CommandGroup),
)


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    for name, group, text in (
        ("user", user, "Accounts of people: proposed by one person, confirmed by another."),
        ("connector", connector, "Connectors of departments, and their invitations."),
        ("certificate", certificate, "Certificates of connectors."),
    ):
        group.callback()(connect)
        app.add_typer(group, name=name, help=text, no_args_is_help=True)


@user.command("token")
def user_token(file: Path) -> None:
    """Make a token in a new FILE (0600) that its holder keeps, and print its fingerprint for those who add the account.

    Needs no pool. The fingerprint is no secret; tell it to the two persons yourself, not one through the other.
    """
    print_line(_make_token(file))


@user.command("add")
def user_add(
    context: typer.Context,
    name: str,
    role: Annotated[Role, typer.Option()],
    staff_number: _StaffNumber,
    token_fingerprint: _Fingerprint,
    department_id: Annotated[str, typer.Option("--department", help="empty for roles of the pool itself")] = "",
) -> None:
    """Propose an account; another person confirms it. With the first token: add one of the first two authorities."""
    body = {
        "name": name,
        "role": str(role),
        "department": department_id,
        "staff_number": staff_number,
        "token_fingerprint": token_fingerprint,
    }
    answer = client(context).post("/users", body)
    if answer["state"] == "added":
        print_line(f"added: {name}")
    else:
        _print_proposed(answer)


@user.command("confirm")
def user_confirm(context: typer.Context, proposal_id: str, token_fingerprint: _Fingerprint = "") -> None:
    """Confirm another person's proposal of an account, a token or a person; the fingerprint is from the holder."""
    answer = client(context).post(
        f"/proposals/{proposal_id}/confirmation", {"token_fingerprint": token_fingerprint or None}
    )
    print_line(f"confirmed: {answer['kind']} {answer['subject']}")


@user.command("refuse")
def user_refuse(context: typer.Context, proposal_id: str, reason: ReasonOption) -> None:
    """Refuse a proposal, or withdraw your own."""
    answer = client(context).post(f"/proposals/{proposal_id}/refusal", {"reason": reason})
    print_line(f"refused: {answer['kind']} {answer['subject']}")


@user.command("proposals")
def user_proposals(
    context: typer.Context,
    state: Annotated[ProposalState | None, typer.Option()] = None,
    as_json: JsonOption = False,
) -> None:
    """List proposals of accounts and invitations, decided ones too, newest first."""
    print_rows(client(context).list("/proposals", {"state": state}), _PROPOSALS, as_json=as_json)


@user.command("proposal")
def user_proposal(context: typer.Context, proposal_id: str, as_json: JsonOption = False) -> None:
    """Show a proposal."""
    print_fields(one_of(client(context).list("/proposals"), "proposal", id=proposal_id), as_json=as_json)


@user.command("list")
def user_list(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the accounts with their persons, the end of their tokens and their last use."""
    print_rows(_accounts(context), _ACCOUNTS, as_json=as_json)


@user.command("show")
def user_show(context: typer.Context, name: str, as_json: JsonOption = False) -> None:
    """Show an account with its person, the end of its token and its last use."""
    print_fields(one_of(_accounts(context), "account", name=name), as_json=as_json)


@user.command("me")
def user_me(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show your own account: role, department, end of the token, and what the role may do."""
    document = client(context).get("/me")
    if as_json:
        print_json(document)
        return
    rights = document.pop("rights")
    print_fields(document, as_json=False)
    print_line("rights")
    print_lines(f"  {action:<36}{scope}" for action, scope in rights.items())


@user.command("set-person")
def user_set_person(context: typer.Context, name: str, staff_number: _StaffNumber) -> None:
    """Propose the person of an account of an earlier version; another person confirms it."""
    _print_proposed(client(context).post(f"/users/{name}/person", {"staff_number": staff_number}))


@user.command("rotate")
def user_rotate(
    context: typer.Context,
    name: str,
    new_token_file: Annotated[
        Path | None, typer.Option("--new-token-file", help="is made, 0600: your own account's new token")
    ] = None,
    token_fingerprint: Annotated[
        str, typer.Option("--token-fingerprint", help="of another account's new token, from its holder")
    ] = "",
) -> None:
    """Give your own account another token: the old one ends at once. Another's account: propose its holder's."""
    if (new_token_file is None) is not bool(token_fingerprint):
        raise InvalidError(
            Reason.CONFIG_INVALID,
            "expected --new-token-file for your own account, or --token-fingerprint for another's, and one of the two",
        )
    fingerprint = token_fingerprint if new_token_file is None else _make_token(new_token_file)
    answer = client(context).post(f"/users/{name}/token", {"token_fingerprint": fingerprint})
    if answer["state"] == "rotated":
        print_line(f"rotated: {name}; the new token is in {new_token_file} and valid until {answer['expires_at']}")
    else:
        _print_proposed(answer)


@user.command("revoke")
def user_revoke(context: typer.Context, name: str, reason: ReasonOption) -> None:
    """Revoke an account permanently: its next call is refused."""
    client(context).post(f"/users/{name}/revocation", {"reason": reason})
    print_line(f"{name}: revoked")


@connector.command("list")
def connector_list(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the connectors of your department, or of all: whether each runs, by its last report, and its certificate.

    `status`: running, late (150 s without a report), silent (10 minutes), ended, stopped, or never reported. What a
    connector reports is its department's statement; the last batch is what the pool has received. `zone` is that of
    its department.
    """
    pool = client(context)
    rows = pool.list("/connectors")
    zones = {} if as_json else {one["id"]: one["zone"] for one in pool.list("/departments") if not is_damaged(one)}

    def row(document: dict[str, Any]) -> dict[str, Any]:
        return _connector_row(document) | {"zone": zones.get(document["department"])}

    print_rows(rows, _CONNECTORS, as_json=as_json, row=row)


@connector.command("show")
def connector_show(context: typer.Context, department_id: str, name: str, as_json: JsonOption = False) -> None:
    """Show a connector: its streams as it reports them, its certificates, last batches and last draws."""
    document = client(context).get(f"/connectors/{department_id}/{name}")
    if as_json:
        print_json(document)
        return
    report = document["report"] or {}
    row = _connector_row(document)
    shown = ("department", "connector", "status", "program", "state", "not_after", "certificates", "serial")
    print_fields({one: row[one] for one in shown} | {"configuration": report.get("configuration")}, as_json=False)
    for stream in report.get("streams", ()):
        print_line(f"{stream['direction']} {stream['name']}  {' '.join(filter(None, _stream_words(stream)))}")
    for lane in document["lanes"]:
        print_line(f"last batch of {lane['topic']}: {lane['sequence']:,} at {lane['at']}, entry {lane['entry']}")
    for draw in document["draws"]:
        print_line(f"last draw under {draw['grant']}: {draw['records']:,} at {draw['at']}, entry {draw['entry']}")


@connector.command("invitations")
def connector_invitations(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the invitations of your department, or of all, newest first, used and ended ones too."""
    print_rows(client(context).list("/invitations"), _INVITATIONS, as_json=as_json)


@connector.command("confirm")
def connector_confirm(context: typer.Context, proposal_id: str) -> None:
    """Confirm an invitation of your department, and print its enrolment token (7 days) for `pool-connect enrol`."""
    print_line(client(context).post(f"/proposals/{proposal_id}/confirmation")["token"])


@connector.command("revoke")
def connector_revoke(context: typer.Context, department_id: str, name: str, reason: ReasonOption) -> None:
    """Revoke a connector's certificates: its next call is refused."""
    body = {"department": department_id, "connector": name, "reason": reason}
    client(context).post("/connectors/revocations", body)
    print_line(f"{name}: every certificate is revoked")


@certificate.command("list")
def certificate_list(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the certificates of your department's connectors, or of all, revoked ones too."""
    print_rows(_certificates(context), _CERTIFICATES, as_json=as_json)


@certificate.command("show")
def certificate_show(context: typer.Context, serial: str, as_json: JsonOption = False) -> None:
    """Show a certificate, and who revoked it why."""
    print_fields(one_of(_certificates(context), "certificate", serial=serial), as_json=as_json)


def _accounts(context: typer.Context) -> list[dict[str, Any]]:
    rows = client(context).list("/users")
    return [row if is_damaged(row) else row | {"state": _state(row, "expires_at")} for row in rows]


def _certificates(context: typer.Context) -> list[dict[str, Any]]:
    rows = client(context).list("/certificates")
    return [row if is_damaged(row) else row | {"state": _state(row, "not_after")} for row in rows]


def _connector_row(document: dict[str, Any]) -> dict[str, Any]:
    report, certificate, batch = document["report"] or {}, document["certificate"], document["last_batch"]
    streams = report.get("streams", [])
    return {
        "department": document["department"],
        "connector": document["connector"],
        "status": _status(document, report),
        "program": report.get("program"),
        "streams": len(streams) if report else None,
        "unacknowledged": sum(one["unacknowledged"] for one in streams) if report else None,
        "quarantined": sum(sum(one["quarantine"].values()) for one in streams) if report else None,
        "last_batch": batch and f"{batch['at']} {batch['topic']}",
        "state": _state(certificate, "not_after"),
        "not_after": certificate["not_after"],
        "certificates": document["certificates"],
        "serial": certificate["serial"],
    }


def _status(document: dict[str, Any], report: dict[str, Any]) -> str:
    status, reason = str(document["status"]), document["reason"]
    if status == "never":
        return "has never reported"
    if status == "stopped":
        return f"stopped at {report['received_at']}: {reason}"
    words = _SINCE.get(status, status).format(report["received_at"])
    return f"{words}; a stream stopped: {reason}" if reason else words


def _stream_words(stream: dict[str, Any]) -> list[str]:
    """Return what a connector reports of a stream, in words; empty where there is nothing to say."""
    quarantine = ", ".join(f"{code} {count:,}" for code, count in stream["quarantine"].items())
    return [
        stream["mode"] and f"({stream['mode']})",
        stream["state"] + (f": {stream['reason']};" if stream["reason"] else ";"),
        f"last success {stream['last_success'] or 'never'};",
        f"batch {stream['sequence']:,}, {stream['unacknowledged']:,} unacknowledged;",
        "last run " + ", ".join(f"{stream[name]:,} {name}" for name in _COUNTS),
        quarantine and f"; in quarantine: {quarantine}",
        stream["ledger_lost"] and f"; the ledger was lost at {stream['ledger_lost']}",
    ]


def _make_token(file: Path) -> str:
    from exchange.identity.keyfile import create_private
    from exchange.identity.tokens import fingerprint_of, new_token

    token = new_token()
    if not create_private(file, token.encode() + b"\n"):
        raise InvalidError(Reason.CONFIG_INVALID, f"{file} exists; a token is never overwritten, name another file")
    return fingerprint_of(token)


def _state(row: dict[str, Any], end: str) -> str:
    if row["revoked_at"] is not None:
        return "revoked"
    return "ended" if datetime.fromisoformat(row[end]) <= datetime.now(UTC) else "in use"


def _print_proposed(proposal: dict[str, Any]) -> None:
    print_line(f"proposed: {proposal['id']}; another person confirms it with `pool user confirm`")
