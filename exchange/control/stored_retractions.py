"""Retractions among a topic's stored records: for voids of an earlier version, and for what a restore has missed."""

from collections.abc import Iterator, Mapping

from exchange.broker.port import Broker
from exchange.erasure.retractions import Retraction, is_retraction
from schemas.errors import InvalidError, Reason
from schemas.names import Topic
from schemas.record import Positions

__all__ = ["stored_retractions"]

_READ_RECORDS = 16_384
_READ_BYTES = 16 * 1024 * 1024


def stored_retractions(
    broker: Broker, topic: Topic, first: Mapping[int, int] | None = None
) -> Iterator[list[Retraction]]:
    """Yield the retractions among a topic's records, read by read, one at least at a time; none where it is no topic.

    Args:
        broker: which has them.
        topic: to be read.
        first: offset to begin at, by partition; others are not read. None = all from their beginning.

    Raises:
        UnavailableError: the broker does not answer.
        RecordsCorruptError: a record is not one that the pool stored.
    """
    try:
        ends = broker.ends(topic)
    except InvalidError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        return
    at: Positions = ends.earliest
    if first is not None:
        at = tuple(
            max(first.get(number, latest), earliest)
            for number, (earliest, latest) in enumerate(zip(ends.earliest, ends.latest, strict=True))
        )
    while True:
        read = broker.read(topic, at, max_records=_READ_RECORDS, max_bytes=_READ_BYTES)
        found = [
            Retraction(key=part.keys[index], partition=part.partition, position=offset)
            for part in read.partitions
            for index, offset in enumerate(part.offsets)
            if part.values[index] is None and is_retraction(part.mark(index), part.valid(index))
        ]
        if found:
            yield found
        if read.next == at:
            return
        at = read.next
