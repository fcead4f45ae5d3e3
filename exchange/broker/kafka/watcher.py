"""Topic watcher: one consumer follows the ends of all watched topics and calls their watchers.

A waiting subscriber costs an entry in a list, not a consumer. The one consumer here reads every watched topic from
the moment it is first watched, uses nothing but the topic's name, and calls the callbacks. A topic starts at an end
that was queried, so that nothing appended after `watch` returned is missed; appends of this gateway call them at
once.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaException, TopicPartition

from exchange.broker.kafka.client import KafkaClient
from exchange.broker.kafka.message import consume, poll_one
from exchange.broker.kafka.topics import Topics
from schemas.errors import PoolError
from schemas.names import Topic

__all__ = ["TopicWatcher"]

_POLL_TIMEOUT = 0.5  # seconds between two checks for `close`, while nothing is appended
_TICK = 1.0  # seconds between two calls of `on_tick`
_MAX_MESSAGES = 2_000

Callback = Callable[[], None]


@dataclass(slots=True)
class _WatchedTopic:
    lock: threading.RLock = field(default_factory=threading.RLock)
    callbacks: list[Callback] = field(default_factory=list)
    assigned: list[int] = field(default_factory=list)  # partitions assigned to the consumer


class TopicWatcher:
    """Follows topics and calls their watchers. Thread-safe. `on_tick` is called about once a second."""

    def __init__(self, client: KafkaClient, topics: Topics, on_tick: Callable[[], None]) -> None:
        self._client = client
        self._topics = topics
        self._on_tick = on_tick
        self._lock = threading.Lock()
        self._watched: dict[Topic, _WatchedTopic] = {}
        self._consumer: Consumer | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    @contextlib.contextmanager
    def watch(self, topic: Topic, wake: Callback) -> Iterator[None]:
        """Watch a topic, as `Broker.watch` says. After the block has ended, *wake* is not called again."""
        with self._lock:
            self._start()
            watched = self._watched.setdefault(topic, _WatchedTopic())
            watched.callbacks.append(wake)
        self._assign(topic, watched)
        try:
            yield
        finally:
            with watched.lock:  # waits for a running callback
                watched.callbacks.remove(wake)
            with self._lock:
                if not watched.callbacks and self._watched.get(topic) is watched:
                    self._unassign(topic, watched)

    def notify(self, topic: Topic) -> None:
        """Call the callbacks of a topic. The error of one does not reach the others."""
        watched = self._watched.get(topic)
        if watched is None:
            return
        with watched.lock:
            for callback in list(watched.callbacks):
                with contextlib.suppress(Exception):
                    callback()

    def close(self) -> None:
        """End the thread, which closes the consumer."""
        self._ended.set()
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(10)

    def _start(self) -> None:
        if self._thread is None and not self._ended.is_set():
            settings = self._client.settings.consumer(
                **{"auto.offset.reset": "latest", "enable.partition.eof": False, "fetch.wait.max.ms": 500}
            )
            self._consumer = Consumer(settings)
            self._thread = threading.Thread(target=self._run, name="kafka-watcher", daemon=True)
            self._thread.start()

    def _assign(self, topic: Topic, watched: _WatchedTopic) -> None:
        """Assign a topic's partitions to the consumer; where Kafka does not answer, the next tick tries again."""
        if watched.assigned or self._ended.is_set():
            return
        try:
            partitions = self._topics.partitions(topic)
            ends = self._client.ends(topic, partitions, self._client.deadline())
        except PoolError:
            return
        with self._lock:
            if self._consumer is None or self._watched.get(topic) is not watched:
                return
            missing = [number for number in range(partitions) if number not in watched.assigned]
            with contextlib.suppress(KafkaException, RuntimeError):
                self._consumer.incremental_assign(
                    [TopicPartition(str(topic), number, ends.latest[number]) for number in missing]
                )
                watched.assigned += missing

    def _unassign(self, topic: Topic, watched: _WatchedTopic) -> None:
        self._watched.pop(topic, None)
        if watched.assigned and self._consumer is not None:
            with contextlib.suppress(KafkaException, RuntimeError):
                self._consumer.incremental_unassign([TopicPartition(str(topic), number) for number in watched.assigned])

    def _run(self) -> None:
        consumer, ticked = self._consumer, time.monotonic()
        assert consumer is not None  # noqa: S101 - set before the thread starts
        while not self._ended.is_set():
            grown = set()
            with contextlib.suppress(KafkaException):
                first = poll_one(consumer, _POLL_TIMEOUT)
                messages = [] if first is None else [first, *consume(consumer, _MAX_MESSAGES)]
                grown = {message.topic() for message in messages if message.error() is None}
            for name in grown:
                self.notify(Topic.parse(name))
            if time.monotonic() - ticked >= _TICK:
                ticked = time.monotonic()
                with contextlib.suppress(KafkaException):
                    self._on_tick()
                with self._lock:
                    unassigned = [(topic, watched) for topic, watched in self._watched.items() if not watched.assigned]
                for topic, watched in unassigned:
                    self._assign(topic, watched)
                    self.notify(topic)
        with self._lock:
            self._consumer = None
        consumer.close()
