"""Law of correction tickets (校核) as one table: every event in every state, who may, by which article. Pure.

    opened ─accept→ verifying ─correct→ corrected ─notify→ closed_corrected
      │ ↺transfer        ├─confirm────────→ closed_confirmed
      └─withdraw→        └─cannot_verify──→ closed_rejected
        withdrawn

State Council decree 809, Art. 26: a consumer that doubts a value asks for its correction; the provider verifies,
corrects and reports back within ten working days of the first receipt. The value is served meanwhile, as disputed
(document 51 of 2016, Art. 15). Nothing happens by silence: a clock that runs out is an event of its own, and leads
nowhere.

A ticket can be given to another department while nobody verifies it. The data authority may do so afterwards too, so
that a ticket whose source department is dissolved does not stay.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from exchange.corrections.model import Event, TicketState
from schemas.access import Action, Role

__all__ = ["CORRECTION_RULES", "CorrectionRule", "Guard", "Party", "rights_of_action", "rules_from"]


class Party(StrEnum):
    """On which side an event is carried out."""

    RAISER = "raiser"
    SOURCE = "source"  # the department whose answer is due
    ROUTER = "router"  # that department, or the data authority
    AUTHORITY = "authority"
    SYSTEM = "system"  # the pool's own timer, which acts as operator


class Guard(StrEnum):
    """What must hold beside party and role; `exchange.corrections.life_cycle` checks it."""

    REASON_GIVEN = "reason_given"
    OTHER_SOURCE = "other_source"
    RECORD_FOUND = "record_found"
    CLOCK_OVER = "clock_over"


@dataclass(frozen=True, slots=True)
class CorrectionRule:
    """The law of one event in one state.

    Attributes:
        event: what happens.
        source: the state in which it can happen.
        target: the state to which it leads.
        party: the side that carries it out.
        article: where the law says so; of decree 809 unless it names another text.
        action: that the enforcer decides on.
        guards: what must hold, in the order in which it is checked.
        roles: of a department, that may.
    """

    event: Event
    source: TicketState
    target: TicketState
    party: Party
    article: str
    action: Action
    guards: tuple[Guard, ...] = ()
    roles: frozenset[Role] = frozenset()

    @property
    def pool_roles(self) -> frozenset[Role]:
        """Roles of the pool itself that may."""
        if self.party is Party.SYSTEM:
            return frozenset({Role.OPERATOR})
        return frozenset({Role.DATA_AUTHORITY}) if self.party in {Party.ROUTER, Party.AUTHORITY} else frozenset()


_S, _E, _P, _G, _A = TicketState, Event, Party, Guard, Action
_HEAD = frozenset({Role.SHARING_OFFICE_HEAD})
_OFFICE = _HEAD | {Role.CATALOGUE_EDITOR}
_RAISERS = _OFFICE | {Role.SECURITY_OFFICER}

CORRECTION_RULES: Final = (
    CorrectionRule(_E.ACCEPT,        _S.OPENED,    _S.VERIFYING,        _P.SOURCE,    "Art. 26", _A.CORRECTION_ACCEPT,
                   roles=_OFFICE),
    CorrectionRule(_E.TRANSFER,      _S.OPENED,    _S.OPENED,           _P.ROUTER,    "Art. 19, 26",
                   _A.CORRECTION_TRANSFER, (_G.REASON_GIVEN, _G.OTHER_SOURCE), _HEAD),
    CorrectionRule(_E.TRANSFER,      _S.VERIFYING, _S.OPENED,           _P.AUTHORITY, "Art. 19, 26",
                   _A.CORRECTION_TRANSFER, (_G.REASON_GIVEN, _G.OTHER_SOURCE)),
    CorrectionRule(_E.WITHDRAW,      _S.OPENED,    _S.WITHDRAWN,        _P.RAISER,    "Art. 26",
                   _A.CORRECTION_WITHDRAW, (_G.REASON_GIVEN,), _RAISERS),
    CorrectionRule(_E.CORRECT,       _S.VERIFYING, _S.CORRECTED,        _P.SOURCE,    "Art. 26", _A.CORRECTION_CORRECT,
                   (_G.RECORD_FOUND,), _OFFICE),
    # A value that stays as it is, is the answer of the office's head.
    CorrectionRule(_E.CONFIRM,       _S.VERIFYING, _S.CLOSED_CONFIRMED, _P.SOURCE,    "Art. 26", _A.CORRECTION_CONFIRM,
                   (_G.REASON_GIVEN,), _HEAD),
    CorrectionRule(_E.CANNOT_VERIFY, _S.VERIFYING, _S.CLOSED_REJECTED,  _P.SOURCE,    "Art. 26", _A.CORRECTION_REFUSE,
                   (_G.REASON_GIVEN,), _HEAD),
    CorrectionRule(_E.NOTIFY,        _S.CORRECTED, _S.CLOSED_CORRECTED, _P.SYSTEM,    "Art. 26", _A.CORRECTION_NOTIFY),
    CorrectionRule(_E.OVERDUE,       _S.OPENED,    _S.OPENED,           _P.SYSTEM,    "Art. 26", _A.CORRECTION_OVERDUE,
                   (_G.CLOCK_OVER,)),
    CorrectionRule(_E.OVERDUE,       _S.VERIFYING, _S.VERIFYING,        _P.SYSTEM,    "Art. 26", _A.CORRECTION_OVERDUE,
                   (_G.CLOCK_OVER,)),
    *(
        CorrectionRule(_E.ERASE,     state,        _S.CLOSED_REJECTED,  _P.SYSTEM,
                       "Personal Information Protection Law, Art. 47", _A.ERASURE_CONFIRM)
        for state in (_S.OPENED, _S.VERIFYING, _S.CORRECTED)
    ),
)  # fmt: skip
"""Every event in every state in which it can happen, one row each. What is not here cannot happen."""


def rules_from(state: TicketState) -> tuple[CorrectionRule, ...]:
    """Return the rows of a state."""
    return tuple(rule for rule in CORRECTION_RULES if rule.source is state)


def rights_of_action(action: Action) -> Mapping[Role, bool]:
    """Return the roles that carry out an action, and whether each may for every department (else for its own)."""
    rights: dict[Role, bool] = {}
    for rule in CORRECTION_RULES:
        if rule.action is action:
            rights |= dict.fromkeys(rule.roles, False) | dict.fromkeys(rule.pool_roles, True)
    return MappingProxyType(rights)
