"""What librdkafka gives a reader, typed as it is: its own stubs allow None for what every message has."""

from collections.abc import Sequence
from typing import Protocol, cast

from confluent_kafka import Consumer, KafkaError

__all__ = ["Fetched", "Header", "fetch", "fetch_one"]

Header = tuple[str, bytes]
"""Name and value."""


class Fetched(Protocol):
    """A message, or an event in its shape, of which `error` is not None."""

    def __len__(self) -> int:
        """Return the size of the value, in bytes."""
        ...

    def topic(self) -> str:
        """Return the topic's name."""
        ...

    def partition(self) -> int:
        """Return the partition."""
        ...

    def offset(self) -> int:
        """Return the offset; of an end-of-partition event the one that comes next."""
        ...

    def key(self) -> bytes:
        """Return the key; the gate writes one on every record."""
        ...

    def value(self) -> bytes | None:
        """Return the value; None for a void."""
        ...

    def timestamp(self) -> tuple[int, int]:
        """Return the kind of the time, and the time in milliseconds UTC."""
        ...

    def headers(self) -> Sequence[Header] | None:
        """Return the headers; parsed at the first call, which only one thread at a time may make."""
        ...

    def error(self) -> KafkaError | None:
        """Return what the event is; None of a message."""
        ...


def fetch(consumer: Consumer, count: int) -> list[Fetched]:
    """Return what a consumer has fetched, without waiting, at most so many.

    Raises:
        KafkaException: the consumer is broken.
    """
    return cast("list[Fetched]", consumer.consume(count, 0))


def fetch_one(consumer: Consumer, wait: float) -> Fetched | None:
    """Wait so many seconds for one message; None if there was none.

    `consume` of several would wait until it has them all: a single new record would come late.

    Raises:
        KafkaException: the consumer is broken.
    """
    return cast("Fetched | None", consumer.poll(wait))
