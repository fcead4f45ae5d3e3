"""Connectors at the listeners: reports on the wire (gRPC), and the lists of connectors and invitations (control API).

None of these leaves an entry. What a connector reports is the department's statement, and is a member of its own.
"""

import time
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import APIRouter, Depends, Request, Response

from exchange.api.admission.token_bucket import TokenBucket
from exchange.api.bodies.accounts import certificate_json
from exchange.api.caller import After, Caller, Document, Limit, connector_key, listed, refuse_unknown
from exchange.audit.search.entry_rows import iso_time
from exchange.control.connectors import Batch, ConnectorDetails, Draw, ListedConnector
from exchange.identity.connectors.store import StoredReport, invitation_cursor, invitation_id
from exchange.identity.store import OneTimeToken, SigningKey
from registry.database.damaged_row import DAMAGED
from registry.database.keyset import MAX_PAGE
from schemas.access import Actor
from schemas.canonical import Json
from schemas.connector_report import (
    ConnectorReport,
    Direction,
    KeyRangeTotals,
    ReconciliationTotals,
    ReportAnswer,
    StreamReport,
    StreamState,
)
from schemas.errors import InvalidError, Reason, UnavailableError
from schemas.proto.pool.v1 import exchange_pb2 as wire

__all__ = ["ReportLimiter", "report_from_wire", "report_to_reply", "router"]

_AT_ONCE: Final = 30.0  # of one connector: at its start, and where many streams end together
_A_SECOND: Final = 0.2
_DIRECTIONS = {str(one): one for one in Direction}
_STATES = {str(one): one for one in StreamState}

router = APIRouter(prefix="/v1", tags=["connectors"], dependencies=[Depends(refuse_unknown)])


class ReportLimiter:
    """Bounds the reports of each connector: 30 at once, and one in 5 s. Of one process; memory is bounded."""

    def __init__(self) -> None:
        self._bucket = TokenBucket(_A_SECOND, _AT_ONCE, time.monotonic)

    def take(self, actor: Actor) -> None:
        """Count a report.

        Raises:
            UnavailableError: RATE_LIMITED, there were too many.
        """
        wait = self._bucket.take(f"{actor.department}/{actor.id}")
        if wait:
            raise UnavailableError(
                Reason.RATE_LIMITED,
                f"got more than {_AT_ONCE:.0f} reports of {actor.id[:80]} at once; expected one a minute: send less",
                retry_after=wait,
            )


def report_from_wire(request: wire.ReportRequest) -> ConnectorReport:
    """Return the report of a message; its bounds are checked by the service.

    Raises:
        InvalidError: REQUEST_INVALID, a direction or a state that there is not.
    """
    return ConnectorReport(
        program=request.program,
        started=request.started,
        configuration=request.configuration,
        streams=[_stream(one) for one in request.streams],
        ended=request.ended,
    )


def totals_from_wire(request: wire.ReconciledRequest) -> ReconciliationTotals:
    """Return the totals of a message; their bounds are checked by the service.

    Raises:
        InvalidError: REQUEST_INVALID, a direction that there is not.
    """
    direction = _DIRECTIONS.get(request.direction)
    if direction is None:
        raise InvalidError(
            Reason.REQUEST_INVALID, f"direction: got another than there is; expected {', '.join(_DIRECTIONS)}"
        )
    return ReconciliationTotals(
        direction=direction,
        stream=request.stream,
        sequence=request.sequence,
        ranges=[KeyRangeTotals(one.range, one.department, one.pool, one.equal) for one in request.ranges],
        set_aside=request.set_aside,
        equal=request.equal,
    )


def report_to_reply(answer: ReportAnswer) -> wire.ReportReply:
    """Return the message of an answer."""
    return wire.ReportReply(next=answer.next, latest_program=answer.latest_program, notices=answer.notices)


def _stream(stream: wire.Stream) -> StreamReport:
    direction, state = _DIRECTIONS.get(stream.direction), _STATES.get(stream.state)
    if direction is None or state is None:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"streams: got another direction or state than there is; expected {', '.join(_DIRECTIONS)}, and "
            f"{', '.join(_STATES)}",
        )
    return StreamReport(
        name=stream.name,
        direction=direction,
        state=state,
        mode=stream.mode,
        reason=stream.reason,
        last_success=stream.last_success,
        sequence=stream.sequence,
        unacknowledged=stream.unacknowledged,
        keys=stream.keys,
        read=stream.read,
        published=stream.published,
        quarantined=stream.quarantined,
        unchanged=stream.unchanged,
        voided=stream.voided,
        quarantine=dict(stream.quarantine),
        ledger_lost=stream.ledger_lost,
    )


