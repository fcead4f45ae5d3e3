"""Violation case (违规案件): what was seen or reported of a violation, and all that was decided on it. Pure.

A case is one occurrence: one sign, of one department, on one subject, on one day of Asia/Shanghai. What is repeated on
that day is the same occurrence and makes no second case; the log holds every repetition.

Each event makes a new version of the case; what happened before is never changed. Which events there are is written in
`exchange.violations.rules`; `exchange.violations.life_cycle` carries them out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum

from exchange.violations.codes import Side, ViolationCode
from schemas.canonical import Json

__all__ = [
    "CaseEvent",
    "CaseState",
    "CaseStep",
    "Occurrence",
    "Order",
    "Outcome",
    "Referral",
    "Sign",
    "Statement",
    "ViolationCase",
]


class CaseState(StrEnum):
    """State of a case."""

    DETECTED = "detected"  # 发现
    CONFIRMED = "confirmed"  # 核实
    RECTIFYING = "rectifying"  # 责令改正
    ESCALATED = "escalated"  # 移送
    CLOSED = "closed"  # 办结


class CaseEvent(StrEnum):
    """What can happen to a case."""

    DETECT = "detect"
    REPORT = "report"
    CONFIRM = "confirm"
    DISMISS = "dismiss"
    ORDER = "order"
    REPLY = "reply"
    ACCEPT = "accept"
    ESCALATE = "escalate"
    CLOSE = "close"


class Sign(StrEnum):
    """By what a case was found. Append only: keys of cases hold it."""

    PURPOSE = "purpose"  # a read for another purpose than the granted one, or for none
    CASE = "case"  # a read with another case number than the granted one, or without
    SCOPE = "scope"  # a read under the grant of another department
    REPEATED_COLLECTION = "repeated_collection"  # an entry as the source of an element that has a lead
    OVERDUE_REPLY = "overdue_reply"
    OVERDUE_DELIVERY = "overdue_delivery"
    OVERDUE_UPDATE = "overdue_update"  # of the catalogue
    OVERDUE_CORRECTION = "overdue_correction"
    REPORT = "report"  # by a person


class Outcome(StrEnum):
    """How a case ended."""

    DISMISSED = "dismissed"
    RECTIFIED = "rectified"
    REFERRED = "referred"


class Referral(StrEnum):
    """To what an unrectified violation leads (decree 809, Art. 39 to 42)."""

    NOTICE = "notice"  # 通报
    DISCIPLINE = "discipline"  # 处分


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence:
    """What was seen.

    Attributes:
        code: the violation that it may be.
        sign: by what it was found.
        respondent: id of the department whose violation it may be; empty = the data authority.
        day: of Asia/Shanghai.
        subject: what it is about within the sign: a grant's or request's id, a topic, a ticket, a clock's start.
        grant: id of the grant or request, of which the respondent is a party; empty = none.
        resource: topic; empty = none.
        entry: id of the log's entry that shows it; empty = none.
        since: microseconds UTC of what was seen first.
        reporter: id of the department that reported it; empty = the data authority did, or nobody.
    """

    code: ViolationCode
    sign: Sign
    respondent: str
    day: date
    subject: str
    grant: str = ""
    resource: str = ""
    entry: str = ""
    since: int = 0
    reporter: str = ""

    @property
    def key(self) -> str:
        """Return what makes it one occurrence: a second one of the same key is the same."""
        who = f"{self.sign}:{self.reporter}:{self.code}" if self.sign is Sign.REPORT else str(self.sign)
        return f"{who}/{self.respondent}/{self.subject}/{self.day.isoformat()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseStep:
    """One event of a case's history.

    Attributes:
        event: what happened.
        state: to which state it led.
        by: account; the pool's timer for what it detected.
        at: aware.
        article: of the rule.
        reason: in words.
        late: the time for rectification was over before.
    """

    event: CaseEvent
    state: CaseState
    by: str
    at: datetime
    article: str = ""
    reason: str = ""
    late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order to rectify (责令改正).

    Attributes:
        at: aware.
        clock: the clock of the time limit as a document (`exchange.deadlines.clock.Clock.to_json`).
        rule: by which rule of which profile, as entries note it.
        suspended: the order suspended the grant, so its acceptance resumes it.
    """

    at: datetime
    clock: Mapping[str, Json]
    rule: Mapping[str, Json]
    suspended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What the respondent said last.

    Attributes:
        text: in words; by: account; at: aware.
        ordered: it came after the order: a statement of what was rectified.
        late: after the time for it.
    """

    text: str
    by: str
    at: datetime
    ordered: bool = False
    late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ViolationCase:
    """One version of a case.

    Attributes:
        id: UUIDv7.
        version: 1, 2, 3 …
        occurrence: what was seen.
        state: see CaseState.
        reported_by: account of who reported it; empty = the pool detected it.
        order: the order to rectify; None before.
        statement: of the respondent, the last one; None without one.
        referral: to what it was escalated; None where it was not.
        outcome: how it ended; None before.
        history: every event.
    """

    id: str
    version: int
    occurrence: Occurrence
    state: CaseState
    reported_by: str = ""
    order: Order | None = None
    statement: Statement | None = None
    referral: Referral | None = None
    outcome: Outcome | None = None
    history: tuple[CaseStep, ...] = field(default=())

    @property
    def holds_grant(self) -> bool:
        """Whether its order keeps its grant suspended: until it is decided on, nobody resumes it."""
        return self.state is CaseState.RECTIFYING and self.concerns_grant

    @property
    def concerns_grant(self) -> bool:
        """Whether its grant is the respondent's own: a provider's violation is no reason to stop its consumer."""
        return bool(self.occurrence.grant) and self.occurrence.code.side is Side.CONSUMER
