"""Store of figures and supervision events, made from the log: the port, and its adapter in memory.

What is stored is derived: it can be made again from the log, and `exchange.kpi.replay` shows whether it is right. The
stores never begin or commit. Facts, events and how far the log has been read are stored in one transaction, so that
each entry counts exactly once.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from typing_extensions import override

from exchange.kpi.events import EventKind, SupervisionEvent
from exchange.kpi.facts import Fact, Known, LogFold, Span
from registry.database.unit_of_work import Reader, UnitOfWork
from schemas.supervision.kpi import Count, Standing

__all__ = ["Counts", "Drawn", "EventQuery", "FactQuery", "KpiStore", "MemoryKpi", "Progress", "standing_of"]

Counts = Mapping[tuple[str, str], Count]
"""By measure and detail."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the log has been read: number of entries, and the newest time among them (microseconds UTC)."""

    entries: int = 0
    newest: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What was released under a grant: number of releases, their records, times of the first and the last one (µs)."""

    releases: int
    records: int
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FactQuery:
    """The facts behind a figure, in the order of the log.

    Attributes:
        month, department: whose figure.
        measures: of the figure, each with its detail, or empty for any.
        after: position and ordinal of the last fact of the page before.
        limit: of the page.
    """

    month: str
    department: str
    measures: Sequence[tuple[str, str]]
    after: tuple[int, int] = (-1, 0)
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """Events in the order of the log; an attribute that is None does not limit them.

    Attributes:
        department: whom they concern.
        kind: their kind.
        after: position and ordinal of the last event of the page before.
        limit: of the page.
    """

    department: str | None = None
    kind: EventKind | None = None
    after: tuple[int, int] = (-1, 0)
    limit: int


class KpiStore(Protocol):
    """Store of what has been made from the log."""

    def progress(self, reader: Reader) -> Progress:
        """Return how far the log has been read."""
        ...

    def known(self, reader: Reader, grants: Collection[str], resources: Collection[str]) -> Known:
        """Return what the entries before said of some grants and resources."""
        ...

    def put(self, work: UnitOfWork, before: Progress, after: Progress, fold: LogFold) -> bool:
        """Store a fold of the entries between; return False, and store nothing, where others were faster."""
        ...

    def counts(self, reader: Reader, month: str, department: str | None = None) -> Mapping[str, Counts]:
        """Return the counts of a month by department, each with its first entries."""
        ...

    def standing(
        self, reader: Reader, *, since: int, until: int, department: str | None = None
    ) -> Mapping[str, Standing]:
        """Return by consumer the grants that were in force from *since* until after *until* (microseconds UTC)."""
        ...

    def drawn(self, reader: Reader, grants: Collection[str]) -> Mapping[str, Drawn]:
        """Return what was released under grants; those without a release are left out."""
        ...

    def facts(self, reader: Reader, query: FactQuery) -> Sequence[Fact]:
        """Return a page of facts."""
        ...

    def events(self, reader: Reader, query: EventQuery) -> Sequence[SupervisionEvent]:
        """Return a page of events."""
        ...


@dataclass(slots=True)
class _Kept:
    progress: Progress = Progress()
    known: Known = field(default_factory=Known)
    facts: list[Fact] = field(default_factory=list)
    events: list[SupervisionEvent] = field(default_factory=list)
    spans: dict[tuple[str, int], Span] = field(default_factory=dict)


class MemoryKpi(KpiStore):
    """The adapter in memory."""

    def __init__(self) -> None:
        self._kept = _Kept()

    @override
    def progress(self, reader: Reader) -> Progress:
        del reader
        return self._kept.progress

    @override
    def known(self, reader: Reader, grants: Collection[str], resources: Collection[str]) -> Known:
        del reader
        known = self._kept.known
        return Known(
            providers={one: known.providers[one] for one in resources if one in known.providers},
            grants={one: known.grants[one] for one in grants if one in known.grants},
            spans={one: known.spans[one] for one in grants if one in known.spans},
        )

    @override
    def put(self, work: UnitOfWork, before: Progress, after: Progress, fold: LogFold) -> bool:
        del work
        if before != self._kept.progress:
            return False
        self._kept.progress = after
        self._kept.facts += fold.facts
        self._kept.events += fold.events
        self._kept.spans |= fold.spans
        known = self._kept.known
        known.providers |= {one: fold.known.providers[one] for one in fold.changed_providers}
        known.grants |= {one: fold.known.grants[one] for one in fold.changed_grants}
        for span in fold.spans.values():
            if span.until is None:
                known.spans[span.grant] = span
            elif span.grant not in fold.known.spans:
                known.spans.pop(span.grant, None)
        return True

    @override
    def counts(self, reader: Reader, month: str, department: str | None = None) -> Mapping[str, Counts]:
        del reader
        found: dict[str, dict[tuple[str, str], Count]] = {}
        for one in self._kept.facts:
            if one.month == month and department in {None, one.department}:
                count = found.setdefault(one.department, {}).setdefault((one.measure, one.detail), Count())
                count.add(one.position, one.entry, one.amount)
        return found

    @override
    def standing(
        self, reader: Reader, *, since: int, until: int, department: str | None = None
    ) -> Mapping[str, Standing]:
        del reader
        drawn = {one.grant for one in self._kept.facts if one.measure == "drawn" and since < one.at <= until}
        lasting = [
            (span, span.grant in drawn)
            for span in self._kept.spans.values()
            if span.since <= since
            and (span.until is None or span.until > until)
            and department in {None, span.terms.consumer}
        ]
        return standing_of(lasting)

    @override
    def drawn(self, reader: Reader, grants: Collection[str]) -> Mapping[str, Drawn]:
        del reader
        of: dict[str, list[Fact]] = {}
        for one in self._kept.facts:
            if one.measure == "drawn" and one.grant in grants:
                of.setdefault(one.grant, []).append(one)
        return {
            grant: Drawn(
                releases=len(facts),
                records=sum(one.amount for one in facts),
                first=min(one.at for one in facts),
                last=max(one.at for one in facts),
            )
            for grant, facts in of.items()
        }

    @override
    def facts(self, reader: Reader, query: FactQuery) -> Sequence[Fact]:
        del reader
        found = (
            one
            for one in self._kept.facts
            if (one.month, one.department) == (query.month, query.department)
            and any(one.measure == measure and detail in {"", one.detail} for measure, detail in query.measures)
            and (one.position, one.ordinal) > query.after
        )
        return sorted(found, key=lambda one: (one.position, one.ordinal))[: query.limit]

    @override
    def events(self, reader: Reader, query: EventQuery) -> Sequence[SupervisionEvent]:
        del reader
        return [
            one
            for one in self._kept.events
            if query.department in {None, one.department}
            and query.kind in {None, one.kind}
            and (one.position, one.ordinal) > query.after
        ][: query.limit]


def standing_of(lasting: Collection[tuple[Span, bool]]) -> dict[str, Standing]:
    """Return the standing of consumers by their grants' spans, each with whether it was drawn from."""
    by_consumer: dict[str, list[tuple[Span, bool]]] = {}
    for span, drawn in lasting:
        by_consumer.setdefault(span.terms.consumer, []).append((span, drawn))
    return {consumer: _standing(spans) for consumer, spans in by_consumer.items()}


def _standing(spans: Sequence[tuple[Span, bool]]) -> Standing:
    fields = {(span.terms.resource, name) for span, _ in spans for name in span.terms.fields}
    used = {(span.terms.resource, name) for span, drawn in spans if drawn for name in span.terms.fields}
    return Standing(
        in_force=sorted((span.position, span.entry) for span, _ in spans),
        unused=sorted((span.position, span.entry) for span, drawn in spans if not drawn),
        fields=len(fields),
        fields_unused=len(fields - used),
    )
