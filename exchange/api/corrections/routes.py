"""API of corrections (校核): tickets on doubted values, answers to them, and notices to who received an old value."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AwareDatetime, Field

from exchange.api.bodies.base import Body, ReasonBody
from exchange.api.caller import After, Caller, Document, Limit, listed, refuse_unknown
from exchange.control.corrections.claim_seal import Claim
from exchange.control.corrections.clock import TicketDue
from exchange.corrections.model import CorrectionNotice, TicketState
from exchange.corrections.store import NoticeQuery, TicketQuery
from exchange.deadlines.clock import DueState
from registry.database.keyset import MAX_PAGE
from schemas.names import Topic

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["corrections"], dependencies=[Depends(refuse_unknown)])

_KEY = r"^[0-9a-f]{32}$"
_RecordKey = Annotated[str, Query(pattern=_KEY, description="record key that was delivered, 32 hexadecimal digits")]


class TicketBody(Body):
    """A value that is doubted. Claim and evidence are stored sealed, and are in no entry of the log."""

    grant: str = Field(description="under which the value was received")
    record_key: str = Field(pattern=_KEY, description="that was delivered with it, 32 hexadecimal digits")
    field: str = Field(description="of the value")
    claimed: str = Field("", description="the value that is right; empty where it is not known")
    claim_evidence: str = Field(description="how it is known, in words")
    recorded_at: AwareDatetime | None = Field(None, description="time that was delivered with the record")


class TransferBody(Body):
    """The department that is the source, and why."""

    department: str = Field(description="internal id")
    reason: str


class AnswerBody(Body):
    """An answer that needs no reason."""

    reason: str = ""


@router.post("/corrections", status_code=201)
def open_correction(who: Caller, body: TicketBody) -> Document:
    """Open a ticket on a value that the caller's department received."""
    opened = who.pool.corrections.open(
        who.actor,
        who.call,
        grant_id=body.grant,
        record_key=bytes.fromhex(body.record_key),
        field=body.field,
        claim=Claim(claimed=body.claimed, evidence=body.claim_evidence),
        recorded_at=body.recorded_at,
    )
    return _document(opened)


@router.get("/corrections", response_model=list[Document])
def corrections(
    request: Request,
    who: Caller,
    state: Annotated[list[TicketState] | None, Query(description="any of these")] = None,
    topic: Annotated[str | None, Query(description="of the value")] = None,
    grant: Annotated[str | None, Query(description="under which the value was received")] = None,
    source: Annotated[str | None, Query(description="internal id of the department whose answer is due")] = None,
    raiser: Annotated[str | None, Query(description="internal id of the department that raised it")] = None,
    due: Annotated[DueState | None, Query(description="tickets that wait, by how near their answer is due")] = None,
    after: After = "",
    limit: Limit = MAX_PAGE,
) -> Response:
    """List the tickets that the caller may see, oldest first."""
    query = TicketQuery(
        states=None if state is None else frozenset(state),
        topic=None if topic is None else Topic.parse(topic),
        grant=grant,
        source=source,
        raiser=raiser,
        after=after,
        limit=limit,
    )
    found = who.pool.correction_reads.list(who.actor, who.call, query, due=due)
    return listed(request, found, limit, document=_document, key=lambda one: one.ticket.id)


@router.get("/corrections/disputed")
def disputed(who: Caller, grant: str, record_key: _RecordKey) -> Document:
    """Return the fields of a record that are disputed now, of those that a grant of the caller's department shows."""
    fields = who.pool.correction_reads.disputed(who.actor, who.call, grant, bytes.fromhex(record_key))
    return {"grant": grant, "record_key": record_key, "disputed": bool(fields), "fields": list(fields)}


@router.get("/corrections/{ticket}")
def correction(who: Caller, ticket: str) -> Document:
    """Return a ticket, with how many of those that were told have acknowledged it."""
    shown = who.pool.correction_reads.show(who.actor, who.call, ticket)
    return {**_document(shown.told), "acknowledged": shown.acknowledged}


@router.get("/corrections/{ticket}/claim")
def claim(who: Caller, ticket: str) -> Document:
    """Return the claim, and to the source department its record, or the value alone of another's; an entry each."""
    revealed = who.pool.corrections.reveal(who.actor, who.call, ticket)
    told = revealed.claim
    return {
        "claimed": None if told is None else told.claimed,
        "evidence": None if told is None else told.evidence,
        "record": revealed.record,
    }


