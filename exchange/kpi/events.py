"""Supervision events (监察事件): what an e-supervision system (电子监察) is told of, each with its entry. Pure.

An event names departments, resources, grants, rules and reasons; no account, no person, no case number and nothing of
a record. Its place in the stream is that of its entry in the log, so that a reader's cursor stays valid, and a stream
that is made again from the log is the same.
"""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["EventKind", "SupervisionEvent"]


class EventKind(StrEnum):
    """Kind of an event."""

    CLOCK = "clock"  # a clock began, or what it runs for was done in time
    OVERDUE = "overdue"  # something was done after its due time
    REFUSAL = "refusal"  # a share request was refused
    OUT_OF_SCOPE = "out_of_scope"  # an act was denied for its purpose, case, duty or zone
    REPEATED = "repeated"  # a data element was to be collected that another department is the source of
    CORRECTION = "correction"  # a value was doubted, or answered, or its consumers were told
    VIOLATION = "violation"  # a case was found, or decided on
    GRANT_ENDED = "grant_ended"  # a grant is in force no longer: suspended, ended, expired


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisionEvent:
    """An event.

    Attributes:
        position, ordinal: index of its entry in the log, and its number among the events of that entry.
        at: microseconds UTC.
        kind: what happened.
        department: whom it concerns; empty for the data authority.
        action: of the entry.
        resource, grant: what it is about.
        detail: a reason code, the ground of a refusal, or a state.
        rule, due: of a clock.
        clause: that a refusal cites.
        times: how often, for repetitions that the log has in one entry.
        entry: id of the entry.
    """

    position: int
    ordinal: int
    at: int
    kind: EventKind
    department: str
    action: str
    resource: str = ""
    grant: str = ""
    detail: str = ""
    rule: str = ""
    due: str = ""
    clause: str = ""
    times: int = 1
    entry: str
