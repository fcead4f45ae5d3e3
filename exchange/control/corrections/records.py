"""Records of corrections in the pool: the one that a record key names, its versions, and the one that corrects it.

A record key is a one-way hash of the record's pseudonym under the grant's key, so the record is found by a scan of the
topic: from the time that was delivered with it, if the caller states that, else from the beginning of the grant. What a
person waits for ends after five seconds; only one such scan at a time runs in a process.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from exchange.broker.port import Broker, PartitionRecords, ReadResult
from exchange.corrections.model import CorrectionTicket, RecordPlace
from exchange.identity.pseudonyms import PSEUDONYM_SIZE, Pseudonyms
from schemas.access import Grant, History
from schemas.errors import GoneError, InvalidError, Reason, UnavailableError
from schemas.names import Topic
from schemas.record import Operation, Positions

__all__ = ["CorrectionRecords", "FoundRecord", "Version", "no_record"]

_READ_RECORDS = 16_384
_READ_BYTES = 16 * 1024 * 1024
_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """A record that a record key names: its pseudonym, and the place of the version that was received."""

    record: bytes
    place: RecordPlace


@dataclass(frozen=True, slots=True)
class Version:
    """A stored version of a record."""

    place: RecordPlace
    recorded_at: int  # microseconds UTC
    operation: Operation
    value: bytes | None  # framed Avro; None of a void, or of an erased one


class CorrectionRecords:
    """Finds records for tickets. Thread-safe.

    Args:
        broker: of the pool.
        pseudonyms: of record keys.
        monotonic: seconds.
    """

    def __init__(
        self, broker: Broker, pseudonyms: Pseudonyms, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._broker = broker
        self._pseudonyms = pseudonyms
        self._monotonic = monotonic
        self._scans = threading.Semaphore(1)

    def record_key(self, key_id: str, record: bytes) -> bytes:
        """Return by which key a grant's consumer knows a record; *key_id*: `record_key_id` of the grant."""
        return self._pseudonyms.record_keys(key_id, [record])

    def find(self, grant: Grant, record_key: bytes, recorded_at: datetime | None) -> FoundRecord:
        """Return the record that a grant's consumer knows by a key: the version of a time, else the latest one.

        Raises:
            InvalidError: NOT_FOUND, there is no such record, or it is withdrawn; REQUEST_INVALID, it was not found in
                time and no time was stated.
            UnavailableError: OVERLOADED, another search goes on; or the broker does not answer.
        """
        since = recorded_at
        if since is None and grant.history is not History.ALL:
            since = grant.since or grant.approved_at
        found: Version | None = None
        record = b""
        with self._one_at_a_time():
            until = self._monotonic() + _SECONDS
            generation = self._broker.topic(grant.topic).generation
            for read in self._reads(grant.topic, self._start(grant.topic, since)):
                for part in read.partitions:
                    keys = self._pseudonyms.record_keys(grant.record_key_id, part.keys)
                    for index in _occurrences(keys, record_key):
                        if found is not None and recorded_at is not None:
                            break  # the one that was delivered with this time
                        record, found = part.keys[index], _version(generation, part, index)
                if found is not None and recorded_at is not None:
                    break
                if self._monotonic() > until:
                    if found is None:
                        raise InvalidError(
                            Reason.REQUEST_INVALID,
                            f"got a record key that was not found within {_SECONDS:.0f} s; state in `recorded_at` the "
                            "time that was delivered with the record",
                        )
                    break
        if found is None or found.value is None:
            raise no_record()
        return FoundRecord(record, found.place)

    def versions(self, ticket: CorrectionTicket, *, limited: bool = True) -> Iterator[Version]:
        """Yield the versions of a ticket's record from the doubted one on, in order.

        Args:
            ticket: whose record.
            limited: a person waits: end after five seconds, by an error if not everything was read.

        Raises:
            UnavailableError: OVERLOADED, not everything was read in time; or the broker does not answer.
        """
        topic, partition = ticket.topic, ticket.place.partition
        info, ends = self._broker.topic(topic), self._broker.ends(topic)
        if not ticket.record or partition >= info.partitions:
            return
        # Of an earlier generation the positions are not these: everything that is left may be a version.
        first = ticket.place.position if info.generation == ticket.place.generation else 0
        after = tuple(
            max(first, earliest) if number == partition else latest
            for number, (earliest, latest) in enumerate(zip(ends.earliest, ends.latest, strict=True))
        )
        until = self._monotonic() + _SECONDS
        for read in self._reads(topic, after):
            for part in read.partitions:
                if part.partition == partition:
                    for index, key in enumerate(part.keys):
                        if key == ticket.record:
                            yield _version(info.generation, part, index)
            if read.next[partition] >= ends.latest[partition]:
                return
            if limited and self._monotonic() > until:
                raise UnavailableError(
                    Reason.OVERLOADED,
                    "the records behind the doubted one are too many to be read at once; try again later",
                    retry_after=5.0,
                )

    def correction(self, ticket: CorrectionTicket) -> Version | None:
        """Return the latest version behind the doubted one that was published as a correction; None if there is none.

        Raises:
            UnavailableError: as `versions`.
        """
        found = None
        for version in self.versions(ticket):
            corrects = version.operation is Operation.CORRECT and version.value is not None
            if corrects and version.place > ticket.place:
                found = version
        return found

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        if not self._scans.acquire(timeout=_SECONDS):
            raise UnavailableError(
                Reason.OVERLOADED, "another record is being looked for; try again in a moment", retry_after=1.0
            )
        try:
            yield
        finally:
            self._scans.release()

    def _start(self, topic: Topic, since: datetime | None) -> Positions:
        earliest = self._broker.ends(topic).earliest
        if since is None:
            return earliest
        at = self._broker.positions_for_time(topic, max(0, int(since.timestamp() * 1_000_000)))
        return tuple(max(pair) for pair in zip(at, earliest, strict=True))

    def _reads(self, topic: Topic, after: Positions) -> Iterator[ReadResult]:
        while True:
            try:
                read = self._broker.read(topic, after, max_records=_READ_RECORDS, max_bytes=_READ_BYTES)
            except GoneError as error:  # retention was faster
                earliest = map(int, error.details["earliest"].split(","))
                after = tuple(max(pair) for pair in zip(after, earliest, strict=True))
                continue
            yield read
            if read.next == after:
                return
            after = read.next


def no_record() -> InvalidError:
    """Return the error of a record key that names nothing that may be doubted."""
    return InvalidError(
        Reason.NOT_FOUND, "the grant has no record with this key, or it is withdrawn; see the fetched records"
    )


def _occurrences(keys: bytes, wanted: bytes) -> Iterator[int]:
    at = keys.find(wanted)
    while at >= 0:
        if at % PSEUDONYM_SIZE == 0:
            yield at // PSEUDONYM_SIZE
        at = keys.find(wanted, at + 1)


def _version(generation: int, part: PartitionRecords, index: int) -> Version:
    return Version(
        place=RecordPlace(generation, part.partition, part.offsets[index]),
        recorded_at=part.recorded_at[index],
        operation=Operation(part.mark(index) & 15),
        value=part.values[index] or None,
    )
