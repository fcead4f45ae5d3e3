"""Correction ticket (校核工单): a value that a consumer doubts, and what its source department answers. Pure.

A ticket names the record by its pseudonym, the field, and the place in the topic of the version that is doubted. What
the raiser claims instead, and its evidence, are personal: they are stored sealed alone, and are in no entry and no
error. Each event makes a new value; an earlier one is never changed.

Which events there are is written in `exchange.corrections.rules`; `exchange.corrections.life_cycle` carries them out.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from schemas.access import Grant, MaskRule
from schemas.names import Topic

__all__ = [
    "OPEN",
    "TERMINAL",
    "CorrectionNotice",
    "CorrectionTicket",
    "Event",
    "RecordPlace",
    "TicketState",
    "erased",
    "shows",
]


class TicketState(StrEnum):
    """State of a ticket."""

    OPENED = "opened"
    VERIFYING = "verifying"
    CORRECTED = "corrected"  # the correct record is in the pool; who received the old value is not told yet
    CLOSED_CONFIRMED = "closed_confirmed"  # the value was right
    CLOSED_CORRECTED = "closed_corrected"
    CLOSED_REJECTED = "closed_rejected"  # cannot be verified
    WITHDRAWN = "withdrawn"


OPEN: Final = frozenset({TicketState.OPENED, TicketState.VERIFYING, TicketState.CORRECTED})
"""States in which the value is disputed."""
TERMINAL: Final = frozenset(TicketState) - OPEN
"""States in which a ticket ends."""


class Event(StrEnum):
    """What can happen to a ticket."""

    ACCEPT = "accept"
    TRANSFER = "transfer"
    WITHDRAW = "withdraw"
    CORRECT = "correct"
    CONFIRM = "confirm"
    CANNOT_VERIFY = "cannot_verify"
    NOTIFY = "notify"
    OVERDUE = "overdue"  # changes no state: silence leads nowhere
    ERASE = "erase"  # the record of the person is erased


@dataclass(frozen=True, slots=True, order=True)
class RecordPlace:
    """Where a version of a record is: generation of the topic, partition, position."""

    generation: int
    partition: int
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectionTicket:
    """One ticket.

    Attributes:
        id: UUIDv7.
        topic, field: of the value.
        record: pseudonym of the record key, 16 bytes; empty once the record is erased.
        place: of the version that is doubted.
        grant: under which the raiser received it.
        raiser: internal id of the consuming department; raised_by: account.
        record_key: by which the raiser knows the record, 16 bytes; empty once it is erased.
        claim: claimed value and evidence, sealed; empty once the record is erased.
        provider: internal id of the department that publishes the resource.
        source: that of the source department (数源部门) whose answer is due.
        state: see TicketState.
        received_at: first receipt, from which the clock runs; aware. A transfer keeps it.
        overdue_at: when it was recorded that the clock had run out; None while it has not.
        transfers: how often the ticket was given to another department.
        reported_by, reported_at: account and time of the answer; empty and None before it.
        reason: of the answer, or of the withdrawal, in words.
        correction: place of the correct record; None while there is none.
        correction_entry: id of the entry of its publication.
        told: grants whose consumers were told; None before they were.
    """

    id: str
    topic: Topic
    field: str
    record: bytes
    place: RecordPlace
    grant: str
    raiser: str
    raised_by: str
    record_key: bytes
    claim: bytes
    provider: str
    source: str
    state: TicketState = TicketState.OPENED
    received_at: datetime
    overdue_at: datetime | None = None
    transfers: int = 0
    reported_by: str = ""
    reported_at: datetime | None = None
    reason: str = ""
    correction: RecordPlace | None = None
    correction_entry: str = ""
    told: int | None = None

    @property
    def parties(self) -> frozenset[str]:
        """Departments that see the ticket: who raised it, who publishes the value, and whose answer is due."""
        return frozenset({self.raiser, self.provider, self.source})


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectionNotice:
    """That a consumer who had received the old value is told of the correction; it names no value.

    Attributes:
        id: UUIDv7.
        ticket: id of the ticket.
        topic, field: of the value.
        grant: under which the old value was received.
        consumer: internal id of the department.
        record_key: by which it knows the record, 16 bytes; empty once the record is erased.
        release: id of the entry of a release that delivered the old value.
        told_at: aware.
        acknowledged_by, acknowledged_at: account and time; empty and None before.
    """

    id: str
    ticket: str
    topic: Topic
    field: str
    grant: str
    consumer: str
    record_key: bytes
    release: str
    told_at: datetime
    acknowledged_by: str = ""
    acknowledged_at: datetime | None = None


def erased(ticket: CorrectionTicket) -> CorrectionTicket:
    """Return a ticket without what it holds of its record; an open one cannot be verified any more."""
    state = TicketState.CLOSED_REJECTED if ticket.state in OPEN else ticket.state
    return replace(ticket, state=state, record=b"", record_key=b"", claim=b"")


def shows(grant: Grant, field: str) -> bool:
    """Return whether a version of a grant shows a field, masked or not."""
    return field in grant.fields and dict(grant.masks).get(field) is not MaskRule.DROP
