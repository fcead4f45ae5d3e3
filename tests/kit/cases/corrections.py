"""Correction tickets for tests: one that is opened, and the people around it."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from exchange.corrections.life_cycle import Act
from exchange.corrections.model import CorrectionNotice, CorrectionTicket, Event, RecordPlace
from schemas.access import Actor, ActorKind, Role
from schemas.names import Topic

NOW: Final = datetime(2026, 5, 4, 9, 30, tzinfo=UTC)
DUE: Final = NOW + timedelta(days=14)
SOURCE: Final = "0198c0de-0000-7000-8000-000000000001"
RAISER: Final = "0198c0de-0000-7000-8000-000000000002"
STRANGER: Final = "0198c0de-0000-7000-8000-000000000003"
GRANT: Final = "0198c0de-0000-7000-8000-0000000000aa"
TOPIC: Final = Topic.parse("residents.v1")
PLACE: Final = RecordPlace(generation=1, partition=2, position=40)
BEHIND: Final = RecordPlace(generation=1, partition=2, position=41)


def _person(account: str, role: Role, department: str = "", kind: ActorKind = ActorKind.HUMAN) -> Actor:
    return Actor(kind=kind, id=account, department=department, role=role)


WANG: Final = _person("wang.hr", Role.SHARING_OFFICE_HEAD, RAISER)
EDITOR_WANG: Final = _person("wang.ed", Role.CATALOGUE_EDITOR, RAISER)
LI: Final = _person("li.ps", Role.SHARING_OFFICE_HEAD, SOURCE)
EDITOR_LI: Final = _person("li.ed", Role.CATALOGUE_EDITOR, SOURCE)
SUN: Final = _person("sun.ps", Role.SECURITY_OFFICER, SOURCE)
ZHOU: Final = _person("zhou", Role.SHARING_OFFICE_HEAD, STRANGER)
CHEN: Final = _person("chen.da", Role.DATA_AUTHORITY)
AUDITOR: Final = _person("audit", Role.AUDITOR)
OPERATOR: Final = _person("ops", Role.OPERATOR)
ROBOT: Final = _person("robot", Role.SHARING_OFFICE_HEAD, SOURCE, ActorKind.MACHINE)
TIMER: Final = _person("timer", Role.OPERATOR, "", ActorKind.MACHINE)
EVERYBODY: Final = (WANG, EDITOR_WANG, LI, EDITOR_LI, SUN, ZHOU, CHEN, AUDITOR, OPERATOR, ROBOT, TIMER)

_RIGHT: Final = {
    Event.ACCEPT: LI,
    Event.TRANSFER: CHEN,
    Event.WITHDRAW: WANG,
    Event.CORRECT: EDITOR_LI,
    Event.CONFIRM: LI,
    Event.CANNOT_VERIFY: LI,
    Event.NOTIFY: TIMER,
    Event.OVERDUE: TIMER,
    Event.ERASE: TIMER,
}


def a_ticket(number: int = 1, **changes: Any) -> CorrectionTicket:
    """Return a ticket as it is opened."""
    terms: dict[str, Any] = {
        "id": f"0198c0de-0000-7000-8000-{number:012}",
        "topic": TOPIC,
        "field": "full_name",
        "record": b"r" * 16,
        "place": PLACE,
        "grant": GRANT,
        "raiser": RAISER,
        "raised_by": WANG.id,
        "record_key": b"k" * 16,
        "claim": b"sealed",
        "provider": SOURCE,
        "source": SOURCE,
        "received_at": NOW,
    }
    return CorrectionTicket(**{**terms, **changes})


def a_notice(number: int = 1, **changes: Any) -> CorrectionNotice:
    """Return a notice that nobody has acknowledged."""
    terms: dict[str, Any] = {
        "id": f"0198c0de-0000-7000-8000-{number:012}",
        "ticket": a_ticket().id,
        "topic": TOPIC,
        "field": "full_name",
        "grant": f"{GRANT[:-2]}{number:02}",
        "consumer": RAISER,
        "record_key": b"k" * 16,
        "release": "0198c0de-0000-7000-8000-0000000000ee",
        "told_at": NOW,
    }
    return CorrectionNotice(**{**terms, **changes})


def act(event: Event, **said: Any) -> Act:
    """Return what the right person says for an event, all of it given."""
    terms: dict[str, Any] = {
        "event": event,
        "by": _RIGHT[event],
        "at": NOW + timedelta(hours=1),
        "reason": "because",
        "source": STRANGER if event is Event.TRANSFER else "",
        "correction": BEHIND if event is Event.CORRECT else None,
        "correction_entry": "entry" if event is Event.CORRECT else "",
        "told": 2 if event is Event.NOTIFY else 0,
    }
    return Act(**{**terms, **said})
