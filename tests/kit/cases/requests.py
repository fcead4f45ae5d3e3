"""Share requests for tests: a complete draft, the people around it, and due dates that count calendar days."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from exchange.requests.due_dates import Limit, Pause
from exchange.requests.guards import Act, Terms
from exchange.requests.life_cycle import advance
from exchange.requests.model import Event, Ground, Mode, RequestState, ShareRequest, SuspensionGround
from registry.directory.model import ShareType
from schemas.access import Actor, ActorKind, Level, Role

NOW: Final = datetime(2026, 5, 4, 9, 30, tzinfo=UTC)
PROVIDER: Final = "0198c0de-0000-7000-8000-000000000001"
CONSUMER: Final = "0198c0de-0000-7000-8000-000000000002"
STRANGER: Final = "0198c0de-0000-7000-8000-000000000003"
DUTY: Final = "HR-07"
PURPOSE: Final = "eligibility"


def person(account: str, role: Role, department: str = "", **changes: Any) -> Actor:
    return replace(Actor(kind=ActorKind.HUMAN, id=account, department=department, role=role), **changes)


WANG: Final = person("wang.hr", Role.SHARING_OFFICE_HEAD, CONSUMER)
LI: Final = person("li.ps", Role.SHARING_OFFICE_HEAD, PROVIDER)
SUN: Final = person("sun.ps", Role.SECURITY_OFFICER, PROVIDER)
CHEN: Final = person("chen.da", Role.DATA_AUTHORITY)
TIMER: Final = person("timer", Role.OPERATOR, kind=ActorKind.MACHINE)
# One person under several accounts: who requested, now in the provider's offices and at the authority.
WANG_AS_HEAD: Final = person("wang.ps", Role.SHARING_OFFICE_HEAD, PROVIDER)
WANG_AS_OFFICER: Final = person("wang.sec", Role.SECURITY_OFFICER, PROVIDER)
WANG_AS_AUTHORITY: Final = person("wang.da", Role.DATA_AUTHORITY)
LI_AS_OFFICER: Final = person("li.sec", Role.SECURITY_OFFICER, PROVIDER)
QIAN_AS_OFFICER: Final = person("qian.sec", Role.SECURITY_OFFICER, PROVIDER)
ZHOU: Final = person("zhou", Role.SHARING_OFFICE_HEAD, STRANGER)
ROBOT: Final = person("robot", Role.SHARING_OFFICE_HEAD, PROVIDER, kind=ActorKind.MACHINE)
EVERYBODY: Final = (
    WANG, LI, SUN, CHEN, TIMER, WANG_AS_HEAD, WANG_AS_OFFICER, WANG_AS_AUTHORITY, LI_AS_OFFICER, QIAN_AS_OFFICER,
    ZHOU, ROBOT,
)  # fmt: skip

PERSONS: Final[Mapping[str, str]] = {
    **{actor.id: f"staff-{actor.id}" for actor in EVERYBODY},
    **{actor.id: "staff-wang.hr" for actor in (WANG_AS_HEAD, WANG_AS_OFFICER, WANG_AS_AUTHORITY)},
    LI_AS_OFFICER.id: "staff-li.ps",
}
DAYS: Final[Mapping[Limit, int]] = {
    Limit.UNCONDITIONAL_REPLY: 1,
    Limit.CONDITIONAL_REPLY: 10,
    Limit.DELIVERY: 20,
    Limit.SUPPLEMENT: 7,
}


@dataclass(frozen=True)
class CalendarDays:
    """Due dates of which each day counts."""

    supplement_restarts: bool = True
    profile: str = "test/1"
    most_extension: int = 10
    days: Mapping[Limit, int] = field(default_factory=lambda: DAYS)

    def due_at(self, limit: Limit, start: datetime, *, extension: int = 0, pauses: tuple[Pause, ...] = ()) -> datetime:
        stood_still = sum((end - begin for begin, end in pauses), timedelta())
        return start + timedelta(days=self.days[limit] + extension) + stood_still


class OneDuty:
    """The consumer's duty list: one item, one purpose."""

    def covers(self, department: str, duty: str, purpose: str) -> bool:
        return (department, duty, purpose) == (CONSUMER, DUTY, PURPOSE)


def terms(**changes: Any) -> Terms:
    return replace(Terms(due=CalendarDays(), duties=OneDuty(), persons=PERSONS), **changes)


