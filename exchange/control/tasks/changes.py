"""What changed: the acts of others and of oneself since an instant, read from the log, newest first.

The log is the one place that knows of every change. Each act of a kind that the account's role takes part in is one
index range of the log (action and time; for a department its own acts and those about its resources). Acts on grants
concern both parties of the grant, whichever of them acted: of those, all that are new are read, and what is another
department's is left out. A change says what happened to what, and nothing else of the entry.
"""

import heapq
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from types import MappingProxyType
from typing import Any, Final

from exchange.access.decision.roles import rights_of
from exchange.audit.store import EntryParty, EntryPlace, EntryQuery, EntryStore, StoredLeaf
from exchange.tasks.model import TaskKind
from schemas.access import Action, Actor

__all__ = ["CHANGES", "TaskChange", "TaskChanges"]

_A = Action
_PREFIXES: Final = {
    "exchange:grant:": TaskKind.REQUEST,
    "exchange:request:": TaskKind.REQUEST,
    "registry:catalogue:": TaskKind.CATALOGUE,
    "exchange:correction:": TaskKind.CORRECTION,
    "exchange:violation:": TaskKind.VIOLATION,
    "identity:proposal:": TaskKind.PROPOSAL,
    "registry:approval:": TaskKind.APPROVAL,
    "pool:rules:": TaskKind.RULES,
    "exchange:erasure:": TaskKind.ERASURE,
}
_BETWEEN_TWO: Final = frozenset({TaskKind.REQUEST, TaskKind.CORRECTION, TaskKind.VIOLATION})
"""Kinds whose acts concern both parties of a grant."""
_NO_CHANGES: Final = frozenset(
    {
        *(_A.CORRECTION_REVEAL, _A.CORRECTION_ACKNOWLEDGE, _A.GRANT_REMIND),
        *(_A.REQUEST_CHECK, _A.REQUEST_DRAFT, _A.REQUEST_SCREEN),
    }
)
CHANGES: Final[Mapping[Action, TaskKind]] = MappingProxyType(
    {
        action: kind
        for action in Action
        for prefix, kind in _PREFIXES.items()
        if action.value.startswith(prefix) and not action.value.endswith(":read") and action not in _NO_CHANGES
    }
)
"""Acts that change something that waits for somebody, and of which kind that is."""


@dataclass(frozen=True, slots=True)
class TaskChange:
    """One change.

    Attributes:
        place: of its entry in the log.
        kind: of what changed. action: what was done.
        resource: what it was done to: a topic, or an id. grant: id of the grant or request; empty = none.
        department: of who did it; empty = the pool's own.
        state: to which it led, where the entry says so; else empty.
        entry: id of the entry.
    """

    place: EntryPlace
    kind: TaskKind
    action: str
    resource: str
    grant: str
    department: str
    state: str
    entry: str


class TaskChanges:
    """Reads changes from the log.

    Args:
        entries: of the log.
        own_resources: returns the names under which entries are about a department.
        parties: returns the departments that a grant or request is between; empty for an unknown one.
    """

    def __init__(
        self,
        entries: EntryStore,
        own_resources: Callable[[str], frozenset[str]],
        parties: Callable[[str], Collection[str]],
    ) -> None:
        self._entries = entries
        self._own_resources = own_resources
        self._parties = parties

    def since(self, actor: Actor, at: int, *, after: EntryPlace | None, limit: int) -> Sequence[TaskChange]:
        """Return the changes since an instant that concern an actor's role and department, newest first.

        Args:
            actor: who looks.
            at: microseconds UTC.
            after: place behind which the page begins.
            limit: at most so many.
        """
        rights = rights_of(actor.role)
        kinds = {CHANGES[action] for action in rights if action in CHANGES}
        own = actor.department
        party = EntryParty(department=own, resources=self._own_resources(own)) if own else None
        parties = cache(self._parties)

        def concerns(change: TaskChange) -> bool:
            if party is None or own == change.department or change.resource in party.resources:
                return True
            return bool(change.grant) and own in parties(change.grant)

        query = EntryQuery(decision="allow", since=at, after=after, limit=limit)
        changes = (
            self._of(replace(query, action=action.value, party=None if kind in _BETWEEN_TWO else party), kind)
            for action, kind in CHANGES.items()
            if kind in kinds
        )
        merged = heapq.merge(*changes, key=lambda change: (change.place.at, change.place.row), reverse=True)
        return [*islice(filter(concerns, merged), limit)]

    def _of(self, query: EntryQuery, kind: TaskKind) -> Iterator[TaskChange]:
        while True:
            page = self._entries.find(query)
            for leaf in page:
                change = _change(leaf, kind)
                if change is not None:
                    yield change
            if len(page) < query.limit:
                return
            query = replace(query, after=page[-1].place)


def _change(leaf: StoredLeaf, kind: TaskKind) -> TaskChange | None:
    """Return what an entry tells; None for one that is damaged, and for an act that failed."""
    entry = leaf.entry()
    if entry is None:
        return None
    document: Mapping[str, Any] = entry
    data = document.get("data") or {}
    if data.get("failed"):
        return None
    return TaskChange(
        place=leaf.place,
        kind=kind,
        action=str(document.get("action", "")),
        resource=str(document.get("resource", "")),
        grant=str((document.get("grant") or {}).get("id", "")),
        department=str((document.get("actor") or {}).get("department", "")),
        state=str(data.get("state", "")),
        entry=str(document.get("id", "")),
    )
