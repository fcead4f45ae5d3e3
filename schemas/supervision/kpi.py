"""Key performance indicators (KPI, 考核指标) of sharing: their definitions as data, and the form of their figures.

A definition (`kpi.json`) says, in both languages, what is counted, by which clause, and from which measures of the log:

    {"sum": ["provided"]}                                     amounts of the measure's entries, added
    {"entries": ["refused:clause"]}                           entries of the measure with this detail
    {"entries": ["approved"], "of": ["approved", "refused"]}  a share of two counts
    {"standing": "unused"}                                    of the grants at the end of the period

The pool counts the measures as the log grows (`exchange.kpi`); the files of the log give them again
(`exchange.kpi.replay`), by other code. Both give their counts to `figures_of`, so that they can be compared.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final

__all__ = [
    "FIRST_ENTRIES",
    "Count",
    "Kpi",
    "Standing",
    "figures_of",
    "kpis",
    "measures_of_reason",
    "moment_text",
    "selects",
    "unused_days",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

FIRST_ENTRIES: Final = 20
"""Ids of entries that a figure has at most: the first ones of the log."""


@dataclass(frozen=True, slots=True)
class Kpi:
    """A definition.

    Attributes:
        id: stable.
        name, formula: by language, `zh` and `en`.
        clause: of law, such as 809-21: State Council decree 809, Art. 21.
        unit: records, entries, times, grants, fields or share.
        sums, entries: measures whose amounts, or whose entries, are added.
        of: measures whose entries are what a share is of; empty for a number.
        standing: what is counted of the grants at the end; empty for others.
        by: the measure whose details are shown apart; empty for none.
    """

    id: str
    name: Mapping[str, str]
    formula: Mapping[str, str]
    clause: str
    unit: str
    sums: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    of: tuple[str, ...] = ()
    standing: str = ""
    by: str = ""

    @property
    def measures(self) -> tuple[str, ...]:
        """Return the measures that it counts, each once."""
        return tuple(dict.fromkeys((*self.sums, *self.entries, *self.of)))


@dataclass(slots=True)
class Count:
    """What the entries of one measure and detail add up to.

    Attributes:
        amount: records, or times.
        entries: number of entries.
        first: indexes and ids of the first of them, in the order of the log.
    """

    amount: int = 0
    entries: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)

    def add(self, index: int, entry: str, amount: int) -> None:
        """Add an entry; those of a log are added in its order."""
        self.amount += amount
        self.entries += 1
        if len(self.first) < FIRST_ENTRIES:
            self.first.append((index, entry))


@dataclass(frozen=True, slots=True)
class Standing:
    """A department's grants at the end of a period: number, and the entries since which they are in force, in order."""

    in_force: Sequence[tuple[int, str]] = ()
    unused: Sequence[tuple[int, str]] = ()
    fields: int = 0
    fields_unused: int = 0


@lru_cache(maxsize=1)
def kpis() -> tuple[Kpi, ...]:
    """Return the definitions, in their order."""
    return tuple(
        Kpi(
            id=one["id"],
            name=one["name"],
            formula=one["formula"],
            clause=one["clause"],
            unit=one["unit"],
            sums=tuple(one["value"].get("sum", ())),
            entries=tuple(one["value"].get("entries", ())),
            of=tuple(one["value"].get("of", ())),
            standing=one["value"].get("standing", ""),
            by=one.get("by", ""),
        )
        for one in _document()["kpis"]
    )


def unused_days() -> int:
    """Return for how many days a grant must be in force without a release to count as unused."""
    days: int = _document()["unused_days"]
    return days


def measures_of_reason(reason: str) -> tuple[str, ...]:
    """Return the measures that count acts refused for a reason, beside that of all denials."""
    return tuple(name for name, reasons in _document()["measures"].items() if reason in reasons)


def selects(selector: str, measure: str, detail: str) -> bool:
    """Return whether `measure` or `measure:detail` of a definition is about a measure and detail."""
    name, _, only = selector.partition(":")
    return name == measure and only in {"", detail}


def figures_of(counts: Mapping[tuple[str, str], Count], standing: Standing) -> list[dict[str, Any]]:
    """Return a department's figures, one for each definition, as documents.

    Args:
        counts: by measure and detail.
        standing: of its grants at the end of the period.
    """
    return [_figure(kpi, counts, standing) for kpi in kpis()]


def _figure(kpi: Kpi, counts: Mapping[tuple[str, str], Count], standing: Standing) -> dict[str, Any]:
    if kpi.standing:
        return _standing_figure(kpi, standing)
    told = kpi.sums or kpi.entries
    value = sum(one.amount if kpi.sums else one.entries for one in _selected(counts, told))
    figure: dict[str, Any] = {"kpi": kpi.id, "value": value}
    if kpi.of:
        figure["of"] = sum(one.entries for one in _selected(counts, kpi.of))
    behind = list(_selected(counts, kpi.of or told))
    figure["entries"] = sum(one.entries for one in behind)
    first = sorted({place for one in behind for place in one.first})[:FIRST_ENTRIES]
    figure["first"] = [entry for _, entry in first]
    if kpi.by:
        details = {detail: one.amount for (measure, detail), one in counts.items() if measure == kpi.by}
        figure["by"] = dict(sorted(details.items()))
    return figure


def _standing_figure(kpi: Kpi, standing: Standing) -> dict[str, Any]:
    places = standing.unused if kpi.standing in {"unused", "fields_unused"} else standing.in_force
    value = {
        "in_force": len(standing.in_force),
        "unused": len(standing.unused),
        "fields": standing.fields,
        "fields_unused": standing.fields_unused,
    }[kpi.standing]
    first = [entry for _, entry in sorted(places)[:FIRST_ENTRIES]]
    return {"kpi": kpi.id, "value": value, "entries": len(places), "first": first}


def _selected(counts: Mapping[tuple[str, str], Count], selectors: Sequence[str]) -> Iterator[Count]:
    for (measure, detail), one in counts.items():
        if any(selects(selector, measure, detail) for selector in selectors):
            yield one


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(files("schemas.supervision").joinpath("kpi.json").read_text(encoding="utf-8"))
    return document


def moment_text(at: int) -> str | None:
    """Return a time in microseconds UTC as ISO 8601; None for 0, where nothing was read yet."""
    return (_EPOCH + timedelta(microseconds=at)).isoformat() if at else None
