"""Timestamp lower bound of a partition: the newest record time, below which the next one may not fall.

Clocks of gateways differ and clocks are set back, yet `recorded_at` must not fall within a partition. Kafka can
return a partition's newest time, but it counts its own commit markers, which carry the broker's clock. So this
gateway remembers the offset after its own last records. If a partition has not grown since, except by the markers of
its own transactions, there is nothing to ask; if it has, another producer has written, and a short-lived assignment
of a consumer reads the last records.
"""

import threading
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, TopicPartition

from exchange.broker.kafka.client import KafkaClient
from exchange.broker.kafka.message import poll_one
from exchange.broker.kafka.settings import closed, unavailable
from schemas.names import Topic
from schemas.record import OffsetRange

__all__ = ["TimestampFloors"]

_LOOKBACK_FACTOR = 16  # how much farther back to read when there were only markers


@dataclass(slots=True)
class _Partition:
    """Known state of a partition.

    Attributes:
        end: the offset up to which `floor` is known.
        floor: its newest record time up to there, milliseconds UTC.
        pending_markers: commit markers of this gateway's transactions that are not written yet.
    """

    end: int = 0
    floor: int = -1
    pending_markers: int = 0


class TimestampFloors:
    """Newest record times of partitions, cached and read back where others have written. Thread-safe."""

    def __init__(self, client: KafkaClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._partitions: dict[tuple[Topic, int], _Partition] = {}
        self._consumer_lock = threading.Lock()
        self._consumer: Consumer | None = None
        self._closed = False

    def floor(self, topic: Topic, partitions: Collection[int], deadline: float) -> int:
        """Return the newest record time (ms UTC) in these partitions, records of open transactions included; or -1.

        Raises:
            InvalidError: NOT_FOUND.
            UnavailableError: BROKER_UNAVAILABLE.
        """
        ends = self._client.high_watermarks(topic, partitions, deadline)
        with self._lock:
            states = {number: self._partitions.setdefault((topic, number), _Partition()) for number in partitions}
            grown = {
                number: ends[number]
                for number, part in states.items()
                if ends[number] > part.end + part.pending_markers
            }
        if grown:
            for number, millisecond in self._newest(topic, grown, deadline).items():
                with self._lock:
                    part = states[number]
                    part.floor = max(part.floor, millisecond)
                    part.end, part.pending_markers = max(part.end, grown[number]), 0
        with self._lock:
            return max(part.floor for part in states.values())

    def record_written(self, topic: Topic, runs: Iterable[OffsetRange], millisecond: int) -> None:
        """Record what this gateway has just written in one transaction, committed later or not; called in order."""
        with self._lock:
            for number in {run.partition for run in runs}:
                own = [run for run in runs if run.partition == number]
                part = self._partitions.setdefault((topic, number), _Partition())
                gap = max(min(run.first for run in own) - part.end, 0)
                part.pending_markers = max(part.pending_markers - gap, 0) + 1
                part.end = max(run.last for run in own) + 1
                part.floor = max(part.floor, millisecond)

    def close(self) -> None:
        """Close the consumer."""
        with self._consumer_lock:
            self._closed = True
            if self._consumer is not None:
                self._consumer.close()
                self._consumer = None

    def _newest(self, topic: Topic, ends: Mapping[int, int], deadline: float) -> dict[int, int]:
        """Read the last records before these ends; return each partition's newest time, -1 where none is left."""
        with self._consumer_lock:
            if self._closed:
                raise closed()
            if self._consumer is None:
                self._consumer = Consumer(
                    self._client.settings.consumer(
                        **{"isolation.level": "read_uncommitted", "auto.offset.reset": "earliest"}
                    )
                )
            found, distance = dict.fromkeys(ends, -1), 2
            missing = dict(ends)
            while missing:
                self._read_back(self._consumer, topic, missing, distance, found, deadline)
                missing = {number: end for number, end in missing.items() if found[number] < 0 and distance < end}
                distance *= _LOOKBACK_FACTOR
            return found

    @staticmethod
    def _read_back(
        consumer: Consumer, topic: Topic, ends: Mapping[int, int], distance: int, found: dict[int, int], deadline: float
    ) -> None:
        first = {number: max(end - distance, 0) for number, end in ends.items()}
        consumer.assign([TopicPartition(str(topic), number, offset) for number, offset in first.items()])
        waiting = set(ends)
        try:
            while waiting:
                message = poll_one(consumer, min(max(deadline - time.monotonic(), 0), 0.2))
                if message is None:
                    if time.monotonic() >= deadline:
                        raise unavailable(None, f"return the newest records of {topic}")
                    continue
                number, error = message.partition(), message.error()
                if error is None:
                    found[number] = max(found[number], message.timestamp()[1])
                    reached = message.offset() + 1
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the library's spelling
                    reached = message.offset()
                else:
                    continue  # transient, or the deadline ends it
                if reached >= ends[number]:
                    waiting.discard(number)
        finally:
            consumer.unassign()
