"""Scan of a topic for one fetch: reads until the answer is full, the end is reached, or the time for it is over.

What an answer holds may depend on nothing but the records that it shows (`exchange.records.reading.selection`).
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import Final

import numpy as np
from typing_extensions import override

from exchange.broker.port import Broker, Ends, ReadResult, TopicInfo
from exchange.records.ports import GrantViews
from exchange.records.reading.delivery_tracking import Delivered
from exchange.records.reading.disputed_values import DisputedValues
from exchange.records.reading.position_token import ConsumerPosition, PositionTokens
from exchange.records.reading.selection import Selection, join, select
from exchange.records.release import ViewOutput
from exchange.records.retractions import RetractionCache
from schemas.access import Grant, History
from schemas.errors import GoneError
from schemas.names import Topic
from schemas.record import Packed, Positions

__all__ = ["MAX_ANSWER_BYTES", "GrantScan", "MoreToReadError", "ScannedAhead", "SharedTopicView", "TopicView"]

_MAX_RECORDS = 10_000  # of an answer: the offsets of so many fit its entry, wherever they are
_MAX_READ = 16_384  # positions of one read
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""Bytes of an answer's values, and of one read, at most; a single record is always delivered."""
_SCAN_SECONDS = 5.0  # for the reads of one fetch
_READ_SHARE = 0.85  # of what the rate so far would need, so that little is read twice
_SHARED_READS = 4  # kept of one group
_SHARED_RECORDS = 100  # of a read to which equal views are applied once
_SHARED_BYTES = 64 * 1024  # of an output that is kept for it
_REMEMBERED = 10_000  # positions up to which was looked

_NOTHING = ViewOutput(selected=np.zeros(0, np.bool_), values=Packed.of([]))


class TopicView:
    """A topic as one fetch sees it: its description, and its ends, asked for at most once."""

    def __init__(self, broker: Broker, topic: Topic) -> None:
        self._broker = broker
        self.info: TopicInfo = broker.topic(topic)

    @cached_property
    def ends(self) -> Ends:
        """Both ends of the topic, as they were when they were first asked for."""
        return self._broker.ends(self.info.topic)

    def read(self, after: Positions, *, max_records: int, max_bytes: int) -> ReadResult:
        """Read committed records, as `Broker.read` does."""
        return self._broker.read(self.info.topic, after, max_records=max_records, max_bytes=max_bytes)

    def output(self, views: GrantViews, grant: Grant, read: ReadResult, values: Sequence[bytes | None]) -> ViewOutput:
        """Apply a grant's view to the values of a read, without those that are left out."""
        del read
        return views.apply(grant, values)

    def reached_end(self, position: Positions) -> bool:
        """Return whether a position is behind every record that was there when the ends were asked for."""
        return all(next_ >= latest for next_, latest in zip(position, self.ends.latest, strict=True))


class SharedTopicView(TopicView):
    """A topic as several fetches see it together: what is read from one position is read, and verified, once."""

    def __init__(self, broker: Broker, topic: Topic) -> None:
        super().__init__(broker, topic)
        self._reads: OrderedDict[tuple[Positions, int, int], ReadResult] = OrderedDict()
        self._outputs: dict[tuple[Hashable, tuple[bool, ...]], tuple[ReadResult, ViewOutput]] = {}

    @override
    def read(self, after: Positions, *, max_records: int, max_bytes: int) -> ReadResult:
        key = (after, max_records, max_bytes)
        found = self._reads.get(key)
        if found is None:
            found = self._reads[key] = super().read(after, max_records=max_records, max_bytes=max_bytes)
            while len(self._reads) > _SHARED_READS:
                self._reads.popitem(last=False)
        return found

    @override
    def output(self, views: GrantViews, grant: Grant, read: ReadResult, values: Sequence[bytes | None]) -> ViewOutput:
        """Apply equal views to the same values once, where these are few: the output depends on nothing else."""
        if len(values) > _SHARED_RECORDS:
            return super().output(views, grant, read, values)
        key = views.definition(grant), tuple(value is None for value in values)
        known = self._outputs.get(key)
        if known is not None and known[0] is read:
            return known[1]
        output = super().output(views, grant, read, values)
        if len(output.values.values) <= _SHARED_BYTES:
            self._outputs[key] = read, output
        return output


class MoreToReadError(Exception):
    """One read did not fill the answer, nor reach the topic's end."""


class ScannedAhead:
    """Up to where nothing was found behind a position, so that what is hidden is not read again at each poll.

    Kept in memory: after a restart it is read once more.
    """

    def __init__(self) -> None:
        self._ends: OrderedDict[tuple[str, int, int, Positions], Positions] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, grant: Grant, generation: int, position: Positions) -> Positions:
        """Return the position from which to read on."""
        with self._lock:
            return self._ends.get((grant.id, grant.version, generation, position), position)

    def put(self, grant: Grant, generation: int, position: Positions, end: Positions) -> None:
        """Remember that nothing is to be delivered between these two."""
        key = (grant.id, grant.version, generation, position)
        with self._lock:
            self._ends[key] = end
            self._ends.move_to_end(key)
            while len(self._ends) > _REMEMBERED:
                self._ends.popitem(last=False)


