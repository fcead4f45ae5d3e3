"""One tail reader for all watched topics: it follows their ends and wakes those who wait.

A waiting subscriber costs an entry in a list, not a consumer. The one consumer here reads every watched topic from
the moment somebody watches it, looks at nothing but the topic's name, and calls the hints. A topic starts at an end
that was asked for, so that nothing appended after `watch` came back is missed; appends of this gateway wake at once.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaException, TopicPartition

from exchange.broker.kafka.client import KafkaClient
from exchange.broker.kafka.message import fetch, fetch_one
from exchange.broker.kafka.topics import Topics
from schemas.errors import PoolError
from schemas.names import Topic

__all__ = ["Tail"]

_POLL = 0.5  # seconds between two looks at whether to end, while nothing is appended
_TICK = 1.0  # seconds between two rounds of housekeeping
_CHUNK = 2_000

Wake = Callable[[], None]


@dataclass(slots=True)
class _Watched:
    lock: threading.RLock = field(default_factory=threading.RLock)
    hints: list[Wake] = field(default_factory=list)
    followed: list[int] = field(default_factory=list)  # partitions under the consumer's eyes


class Tail:
    """Follows topics and wakes watchers. Thread-safe. `tidy` is called about once a second."""

    def __init__(self, link: KafkaClient, topics: Topics, tidy: Callable[[], None]) -> None:
        self._link = link
        self._topics = topics
        self._tidy = tidy
        self._lock = threading.Lock()
        self._watched: dict[Topic, _Watched] = {}
        self._consumer: Consumer | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    @contextlib.contextmanager
    def watch(self, topic: Topic, wake: Wake) -> Iterator[None]:
        """Watch a topic, as `Broker.watch` says. When the block has ended, *wake* is not called again."""
        with self._lock:
            self._start()
            watched = self._watched.setdefault(topic, _Watched())
            watched.hints.append(wake)
        self._follow(topic, watched)
        try:
            yield
        finally:
            with watched.lock:  # waits for a hint under way
                watched.hints.remove(wake)
            with self._lock:
                if not watched.hints and self._watched.get(topic) is watched:
                    self._leave(topic, watched)

    def wake(self, topic: Topic) -> None:
        """Call the hints of a topic. A hint's own fault harms nobody else."""
        watched = self._watched.get(topic)
        if watched is None:
            return
        with watched.lock:
            for hint in list(watched.hints):
                with contextlib.suppress(Exception):
                    hint()

    def close(self) -> None:
        """End the thread and give the consumer back."""
        self._ended.set()
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(10)

    def _start(self) -> None:
        if self._thread is None and not self._ended.is_set():
            settings = self._link.settings.consumer(
                **{"auto.offset.reset": "latest", "enable.partition.eof": False, "fetch.wait.max.ms": 500}
            )
            self._consumer = Consumer(settings)
            self._thread = threading.Thread(target=self._run, name="kafka-tail", daemon=True)
            self._thread.start()

    def _follow(self, topic: Topic, watched: _Watched) -> None:
        """Bring a topic under the consumer's eyes; where Kafka cannot be asked, the next tick tries again."""
        if watched.followed or self._ended.is_set():
            return
        try:
            partitions = self._topics.partitions(topic)
            ends = self._link.ends(topic, partitions, self._link.deadline())
        except PoolError:
            return
        with self._lock:
            if self._consumer is None or self._watched.get(topic) is not watched:
                return
            missing = [number for number in range(partitions) if number not in watched.followed]
            with contextlib.suppress(KafkaException, RuntimeError):
                self._consumer.incremental_assign(
                    [TopicPartition(str(topic), number, ends.latest[number]) for number in missing]
                )
                watched.followed += missing

    def _leave(self, topic: Topic, watched: _Watched) -> None:
        self._watched.pop(topic, None)
        if watched.followed and self._consumer is not None:
            with contextlib.suppress(KafkaException, RuntimeError):
                self._consumer.incremental_unassign([TopicPartition(str(topic), number) for number in watched.followed])

    def _run(self) -> None:
        consumer, tidied = self._consumer, time.monotonic()
        assert consumer is not None  # noqa: S101 - made before the thread
        while not self._ended.is_set():
            grown = set()
            with contextlib.suppress(KafkaException):
                first = fetch_one(consumer, _POLL)
                messages = [] if first is None else [first, *fetch(consumer, _CHUNK)]
                grown = {message.topic() for message in messages if message.error() is None}
            for name in grown:
                self.wake(Topic.parse(name))
            if time.monotonic() - tidied >= _TICK:
                tidied = time.monotonic()
                with contextlib.suppress(KafkaException):
                    self._tidy()
                with self._lock:
                    lost = [(topic, watched) for topic, watched in self._watched.items() if not watched.followed]
                for topic, watched in lost:
                    self._follow(topic, watched)
                    self.wake(topic)
        with self._lock:
            self._consumer = None
        consumer.close()