@router.post("/corrections/{ticket}/acceptance")
def accept(who: Caller, ticket: str) -> Document:
    """Take a ticket on, as its source department."""
    return _document(who.pool.corrections.accept(who.actor, who.call, ticket))


@router.post("/corrections/{ticket}/transfer")
def transfer(who: Caller, ticket: str, body: TransferBody) -> Document:
    """Transfer a ticket to the department that is the source; its clock goes on."""
    moved = who.pool.corrections.transfer(who.actor, who.call, ticket, department=body.department, reason=body.reason)
    return _document(moved)


@router.post("/corrections/{ticket}/withdrawal")
def withdraw(who: Caller, ticket: str, body: ReasonBody) -> Document:
    """Withdraw a ticket that nobody verifies yet, as who raised it."""
    return _document(who.pool.corrections.withdraw(who.actor, who.call, ticket, reason=body.reason))


@router.post("/corrections/{ticket}/correction")
def correct(who: Caller, ticket: str, body: AnswerBody) -> Document:
    """Answer that the value is corrected; refused while no record of operation `correct` is in the pool."""
    return _document(who.pool.corrections.correct(who.actor, who.call, ticket, reason=body.reason))


@router.post("/corrections/{ticket}/confirmation")
def confirm(who: Caller, ticket: str, body: ReasonBody) -> Document:
    """Answer that the value is right."""
    return _document(who.pool.corrections.confirm(who.actor, who.call, ticket, reason=body.reason))


@router.post("/corrections/{ticket}/refusal")
def cannot_verify(who: Caller, ticket: str, body: ReasonBody) -> Document:
    """Answer that the value cannot be verified."""
    return _document(who.pool.corrections.cannot_verify(who.actor, who.call, ticket, reason=body.reason))


@router.get("/correction-notices", response_model=list[Document])
def notices(
    request: Request,
    who: Caller,
    ticket: Annotated[str | None, Query(description="whose")] = None,
    acknowledged: Annotated[bool | None, Query(description="whether they are")] = None,
    after: After = "",
    limit: Limit = MAX_PAGE,
) -> Response:
    """List the notices that the caller's department was given, or all, oldest first."""
    query = NoticeQuery(ticket=ticket, acknowledged=acknowledged, after=after, limit=limit)
    found = who.pool.correction_reads.notices(who.actor, who.call, query)
    return listed(request, found, limit, document=_notice, key=lambda one: one.id)


@router.get("/correction-notices/{notice}")
def notice(who: Caller, notice: str) -> Document:
    """Return a notice."""
    return _notice(who.pool.correction_reads.notice(who.actor, who.call, notice))


@router.post("/correction-notices/{notice}/acknowledgement")
def acknowledge(who: Caller, notice: str) -> Document:
    """Acknowledge a notice, as the department that was told."""
    return _notice(who.pool.corrections.acknowledge(who.actor, who.call, notice))


def _document(told: TicketDue) -> Document:
    ticket = told.ticket
    return {
        "id": ticket.id,
        "topic": str(ticket.topic),
        "field": ticket.field,
        "grant": ticket.grant,
        "record_key": ticket.record_key.hex(),
        "state": str(ticket.state),
        "raiser": ticket.raiser,
        "raised_by": ticket.raised_by,
        "provider": ticket.provider,
        "source": ticket.source,
        "received_at": ticket.received_at.isoformat(),
        "due_at": told.due.at.isoformat(),
        "provisional": told.due.provisional,
        "due": None if told.state is None else str(told.state),
        "overdue_at": None if ticket.overdue_at is None else ticket.overdue_at.isoformat(),
        "transfers": ticket.transfers,
        "reported_by": ticket.reported_by,
        "reported_at": None if ticket.reported_at is None else ticket.reported_at.isoformat(),
        "reason": ticket.reason,
        "correction": ticket.correction_entry or None,
        "told": ticket.told,
    }


def _notice(one: CorrectionNotice) -> Document:
    return {
        "id": one.id,
        "ticket": one.ticket,
        "topic": str(one.topic),
        "field": one.field,
        "grant": one.grant,
        "consumer": one.consumer,
        "record_key": one.record_key.hex(),
        "release": one.release,
        "told_at": one.told_at.isoformat(),
        "acknowledged_by": one.acknowledged_by,
        "acknowledged_at": None if one.acknowledged_at is None else one.acknowledged_at.isoformat(),
    }
