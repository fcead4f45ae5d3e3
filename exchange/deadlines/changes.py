"""Rule changes: calendars and rule profiles that one person proposes and another confirms; port and in-memory adapter.

    proposed ──confirm──▶ in force ──by the next one──▶ superseded
        └─────reject────▶ rejected

A change is whole: the arrangement of one year, one profile, or the order in which profiles are followed. What is in
force for its subject ends with the next one that is confirmed, in the same transaction; nothing is deleted, so that the
rules of an earlier decision can be read again.

What a change says is text, in the form in which it is imported (`exchange.deadlines.calendar_csv`,
`exchange.deadlines.profile_yaml`); of an order it is the names of profiles, one a line.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol

from typing_extensions import override

from exchange.deadlines.change_state import ChangeState, RuleKind
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader, UnitOfWork, on_rollback
from schemas.errors import ConflictError, Reason

__all__ = [
    "MAX_OPEN",
    "ChangeState",
    "MemoryRuleChanges",
    "RuleChange",
    "RuleChangeStore",
    "RuleKind",
    "decided_before",
]

MAX_OPEN: Final = 100
"""Proposed changes that nobody has decided on, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleChange:
    """A change and its decision.

    Attributes:
        id: UUIDv7.
        kind: see RuleKind.
        subject: the year, or the name of the profile; empty for the order of profiles.
        content: what it says; see the module.
        state: see ChangeState.
        proposed_by, proposed_at: account name; aware.
        decided_by, decided_at, reason: account name, time and reason of the decision; empty and None before.
    """

    id: str
    kind: RuleKind
    subject: str
    content: str
    state: ChangeState = ChangeState.PROPOSED
    proposed_by: str
    proposed_at: datetime
    decided_by: str = ""
    decided_at: datetime | None = None
    reason: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of what it says, as `sha256:` and 64 hexadecimal digits."""
        return f"sha256:{hashlib.sha256(self.content.encode()).hexdigest()}"

    def decide(self, *, confirmed: bool, by: str, at: datetime, reason: str = "") -> "RuleChange":
        """Return the change as somebody has decided.

        Raises:
            ConflictError: TRANSITION_NOT_ALLOWED, it was decided before.
        """
        if self.state is not ChangeState.PROPOSED:
            raise decided_before(self)
        state = ChangeState.IN_FORCE if confirmed else ChangeState.REJECTED
        return replace(self, state=state, decided_by=by, decided_at=at, reason=reason)


def decided_before(change: RuleChange) -> ConflictError:
    """Return the error of a decision on a change that is decided."""
    return ConflictError(
        Reason.TRANSITION_NOT_ALLOWED,
        f"the change {change.id} is {change.state} already; what is decided stays decided",
    )


class RuleChangeStore(Protocol):
    """Port: stores changes. None is ever deleted."""

    def add(self, work: UnitOfWork, change: RuleChange) -> None:
        """Store a proposed change."""
        ...

    def decide(self, work: UnitOfWork, change: RuleChange) -> None:
        """Store a change with its decision; one that comes into force ends the one before it of its kind and subject.

        Concurrent decisions on one kind wait for each other.

        Raises:
            ConflictError: TRANSITION_NOT_ALLOWED, it was decided meanwhile.
            CorruptError: ROW_FORGED.
        """
        ...

    def get(self, reader: Reader, change_id: str) -> RuleChange | None:
        """Return a change.

        Raises:
            CorruptError: ROW_FORGED.
        """
        ...

    def in_force(self, reader: Reader) -> Sequence[RuleChange]:
        """Return what is in force, by kind and subject.

        Raises:
            CorruptError: ROW_FORGED.
        """
        ...

    def page(
        self,
        reader: Reader,
        *,
        kind: RuleKind | None = None,
        state: ChangeState | None = None,
        before: str = "",
        limit: int,
    ) -> Sequence[RuleChange | DamagedRow]:
        """Return changes, newest first; None does not restrict, and a row that the pool did not write is named.

        Those that are older than the one with the id *before*; fewer than *limit* only at the end.
        """
        ...


class MemoryRuleChanges(RuleChangeStore):
    """In-memory adapter, for tests."""

    def __init__(self) -> None:
        self._changes: dict[str, RuleChange] = {}

    @override
    def add(self, work: UnitOfWork, change: RuleChange) -> None:
        on_rollback(work, lambda: self._changes.__delitem__(change.id))
        self._changes[change.id] = change

    @override
    def decide(self, work: UnitOfWork, change: RuleChange) -> None:
        stored = self._changes[change.id]
        if stored.state is not ChangeState.PROPOSED:
            raise decided_before(stored)
        before = dict(self._changes)
        on_rollback(work, lambda: self._changes.update(before))
        if change.state is ChangeState.IN_FORCE:
            for other in before.values():
                if (other.kind, other.subject, other.state) == (change.kind, change.subject, ChangeState.IN_FORCE):
                    self._changes[other.id] = replace(other, state=ChangeState.SUPERSEDED)
        self._changes[change.id] = replace(
            stored,
            state=change.state,
            decided_by=change.decided_by,
            decided_at=change.decided_at,
            reason=change.reason,
        )

    @override
    def get(self, reader: Reader, change_id: str) -> RuleChange | None:
        return self._changes.get(change_id)

    @override
    def in_force(self, reader: Reader) -> Sequence[RuleChange]:
        found = [one for one in self._changes.values() if one.state is ChangeState.IN_FORCE]
        return sorted(found, key=lambda one: (one.kind, one.subject))

    @override
    def page(
        self,
        reader: Reader,
        *,
        kind: RuleKind | None = None,
        state: ChangeState | None = None,
        before: str = "",
        limit: int,
    ) -> Sequence[RuleChange | DamagedRow]:
        found = [
            one
            for one in self._changes.values()
            if kind in {None, one.kind} and state in {None, one.state} and (not before or one.id < before)
        ]
        return sorted(found, key=lambda one: one.id, reverse=True)[:limit]
