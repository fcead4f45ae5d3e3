"""Number of rows that a grant keeps now, rounded: what an approver reads before a decision (decree 809, Art. 13, 21).

The newest records of the topic are read through the view as it is asked for, and counted by their keys: of a key that
came more than once the last record counts. Who asks for the rows reads no number: it would answer any filter with how
many people it is true of. For the provider, whose own rows they are, the number is rounded all the same, since it is
printed and handed on.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from exchange.access.grants.store import AccessStore
from exchange.authorization.enforcement import AuditedAct
from exchange.authorization.request_context import RequestContext
from exchange.broker.port import Broker
from exchange.control.grants.reads import GrantReads
from registry.database.unit_of_work import UnitOfWork
from schemas.access import Actor, Grant

__all__ = ["FEW", "RowCount", "RowCounter", "RowViews", "rounded"]

FEW: Final = 20
"""Rows below which no number is told."""
_MOST_READ: Final = 200_000  # records, the newest of the topic
_SECONDS: Final = 5.0
_READ: Final = 16_384  # records of one read
_READ_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCount:
    """Rows that a grant keeps.

    Attributes:
        rows: to two digits; `FEW` where there are fewer.
        fewer: whether there are fewer than `FEW`.
        read: records that were read.
        whole: whether these are all that the topic has; otherwise they are the newest ones.
    """

    rows: int
    fewer: bool
    read: int
    whole: bool


def rounded(rows: int) -> int:
    """Return a number of rows to two significant digits, and no number below `FEW`."""
    if rows < FEW:
        return FEW
    unit = int(10 ** (len(str(rows)) - 2))
    return (rows + unit // 2) // unit * unit


class RowViews(Protocol):
    """Rows that grants keep."""

    def kept(self, grant: Grant, values: Sequence[bytes | None]) -> Sequence[bool]:
        """Return of which values a grant keeps the row, or would keep it where it is only asked for."""
        ...


class RowCounter:
    """Counts the rows of a grant or a request.

    Args:
        grants: decides who may read a grant, and records it.
        access: the grants.
        broker: the records.
        views: which rows are kept.
        monotonic: seconds.
    """

    def __init__(
        self,
        *,
        grants: GrantReads,
        access: AccessStore,
        broker: Broker,
        views: RowViews,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._grants = grants
        self._access = access
        self._broker = broker
        self._views = views
        self._monotonic = monotonic

    def count(self, actor: Actor, call: RequestContext, grant_id: str) -> RowCount:
        """Return how many rows a grant, or what is asked for, keeps now.

        Raises:
            RefusedError: the actor may not see it; NOT_PROVIDER, it is of another department than the provider.
            UnavailableError: the broker does not answer.
        """

        def read(work: UnitOfWork, act: AuditedAct) -> list[Grant]:
            del act
            return [self._access.get(work, grant_id)]

        # The records are read after the entry, whose transaction is not kept open by seconds of reading.
        [grant] = self._grants.reading(actor, call, grant_id, read, of_provider=True)
        return self._count(grant)

    def _count(self, grant: Grant) -> RowCount:
        ends = self._broker.ends(grant.topic)
        share = _MOST_READ // len(ends.latest)
        start = tuple(max(low, high - share) for low, high in zip(ends.earliest, ends.latest, strict=True))
        position, until, read = start, self._monotonic() + _SECONDS, 0
        kept: dict[bytes, bool] = {}
        while any(at < high for at, high in zip(position, ends.latest, strict=True)) and self._monotonic() < until:
            result = self._broker.read(grant.topic, position, max_records=_READ, max_bytes=_READ_BYTES)
            for records in result.partitions:
                values = [
                    None if records.leaf(index) is not None else value for index, value in enumerate(records.values)
                ]
                kept.update(zip(records.keys, self._views.kept(grant, values), strict=True))
            read += len(result)
            if result.next == position:
                break
            position = result.next
        whole = start == tuple(ends.earliest) and all(
            at >= high for at, high in zip(position, ends.latest, strict=True)
        )
        rows = sum(kept.values())
        return RowCount(rows=rounded(rows), fewer=rows < FEW, read=read, whole=whole)