class GrantScan:
    """Reads a topic as a grant shows it."""

    def __init__(
        self,
        views: GrantViews,
        tokens: PositionTokens,
        retractions: RetractionCache,
        disputes: DisputedValues | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._views = views
        self._tokens = tokens
        self._retractions = retractions
        self._disputes = disputes
        self._monotonic = monotonic
        self.ahead = ScannedAhead()

    def collect(
        self,
        grant: Grant,
        topic: TopicView,
        current: ConsumerPosition,
        delivered: Delivered | None,
        max_records: int,
        max_bytes: int,
        *,
        one_read: bool = False,
    ) -> tuple[Selection, bool]:
        """Read and select until the answer is full, the end is reached, or the time for it is over.

        Args:
            grant: by which is selected.
            topic: of the grant.
            current: position to begin at.
            delivered: what the grant had delivered there; None where it shows every record.
            max_records: of the answer; 0 = as many as are allowed.
            max_bytes: of its values; 0 = as many as are allowed.
            one_read: do not read a second time.

        Returns:
            What leaves, and whether nothing more is to be expected before the topic grows.

        Raises:
            GoneError: POSITION_GONE, retention has overtaken the position; `details["position"]` is one to go on from.
            UnavailableError, InvalidError: what `Broker.read` raises.
            MoreToReadError: it takes another read.
        """
        wanted = min(max_records or _MAX_RECORDS, _MAX_RECORDS)
        size = min(max_bytes or MAX_ANSWER_BYTES, MAX_ANSWER_BYTES)
        until = self._monotonic() + _SCAN_SECONDS
        at = self.ahead.get(grant, topic.info.generation, current.next)
        parts: list[Selection] = []
        count = total = scanned = 0
        ask = wanted
        while True:
            read = self._read(grant, topic, current, at, ask)
            part = self._select(grant, topic, read, delivered, wanted - count, size - total, first=not count)
            if len(part):
                parts.append(part)
            count, total, scanned = count + len(part), total + part.size, scanned + len(read)
            moved, at = part.next != at, part.next
            if part.cut or count >= wanted or total >= size:
                # Whether hidden records follow would be told by asking for the end.
                return join(parts, at), not _hides_rows(grant) and topic.reached_end(at)
            if not moved or topic.reached_end(at):
                return join(parts, at), True
            if count and not _hides_rows(grant) and _size(read) < MAX_ANSWER_BYTES // 2:
                return join(parts, at), False
            if one_read:
                raise MoreToReadError
            if self._monotonic() > until:
                return join(parts, at), False
            rest = wanted - count
            ask = min(max(rest, int(_READ_SHARE * rest * scanned / count)) if count else _MAX_READ, _MAX_READ)

    def _read(
        self, grant: Grant, topic: TopicView, current: ConsumerPosition, at: Positions, max_records: int
    ) -> ReadResult:
        try:
            return topic.read(at, max_records=max_records, max_bytes=MAX_ANSWER_BYTES)
        except GoneError as error:
            earliest = tuple(int(offset) for offset in error.details["earliest"].split(","))
            next_ = _maximum(at, earliest)
            position = ConsumerPosition(last_released=_maximum(current.last_released, next_), next=next_, runs=None)
            token = self._tokens.seal(position, grant.stream_id, topic.info.generation)
            # Offsets do not leave the pool.
            raise GoneError(error.reason, error.message, details={"position": token.hex()}) from error

    def _select(
        self,
        grant: Grant,
        topic: TopicView,
        read: ReadResult,
        delivered: Delivered | None,
        records: int,
        size: int,
        *,
        first: bool,
    ) -> Selection:
        """Apply the view to what was read; find what is withdrawn: voids and rows that left the filter."""
        values = [value for part in read.partitions for value in part.values]
        hidden = untold = None
        blocked = self._retractions.blocked(grant.topic, read) if values else None
        if blocked is not None:
            hidden = blocked.hidden
            is_void = np.array([value is None for value in values])
            untold = np.where(is_void, blocked.silent(grant.approved_at), hidden)  # neither delivered nor withdrawn
            values = [None if left_out else value for left_out, value in zip(untold.tolist(), values, strict=True)]
        output = topic.output(self._views, grant, read, values) if values else _NOTHING
        gone = np.zeros(len(values), np.bool_)
        if grant.withdrawals:
            gone = ~output.selected
            if delivered is not None:
                gone = delivered.withdrawn(read, output.selected, gone, hidden)
            elif untold is not None:
                gone &= ~untold
        disputed = None if self._disputes is None else self._disputes.marked(grant, read)
        return select(
            read,
            output,
            gone,
            hidden,
            disputed=disputed,
            records=records,
            size=size,
            first=first,
            places=grant.places,
        )


def _hides_rows(grant: Grant) -> bool:
    """Return whether the topic may have records from the grant's beginning on that the grant does not show."""
    return grant.row_filter is not None or grant.history is not History.ALL


def _size(read: ReadResult) -> int:
    return sum(len(value) for part in read.partitions for value in part.values if value)


def _maximum(one: Positions, other: Positions) -> Positions:
    return tuple(max(pair) for pair in zip(one, other, strict=True))