def a_draft(**changes: Any) -> ShareRequest:
    draft = ShareRequest(
        id="0198c0de-0000-7000-9000-000000000001",
        consumer=CONSUMER,
        provider=PROVIDER,
        resource="population.v1",
        share_type=ShareType.CONDITIONAL,
        level=Level.G3,
        duty=DUTY,
        purpose=PURPOSE,
        legal_basis="社会保险法 第七十四条",
        scenario="核验待遇领取资格",
        fields=("full_name", "birth_date"),
        mode=Mode.BATCH,
        use_until=NOW + timedelta(days=300),
        truthful=True,
    )
    return replace(draft, **changes)


_FITTING: Final[Mapping[Event, tuple[Actor, Mapping[str, Any]]]] = {
    Event.SUBMIT: (WANG, {}),
    Event.NEED_MORE: (LI, {"missing": ("the article of the law", "the unit that uses the records")}),
    Event.RESUBMIT: (WANG, {"supplement": {"legal_basis": "社会保险法 第七十四条第一款"}}),
    Event.LAPSE: (TIMER, {}),
    Event.WITHDRAW: (WANG, {}),
    Event.EXTEND: (CHEN, {"days": 10, "reason": "three systems have to be asked"}),
    Event.OVERDUE: (TIMER, {}),
    Event.APPROVE: (LI, {}),
    Event.COUNTERSIGN: (SUN, {}),
    Event.WITHDRAW_SIGNATURE: (LI, {"reason": "the scope was misread"}),
    Event.CONCLUDE: (LI, {}),
    Event.REJECT: (LI, {"reason": "no such duty", "clause": "条例 第十五条", "ground": Ground.OUT_OF_DUTY}),
    Event.DISPUTE: (WANG, {"reference": "minutes-7"}),
    Event.UPHOLD: (CHEN, {"reason": "no such duty", "clause": "条例 第十五条"}),
    Event.OVERTURN: (CHEN, {"reason": "the duty is on the list"}),
    Event.PROVISION: (LI, {}),
    Event.SUSPEND: (
        LI,
        {
            "reason": "passed on",
            "misuse": SuspensionGround.THIRD_PARTY,
            "rectify_until": NOW + timedelta(days=200),
        },
    ),
    Event.RECTIFIED: (LI, {"reason": "taken back"}),
    Event.TERMINATE: (LI, {"reason": "not taken back"}),
    Event.EXPIRE: (TIMER, {}),
    Event.COMPLETE: (WANG, {"reason": "the matter is done", "reference": "certificate-3"}),
    Event.CHANGE_SERVICE: (LI, {"reason": "a new system", "reference": "filing-1"}),
    Event.TERMINATE_BY_AGREEMENT: (LI, {"reason": "the source ends", "reference": "filing-2"}),
}


def act(event: Event, *, by: Actor | None = None, at: datetime = NOW, **changes: Any) -> Act:
    """Return a fitting act, to be bent with keywords."""
    actor, said = _FITTING[event]
    return Act(event=event, by=by or actor, at=at, **{**said, **changes})


PATHS: Final[Mapping[RequestState, tuple[Event, ...]]] = {
    RequestState.DRAFT: (),
    RequestState.SUBMITTED: (Event.SUBMIT,),
    RequestState.SUPPLEMENT: (Event.SUBMIT, Event.NEED_MORE),
    RequestState.COUNTERSIGNED: (Event.SUBMIT, Event.APPROVE),
    RequestState.APPROVED: (Event.SUBMIT, Event.APPROVE, Event.CONCLUDE),
    RequestState.ACTIVE: (Event.SUBMIT, Event.APPROVE, Event.CONCLUDE, Event.PROVISION),
    RequestState.SUSPENDED: (Event.SUBMIT, Event.APPROVE, Event.CONCLUDE, Event.PROVISION, Event.SUSPEND),
    RequestState.REJECTED: (Event.SUBMIT, Event.REJECT),
    RequestState.IN_DISPUTE: (Event.SUBMIT, Event.REJECT, Event.DISPUTE),
}


def in_state(state: RequestState, **changes: Any) -> ShareRequest:
    """Return a request that came to a state by its shortest way."""
    request = a_draft(**changes)
    for event in PATHS[state]:
        request = advance(request, act(event), terms())
    return request
