"""Document of a violation case: the JSON in which a store keeps it and an interface shows it."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from exchange.violations.codes import ViolationCode
from exchange.violations.model import (
    CaseEvent,
    CaseState,
    CaseStep,
    Occurrence,
    Order,
    Outcome,
    Referral,
    Sign,
    Statement,
    ViolationCase,
)
from schemas.canonical import Json

__all__ = ["from_document", "to_document"]


def to_document(case: ViolationCase) -> dict[str, Json]:
    """Return the document of a case."""
    seen, order, statement = case.occurrence, case.order, case.statement
    return {
        "id": case.id,
        "version": case.version,
        "code": str(seen.code),
        "sign": str(seen.sign),
        "respondent": seen.respondent,
        "day": seen.day.isoformat(),
        "subject": seen.subject,
        "grant": seen.grant,
        "resource": seen.resource,
        "entry": seen.entry,
        "since": seen.since,
        "reporter": seen.reporter,
        "state": str(case.state),
        "reported_by": case.reported_by,
        "order": None if order is None else _order(order),
        "statement": None if statement is None else _statement(statement),
        "referral": case.referral and str(case.referral),
        "outcome": case.outcome and str(case.outcome),
        "steps": [
            {
                "event": str(step.event),
                "state": str(step.state),
                "by": step.by,
                "at": step.at.isoformat(),
                "article": step.article,
                "reason": step.reason,
                "late": step.late,
            }
            for step in case.history
        ],
    }


def _order(order: Order) -> dict[str, Json]:
    return {
        "at": order.at.isoformat(),
        "clock": dict(order.clock),
        "rule": dict(order.rule),
        "suspended": order.suspended,
    }


def _statement(statement: Statement) -> dict[str, Json]:
    return {
        "text": statement.text,
        "by": statement.by,
        "at": statement.at.isoformat(),
        "ordered": statement.ordered,
        "late": statement.late,
    }


def from_document(document: Mapping[str, Any]) -> ViolationCase:
    """Return the case of a document of `to_document`.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    order, statement = document["order"], document["statement"]
    return ViolationCase(
        id=document["id"],
        version=document["version"],
        occurrence=Occurrence(
            code=ViolationCode(document["code"]),
            sign=Sign(document["sign"]),
            respondent=document["respondent"],
            day=date.fromisoformat(document["day"]),
            subject=document["subject"],
            grant=document["grant"],
            resource=document["resource"],
            entry=document["entry"],
            since=document["since"],
            reporter=document["reporter"],
        ),
        state=CaseState(document["state"]),
        reported_by=document["reported_by"],
        order=None if order is None else Order(**{**order, "at": datetime.fromisoformat(order["at"])}),
        statement=None
        if statement is None
        else Statement(**{**statement, "at": datetime.fromisoformat(statement["at"])}),
        referral=None if document["referral"] is None else Referral(document["referral"]),
        outcome=None if document["outcome"] is None else Outcome(document["outcome"]),
        history=tuple(
            CaseStep(
                event=CaseEvent(step["event"]),
                state=CaseState(step["state"]),
                by=step["by"],
                at=datetime.fromisoformat(step["at"]),
                article=step["article"],
                reason=step["reason"],
                late=step["late"],
            )
            for step in document["steps"]
        ),
    )
