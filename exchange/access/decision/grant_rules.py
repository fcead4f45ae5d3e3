"""Rights on grants: which account may let which event happen, and in which states. Pure.

    draft ─submit→ submitted ─approve→ countersigned ─conclude→ approved ─provision→ active ─expire→ expired
                       └─reject→ rejected      suspended ⇄ active    suspended ─terminate→ terminated

Two checks read it, one after the other:

    decision    `exchange.access.decision.roles`: may this account do this at all? Before anything is locked.
    life cycle  `exchange.access.grants.life_cycle`: may this happen to this version, by this account? On the locked
                grant, so that a decision on an older version cannot pass.

The law of a request, its guards and where each event leads, is one table of its own (`exchange.requests.rules`), which
an act passes between the two; a grant follows the state of its request. A test holds that no row here is narrower than
its rows there, and that none names a state in which the event cannot happen.

A renewal is no event of a grant: it is a request of its own (`exchange.access.grants.renewal`), and the grant stays as
it is until it ends, or until the renewal is active and supersedes it.

Articles are those of State Council decree 809.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from schemas.access import Action, GrantState, Role

__all__ = ["GRANT_RULES", "Event", "GrantRule", "Party"]


class Event(StrEnum):
    """What can happen to a request or a grant."""

    SUBMIT = "submit"
    NEED_MORE = "need_more"
    RESUBMIT = "resubmit"
    LAPSE = "lapse"
    WITHDRAW = "withdraw"
    EXTEND = "extend"
    CONFIRM = "confirm"  # the security officer signs before the head
    APPROVE = "approve"
    COUNTERSIGN = "countersign"  # … or after
    WITHDRAW_SIGNATURE = "withdraw_signature"
    CONCLUDE = "conclude"
    OVERDUE = "overdue"
    REJECT = "reject"
    DISPUTE = "dispute"
    UPHOLD = "uphold"
    OVERTURN = "overturn"
    PROVISION = "provision"
    SUSPEND = "suspend"
    RECTIFIED = "rectified"
    TERMINATE = "terminate"
    EXPIRE = "expire"
    REMIND = "remind"
    SUSPEND_UNMASKED = "suspend_unmasked"
    SUPERSEDE = "supersede"
    COMPLETE = "complete"
    CHANGE_SERVICE = "change_service"
    TERMINATE_BY_AGREEMENT = "terminate_by_agreement"


class Party(StrEnum):
    """On which side an event is carried out."""

    CONSUMER = "consumer"
    PROVIDER = "provider"
    AUTHORITY = "authority"  # the data authority, or the government above it
    OVERSEER = "overseer"  # the data authority or the provider
    SYSTEM = "system"  # the pool's own timer, which acts as operator


_POOL_ROLES: Mapping[Party, frozenset[Role]] = MappingProxyType(
    {
        Party.CONSUMER: frozenset(),
        Party.PROVIDER: frozenset(),
        Party.AUTHORITY: frozenset({Role.DATA_AUTHORITY}),
        Party.OVERSEER: frozenset({Role.DATA_AUTHORITY}),
        Party.SYSTEM: frozenset({Role.OPERATOR}),
    }
)
_DEPARTMENTS = frozenset({Party.CONSUMER, Party.PROVIDER, Party.OVERSEER})
_HEAD = frozenset({Role.SHARING_OFFICE_HEAD})


@dataclass(frozen=True, slots=True)
class GrantRule:
    """The law of one event.

    Attributes:
        event: what happens.
        source: the state in which it can happen.
        target: the state to which it leads; of an event of a request, as a rule: its request says it.
        party: the side that carries it out.
        article: where the law says so; empty where it says nothing.
        action: the act that is decided and recorded.
        person: only a person may: one account acts for one person, and a program holds no office.
        not_by_requester: not the account that requested the grant, whatever its role by now.
        second_signature: the second of the two signatures of Art. 20; the grant records who signed, and when.
        also: other states in which it can happen.
        needs_reason: the audit entry says why, in words.
        department_roles: roles of a department on that side that may; without effect where no department is.
    """

    event: Event
    source: GrantState
    target: GrantState
    party: Party
    article: str
    action: Action
    _: KW_ONLY
    person: bool = True
    not_by_requester: bool = False
    second_signature: bool = False
    also: frozenset[GrantState] = frozenset()
    needs_reason: bool = False
    department_roles: frozenset[Role] = _HEAD

    @property
    def sources(self) -> frozenset[GrantState]:
        """Every state in which it can happen."""
        return self.also | {self.source}

    @property
    def pool_roles(self) -> frozenset[Role]:
        """Roles of the pool itself that may carry it out, for every department."""
        return _POOL_ROLES[self.party]

    @property
    def roles(self) -> frozenset[Role]:
        """Every role that may carry it out."""
        return self.pool_roles | (self.department_roles if self.party in _DEPARTMENTS else frozenset())


_S, _E, _P, _A = GrantState, Event, Party, Action

_ROWS = (
    # event                    from            to              party         article        act
    GrantRule(_E.SUBMIT,       _S.DRAFT,       _S.SUBMITTED,   _P.CONSUMER,  "Art. 20",     _A.GRANT_SUBMIT),
    # A sensitive request needs a second person of the provider, of another role, who signs before the head or after.
    GrantRule(_E.CONFIRM,      _S.SUBMITTED,   _S.SUBMITTED,   _P.PROVIDER,  "",            _A.GRANT_CONFIRM,
              not_by_requester=True, department_roles=frozenset({Role.SECURITY_OFFICER})),
    GrantRule(_E.APPROVE,      _S.SUBMITTED,   _S.APPROVED,    _P.PROVIDER,  "Art. 20, 21", _A.GRANT_APPROVE,
              not_by_requester=True, second_signature=True),
    GrantRule(_E.PROVISION,    _S.APPROVED,    _S.ACTIVE,      _P.PROVIDER,  "Art. 22",     _A.GRANT_PROVISION,
              not_by_requester=True),
    GrantRule(_E.REJECT,       _S.SUBMITTED,   _S.REJECTED,    _P.PROVIDER,  "Art. 21",     _A.GRANT_REJECT,
              not_by_requester=True, needs_reason=True),
    # Suspending and terminating only take away: a program may, and so may who requested the grant.
    GrantRule(_E.SUSPEND,      _S.ACTIVE,      _S.SUSPENDED,   _P.OVERSEER,  "Art. 27",     _A.GRANT_SUSPEND,
              person=False, needs_reason=True, department_roles=_HEAD | {Role.SECURITY_OFFICER}),
    GrantRule(_E.RECTIFIED,    _S.SUSPENDED,   _S.ACTIVE,      _P.OVERSEER,  "Art. 27",     _A.GRANT_RESUME,
              not_by_requester=True, needs_reason=True),
    GrantRule(_E.TERMINATE,    _S.SUSPENDED,   _S.TERMINATED,  _P.OVERSEER,  "Art. 27",     _A.GRANT_TERMINATE,
              person=False, needs_reason=True),
    GrantRule(_E.EXPIRE,       _S.ACTIVE,      _S.EXPIRED,     _P.SYSTEM,    "",            _A.GRANT_EXPIRE,
              person=False, also=frozenset({_S.APPROVED})),
    # Grants that show unmasked what no request wrote out: both parties are told, and time is given to ask again.
    GrantRule(_E.REMIND,       _S.ACTIVE,      _S.ACTIVE,      _P.SYSTEM,    "",            _A.GRANT_REMIND,
              person=False),
    GrantRule(_E.SUSPEND_UNMASKED, _S.ACTIVE,  _S.SUSPENDED,   _P.SYSTEM,    "",            _A.GRANT_SUSPEND_UNMASKED,
              person=False),
    # In the transaction that activates its renewal: what was delivered is held under that, and nothing is disposed of.
    GrantRule(_E.SUPERSEDE,    _S.ACTIVE,      _S.COMPLETED,   _P.PROVIDER,  "Art. 20",     _A.GRANT_SUPERSEDE),
    # Events of the request alone, and of its signatures.
    GrantRule(_E.COUNTERSIGN,  _S.COUNTERSIGNED, _S.COUNTERSIGNED, _P.PROVIDER, "",         _A.GRANT_COUNTERSIGN,
              not_by_requester=True, department_roles=frozenset({Role.SECURITY_OFFICER})),
    GrantRule(_E.WITHDRAW_SIGNATURE, _S.COUNTERSIGNED, _S.SUBMITTED, _P.OVERSEER, "",  _A.GRANT_WITHDRAW_SIGNATURE,
              also=frozenset({_S.SUBMITTED}), needs_reason=True, department_roles=_HEAD | {Role.SECURITY_OFFICER}),
    GrantRule(_E.CONCLUDE,     _S.COUNTERSIGNED, _S.APPROVED,  _P.OVERSEER,  "Art. 20, 21", _A.GRANT_CONCLUDE,
              not_by_requester=True, department_roles=_HEAD | {Role.SECURITY_OFFICER}),
    GrantRule(_E.NEED_MORE,    _S.SUBMITTED,   _S.SUPPLEMENT,  _P.PROVIDER,  "Art. 21",     _A.REQUEST_NEED_MORE,
              not_by_requester=True),
    GrantRule(_E.RESUBMIT,     _S.SUPPLEMENT,  _S.SUBMITTED,   _P.CONSUMER,  "Art. 21",     _A.REQUEST_RESUBMIT),
    GrantRule(_E.LAPSE,        _S.SUPPLEMENT,  _S.WITHDRAWN,   _P.SYSTEM,    "",            _A.REQUEST_LAPSE,
              person=False),
    GrantRule(_E.WITHDRAW,     _S.SUBMITTED,   _S.WITHDRAWN,   _P.CONSUMER,  "",            _A.REQUEST_WITHDRAW,
              also=frozenset({_S.COUNTERSIGNED})),
    GrantRule(_E.EXTEND,       _S.SUBMITTED,   _S.SUBMITTED,   _P.AUTHORITY, "Art. 21",     _A.REQUEST_EXTEND,
              not_by_requester=True, needs_reason=True),
    GrantRule(_E.OVERDUE,      _S.SUBMITTED,   _S.SUBMITTED,   _P.SYSTEM,    "Art. 39(4)",  _A.REQUEST_OVERDUE,
              person=False, also=frozenset({_S.COUNTERSIGNED, _S.APPROVED})),
    GrantRule(_E.DISPUTE,      _S.REJECTED,    _S.IN_DISPUTE,  _P.CONSUMER,  "Art. 28",     _A.REQUEST_DISPUTE,
              also=frozenset({_S.SUBMITTED})),
    GrantRule(_E.UPHOLD,       _S.IN_DISPUTE,  _S.REJECTED,    _P.AUTHORITY, "Art. 28",     _A.REQUEST_UPHOLD,
              not_by_requester=True, needs_reason=True),
    GrantRule(_E.OVERTURN,     _S.IN_DISPUTE,  _S.COUNTERSIGNED, _P.AUTHORITY, "Art. 28",   _A.REQUEST_OVERTURN,
              not_by_requester=True, second_signature=True, needs_reason=True),
    GrantRule(_E.COMPLETE,     _S.ACTIVE,      _S.COMPLETED,   _P.CONSUMER,  "Art. 27",     _A.GRANT_COMPLETE,
              needs_reason=True),
    GrantRule(_E.CHANGE_SERVICE, _S.ACTIVE,    _S.ACTIVE,      _P.PROVIDER,  "Art. 27",     _A.GRANT_CHANGE_SERVICE,
              needs_reason=True),
    GrantRule(_E.TERMINATE_BY_AGREEMENT, _S.ACTIVE, _S.TERMINATED, _P.PROVIDER, "Art. 27",  _A.GRANT_END_BY_AGREEMENT,
              needs_reason=True),
)  # fmt: skip

GRANT_RULES: Final[Mapping[Event, GrantRule]] = MappingProxyType({rule.event: rule for rule in _ROWS})
"""Every event, one rule each. What is not here cannot happen."""
