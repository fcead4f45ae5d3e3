"""Figures of a month as a document: what the API answers, and what a replay of the log must equal."""

from collections.abc import Mapping
from typing import Any

from exchange.audit.oversight.monthly_report import month_bounds
from exchange.kpi.store import Counts, KpiStore
from registry.database.unit_of_work import Reader
from schemas.supervision.kpi import Standing, figures_of, moment_text, unused_days

__all__ = ["month_figures", "standing_at"]

_DAY = 86_400_000_000  # microseconds


def month_figures(
    store: KpiStore, reader: Reader, *, pool: str, month: str, department: str | None = None
) -> dict[str, Any]:
    """Return the figures of a month, of all departments that have any, or of one.

    Raises:
        InvalidError: REQUEST_INVALID, for another form of the month.
    """
    end = month_bounds(month)[1]
    progress = store.progress(reader)
    counts = store.counts(reader, month, department)
    standing = standing_at(store, reader, month, department)
    named = {*counts, *standing} if department is None else {department}
    return {
        "month": month,
        "pool": pool,
        "entries": progress.entries,
        "until": moment_text(min(end, progress.newest)),
        "over": progress.newest >= end,
        "unused_days": unused_days(),
        "departments": [_department(one, counts, standing) for one in sorted(named)],
    }


def standing_at(store: KpiStore, reader: Reader, month: str, department: str | None = None) -> Mapping[str, Standing]:
    """Return the standing of consumers at the end of a month, or now while it is not over; none before it begins."""
    begin, end = month_bounds(month)
    newest = store.progress(reader).newest
    if newest < begin:
        return {}
    until = min(end, newest)
    return store.standing(reader, since=until - unused_days() * _DAY, until=until, department=department)


def _department(one: str, counts: Mapping[str, Counts], standing: Mapping[str, Standing]) -> dict[str, Any]:
    return {"department": one, "figures": figures_of(counts.get(one, {}), standing.get(one, Standing()))}
