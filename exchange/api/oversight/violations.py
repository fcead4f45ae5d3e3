"""API of violation cases (违规案件): list, show and report them, decide on them, and what the codes say."""

from datetime import date
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from exchange.api.bodies.base import Body
from exchange.api.caller import After, Caller, Document, Limit, listed, refuse_unknown
from exchange.audit.search.entry_rows import iso_time
from exchange.control.violations.service import Decision, Report, ShownCase
from exchange.violations.case_json import to_document
from exchange.violations.codes import ViolationCode, text_of
from exchange.violations.model import CaseEvent, CaseState, Referral
from exchange.violations.rules import CASE_RULES
from exchange.violations.store import CaseQuery
from registry.database.keyset import MAX_PAGE

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["violations"], dependencies=[Depends(refuse_unknown)])


class DecidedEvent(StrEnum):
    """An event that a person carries out."""

    CONFIRM = "confirm"
    DISMISS = "dismiss"
    ORDER = "order"
    REPLY = "reply"
    ACCEPT = "accept"
    ESCALATE = "escalate"
    CLOSE = "close"


class ReportBody(Body):
    """A report of a violation."""

    code: ViolationCode = Field(description="of decree 809, Art. 39 to 41; see /v1/violation-codes")
    respondent: str = Field("", description="internal id of the department; without it, the grant's side of the code")
    grant: str = Field("", description="grant or request that it is about; a department names one of its own")
    resource: str = Field("", description="topic, such as residents.v1")
    day: date | None = Field(None, description="on which it was seen, in Asia/Shanghai; without it, today")
    entry: str = Field("", description="id of the log's entry that shows it")
    reason: str = Field(description="in words")


class DecisionBody(Body):
    """Why, in words; of an order what is to be rectified, of a reply what the department states."""

    reason: str
    referral: Referral | None = Field(None, description="of an escalation: notice (通报) or discipline (处分)")


@router.get("/violation-codes", response_model=list[Document])
def codes(request: Request, who: Caller, after: After = "", limit: Limit = MAX_PAGE) -> Response:
    """List the violation codes with their clauses; `basis`: whether the clause's own text was read."""
    del who
    found = [code for code in ViolationCode if code.value > after] if after else [*ViolationCode]
    return listed(request, sorted(found)[:limit], limit, document=_code, key=lambda one: one.value)


@router.get("/violations", response_model=list[Document])
def violations(
    request: Request,
    who: Caller,
    state: Annotated[list[CaseState] | None, Query()] = None,
    *,
    code: ViolationCode | None = None,
    respondent: Annotated[str | None, Query(description="internal id of the department concerned")] = None,
    grant: Annotated[str | None, Query(description="grant or request that the case is about")] = None,
    after: After = "",
    limit: Limit = MAX_PAGE,
) -> Response:
    """List the cases that the caller may see, newest first: a department's own, and those that it reported."""
    query = CaseQuery(
        respondent=respondent,
        states=frozenset(state) if state else None,
        code=code,
        grant=grant,
        before=after,
        limit=limit,
    )
    found = who.pool.violations.cases(who.actor, who.call, query)
    return listed(request, found, limit, document=_document, key=lambda one: one.case.id)


@router.post("/violations", status_code=201)
def report(who: Caller, body: ReportBody) -> Document:
    """Report a violation: as the data authority, or as the other party of a grant."""
    reported = Report(
        code=body.code,
        respondent=body.respondent,
        grant=body.grant,
        resource=body.resource,
        day=body.day,
        entry=body.entry,
        reason=body.reason,
    )
    return _document(who.pool.violations.report(who.actor, who.call, reported))


@router.get("/violations/{case}")
def violation(who: Caller, case: str) -> Document:
    """Return a case; `calls`: how many refused calls of its day the log counts."""
    return _document(who.pool.violations.show(who.actor, who.call, case))


@router.post("/violations/{case}/{event}")
def decide(who: Caller, case: str, event: DecidedEvent, body: DecisionBody) -> Document:
    """Carry out an event of a case. An order suspends the grant, an acceptance resumes it, an escalation ends it."""
    decision = Decision(reason=body.reason, referral=body.referral)
    return _document(who.pool.violations.decide(who.actor, who.call, case, CaseEvent(event.value), decision))


def _document(shown: ShownCase) -> Document:
    case, due = shown.case, shown.due
    return (
        _code(case.occurrence.code)
        | to_document(case)
        | {
            "since": iso_time(case.occurrence.since) if case.occurrence.since else None,
            "due": None if due is None else due.at.isoformat(),
            "due_confirmed": None if due is None else not due.provisional,
            "due_state": None if shown.due_state is None else str(shown.due_state),
            "possible": sorted({str(rule.event) for rule in CASE_RULES if rule.source is case.state}),
            "calls": shown.calls,
        }
    )


def _code(code: ViolationCode) -> Document:
    text = text_of(code)
    return {
        "code": str(code),
        "side": str(code.side),
        "text": {"en": text.en, "zh": text.zh},
        "clause": {"en": text.clause_en, "zh": text.clause_zh},
        "basis": text.basis,
    }
