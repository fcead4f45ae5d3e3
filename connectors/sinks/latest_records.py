"""Last record of each key in a release: a table holds one row a key, so only that one is written.

Pure. A release may have a key several times, and its last record may be a withdrawal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectors.port import DecodedRelease, RejectCode, RejectedRecord

__all__ = ["LatestRecords", "latest_records", "values_of"]

_Indexes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatestRecords:
    """Which records of a release are written.

    Attributes:
        indexes: of those with values, in the release, in order.
        rows: of the same, in `DecodedRelease.records`.
        withdrawn: indexes of the withdrawals.
        stale: number of records that a later one of the same release replaces.
    """

    indexes: _Indexes
    rows: _Indexes
    withdrawn: _Indexes
    stale: int

    def part(self, start: int, end: int) -> "LatestRecords":
        """Return those with values from one place to another, without withdrawals."""
        none = np.empty(0, np.int64)
        return LatestRecords(indexes=self.indexes[start:end], rows=self.rows[start:end], withdrawn=none, stale=0)

    def without(self, indexes: Sequence[int]) -> "LatestRecords":
        """Return all but some of those with values."""
        kept = ~np.isin(self.indexes, np.array(indexes, np.int64))
        return LatestRecords(
            indexes=self.indexes[kept], rows=self.rows[kept], withdrawn=self.withdrawn, stale=self.stale
        )

    def __len__(self) -> int:
        return len(self.indexes)


def latest_records(release: DecodedRelease) -> LatestRecords:
    """Return the last record of each key."""
    gone = np.array(release.withdrawn, np.bool_)
    rows = np.cumsum(~gone) - 1
    last = np.arange(len(release), dtype=np.int64)
    if len(by_key := {key: index for index, key in enumerate(release.keys)}) < len(last):
        last = np.array(sorted(by_key.values()), np.int64)
    kept = last[~gone[last]]
    return LatestRecords(indexes=kept, rows=rows[kept], withdrawn=last[gone[last]], stale=len(release) - len(last))


def values_of(records: pa.RecordBatch, rows: _Indexes, indexes: _Indexes) -> tuple[list[Any], list[RejectedRecord]]:
    """Return rows as Python values, one dictionary each, and those that Python has no value for.

    Args:
        records: of a release.
        rows: of them, to be returned.
        indexes: of the same rows in the release, for those that are rejected.

    Returns:
        For each row its values by field, or None where it is rejected; and the rejected ones with field and cause.
    """
    chosen = records.take(pa.array(rows))
    columns: dict[str, Sequence[Any]] = {}
    rejected: dict[int, RejectedRecord] = {}
    for field, column in zip(chosen.schema, chosen.columns, strict=True):
        try:
            columns[field.name] = column.to_pylist()
        except (ValueError, ArithmeticError, pa.ArrowException):
            columns[field.name] = _one_by_one(field, column, indexes, rejected)
    names = list(columns)
    values = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [None if at in rejected else row for at, row in enumerate(values)], list(rejected.values())


def _one_by_one(field: pa.Field, column: pa.Array, indexes: _Indexes, rejected: dict[int, RejectedRecord]) -> list[Any]:
    values: list[Any] = []
    for at, each in enumerate(column):
        try:
            values.append(each.as_py())
        except (ValueError, ArithmeticError, pa.ArrowException):  # nanoseconds of which the last three are not 0
            values.append(None)
            message = f"the sink has no value for it: a {field.type} that a database's driver can be given"
            rejected.setdefault(
                at,
                RejectedRecord(index=int(indexes[at]), code=RejectCode.TARGET_TYPE, field=field.name, message=message),
            )
    return values
