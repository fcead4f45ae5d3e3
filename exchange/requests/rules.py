"""Authorization table of share requests: which event leads where, who may carry it out, and under which guards. Pure.

    draft ─submit→ submitted ─approve→ countersigned ─conclude→ approved ─provision→ active ─expire→ expired
                   │  ⇅ supplement       ↑ overturn                        ⇅ suspended ─terminate→ terminated
                   └─reject→ rejected ─dispute→ in_dispute ─uphold→ rejected

This law is written in REQUEST_RULES and nowhere else; articles are those of State Council decree 809. Where the law
says nothing (how long a supplement may take, how often a dispute goes up), the row has no article and the rule profile
or a guard decides.

* Every way to *approved* passes *countersigned*, that of an overturned refusal too: the reply counts once every
  signature that is due is there. Withdrawing one reopens the request.
* Nothing happens by silence. A clock that runs out is an event of its own, a violation by who let it run out
  (Art. 39), and leads nowhere: a consumer may then take the request to the authority.
* A renewal is no event: it is a request that names the grant after which it goes on
  (`exchange.requests.life_cycle.renewal_of`), and that grant stays as it is until it ends.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Final

from exchange.requests.model import Event, RequestState
from schemas.access import Role

__all__ = ["REQUEST_RULES", "Clock", "Guard", "Party", "RequestRule", "rules_from"]


class Party(StrEnum):
    """On which side an event is carried out."""

    CONSUMER = "consumer"
    PROVIDER = "provider"
    AUTHORITY = "authority"  # the data authority, or the government above it
    OVERSEER = "overseer"  # the provider or the data authority
    SYSTEM = "system"  # the pool's own timer, which acts as operator


class Clock(StrEnum):
    """Which clock an event ends or waits for."""

    REPLY = "reply"
    DELIVERY = "delivery"
    SUPPLEMENT = "supplement"


class Guard(StrEnum):
    """What must hold beside party and person; `exchange.requests.guards` checks it."""

    COMPLETE = "complete"
    IN_DUTY = "in_duty"
    ONE_LIST = "one_list"
    EXTENDABLE = "extendable"
    USE_AHEAD = "use_ahead"
    COUNTERSIGNATURE_DUE = "countersignature_due"
    ALL_SIGNED = "all_signed"
    OWN_SIGNATURE = "own_signature"
    CLAUSE_CITED = "clause_cited"
    GROUND_OF_TYPE = "ground_of_type"
    NEGOTIATED = "negotiated"
    LADDER_LEFT = "ladder_left"
    CLOCK_OVER = "clock_over"
    REPLY_OVERDUE = "reply_overdue"
    REASON_GIVEN = "reason_given"
    MISUSE = "misuse"
    IN_TIME = "in_time"
    CERTIFIED = "certified"
    FILED = "filed"
    USE_OVER = "use_over"
    SHARED = "shared"


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
_OFFICER = frozenset({Role.SECURITY_OFFICER})


@dataclass(frozen=True, slots=True)
class RequestRule:
    """The law of one event in one state.

    Attributes:
        event: what happens.
        source: the state in which it can happen.
        target: the state to which it leads.
        party: the side that carries it out.
        article: where the law says so; empty where it says nothing.
        guards: what must hold, in the order in which it is checked.
        clock: the clock that the event ends, or that it waits for.
        person: only a person may: a program holds no office.
        not_by_requester: not by the person who requested, under whatever account.
        not_by_signer: not by a person who has signed already.
        overturned: the row is for requests on which the authority has (True) or has not (False) decided in the head's
            place; None = for either.
        department_roles: roles of a department on that side that may; without effect where no department is.
    """

    event: Event
    source: RequestState
    target: RequestState
    party: Party
    article: str
    guards: tuple[Guard, ...] = ()
    _: KW_ONLY
    clock: Clock | None = None
    person: bool = True
    not_by_requester: bool = False
    not_by_signer: bool = False
    overturned: bool | None = None
    department_roles: frozenset[Role] = _HEAD

    @property
    def roles(self) -> frozenset[Role]:
        """Every role that may carry it out."""
        return _POOL_ROLES[self.party] | (self.department_roles if self.party in _DEPARTMENTS else frozenset())


_S, _E, _P, _G, _C = RequestState, Event, Party, Guard, Clock

REQUEST_RULES: Final = (
    # event                     from              to                party         article        guards
    RequestRule(_E.SUBMIT,      _S.DRAFT,         _S.SUBMITTED,     _P.CONSUMER,  "Art. 20",
                (_G.SHARED, _G.COMPLETE, _G.IN_DUTY, _G.USE_AHEAD)),
    RequestRule(_E.NEED_MORE,   _S.SUBMITTED,     _S.SUPPLEMENT,    _P.PROVIDER,  "Art. 21",     (_G.ONE_LIST,),
                clock=_C.REPLY, not_by_requester=True),
    RequestRule(_E.RESUBMIT,    _S.SUPPLEMENT,    _S.SUBMITTED,     _P.CONSUMER,  "Art. 21",
                (_G.COMPLETE, _G.IN_DUTY, _G.USE_AHEAD)),
    RequestRule(_E.LAPSE,       _S.SUPPLEMENT,    _S.WITHDRAWN,     _P.SYSTEM,    "",            (_G.CLOCK_OVER,),
                clock=_C.SUPPLEMENT, person=False),
    RequestRule(_E.WITHDRAW,    _S.SUBMITTED,     _S.WITHDRAWN,     _P.CONSUMER,  ""),
    RequestRule(_E.WITHDRAW,    _S.COUNTERSIGNED, _S.WITHDRAWN,     _P.CONSUMER,  ""),
    RequestRule(_E.EXTEND,      _S.SUBMITTED,     _S.SUBMITTED,     _P.AUTHORITY, "Art. 21",
                (_G.EXTENDABLE, _G.REASON_GIVEN),
                clock=_C.REPLY, not_by_requester=True),
    # Silence leads nowhere: the state stays, and the violation is the provider's.
    RequestRule(_E.OVERDUE,     _S.SUBMITTED,     _S.SUBMITTED,     _P.SYSTEM,    "Art. 39(4)",  (_G.CLOCK_OVER,),
                clock=_C.REPLY, person=False),
    RequestRule(_E.OVERDUE,     _S.COUNTERSIGNED, _S.COUNTERSIGNED, _P.SYSTEM,    "Art. 39(4)",  (_G.CLOCK_OVER,),
                clock=_C.REPLY, person=False),
    RequestRule(_E.OVERDUE,     _S.APPROVED,      _S.APPROVED,      _P.SYSTEM,    "Art. 39(4)",  (_G.CLOCK_OVER,),
                clock=_C.DELIVERY, person=False),
    RequestRule(_E.APPROVE,     _S.SUBMITTED,     _S.COUNTERSIGNED, _P.PROVIDER,  "Art. 20, 21",
                (_G.SHARED, _G.USE_AHEAD),
                not_by_requester=True, not_by_signer=True),
    # Signatures have no order: the officer may sign before the head, or after.
    RequestRule(_E.COUNTERSIGN, _S.SUBMITTED,     _S.SUBMITTED,     _P.PROVIDER,  "",
                (_G.COUNTERSIGNATURE_DUE, _G.USE_AHEAD),
                not_by_requester=True, not_by_signer=True, department_roles=_OFFICER),
    RequestRule(_E.COUNTERSIGN, _S.COUNTERSIGNED, _S.COUNTERSIGNED, _P.PROVIDER,  "",
                (_G.COUNTERSIGNATURE_DUE, _G.USE_AHEAD),
                not_by_requester=True, not_by_signer=True, department_roles=_OFFICER),
    RequestRule(_E.WITHDRAW_SIGNATURE, _S.SUBMITTED, _S.SUBMITTED, _P.PROVIDER, "",
                (_G.OWN_SIGNATURE, _G.REASON_GIVEN),
                overturned=False, department_roles=_OFFICER),
    RequestRule(_E.WITHDRAW_SIGNATURE, _S.COUNTERSIGNED, _S.SUBMITTED,  _P.PROVIDER, "",
                (_G.OWN_SIGNATURE, _G.REASON_GIVEN),
                overturned=False, department_roles=_HEAD | _OFFICER),
    RequestRule(_E.WITHDRAW_SIGNATURE, _S.COUNTERSIGNED, _S.IN_DISPUTE, _P.OVERSEER, "",
                (_G.OWN_SIGNATURE, _G.REASON_GIVEN),
                overturned=True, department_roles=_OFFICER),
    RequestRule(_E.CONCLUDE,    _S.COUNTERSIGNED, _S.APPROVED,      _P.OVERSEER,  "Art. 20, 21",
                (_G.SHARED, _G.ALL_SIGNED, _G.USE_AHEAD),
                clock=_C.REPLY, not_by_requester=True, department_roles=_HEAD | _OFFICER),
    RequestRule(_E.REJECT,      _S.SUBMITTED,     _S.REJECTED,      _P.PROVIDER,  "Art. 21",
                (_G.CLAUSE_CITED, _G.GROUND_OF_TYPE),
                clock=_C.REPLY, not_by_requester=True),
    RequestRule(_E.DISPUTE,     _S.REJECTED,      _S.IN_DISPUTE,    _P.CONSUMER,  "Art. 28",
                (_G.NEGOTIATED, _G.LADDER_LEFT)),
    RequestRule(_E.DISPUTE,     _S.SUBMITTED,     _S.IN_DISPUTE,    _P.CONSUMER,  "Art. 28",
                (_G.REPLY_OVERDUE, _G.NEGOTIATED, _G.LADDER_LEFT)),
    RequestRule(_E.UPHOLD,      _S.IN_DISPUTE,    _S.REJECTED,      _P.AUTHORITY, "Art. 28",     (_G.CLAUSE_CITED,),
                not_by_requester=True),
    RequestRule(_E.OVERTURN,    _S.IN_DISPUTE,    _S.COUNTERSIGNED, _P.AUTHORITY, "Art. 28",
                (_G.SHARED, _G.REASON_GIVEN, _G.USE_AHEAD),
                not_by_requester=True),
    RequestRule(_E.PROVISION,   _S.APPROVED,      _S.ACTIVE,        _P.PROVIDER,  "Art. 22",     (_G.USE_AHEAD,),
                clock=_C.DELIVERY, not_by_requester=True),
    # Suspending and terminating only take away: a program may.
    RequestRule(_E.SUSPEND,     _S.ACTIVE,        _S.SUSPENDED,     _P.OVERSEER,  "Art. 27",
                (_G.REASON_GIVEN, _G.MISUSE),
                person=False, department_roles=_HEAD | _OFFICER),
    RequestRule(_E.RECTIFIED,   _S.SUSPENDED,     _S.ACTIVE,        _P.OVERSEER,  "Art. 27",
                (_G.REASON_GIVEN, _G.IN_TIME, _G.USE_AHEAD),
                not_by_requester=True),
    RequestRule(_E.TERMINATE,   _S.SUSPENDED,     _S.TERMINATED,    _P.OVERSEER,  "Art. 27",
                (_G.REASON_GIVEN,), person=False),
    RequestRule(_E.EXPIRE,      _S.ACTIVE,        _S.EXPIRED,       _P.SYSTEM,    "",
                (_G.USE_OVER,), person=False),
    RequestRule(_E.EXPIRE,      _S.APPROVED,      _S.EXPIRED,       _P.SYSTEM,    "",
                (_G.USE_OVER,), person=False),
    RequestRule(_E.COMPLETE,    _S.ACTIVE,        _S.COMPLETED,     _P.CONSUMER,  "Art. 27",
                (_G.REASON_GIVEN, _G.CERTIFIED)),
    RequestRule(_E.CHANGE_SERVICE, _S.ACTIVE,     _S.ACTIVE,        _P.PROVIDER,  "Art. 27",
                (_G.REASON_GIVEN, _G.FILED)),
    RequestRule(_E.TERMINATE_BY_AGREEMENT, _S.ACTIVE, _S.TERMINATED, _P.PROVIDER, "Art. 27",
                (_G.REASON_GIVEN, _G.FILED)),
)  # fmt: skip
"""Every event in every state in which it can happen, one row each. What is not here cannot happen."""


@cache
def rules_from(state: RequestState) -> tuple[RequestRule, ...]:
    """Return the rows of a state."""
    return tuple(rule for rule in REQUEST_RULES if rule.source is state)
