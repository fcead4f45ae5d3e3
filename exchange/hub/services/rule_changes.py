"""Procedure of a library's rules as one table: proposed, agreed, activated by three persons. Pure.

    proposed ─agree→ proposed ─agree (the last one due)→ agreed ─activate→ active ─retire→ retired
        └──────────────reject─────────────────────────────┘→ rejected

State Council decree 809, Art. 19: each item of data has one source department. So the person who proposes a
lead does not decide on it: each department whose lead changes agrees by its sharing office's head, and the data
authority activates. Three different accounts, of three different persons.

A version is about the rules that were active when it was proposed. Where others have been activated meanwhile, other
departments may be concerned: it is not activated, but proposed again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from exchange.hub.fold.rules import Rules, require_leads
from registry.governance.two_persons import refuse_second_signature
from schemas.access import Action, Actor, Role
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError

__all__ = [
    "MOST_OPEN",
    "RULE_CHANGES",
    "Agreement",
    "ChangeParty",
    "RuleChange",
    "RulesEvent",
    "RulesState",
    "RulesVersion",
    "activated",
    "agreed",
    "proposed",
    "rejected",
    "retired",
    "signers",
]

MOST_OPEN: Final = 20
"""Versions of one library that wait for a signature or an activation, at most: nobody fills the database with them."""
MOST_REASON: Final = 2_000
"""Characters of a reason."""


class RulesState(StrEnum):
    """State of a version of rules."""

    PROPOSED = "proposed"
    AGREED = "agreed"
    ACTIVE = "active"
    RETIRED = "retired"
    REJECTED = "rejected"


class RulesEvent(StrEnum):
    """What happens to a version."""

    AGREE = "agree"
    ACTIVATE = "activate"
    REJECT = "reject"
    RETIRE = "retire"


class ChangeParty(StrEnum):
    """On which side an event is carried out."""

    SOURCE = "source"  # a department whose lead changes
    AUTHORITY = "authority"
    SYSTEM = "system"  # another version is activated


@dataclass(frozen=True, slots=True)
class RuleChange:
    """One event in one state.

    Attributes:
        event: what happens.
        source: the state in which it can happen.
        targets: to what it can lead.
        party: the side that carries it out.
        action: that the enforcer decides on; None for what another act brings.
        role: who may.
    """

    event: RulesEvent
    source: RulesState
    targets: frozenset[RulesState]
    party: ChangeParty
    action: Action | None
    role: Role | None


_S, _E, _P, _A = RulesState, RulesEvent, ChangeParty, Action

RULE_CHANGES: Final = (
    RuleChange(_E.AGREE, _S.PROPOSED, frozenset({_S.PROPOSED, _S.AGREED}), _P.SOURCE, _A.HUB_RULES_AGREE,
               Role.SHARING_OFFICE_HEAD),
    RuleChange(_E.REJECT, _S.PROPOSED, frozenset({_S.REJECTED}), _P.AUTHORITY, _A.HUB_RULES_ACTIVATE,
               Role.DATA_AUTHORITY),
    RuleChange(_E.REJECT, _S.AGREED, frozenset({_S.REJECTED}), _P.AUTHORITY, _A.HUB_RULES_ACTIVATE,
               Role.DATA_AUTHORITY),
    RuleChange(_E.ACTIVATE, _S.AGREED, frozenset({_S.ACTIVE}), _P.AUTHORITY, _A.HUB_RULES_ACTIVATE,
               Role.DATA_AUTHORITY),
    RuleChange(_E.RETIRE, _S.ACTIVE, frozenset({_S.RETIRED}), _P.SYSTEM, None, None),
)  # fmt: skip
"""Every event in every state in which it can happen. What is not here cannot happen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The signature of one department.

    Attributes:
        department: whose lead changes.
        by: account.
        at: aware.
    """

    department: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesVersion:
    """One version of a library's rules, with its procedure.

    Attributes:
        rules: what it says.
        state: where it stands.
        based_on: version that was active when it was proposed; 0 for none.
        departments: ids of the departments that have to agree, sorted.
        proposed_by: account.
        proposed_at: aware.
        agreements: signatures so far, in order of time.
        decided_by: account that activated or rejected it; empty before.
        decided_at: aware.
        reason: why it was rejected.
        active_from: number of the batch of each of the 256 buckets from which it is active; empty before.
    """

    rules: Rules
    state: RulesState
    based_on: int
    departments: tuple[str, ...]
    proposed_by: str
    proposed_at: datetime
    agreements: tuple[Agreement, ...] = ()
    decided_by: str = ""
    decided_at: datetime | None = None
    reason: str = ""
    active_from: tuple[int, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """Departments whose signature is due."""
        signed = {one.department for one in self.agreements}
        return tuple(one for one in self.departments if one not in signed)


def proposed(
    rules: Rules, *, versions: Sequence[RulesVersion], departments: frozenset[str], by: Actor, at: datetime
) -> RulesVersion:
    """Return a proposed version.

    Args:
        rules: what it says.
        versions: every version that there is of this library, in order, whatever became of it.
        departments: those whose lead changes.
        by: who proposes.
        at: aware.

    Raises:
        InvalidError: NO_LEAD; RULES_INVALID, its version is not the next one.
        ConflictError: TRANSITION_NOT_ALLOWED, too many wait already.
    """
    last = versions[-1].rules.version if versions else 0
    active = next((one for one in versions if one.state is RulesState.ACTIVE), None)
    if sum(one.state in {RulesState.PROPOSED, RulesState.AGREED} for one in versions) >= MOST_OPEN:
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED,
            f"{MOST_OPEN} versions of these rules wait already; the data authority activates or rejects them first",
        )
    if rules.version != last + 1:
        raise InvalidError(
            Reason.RULES_INVALID,
            f"version: got {rules.version}; expected {last + 1}, the one after the last of this library",
            details={"place": "version"},
        )
    require_leads(rules)
    return RulesVersion(
        rules=rules,
        # Where no lead changes, nobody has to agree.
        state=RulesState.PROPOSED if departments else RulesState.AGREED,
        based_on=0 if active is None else active.rules.version,
        departments=tuple(sorted(departments)),
        proposed_by=by.id,
        proposed_at=at,
    )


def agreed(version: RulesVersion, by: Actor, at: datetime, *, persons: Mapping[str, str]) -> RulesVersion:
    """Return a version with the signature of a department.

    Args:
        version: the locked one.
        by: head of the sharing office of a department whose lead changes.
        at: aware.
        persons: account name → staff number, of who acts and of everybody who has signed.

    Raises:
        ConflictError: TRANSITION_NOT_ALLOWED, it is not proposed any more, or the department has signed.
        RefusedError: OTHER_DEPARTMENT, ROLE_MISSING, SAME_PERSON, PERSON_UNKNOWN.
    """
    _check(version, RulesEvent.AGREE, by)
    if by.department not in version.departments:
        raise RefusedError(Reason.OTHER_DEPARTMENT, "no field's lead changes for your department; others have to agree")
    if by.department not in version.missing:
        raise ConflictError(Reason.TRANSITION_NOT_ALLOWED, "your department has agreed to this version already")
    _check_persons(version, by, persons)
    signed = (*version.agreements, Agreement(department=by.department, by=by.id, at=at))
    changed = replace(version, agreements=signed)
    return changed if changed.missing else replace(changed, state=RulesState.AGREED)


def activated(
    version: RulesVersion,
    by: Actor,
    at: datetime,
    *,
    active: RulesVersion | None,
    from_batch: tuple[int, ...],
    persons: Mapping[str, str],
) -> RulesVersion:
    """Return an agreed version as the active one.

    Args:
        version: the locked one.
        by: an officer of the data authority.
        at: aware.
        active: the version that is active, which this one retires.
        from_batch: number of the next batch of each bucket.
        persons: account name → staff number.

    Raises:
        ConflictError: TRANSITION_NOT_ALLOWED, signatures are due; VERSION_CONFLICT, other rules were activated since
            it was proposed.
        RefusedError: ROLE_MISSING, SAME_PERSON, PERSON_UNKNOWN.
        InvalidError: NO_LEAD.
    """
    _check(version, RulesEvent.ACTIVATE, by)
    if version.based_on != (0 if active is None else active.rules.version):
        raise ConflictError(
            Reason.VERSION_CONFLICT,
            f"these rules were proposed while version {version.based_on} was active, and another is now; propose them "
            "again, since other departments may have to agree",
        )
    require_leads(version.rules)
    _check_persons(version, by, persons)
    return replace(version, state=RulesState.ACTIVE, decided_by=by.id, decided_at=at, active_from=from_batch)


def rejected(version: RulesVersion, by: Actor, at: datetime, reason: str) -> RulesVersion:
    """Return a version that is not to be activated.

    Raises:
        ConflictError: TRANSITION_NOT_ALLOWED.
        RefusedError: ROLE_MISSING.
        InvalidError: REQUEST_INVALID, without a reason.
    """
    _check(version, RulesEvent.REJECT, by)
    if not reason.strip() or len(reason) > MOST_REASON:
        raise InvalidError(
            Reason.REQUEST_INVALID, f"got no reason, or one of more than {MOST_REASON} characters; say why"
        )
    return replace(version, state=RulesState.REJECTED, decided_by=by.id, decided_at=at, reason=reason.strip())


def retired(version: RulesVersion) -> RulesVersion:
    """Return an active version as another takes its place.

    Raises:
        ConflictError: TRANSITION_NOT_ALLOWED.
    """
    _rule(version, RulesEvent.RETIRE)
    return replace(version, state=RulesState.RETIRED)


def signers(version: RulesVersion) -> tuple[str, ...]:
    """Return the accounts that have acted on a version so far."""
    return (version.proposed_by, *(one.by for one in version.agreements))


def _rule(version: RulesVersion, event: RulesEvent) -> RuleChange:
    for rule in RULE_CHANGES:
        if (rule.event, rule.source) == (event, version.state):
            return rule
    possible = sorted(rule.event for rule in RULE_CHANGES if rule.source is version.state)
    raise ConflictError(
        Reason.TRANSITION_NOT_ALLOWED,
        f"got {event} for rules that are {version.state}; possible now: {', '.join(possible) or 'nothing'}",
    )


def _check(version: RulesVersion, event: RulesEvent, by: Actor) -> None:
    rule = _rule(version, event)
    if by.role is not rule.role:
        raise RefusedError(Reason.ROLE_MISSING, f"got the role {by.role}; expected {rule.role} for {event}")


def _check_persons(version: RulesVersion, by: Actor, persons: Mapping[str, str]) -> None:
    for account in signers(version):
        refusal = refuse_second_signature(account, by.id, persons)
        if refusal is not None:
            raise RefusedError(refusal.reason, refusal.explanation)
