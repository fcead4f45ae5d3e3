"""Life cycle of a catalogue entry (目录条目): which event leads where, who may carry it out, by which article. Pure.

    draft ─submit→ dept_review ─approve→ authority_review ─publish→ published ─change→ updating
      ↑──── return ─────┴───────────── return ──┘ ↑───────────────────── submit ──────────┘
    published ⇄ suspended     published ─retire→ archived     draft ─withdraw→ withdrawn

This law stands in RULES and nowhere else. Two checks read it: the decision before anything is locked
(`exchange.access.decision.roles`), and the life cycle on the locked record (`registry.catalogue.procedure`).

While an entry that was published once is updated and reviewed again, its last published version stays in force.
Articles are those of State Council decree 809.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from typing import Final

from schemas.access import Action, Role

__all__ = ["RULES", "EntryEvent", "EntryRule", "ProcedureState", "rights_of_action", "rule_of"]


class ProcedureState(StrEnum):
    """State of an entry with full metadata."""

    DRAFT = "draft"
    DEPT_REVIEW = "dept_review"
    AUTHORITY_REVIEW = "authority_review"
    PUBLISHED = "published"
    UPDATING = "updating"
    SUSPENDED = "suspended"
    ARCHIVED = "archived"
    WITHDRAWN = "withdrawn"


class EntryEvent(StrEnum):
    """What can happen to an entry."""

    DESCRIBE = "describe"
    SUBMIT = "submit"
    APPROVE = "approve"
    PUBLISH = "publish"
    RETURN = "return"
    CHANGE = "change"
    EXTEND = "extend"
    SUSPEND = "suspend"
    RESUME = "resume"
    ANNOUNCE = "announce"
    RETIRE = "retire"
    WITHDRAW = "withdraw"
    SUCCEED = "succeed"  # of the provider, in any state: no step of the procedure, and no rule


_EDITOR = frozenset({Role.CATALOGUE_EDITOR})
_HEAD = frozenset({Role.SHARING_OFFICE_HEAD})
_POOL = frozenset({Role.DATA_AUTHORITY})
_OFFICE = _EDITOR | _HEAD
_EITHER = _HEAD | _POOL


@dataclass(frozen=True, slots=True)
class EntryRule:
    """The law of one event in one state.

    Attributes:
        event: what happens.
        source: the state in which it can happen.
        target: the state to which it leads.
        roles: who may: roles of the providing department for its own entries, the data authority for all.
        action: the act that is decided and recorded.
        article: where the law says so; empty where it is a rule of the pool.
        needs_reason: the audit entry says why, in words.
        needs_filing: it was negotiated and filed, and the number of the filing is given (Art. 27).
        complete: the metadata must be complete for the review, both assessments included (Art. 13).
        other_person: another person than those who described, signed or announced it before.
        needs_notice: the provider has announced it.
        person: only a person may: a program holds no office.
    """

    event: EntryEvent
    source: ProcedureState
    target: ProcedureState
    roles: frozenset[Role]
    action: Action
    article: str
    _: KW_ONLY
    needs_reason: bool = False
    needs_filing: bool = False
    complete: bool = False
    other_person: bool = False
    needs_notice: bool = False
    person: bool = True


_S, _E, _A = ProcedureState, EntryEvent, Action

RULES: Final = (
    # event                from                 to                   who      act                   article
    EntryRule(_E.DESCRIBE, _S.DRAFT,            _S.DRAFT,            _EDITOR, _A.CATALOGUE_DRAFT,   "Art. 13",
              person=False),
    EntryRule(_E.DESCRIBE, _S.UPDATING,         _S.UPDATING,         _EDITOR, _A.CATALOGUE_DRAFT,   "Art. 17",
              person=False),
    EntryRule(_E.SUBMIT,   _S.DRAFT,            _S.DEPT_REVIEW,      _EDITOR, _A.CATALOGUE_SUBMIT,  "Art. 13",
              complete=True),
    EntryRule(_E.APPROVE,  _S.DEPT_REVIEW,      _S.AUTHORITY_REVIEW, _HEAD,   _A.CATALOGUE_APPROVE, "Art. 13",
              complete=True, other_person=True),
    EntryRule(_E.RETURN,   _S.DEPT_REVIEW,      _S.DRAFT,            _HEAD,   _A.CATALOGUE_RETURN,  "Art. 12",
              needs_reason=True),
    EntryRule(_E.PUBLISH,  _S.AUTHORITY_REVIEW, _S.PUBLISHED,        _POOL,   _A.CATALOGUE_PUBLISH, "Art. 12, 16, 17",
              complete=True, other_person=True),
    EntryRule(_E.RETURN,   _S.AUTHORITY_REVIEW, _S.DRAFT,            _POOL,   _A.CATALOGUE_RETURN,  "Art. 12",
              needs_reason=True),
    EntryRule(_E.CHANGE,   _S.PUBLISHED,        _S.UPDATING,         _OFFICE, _A.CATALOGUE_CHANGE,  "Art. 17",
              needs_reason=True, person=False),
    EntryRule(_E.EXTEND,   _S.UPDATING,         _S.UPDATING,         _POOL,   _A.CATALOGUE_EXTEND,  "Art. 17",
              needs_reason=True),
    # The head signs the update: it goes to the authority without a draft of its own.
    EntryRule(_E.SUBMIT,   _S.UPDATING,         _S.AUTHORITY_REVIEW, _HEAD,   _A.CATALOGUE_SUBMIT,  "Art. 13, 17",
              complete=True, other_person=True),
    EntryRule(_E.SUSPEND,  _S.PUBLISHED,        _S.SUSPENDED,        _EITHER, _A.CATALOGUE_SUSPEND, "Art. 27",
              needs_reason=True, needs_filing=True),
    EntryRule(_E.RESUME,   _S.SUSPENDED,        _S.PUBLISHED,        _POOL,   _A.CATALOGUE_RESUME,  "Art. 27",
              needs_reason=True),
    # Retirement is announced by the provider, which tells the consumers, and carried out by the authority.
    EntryRule(_E.ANNOUNCE, _S.PUBLISHED,        _S.PUBLISHED,        _HEAD,   _A.CATALOGUE_ANNOUNCE, "Art. 27",
              needs_reason=True, needs_filing=True),
    EntryRule(_E.RETIRE,   _S.PUBLISHED,        _S.ARCHIVED,         _POOL,   _A.CATALOGUE_ARCHIVE, "Art. 27",
              needs_reason=True, other_person=True, needs_notice=True),
    EntryRule(_E.WITHDRAW, _S.DRAFT,            _S.WITHDRAWN,        _EDITOR, _A.CATALOGUE_WITHDRAW, ""),
)  # fmt: skip
"""Every event in every state in which it can happen. What is not here cannot happen."""


def rule_of(event: EntryEvent, state: ProcedureState) -> EntryRule | None:
    """Return the rule of an event in a state, None if it cannot happen there."""
    return next((rule for rule in RULES if rule.event is event and rule.source is state), None)


def rights_of_action(action: Action) -> Mapping[Role, bool]:
    """Return the roles that may do an action in some state → whether for every department (the authority's own)."""
    return {role: role is Role.DATA_AUTHORITY for rule in RULES if rule.action is action for role in sorted(rule.roles)}
