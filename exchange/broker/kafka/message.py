"""Typed messages of librdkafka: its own stubs allow None for what every message has. And replacements.

A replacement stands in a topic for an erased value, so that compaction removes the original:

    0xFF ‖ "erased" ‖ offset of the record, 8 bytes, big-endian ‖ its leaf hash, 32 bytes ‖ tag, 16 bytes

A framed value begins with 0x00 (Confluent's wire format), so no record of a department can be taken for one.
"""

from collections.abc import Sequence
from typing import Protocol, cast

from confluent_kafka import Consumer, KafkaError

__all__ = ["Header", "Message", "consume", "is_replacement", "poll_one", "replaced", "replacement_content"]

_ERASED = b"\xfferased"

Header = tuple[str, bytes]
"""Name and value."""


class Message(Protocol):
    """A message, or an event in the form of one, whose `error` is not None."""

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
        """Return the offset; of an end-of-partition event the next one to come."""
        ...

    def key(self) -> bytes:
        """Return the key; every record of the pool has one."""
        ...

    def value(self) -> bytes | None:
        """Return the value; None for a void."""
        ...

    def timestamp(self) -> tuple[int, int]:
        """Return the kind of the time, and the time in milliseconds UTC."""
        ...

    def headers(self) -> Sequence[Header] | None:
        """Return the headers; the first call parses them and must not run in two threads at once."""
        ...

    def error(self) -> KafkaError | None:
        """Return the event's kind; None for a message."""
        ...


def consume(consumer: Consumer, count: int) -> list[Message]:
    """Return at most *count* messages that a consumer has fetched, without waiting.

    Raises:
        KafkaException: the consumer is broken.
    """
    return cast("list[Message]", consumer.consume(count, 0))


def poll_one(consumer: Consumer, wait: float) -> Message | None:
    """Wait *wait* seconds for one message; None if there was none.

    `consume` of several would wait until it has them all: a single new record would be delayed.

    Raises:
        KafkaException: the consumer is broken.
    """
    return cast("Message | None", consumer.poll(wait))


def replacement_content(offset: int, leaf: bytes) -> bytes:
    """Return what replaces the value of the record at this offset, with this leaf hash, without its tag."""
    return _ERASED + offset.to_bytes(8, "big") + leaf


def replaced(value: bytes) -> tuple[int, bytes]:
    """Return offset and leaf hash of the record that a replacement stands for."""
    at = len(_ERASED)
    return int.from_bytes(value[at : at + 8], "big"), value[at + 8 : at + 40]


def is_replacement(value: bytes | None) -> bool:
    """Return whether a value is a replacement."""
    return value is not None and value[:1] == _ERASED[:1]
