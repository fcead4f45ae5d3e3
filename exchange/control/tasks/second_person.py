"""What one person proposed and a second one decides on, as tasks: accounts, classifications, rules, erasures."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from typing_extensions import override

from exchange.authorization.attributes import AttributeProvider
from exchange.control.tasks.due import instant_due
from exchange.deadlines.change_state import ChangeState
from exchange.deadlines.changes import RuleChange, RuleChangeStore
from exchange.erasure.erasures import Erasure, ErasureState, ErasureStore
from exchange.identity.proposals import (
    Proposal,
    ProposalKind,
    ProposalState,
    ProposalStore,
    check_confirmation,
    has_officer,
)
from exchange.identity.store import Account, IdentityStore
from exchange.tasks.model import Portion, Task, TaskKind, TaskSource, Viewer
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader
from registry.governance.approvals import Approval, ApprovalState, ApprovalStore
from registry.governance.two_persons import refuse_second_signature
from schemas.access import Action, Role

__all__ = ["ApprovalTasks", "ErasureTasks", "ProposalTasks", "RuleTasks"]

_OFFICERS = frozenset({Role.SECURITY_OFFICER, Role.DATA_AUTHORITY})
_NOTHING = Portion((), None, 0)


class ProposalTasks(TaskSource):
    """Source of proposed accounts, tokens and invitations; newest first.

    Args:
        proposals: of accounts and invitations.
        identities: who proposed them, and which officers a department has.
        attributes: rules in force.
    """

    def __init__(self, proposals: ProposalStore, identities: IdentityStore, attributes: AttributeProvider) -> None:
        self._proposals = proposals
        self._identities = identities
        self._attributes = attributes

    @property
    @override
    def kind(self) -> TaskKind:
        return TaskKind.PROPOSAL

    @override
    def portion(self, reader: Reader, viewer: Viewer, *, after: str, limit: int) -> Portion:
        if viewer.actor.role not in _OFFICERS:
            return _NOTHING
        page = self._proposals.page(
            reader, department=viewer.actor.department or None, state=ProposalState.OPEN, before=after, limit=limit
        )
        if not page:
            return _NOTHING
        proposals = [one for one in page if not isinstance(one, DamagedRow)]
        persons = viewer.persons(reader, {viewer.actor.id, *(one.proposed_by for one in proposals)})
        rules = self._attributes.rules(reader)
        accounts = self._identities.accounts(reader)
        found = []
        for one in proposals:
            if viewer.now < one.expires_at and _confirms(viewer, one, persons, accounts):
                task = Task(
                    kind=TaskKind.PROPOSAL,
                    id=one.id,
                    title=_PROPOSED[one.kind],
                    state=str(one.state),
                    acts=("confirm", "refuse"),
                    department=one.department,
                    since=one.proposed_at,
                    due=instant_due(one.expires_at, viewer.now, rules),
                )
                found.append((one.id, task))
        return Portion(found, _behind(page, limit), len(page))


class ApprovalTasks(TaskSource):
    """Source of lowered classifications that somebody asked for.

    Args:
        approvals: asked for.
        owner: returns the department of a subject.
    """

    def __init__(self, approvals: ApprovalStore, owner: Callable[[str], str | None]) -> None:
        self._approvals = approvals
        self._owner = owner

    @property
    @override
    def kind(self) -> TaskKind:
        return TaskKind.APPROVAL

    @override
    def portion(self, reader: Reader, viewer: Viewer, *, after: str, limit: int) -> Portion:
        if viewer.actor.role not in _OFFICERS:
            return _NOTHING
        asked = [one for one in self._approvals.find(reader, state=ApprovalState.ASKED) if one.id > after]
        page = sorted(asked, key=lambda one: one.id)[:limit]
        if not page:
            return _NOTHING
        persons = viewer.persons(reader, {viewer.actor.id, *(one.asked_by for one in page)})
        found = [
            (one.id, _asked(one, owner))
            for one in page
            if (owner := self._owner(one.subject)) is not None or not viewer.actor.department
            if refuse_second_signature(one.asked_by, viewer.actor.id, persons) is None
            and viewer.allows(Action.APPROVAL_DECIDE, department=owner)
        ]
        return Portion(found, _behind(page, limit), len(page))


class RuleTasks(TaskSource):
    """Source of proposed calendars and rule profiles; newest first.

    Args:
        changes: of the rules.
    """

    def __init__(self, changes: RuleChangeStore) -> None:
        self._changes = changes

    @property
    @override
    def kind(self) -> TaskKind:
        return TaskKind.RULES

    @override
    def portion(self, reader: Reader, viewer: Viewer, *, after: str, limit: int) -> Portion:
        if not viewer.allows(Action.RULES_CONFIRM):
            return _NOTHING
        page = self._changes.page(reader, state=ChangeState.PROPOSED, before=after, limit=limit)
        if not page:
            return _NOTHING
        changes = [one for one in page if not isinstance(one, DamagedRow)]
        persons = viewer.persons(reader, {viewer.actor.id, *(one.proposed_by for one in changes)})
        found = [
            (one.id, _rule_change(one))
            for one in changes
            if refuse_second_signature(one.proposed_by, viewer.actor.id, persons) is None
        ]
        return Portion(found, _behind(page, limit), len(page))


class ErasureTasks(TaskSource):
    """Source of proposed erasures.

    Args:
        erasures: of keys.
        attributes: whose resource a key is of.
    """

    def __init__(self, erasures: ErasureStore, attributes: AttributeProvider) -> None:
        self._erasures = erasures
        self._attributes = attributes

    @property
    @override
    def kind(self) -> TaskKind:
        return TaskKind.ERASURE

    @override
    def portion(self, reader: Reader, viewer: Viewer, *, after: str, limit: int) -> Portion:
        if viewer.actor.role not in {Role.SHARING_OFFICE_HEAD, Role.DATA_AUTHORITY}:
            return _NOTHING
        proposed = [one for one in self._erasures.list(reader, ErasureState.PROPOSED) if one.id > after]
        page = proposed[:limit]
        if not page:
            return _NOTHING
        persons = viewer.persons(reader, {viewer.actor.id, *(one.proposed_by for one in page)})
        found = []
        for one in page:
            resource = self._attributes.resource_of(reader, one.topic)
            provider = None if resource is None else resource.provider
            if refuse_second_signature(one.proposed_by, viewer.actor.id, persons) is None and viewer.allows(
                Action.ERASURE_CONFIRM, department=provider
            ):
                found.append((one.id, _erasure(one, provider or "")))
        return Portion(found, _behind(page, limit), len(page))


_PROPOSED = {
    ProposalKind.ACCOUNT: "account",
    ProposalKind.TOKEN: "token of an account",
    ProposalKind.PERSON: "person of an account",
    ProposalKind.INVITATION: "invitation of a connector",
}


def _confirms(viewer: Viewer, one: Proposal, persons: Mapping[str, str], accounts: Sequence[Account]) -> bool:
    proposer = next((account for account in accounts if account.name == one.proposed_by), None)
    if proposer is None or not viewer.allows(Action.PROPOSAL_CONFIRM, department=one.department or None):
        return False
    officer = has_officer(accounts, one.department, viewer.now)
    return check_confirmation(one, viewer.actor, proposer=proposer, persons=persons, officer=officer) is None


def _asked(one: Approval, owner: str | None) -> Task:
    return Task(
        kind=TaskKind.APPROVAL,
        id=one.id,
        title=one.subject,
        state=one.state.value,
        acts=("approve", "refuse"),
        department=owner or "",
        since=one.asked_at,
    )


def _rule_change(one: RuleChange) -> Task:
    return Task(
        kind=TaskKind.RULES,
        id=one.id,
        title=f"{one.kind} {one.subject}",
        state=str(one.state),
        acts=("confirm", "reject"),
        since=one.proposed_at,
    )


def _erasure(one: Erasure, provider: str) -> Task:
    return Task(
        kind=TaskKind.ERASURE,
        id=one.id,
        title=str(one.topic),
        state=str(one.state),
        acts=("confirm", "reject"),
        department=provider,
        since=one.proposed_at,
    )


def _behind(page: Sequence[Any], limit: int) -> str | None:
    """Return the cursor behind a page; None where it is the last one."""
    if len(page) < limit:
        return None
    last = page[-1]
    return last.cursor if isinstance(last, DamagedRow) else str(last.id)
