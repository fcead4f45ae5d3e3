"""Share request (共享申请): what a department asks for, and all that was decided on it. Pure.

A request names what State Council decree 809, Art. 20, requires: legal basis, duty, scenario, scope, mode, until when,
and a statement that it is true, lawful and necessary. Each event makes a new value; an earlier one is never changed.

Which events there are is written in `exchange.requests.rules`; `exchange.requests.life_cycle` carries them out.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from registry.directory.model import ShareType
from schemas.access import Level

__all__ = [
    "COUNTERSIGNED_FROM",
    "TERMINAL",
    "Event",
    "Ground",
    "Mode",
    "Office",
    "RequestState",
    "ShareRequest",
    "Signature",
    "Step",
    "SuspensionGround",
    "missing_elements",
    "required_offices",
]

COUNTERSIGNED_FROM: Final = Level.G4
"""From this level on, a security officer countersigns also what is not sensitive."""


class RequestState(StrEnum):
    """State of a request, and of the grant that it becomes."""

    DRAFT = "draft"
    SUBMITTED = "submitted"
    SUPPLEMENT = "supplement"  # the consumer is to add what the provider's list names
    COUNTERSIGNED = "countersigned"  # agreed to, and not by everybody yet whose signature is due
    APPROVED = "approved"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    REJECTED = "rejected"
    IN_DISPUTE = "in_dispute"
    COMPLETED = "completed"
    EXPIRED = "expired"
    TERMINATED = "terminated"
    WITHDRAWN = "withdrawn"


TERMINAL: Final = frozenset(
    {
        RequestState.COMPLETED,
        RequestState.EXPIRED,
        RequestState.REJECTED,
        RequestState.TERMINATED,
        RequestState.WITHDRAWN,
    }
)
"""States in which a request may end; a rejected one may still be disputed."""


class Event(StrEnum):
    """What can happen to a request or to the grant that it becomes."""

    SUBMIT = "submit"
    NEED_MORE = "need_more"
    RESUBMIT = "resubmit"
    LAPSE = "lapse"
    WITHDRAW = "withdraw"
    EXTEND = "extend"
    OVERDUE = "overdue"
    APPROVE = "approve"
    COUNTERSIGN = "countersign"
    WITHDRAW_SIGNATURE = "withdraw_signature"
    CONCLUDE = "conclude"  # every signature is there: the agreeing reply
    REJECT = "reject"
    DISPUTE = "dispute"
    UPHOLD = "uphold"
    OVERTURN = "overturn"
    PROVISION = "provision"
    SUSPEND = "suspend"
    RECTIFIED = "rectified"
    TERMINATE = "terminate"
    EXPIRE = "expire"
    COMPLETE = "complete"
    CHANGE_SERVICE = "change_service"
    TERMINATE_BY_AGREEMENT = "terminate_by_agreement"


class Mode(StrEnum):
    """How records are shared (decree 809, Art. 22); a predicate answers yes, no or unknown alone."""

    SERVICE = "service"  # 服务接口
    BATCH = "batch"  # 批量交换
    FILE = "file"  # 文件下载
    PREDICATE = "predicate"


class Ground(StrEnum):
    """Why a request is refused. One for an unconditional resource has the first two alone."""

    OUT_OF_DUTY = "out_of_duty"
    INCOMPLETE_SCOPE = "incomplete_scope"
    CONDITIONS_NOT_MET = "conditions_not_met"
    NOT_SHARED = "not_shared"


class SuspensionGround(StrEnum):
    """Why a grant is suspended (decree 809, Art. 27; a security incident beside it)."""

    OVER_SCOPE = "over_scope"
    OTHER_PURPOSE = "other_purpose"
    THIRD_PARTY = "third_party"
    INCIDENT = "incident"


class Office(StrEnum):
    """In which office somebody signs."""

    HEAD = "head"  # of the provider's sharing office
    SECURITY_OFFICER = "security_officer"  # of the provider
    AUTHORITY = "authority"  # in a dispute, in place of the head


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature of an agreeing reply."""

    office: Office
    account: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One event of a request's history.

    Attributes:
        event: what happened.
        state: to which state it led.
        by: account that did it; the pool's timer for what happens by the clock.
        at: aware.
        article: of the rule.
        profile: id and version of the rule profile whose limits held.
        late: the clock had run out before.
        violation: clause of which it is a violation, by the party that let the clock run out; empty where it is none.
        reason, clause, reference: as the event requires; the reference is a filing, a certificate, a record of
            negotiations.
        ground: of a refusal (`Ground`) or of a suspension (`SuspensionGround`); empty otherwise.
    """

    event: Event
    state: RequestState
    by: str
    at: datetime
    article: str
    profile: str
    late: bool = False
    violation: str = ""
    reason: str = ""
    clause: str = ""
    reference: str = ""
    ground: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareRequest:
    """One value of a request.

    Attributes:
        id: of the request, and of the grant that it becomes.
        version: 0 for a draft, then one more with each event.
        consumer, provider: ids of departments.
        resource: topic.
        share_type: of the resource, as its published entry says.
        level, sensitive: of what is asked for: the highest level of a field, and whether more is shown than the
            schema's masks show.
        duty: code of the item of the consumer's duty list (权责清单).
        purpose: id of the purpose; it belongs to the duty.
        legal_basis: law and article, in words.
        scenario: what the records are used for, in words.
        fields: the scope; the row filter is the grant's.
        mode: see Mode.
        use_until: aware.
        truthful: who submits states that all of this is true, lawful and necessary.
        requested_by: account.
        renews: id of the grant after whose end this one goes on; None = a first request.
        state: see RequestState.
        received_at: when the reply clock began; None before submission.
        extension: working days by which the authority has extended the reply.
        noticed_at: when the list of what is missing was sent; None without one.
        missing: that list; one request gets one.
        pauses: spans in which the reply clock stood still.
        signatures: of the agreeing reply, in the order in which they were given.
        overturned: the authority has decided in the head's place.
        disputes: how often the refusal was taken to the next authority.
        approved_at: when the agreeing reply was complete; the delivery clock begins.
        rectify_until: until when a suspended grant can be rectified.
        overdue: clocks that ran out, by name.
        history: every event.
    """

    id: str
    version: int = 0
    consumer: str
    provider: str
    resource: str
    share_type: ShareType
    level: Level
    sensitive: bool = False
    duty: str = ""
    purpose: str = ""
    legal_basis: str = ""
    scenario: str = ""
    fields: tuple[str, ...] = ()
    mode: Mode | None = None
    use_until: datetime | None = None
    truthful: bool = False
    requested_by: str = ""
    renews: str | None = None
    state: RequestState = RequestState.DRAFT
    received_at: datetime | None = None
    extension: int = 0
    noticed_at: datetime | None = None
    missing: tuple[str, ...] = ()
    pauses: tuple[tuple[datetime, datetime], ...] = ()
    signatures: tuple[Signature, ...] = ()
    overturned: bool = False
    disputes: int = 0
    approved_at: datetime | None = None
    rectify_until: datetime | None = None
    overdue: tuple[str, ...] = ()
    history: tuple[Step, ...] = ()


def missing_elements(request: ShareRequest) -> tuple[str, ...]:
    """Return what a request lacks of the elements of decree 809, Art. 20: all of it, in one list."""
    present = {
        "legal_basis": bool(request.legal_basis.strip()),
        "duty": bool(request.duty.strip()),
        "purpose": bool(request.purpose.strip()),
        "scenario": bool(request.scenario.strip()),
        "fields": bool(request.fields),
        "mode": request.mode is not None,
        "use_until": request.use_until is not None,
        "truthful": request.truthful,
    }
    return tuple(name for name, given in present.items() if not given)


def required_offices(request: ShareRequest) -> frozenset[Office]:
    """Return whose signatures an agreeing reply needs."""
    first = Office.AUTHORITY if request.overturned else Office.HEAD
    if request.sensitive or request.level >= COUNTERSIGNED_FROM:
        return frozenset({first, Office.SECURITY_OFFICER})
    return frozenset({first})