@router.get("/connectors", response_model=list[Document])
def connectors(request: Request, who: Caller, after: After = "", limit: Limit = MAX_PAGE) -> Response:
    """List the connectors, of the caller's department or of all, by department and name, each with its last report.

    `status`: running, late (150 s without a report), silent (10 minutes), ended, stopped, or never (it has not
    reported).
    """
    found = who.pool.connectors.connectors(who.actor, who.call, after=connector_key(after), limit=limit)
    return listed(
        request,
        found,
        limit,
        document=connector_json,
        key=lambda one: f"{one.certificate.department}/{one.certificate.connector}",
    )


@router.get("/connectors/{department}/{name}")
def connector(who: Caller, department: str, name: str) -> Document:
    """Return a connector with its last report, certificates, signing keys, last batches and last draws."""
    return details_json(who.pool.connectors.connector(who.actor, who.call, department, name))


@router.get("/invitations", response_model=list[Document])
def invitations(request: Request, who: Caller, after: After = "", limit: Limit = MAX_PAGE) -> Response:
    """List the invitations of connectors, of the caller's department or of all, newest first; never their tokens.

    `state`: open, used (by a connector, or withdrawn), or ended.
    """
    now = who.pool.now()

    def document(one: OneTimeToken) -> dict[str, Json]:
        return invitation_json(one, now)

    found = who.pool.connectors.invitations(who.actor, who.call, before=after, limit=limit)
    return listed(
        request, found, limit, document=document, key=lambda one: invitation_cursor(one.created_at, one.digest)
    )


def connector_json(one: ListedConnector) -> dict[str, Any]:
    """Return a connector's document in a list."""
    return {
        "department": one.certificate.department,
        "connector": one.certificate.connector,
        "status": str(one.status),
        "reason": one.reason,
        "certificate": certificate_json(one.certificate),
        "certificates": one.certificates,
        "report": None if one.report is None else _report_json(one.report),
        "last_batch": _batch_json(one.batches[0]) if one.batches else None,
    }


def details_json(one: ConnectorDetails) -> dict[str, Any]:
    """Return a connector's document: as in a list, and all that is known of it."""
    return {
        **connector_json(one.listed),
        "certificate_history": [certificate_json(each) for each in one.certificates],
        "signing_keys": [_key_json(each) for each in one.signing_keys],
        "lanes": [_batch_json(each) for each in one.listed.batches],
        "draws": [_draw_json(each) for each in one.draws],
    }


def invitation_json(one: OneTimeToken, now: datetime) -> dict[str, Json]:
    """Return an invitation's document."""
    state = "used" if one.used_at is not None else "open" if now < one.expires_at else "ended"
    return {
        "id": invitation_id(one.digest),
        "department": one.department,
        "connector": one.connector,
        "state": state,
        "invited_by": one.invited_by,
        "created_at": one.created_at.isoformat(),
        "expires_at": one.expires_at.isoformat(),
        "used_at": None if one.used_at is None else one.used_at.isoformat(),
    }


def _report_json(stored: StoredReport) -> dict[str, Any]:
    report, received = stored.report, stored.received_at.isoformat()
    if report is None:  # somebody has written into the database
        return {"received_at": received, "status": DAMAGED}
    return {
        "received_at": received,
        "program": report.program,
        "started": _moment(report.started),
        "configuration": report.configuration,
        "ended": report.ended,
        "streams": [_stream_json(one) for one in report.streams],
    }


def _stream_json(one: StreamReport) -> dict[str, Any]:
    return {
        "name": one.name,
        "direction": str(one.direction),
        "mode": one.mode,
        "state": str(one.state),
        "reason": one.reason,
        "last_success": _moment(one.last_success),
        "sequence": one.sequence,
        "unacknowledged": one.unacknowledged,
        "keys": one.keys,
        "read": one.read,
        "published": one.published,
        "quarantined": one.quarantined,
        "unchanged": one.unchanged,
        "voided": one.voided,
        "quarantine": dict(one.quarantine),
        "ledger_lost": _moment(one.ledger_lost),
    }


def _batch_json(one: Batch) -> dict[str, Json]:
    return {"topic": one.topic, "sequence": one.sequence, "at": iso_time(one.at), "entry": one.entry}


def _draw_json(one: Draw) -> dict[str, Json]:
    return {"grant": one.grant, "at": iso_time(one.at), "records": one.records, "entry": one.entry}


def _key_json(one: SigningKey) -> dict[str, Json]:
    return {
        "public_key": one.public_key.hex(),
        "since": one.since.isoformat(),
        "until": None if one.until is None else one.until.isoformat(),
    }


def _moment(micros: int) -> str | None:
    return datetime.fromtimestamp(micros // 1_000_000, UTC).isoformat() if micros else None
