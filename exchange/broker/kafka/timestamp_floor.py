"""The newest record time of a partition, below which the next one may not fall.

Gateways' clocks differ and clocks are set back, yet `recorded_at` must not fall within a partition. Kafka itself can
name a partition's newest time, but counts its own commit markers, which bear the broker's clock. So this gateway
remembers where its own last records ended. If a partition has not grown since, but for the markers that its own
transactions owe, there is nothing to ask; if it has, somebody else was at work, and a scout reads the last records.
"""

import threading
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, TopicPartition

from exchange.broker.kafka.client import KafkaClient
from exchange.broker.kafka.message import fetch_one
from exchange.broker.kafka.settings import closed, unavailable
from schemas.names import Topic
from schemas.record import Run

__all__ = ["TimestampFloors"]

_FARTHER = 16  # how much farther back to look when there were only markers


@dataclass(slots=True)
class _Known:
    """A partition: up to `end` its newest time is `floor`; this gateway's transactions still owe it `owed` markers."""

    end: int = 0
    floor: int = -1
    owed: int = 0


class TimestampFloors:
    """Newest record times, as far as this gateway knows and can find out. Thread-safe."""

    def __init__(self, link: KafkaClient) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._known: dict[tuple[Topic, int], _Known] = {}
        self._scout_lock = threading.Lock()
        self._scout: Consumer | None = None
        self._closed = False

    def floor(self, topic: Topic, partitions: Collection[int], deadline: float) -> int:
        """Return the newest record time (ms UTC) in these partitions, records of open transactions included; or -1.

        Raises:
            InvalidError: NOT_FOUND.
            UnavailableError: BROKER_UNAVAILABLE.
        """
        ends = self._link.high(topic, partitions, deadline)
        with self._lock:
            known = {number: self._known.setdefault((topic, number), _Known()) for number in partitions}
            grown = {number: ends[number] for number, part in known.items() if ends[number] > part.end + part.owed}
        if grown:
            for number, millisecond in self._newest(topic, grown, deadline).items():
                with self._lock:
                    part = known[number]
                    part.floor = max(part.floor, millisecond)
                    part.end, part.owed = max(part.end, grown[number]), 0
        with self._lock:
            return max(part.floor for part in known.values())

    def wrote(self, topic: Topic, runs: Iterable[Run], millisecond: int) -> None:
        """Note what this gateway has just written, be it committed later or not: one transaction, in order."""
        with self._lock:
            for number in {run.partition for run in runs}:
                mine = [run for run in runs if run.partition == number]
                part = self._known.setdefault((topic, number), _Known())
                between = max(min(run.first for run in mine) - part.end, 0)
                part.owed = max(part.owed - between, 0) + 1
                part.end = max(run.last for run in mine) + 1
                part.floor = max(part.floor, millisecond)

    def close(self) -> None:
        """Return the scout back."""
        with self._scout_lock:
            self._closed = True
            if self._scout is not None:
                self._scout.close()
                self._scout = None

    def _newest(self, topic: Topic, ends: Mapping[int, int], deadline: float) -> dict[int, int]:
        """Read the last records before these ends; give each partition's newest time, -1 where none is left."""
        with self._scout_lock:
            if self._closed:
                raise closed()
            if self._scout is None:
                self._scout = Consumer(
                    self._link.settings.consumer(
                        **{"isolation.level": "read_uncommitted", "auto.offset.reset": "earliest"}
                    )
                )
            found, back = dict.fromkeys(ends, -1), 2
            missing = dict(ends)
            while missing:
                self._look(self._scout, topic, missing, back, found, deadline)
                missing = {number: end for number, end in missing.items() if found[number] < 0 and back < end}
                back *= _FARTHER
            return found

    @staticmethod
    def _look(
        scout: Consumer, topic: Topic, ends: Mapping[int, int], back: int, found: dict[int, int], deadline: float
    ) -> None:
        begin = {number: max(end - back, 0) for number, end in ends.items()}
        scout.assign([TopicPartition(str(topic), number, offset) for number, offset in begin.items()])
        waiting = set(ends)
        try:
            while waiting:
                message = fetch_one(scout, min(max(deadline - time.monotonic(), 0), 0.2))
                if message is None:
                    if time.monotonic() >= deadline:
                        raise unavailable(None, f"give the newest records of {topic}")
                    continue
                number, error = message.partition(), message.error()
                if error is None:
                    found[number] = max(found[number], message.timestamp()[1])
                    reached = message.offset() + 1
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the library's spelling
                    reached = message.offset()
                else:
                    continue  # passes by itself or ends at the deadline
                if reached >= ends[number]:
                    waiting.discard(number)
        finally:
            scout.unassign()
