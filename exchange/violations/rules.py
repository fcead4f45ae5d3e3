"""Authorization table of violation cases: which event leads where, and who may carry it out. Pure.

    detected ─confirm→ confirmed ─order→ rectifying ─accept→ closed
        └─dismiss→ closed                   └─escalate→ escalated ─close→ closed

Only the data authority decides; the department concerned may state its case until the decision. Who reported a case
does not confirm it: another person must. Nothing happens by silence: an order whose time is over stays an order, until
somebody of the authority escalates it.

Articles are those of State Council decree 809.
"""

from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from typing import Final

from exchange.violations.model import CaseEvent, CaseState
from schemas.access import Action

__all__ = ["CASE_RULES", "CaseParty", "CaseRule", "rule_of"]


class CaseParty(StrEnum):
    """Who carries out an event."""

    AUTHORITY = "authority"
    RESPONDENT = "respondent"


@dataclass(frozen=True, slots=True)
class CaseRule:
    """The law of one event in one state.

    Attributes:
        event: what happens.
        source: the state in which it can happen.
        target: the state to which it leads.
        party: who carries it out.
        action: the act that is decided and recorded.
        article: where the law says so.
        needs_reason: why or what, in words.
        not_by_reporter: another person than who reported it.
    """

    event: CaseEvent
    source: CaseState
    target: CaseState
    party: CaseParty
    action: Action
    article: str
    _: KW_ONLY
    needs_reason: bool = True
    not_by_reporter: bool = False


_S, _E, _A, _P = CaseState, CaseEvent, Action, CaseParty

CASE_RULES: Final = (
    # event               from           to             who            act                       article
    CaseRule(_E.CONFIRM,  _S.DETECTED,   _S.CONFIRMED,  _P.AUTHORITY,  _A.VIOLATION_CONFIRM,  "Art. 38",
             not_by_reporter=True),
    CaseRule(_E.DISMISS,  _S.DETECTED,   _S.CLOSED,     _P.AUTHORITY,  _A.VIOLATION_DISMISS,  "Art. 38"),
    CaseRule(_E.ORDER,    _S.CONFIRMED,  _S.RECTIFYING, _P.AUTHORITY,  _A.VIOLATION_ORDER,    "Art. 27, 39 to 41"),
    CaseRule(_E.ACCEPT,   _S.RECTIFYING, _S.CLOSED,     _P.AUTHORITY,  _A.VIOLATION_ACCEPT,   "Art. 27"),
    CaseRule(_E.ESCALATE, _S.RECTIFYING, _S.ESCALATED,  _P.AUTHORITY,  _A.VIOLATION_ESCALATE, "Art. 27, 39 to 42"),
    CaseRule(_E.CLOSE,    _S.ESCALATED,  _S.CLOSED,     _P.AUTHORITY,  _A.VIOLATION_CLOSE,    "Art. 39 to 42"),
    # The department concerned is heard until the decision.
    CaseRule(_E.REPLY,    _S.DETECTED,   _S.DETECTED,   _P.RESPONDENT, _A.VIOLATION_REPLY,    ""),
    CaseRule(_E.REPLY,    _S.CONFIRMED,  _S.CONFIRMED,  _P.RESPONDENT, _A.VIOLATION_REPLY,    ""),
    CaseRule(_E.REPLY,    _S.RECTIFYING, _S.RECTIFYING, _P.RESPONDENT, _A.VIOLATION_REPLY,    "Art. 27"),
)  # fmt: skip
"""Every event in every state in which it can happen. What is not here cannot happen."""


def rule_of(event: CaseEvent, state: CaseState) -> CaseRule | None:
    """Return the rule of an event in a state; None where it cannot happen."""
    return next((rule for rule in CASE_RULES if (rule.event, rule.source) == (event, state)), None)
