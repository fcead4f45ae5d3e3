"""Violation cases for tests: a fitting occurrence, people of all sides, and an act of each event."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from exchange.violations.codes import ViolationCode
from exchange.violations.life_cycle import CaseAct, advance, opened
from exchange.violations.model import CaseEvent, CaseState, Occurrence, Order, Referral, Sign, ViolationCase
from schemas.access import Actor, ActorKind, Role

NOW: Final = datetime(2026, 5, 4, 9, 30, tzinfo=UTC)
DUE: Final = NOW + timedelta(days=14)
PROVIDER: Final = "0198c0de-0000-7000-8000-000000000001"
CONSUMER: Final = "0198c0de-0000-7000-8000-000000000002"
GRANT: Final = "0198c0de-0000-7000-9000-000000000001"
CASE: Final = "0198c0de-0000-7000-a000-000000000001"


def person(name: str, role: Role, department: str = "", kind: ActorKind = ActorKind.HUMAN) -> Actor:
    return Actor(kind=kind, id=name, department=department, role=role)


OFFICER: Final = person("chen.da", Role.DATA_AUTHORITY)
SECOND: Final = person("ma.da", Role.DATA_AUTHORITY)
CHEN_TOO: Final = person("chen.second", Role.DATA_AUTHORITY)
HEAD: Final = person("wang.hr", Role.SHARING_OFFICE_HEAD, CONSUMER)
SECURITY: Final = person("zhao.hr", Role.SECURITY_OFFICER, CONSUMER)
EDITOR: Final = person("qian.hr", Role.CATALOGUE_EDITOR, CONSUMER)
OTHER_HEAD: Final = person("li.ps", Role.SHARING_OFFICE_HEAD, PROVIDER)
AUDITOR: Final = person("watcher", Role.AUDITOR)
OPERATOR: Final = person("op", Role.OPERATOR)
# Whose department is that of a case against the authority, and whose role is of departments.
HOMELESS: Final = person("nobody", Role.SHARING_OFFICE_HEAD)
IN_A_DEPARTMENT: Final = person("da.hr", Role.DATA_AUTHORITY, CONSUMER)
PROGRAM: Final = person("robot", Role.DATA_AUTHORITY, kind=ActorKind.MACHINE)
EVERYBODY: Final = (
    OFFICER,
    SECOND,
    CHEN_TOO,
    HEAD,
    SECURITY,
    EDITOR,
    OTHER_HEAD,
    AUDITOR,
    OPERATOR,
    HOMELESS,
    IN_A_DEPARTMENT,
    PROGRAM,
)
PERSONS: Final = {actor.id: f"staff-{actor.id}" for actor in EVERYBODY} | {CHEN_TOO.id: f"staff-{OFFICER.id}"}


def an_occurrence(**changes: Any) -> Occurrence:
    fitting = Occurrence(
        code=ViolationCode.C2,
        sign=Sign.PURPOSE,
        respondent=CONSUMER,
        day=date(2026, 5, 4),
        subject=GRANT,
        grant=GRANT,
        resource="population.v1",
        entry="0198c0de-0000-7000-b000-000000000001",
        since=1_777_887_000_000_000,
    )
    return replace(fitting, **changes)


def a_case(occurrence: Occurrence | None = None, **changes: Any) -> ViolationCase:
    return opened(
        occurrence or an_occurrence(), **{"case_id": CASE, "by": "timer", "at": NOW, "reason": "it did", **changes}
    )


def an_order(**changes: Any) -> Order:
    return replace(Order(at=NOW, clock={"amount": 10}, rule={"rule": "rectification"}, suspended=True), **changes)


def an_act(event: CaseEvent, **changes: Any) -> CaseAct:
    """Return an act that fits, by the person who may."""
    fitting = CaseAct(
        event=event,
        by=HEAD if event is CaseEvent.REPLY else OFFICER,
        at=NOW,
        reason="as the law says",
        order=an_order() if event is CaseEvent.ORDER else None,
        due=DUE,
        referral=Referral.NOTICE if event is CaseEvent.ESCALATE else None,
    )
    return replace(fitting, **changes)


_E = CaseEvent
PATHS: Final[dict[CaseState, Sequence[CaseEvent]]] = {
    CaseState.DETECTED: (),
    CaseState.CONFIRMED: (_E.CONFIRM,),
    CaseState.RECTIFYING: (_E.CONFIRM, _E.ORDER),
    CaseState.ESCALATED: (_E.CONFIRM, _E.ORDER, _E.ESCALATE),
    CaseState.CLOSED: (_E.DISMISS,),
}
"""To each state a way."""


def in_state(state: CaseState, case: ViolationCase | None = None) -> ViolationCase:
    """Return a case in a state."""
    case = case or a_case()
    for event in PATHS[state]:
        case = advance(case, an_act(event), persons=PERSONS)
    return case
