"""Figures of a load run: percentiles, bounds, and the table. Pure.

The bounds: the 99th percentile of the others' calls under attack is no more than three times that without, nor ever
more than 500 ms; nothing that was published is lost.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["MOST_MS", "MOST_RATIO", "Figures", "Line", "percentile", "table"]

MOST_RATIO = 3.0
MOST_MS = 500.0


def percentile(times: Sequence[float], share: float) -> float:
    """Return the time that so large a share of the calls did not exceed (nearest rank); 0 where there was none."""
    if not times:
        return 0.0
    return sorted(times)[max(0, math.ceil(share * len(times)) - 1)]


@dataclass(frozen=True, slots=True)
class Figures:
    """Percentiles of the calls of one kind, in milliseconds."""

    calls: int
    p50: float
    p99: float

    @classmethod
    def of(cls, times: Sequence[float]) -> "Figures":
        """Return those of these times."""
        return cls(len(times), percentile(times, 0.5), percentile(times, 0.99))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One kind of call in one row.

    Attributes:
        row: of the threat model.
        kind: of the calls of the department that works beside.
        idle, attacked: their times.
        resident: the most memory that the gateway had, MB.
        lost: records that were published and not drawn.
    """

    row: str
    kind: str
    idle: Figures
    attacked: Figures
    resident: float
    lost: int

    @property
    def ratio(self) -> float:
        """The 99th percentile under attack, as a multiple of that without."""
        return self.attacked.p99 / self.idle.p99 if self.idle.p99 else math.inf

    def wrong(self, most_mb: float) -> list[str]:
        """Return what is wrong, in sentences."""
        found = []
        if not self.attacked.calls:
            found.append(f"{self.row}: no {self.kind} call ended")
        if self.attacked.p99 > MOST_RATIO * self.idle.p99:
            found.append(
                f"{self.row}: p99 of {self.kind} is {self.ratio:.1f} times that of idle, {MOST_RATIO:.0f} at most"
            )
        if self.attacked.p99 > MOST_MS:
            found.append(f"{self.row}: p99 of {self.kind} is {self.attacked.p99:.0f} ms, {MOST_MS:.0f} at most")
        if self.resident > most_mb:
            found.append(f"{self.row}: the gateway had {self.resident:.0f} MB, {most_mb:.0f} at most")
        if self.lost:
            found.append(f"{self.row}: {self.lost} records were lost")
        return found


def table(lines: Sequence[Line]) -> str:
    """Return the lines as a table."""
    head = (
        f"{'row':6} {'calls of others':16} {'idle p50':>9} {'p99':>8} {'attack p50':>11} "
        f"{'p99':>8} {'ratio':>6} {'n':>6} {'RSS MB':>7} {'lost':>5}"
    )
    rows = [
        f"{one.row:6} {one.kind:16} {one.idle.p50:9.1f} {one.idle.p99:8.1f} {one.attacked.p50:11.1f} "
        f"{one.attacked.p99:8.1f} {one.ratio:6.1f} {one.attacked.calls:6} {one.resident:7.0f} {one.lost:5}"
        for one in lines
    ]
    return "\n".join([head, *rows])


def lines_of(
    row: str, idle: Mapping[str, Sequence[float]], attacked: Mapping[str, Sequence[float]], resident: float, lost: int
) -> list[Line]:
    """Return the lines of a row."""
    return [
        Line(
            row=row,
            kind=kind,
            idle=Figures.of(idle[kind]),
            attacked=Figures.of(attacked.get(kind, ())),
            resident=resident,
            lost=lost,
        )
        for kind in idle
    ]
