"""Log aggregation (entry folding): what one actor repeats within a minute becomes one entry with a count.

Three kinds of acts are folded, each by (actor, action, reason):

    denials    reason = why; a call that was refused
    failures   reason = why; an act that was allowed, and then failed
    reads      no reason; lists and searches. A search about a case, an export and a single entry are never folded

    the first of a resource      an entry at once, before the answer
    repeated within a minute     counted; one entry when the minute is over: `folded`, `since`
    a ninth resource and more    one fold for them all, with `resource` "*" and a bounded sample: `resources`, `unnamed`
    searches                     the fold's entry names the digests of what was asked: `queries`, `unnamed`
    other cases, grants          the fold's entry has neither that of the first nor another; `cases`, `grants`: bounded
                                 samples

So an actor who varies the resource writes a bounded number of entries a minute for each action and reason, and one who
asks for a few resources still leaves an entry about each, which its provider can see.

**What a crash loses**: of folds that are not written yet the counts and samples, of the last 70 s at most (a minute,
and the turn of the loop that writes them). The first entry of each is durable before the answer. A database that does
not answer loses nothing: the folds wait for it.

Folds are of one process: n gateways write n of each.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from schemas.audit import AuditEntry, Decision, folded_data
from schemas.identifiers import random_id, uuid7

__all__ = ["MANY_RESOURCES", "MINUTE", "OWN_RESOURCES", "EntryFolds", "Pending", "Sample"]

MINUTE: Final = 60_000_000
"""Microseconds in which repeated acts become one entry."""
OWN_RESOURCES: Final = 8
"""Resources of one (actor, action, reason) that have an entry of their own within a minute."""
MANY_RESOURCES: Final = "*"
"""Resource of the entry of a fold of several."""
_MOST_TEXTS = 100  # of a sample
_MOST_CHARACTERS = 8_000  # of all texts of a sample together; six bytes each at most as JSON
_MOST_CASES = 2_000  # the same of cases: an entry with both samples fits into a leaf
_MOST_FOLDS = 10_000  # open ones of a process; then all are written

# What a call declares, and what an entry has where it declared nothing.
_DECLARED: Final[Mapping[str, Any]] = MappingProxyType({"grant": None, "purpose": "", "case": "", "trace": ""})

_Key = tuple[str, ...]


class Sample:
    """Bounded sample of texts: the first distinct ones, and the number of calls whose text it does not name."""

    def __init__(self, most_characters: int = _MOST_CHARACTERS) -> None:
        self._texts: dict[str, None] = {}
        self._characters = 0
        self._most_characters = most_characters
        self.unnamed = 0

    @property
    def texts(self) -> list[str]:
        """The texts, in the order in which they came."""
        return list(self._texts)

    def add(self, text: str) -> None:
        """Add a text, or count it where there is no room for it."""
        if text in self._texts:
            return
        if len(self._texts) >= _MOST_TEXTS or self._characters + len(text) > self._most_characters:
            self.unnamed += 1
            return
        self._texts[text] = None
        self._characters += len(text)


@dataclass(slots=True)
class _Fold:
    since: int
    first: AuditEntry
    resource: str | None  # None: of several
    count: int = 0
    resources: Sample = field(default_factory=Sample)
    queries: Sample = field(default_factory=Sample)
    cases: Sample = field(default_factory=partial(Sample, _MOST_CASES))
    grants: Sample = field(default_factory=partial(Sample, _MOST_CASES))
    differing: set[str] = field(default_factory=set)  # what calls declared in another way than the first

    def add(self, entry: AuditEntry, query: str) -> None:
        self.count += 1
        self.differing.update(name for name in _DECLARED if getattr(entry, name) != getattr(self.first, name))
        if self.resource is None:
            self.resources.add(entry.resource)
        if entry.actor != self.first.actor:  # of one account or certificate, on behalf of somebody else
            self.differing.add("actor")
        if entry.case and entry.case != self.first.case:
            self.cases.add(entry.case)
        if entry.grant is not None and (self.first.grant is None or entry.grant.id != self.first.grant.id):
            self.grants.add(entry.grant.id)
        if query:
            self.queries.add(query)

    def entry(self, at: int) -> AuditEntry:
        """Return the entry of all but the first."""
        data = folded_data(
            count=self.count,
            since=self.since,
            resources=self.resources.texts,
            queries=self.queries.texts,
            cases=self.cases.texts,
            grants=self.grants.texts,
            unnamed=self.resources.unnamed + self.queries.unnamed + self.cases.unnamed + self.grants.unnamed,
        )
        if "failed" in self.first.data:
            data["failed"] = self.first.data["failed"]
        folded = replace(self.first, id=uuid7(at), at=at, salt=random_id(), data=data)
        # What only the first one declared is not true of the others.
        several = self.resource is None
        empty = {name: value for name, value in _DECLARED.items() if several or name in self.differing}
        folded = replace(folded, **empty)
        if "actor" in self.differing and folded.actor is not None:
            folded = replace(folded, actor=replace(folded.actor, on_behalf_of=None))
        return replace(folded, resource=MANY_RESOURCES) if several else folded


@dataclass(frozen=True, slots=True)
class Pending:
    """Entries that have to be written now: of folds whose minute is over, then the first one of a new fold."""

    entries: Sequence[AuditEntry]
    _group: _Key
    _fold: _Fold
    _ended: Sequence[_Fold]


class EntryFolds:
    """Decides which acts have an entry now, and which are counted. Thread-safe; it writes nothing itself.

        pending = folds.add(entry, at)
        if pending is not None:
            ... write pending.entries ...       folds.failed(pending) where that fails
            folds.written(pending)

    Two calls at once may both be the first one; then both have an entry.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: dict[_Key, dict[str | None, _Fold]] = {}
        self._waiting: list[_Fold] = []  # over, and not written since the database did not answer

    def __len__(self) -> int:
        """Return the number of open folds."""
        with self._lock:
            return sum(map(len, self._groups.values()))

    def add(self, entry: AuditEntry, at: int, *, query: str = "") -> Pending | None:
        """Count an act in the fold that it belongs to, or return what has to be written for it.

        Args:
            entry: of the act, as it is written if it is the first.
            at: now, microseconds UTC.
            query: of a read, the digest of what was asked; empty for others.
        """
        group = _group_of(entry)
        with self._lock:
            folds = self._groups.get(group, {})
            ended = [one for one in folds.values() if at - one.since >= MINUTE]
            for one in ended:
                del folds[one.resource]
            running = folds.get(entry.resource)
            if running is None and len(folds) >= OWN_RESOURCES:
                running = folds.get(None)
            if running is not None:
                running.add(entry, query)
                self._waiting += ended
                return None
            resource = entry.resource if len(folds) < OWN_RESOURCES else None
        counted = [one for one in ended if one.count]
        entries = [*(one.entry(at) for one in counted), entry]
        return Pending(entries, group, _Fold(at, entry, resource), counted)

    def written(self, pending: Pending) -> None:
        """Open the fold whose first entry is durable now."""
        with self._lock:
            folds = self._groups.setdefault(pending._group, {})  # noqa: SLF001 - of this module
            folds.setdefault(pending._fold.resource, pending._fold)  # noqa: SLF001

    def failed(self, pending: Pending) -> None:
        """Keep the folds that could not be written, for the next `take`."""
        self._keep(pending._ended)  # noqa: SLF001 - of this module

    @property
    def is_full(self) -> bool:
        """Whether all folds should be written, for want of room."""
        return len(self) >= _MOST_FOLDS

    def take(self, before: int | None) -> list[_Fold]:
        """Close and return the folds that began at *before* or earlier, None = all; those without a count just end."""
        with self._lock:
            taken, self._waiting = self._waiting, []
            for group, folds in list(self._groups.items()):
                over = [one for one in folds.values() if before is None or one.since <= before]
                for one in over:
                    del folds[one.resource]
                if not folds:
                    del self._groups[group]
                taken += over
        return [one for one in taken if one.count]

    def put_back(self, taken: Sequence[_Fold]) -> None:
        """Keep folds that were taken and could not be written."""
        self._keep(taken)

    def _keep(self, folds: Sequence[_Fold]) -> None:
        with self._lock:
            self._waiting = [*folds, *self._waiting][:_MOST_FOLDS]


def _group_of(entry: AuditEntry) -> _Key:
    actor = entry.actor
    who = ("", "", "") if actor is None else (actor.department, actor.id, actor.certificate)
    outcome = str(entry.reason) if entry.decision is Decision.DENY else f"failed:{entry.data.get('failed', '')}"
    return (*who, entry.action, outcome)
