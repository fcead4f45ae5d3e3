"""Lane producers: exactly-once append on Kafka with one transactional producer per active lane.

The records of a group of batches and the lane's receipts are one transaction: the receipts are the metadata of an
offset of the lane's own group. The producer's transactional id is the lane, so that taking the lane over
(`init_transactions`) fences the former owner in Kafka itself: a zombie gateway, which was stopped in mid-transaction
and resumes later, appends nothing. Deduplicating later is too late: the zombie's records would already be readable.

An append, step by step; correctness depends on the order:

1. own the lane: take it over, then read its receipts, waiting for stable offsets;
2. split duplicates from new batches; reject a sequence gap only after proof that the lane is still ours;
3. produce everything, flush, and compare the delivery reports with what was sent: a record that is too large fails
   alone;
4. offsets are known now, before the commit: encode them into the receipts and send these to the transaction;
5. commit. Only now do the receipts hold. A commit is never repeated: where its outcome is unknown, the lane is taken
   over and its receipts show it;
6. wait for the transaction's markers, so that what is acknowledged can be read.

After any error the producer is discarded. A lane that another gateway has taken over stays fenced until `resume`.
"""

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from exchange.broker.kafka import transaction
from exchange.broker.kafka.client import KafkaClient
from exchange.broker.kafka.receipts import StoredReceipt, decode_receipts, encode_receipts
from exchange.broker.kafka.record_tags import RecordTags
from exchange.broker.kafka.settings import MAX_RECORD_BYTES, code_of, unavailable
from exchange.broker.kafka.timestamp_floor import TimestampFloors
from exchange.broker.kafka.topics import lane_group
from exchange.broker.port import Append, Appended
from exchange.broker.rules import RECEIPTS_PER_LANE, lane_fenced, split_duplicates
from schemas.errors import ConflictError, InvalidError, Reason, UnavailableError
from schemas.names import Lane, Topic

__all__ = ["LaneProducers"]

_MAX_ATTEMPTS = 3
# An interleaved batch costs a takeover: for so long afterwards, each record of its topic is reported.
_REPORT_EACH_SECONDS = 600.0
_FENCED = {
    KafkaError._FENCED,  # noqa: SLF001 - the library spells its local codes so
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.PRODUCER_FENCED,
}
_TOO_LARGE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE}
_LIBRARY_ERRORS = (KafkaException, SystemError, TimeoutError)


class _RetryError(Exception):
    """The attempt failed and its producer is unusable. `in_doubt`: receipts that may be committed nevertheless."""

    def __init__(self, in_doubt: tuple[Appended, ...] = ()) -> None:
        super().__init__()
        self.in_doubt = in_doubt


@dataclass(slots=True)
class _LaneWriter:
    """State of one lane in this gateway. Every field is guarded by its lock."""

    lane: Lane
    lock: threading.Lock = field(default_factory=threading.Lock)
    producer: Producer | None = None
    group: object = None
    receipts: tuple[Appended, ...] = ()
    encoded: str = ""  # the receipts as committed on Kafka
    fenced: bool = False
    own_digests: frozenset[bytes] | None = None  # the lane's last digest is one of these unless others have appended
    resumes: int = 0

    def discard_producer(self) -> None:
        """Discard the producer and the receipts; `own_digests` stays."""
        self.producer = None
        self.receipts, self.encoded = (), ""

    def mark_fenced(self) -> ConflictError:
        """Discard the producer of a lane that another gateway has taken over; return the error."""
        self.discard_producer()
        self.fenced = True
        return lane_fenced(self.lane)

    def last_digest(self) -> bytes:
        """Return the digest of the last batch, empty if there is none."""
        return self.receipts[-1].digest if self.receipts else b""


class LaneProducers:
    """The producers of this gateway, one a lane. Thread-safe; appends to one lane are serialised.

    Args:
        client: of the gateway.
        tags: of the records.
        restore_runs: finds the exact runs of a receipt that was stored with ranges.
        is_compacted: returns whether brokers keep the latest record of each key of a topic.
    """

    def __init__(
        self,
        client: KafkaClient,
        tags: RecordTags,
        restore_runs: Callable[[StoredReceipt], Appended],
        is_compacted: Callable[[Topic], bool],
    ) -> None:
        self._client = client
        self._tags = tags
        self._is_compacted = is_compacted
        self._restore_runs = restore_runs
        self._floors = TimestampFloors(client)
        self._lock = threading.Lock()
        self._writers: OrderedDict[Lane, _LaneWriter] = OrderedDict()
        self._topic_locks: dict[Topic, threading.Lock] = {}
        self._interleaved_at: dict[Topic, float] = {}  # monotonic seconds of the last interleaved batch

    def append(self, lane: Lane, batches: Sequence[Append]) -> tuple[list[Appended], list[Appended]]:
        """Append; return the receipts of the duplicates and of the batches appended now.

        Raises:
            ConflictError, InvalidError, UnavailableError: see `Broker.append`.
        """
        deadline = self._client.deadline()
        oversize = next(
            (b for b in batches if max(map(len, filter(None, b.values)), default=0) > MAX_RECORD_BYTES), None
        )
        if oversize is not None:
            raise _too_large(oversize.lane, oversize.sequence)
        with self._lock:
            existing = self._writers.get(lane)
            resumed = existing.resumes if existing else 0
        with self._writer(lane, deadline) as writer:
            # Resumed meanwhile: what `resume` returned must stay true.
            if writer.fenced or writer.resumes != resumed:
                raise lane_fenced(lane)
            return self._append(writer, batches, deadline)

    def resume(self, lane: Lane) -> tuple[Appended, ...]:
        """Take the lane over from any owner; return its receipts, oldest first.

        Raises:
            UnavailableError: BROKER_UNAVAILABLE.
        """
        deadline = self._client.deadline()
        with self._writer(lane, deadline) as writer:
            while True:
                writer.discard_producer()
                writer.fenced, writer.own_digests = False, None
                try:
                    self._take_over(writer, deadline)
                except ConflictError as error:
                    # Another gateway takes it over at the same moment. The last one wins: try again.
                    if time.monotonic() >= deadline:
                        raise unavailable(error, f"let lane {lane} be taken over") from error
                else:
                    writer.resumes += 1
                    return writer.receipts

    def peek(self, lane: Lane) -> tuple[Appended, ...]:
        """Return the lane's committed receipts, oldest first, without waiting and without taking the lane over.

        Raises:
            UnavailableError: BROKER_UNAVAILABLE.
        """
        try:
            stored = self._committed_receipts(lane, self._client.deadline())
        except _LIBRARY_ERRORS as error:
            raise unavailable(error, f"return the receipts of lane {lane}") from error
        return tuple(each.receipt if each.exact else self._restore_runs(each) for each in stored)

    def close(self) -> None:
        """Discard every producer once its append has ended; later appends find a closed client."""
        with self._lock:
            writers = list(self._writers.values())
        for writer in writers:
            if writer.lock.acquire(timeout=self._client.settings.call_timeout):
                writer.discard_producer()
                writer.lock.release()
        self._floors.close()

    @contextlib.contextmanager
    def _writer(self, lane: Lane, deadline: float) -> Iterator[_LaneWriter]:
        with self._lock:
            writer = self._writers.setdefault(lane, _LaneWriter(lane))
            self._writers.move_to_end(lane)
        if not writer.lock.acquire(timeout=transaction.remaining(deadline)):
            raise unavailable(None, f"finish the append before this one to lane {lane}")
        try:
            yield writer
        except UnavailableError:
            self._client.record_failure()
            raise
        finally:
            writer.lock.release()
            self._evict()

    def _evict(self) -> None:
        """Discard the producers of the least recently used lanes."""
        with self._lock:
            open_writers = [writer for writer in self._writers.values() if writer.producer is not None]
        for writer in open_writers[: max(len(open_writers) - self._client.settings.max_producers, 0)]:
            if writer.lock.acquire(blocking=False):
                writer.discard_producer()
                writer.lock.release()

    def _append(
        self, writer: _LaneWriter, batches: Sequence[Append], deadline: float
    ) -> tuple[list[Appended], list[Appended]]:
        duplicates: list[Appended] = []
        in_doubt: tuple[Appended, ...] = ()
        for _ in range(_MAX_ATTEMPTS):
            taken_over = writer.producer is None
            if taken_over:
                self._take_over(writer, deadline, in_doubt=bool(in_doubt))
            if in_doubt and writer.last_digest() == in_doubt[-1].digest:
                return duplicates, list(in_doubt)
            try:
                duplicates, new = split_duplicates(writer.receipts, batches)
            except ConflictError as error:
                if error.reason is Reason.SEQUENCE_GAP and not taken_over:
                    self._prove_ownership(writer, deadline)
                raise
            if not new:
                return duplicates, []
            try:
                return duplicates, self._commit(writer, new, deadline, duplicate_count=len(duplicates))
            except _RetryError as retry:
                in_doubt = retry.in_doubt
                writer.own_digests = frozenset({writer.last_digest(), *(receipt.digest for receipt in in_doubt[-1:])})
                writer.discard_producer()
                if in_doubt:
                    # An outcome in doubt is worth more waiting than the deadline allows.
                    deadline = max(deadline, time.monotonic() + self._client.settings.call_timeout / 2)
                elif time.monotonic() >= deadline:
                    break
        raise (
            _outcome_unknown(writer.lane)
            if in_doubt
            else unavailable(None, f"accept the batches of lane {writer.lane}")
        )

    def _take_over(self, writer: _LaneWriter, deadline: float, *, in_doubt: bool = False) -> None:
        """Take the lane over and read its receipts.

        A lane of which this gateway has only discarded the producer is taken back only if no other has appended since.

        Raises:
            ConflictError: LANE_FENCED.
            UnavailableError: BROKER_UNAVAILABLE; OUTCOME_UNKNOWN, when batches are in doubt.
        """
        lane = writer.lane
        try:
            if writer.own_digests is not None and self._last_digest(lane, deadline) not in writer.own_digests:
                raise writer.mark_fenced()
            with contextlib.closing(self._client.open_group(lane_group(lane))) as group:
                producer = Producer(self._client.settings.producer(lane_group(lane)))
                transaction.initialise(producer, lane, deadline)
                encoded = self._committed_metadata(group, lane, deadline)
                writer.group = group.consumer_group_metadata()
            stored = decode_receipts(lane, encoded)
            writer.encoded = encoded.rstrip("\0")
            writer.receipts = tuple(each.receipt if each.exact else self._restore_runs(each) for each in stored)
        except _LIBRARY_ERRORS as error:
            if code_of(error) in _FENCED:
                raise writer.mark_fenced() from error
            raise (_outcome_unknown(lane) if in_doubt else unavailable(error, f"hand over lane {lane}")) from error
        except UnavailableError as error:
            raise (_outcome_unknown(lane) if in_doubt else error) from error
        writer.producer = producer
        writer.own_digests = frozenset({writer.last_digest()})

    def _committed_receipts(self, lane: Lane, deadline: float) -> tuple[StoredReceipt, ...]:
        """Return the lane's committed receipts, without taking the lane over and without waiting."""
        with contextlib.closing(self._client.open_group(lane_group(lane), stable=False)) as group:
            return decode_receipts(lane, self._committed_metadata(group, lane, deadline))

    def _last_digest(self, lane: Lane, deadline: float) -> bytes:
        """Return the digest of the lane's last committed batch, empty if there is none."""
        stored = self._committed_receipts(lane, deadline)
        return stored[-1].receipt.digest if stored else b""

    def _committed_metadata(self, group: Consumer, lane: Lane, deadline: float) -> str:
        committed = self._client.committed_offset(group, lane.topic, deadline)
        return "" if committed is None else committed[1]

    def _prove_ownership(self, writer: _LaneWriter, deadline: float) -> None:
        """Commit the receipts once more, unchanged, which only the lane's owner can.

        Raises:
            ConflictError: LANE_FENCED.
            UnavailableError: BROKER_UNAVAILABLE.
        """
        producer = _producer_of(writer)
        try:
            producer.begin_transaction()
            last = writer.receipts[-1].sequence if writer.receipts else 0
            transaction.send_receipts(producer, writer.lane, writer.group, last, writer.encoded, deadline)
            transaction.commit(producer, deadline)
        except _LIBRARY_ERRORS as error:
            if code_of(error) in _FENCED:
                raise writer.mark_fenced() from error
            writer.discard_producer()
            raise unavailable(error, f"confirm the owner of lane {writer.lane}") from error

    def _commit(
        self, writer: _LaneWriter, new: Sequence[Append], deadline: float, *, duplicate_count: int = 0
    ) -> list[Appended]:
        """Append new batches in one transaction, whose receipts include those of the duplicates right before them.

        Raises:
            _RetryError: nothing of it is visible, or the outcome is in doubt; the producer must be discarded.
            ConflictError: LANE_FENCED.
            InvalidError: BATCH_TOO_LARGE.
            UnavailableError: CLOCK_JUMPED or DISK_FULL; nothing was stored.
        """
        producer = _producer_of(writer)
        in_doubt: tuple[Appended, ...] = ()
        try:
            with self._in_order(writer.lane.topic, deadline):
                partitions = {number for batch in new for number in batch.partitions}
                floor = self._floors.floor(writer.lane.topic, partitions, deadline)
                report_each = self._report_each(writer.lane.topic)
                appended = transaction.produce(
                    producer,
                    new,
                    floor,
                    deadline,
                    self._tags,
                    compacted=self._is_compacted(writer.lane.topic),
                    report_each=report_each,
                )
                runs = [run for receipt in appended for run in receipt.runs]
                if len(runs) > sum(len(set(batch.partitions)) for batch in new):
                    self._interleaved_at[writer.lane.topic] = time.monotonic()
                self._floors.record_written(writer.lane.topic, runs, appended[-1].recorded_at // 1000)
            receipts = (*writer.receipts, *appended)[-RECEIPTS_PER_LANE:]
            # A duplicate may still wait for its audit entry, as the new batches do.
            encoded = encode_receipts(receipts, min(duplicate_count + len(appended), len(receipts)))
            transaction.send_receipts(producer, writer.lane, writer.group, receipts[-1].sequence, encoded, deadline)
            in_doubt = tuple(appended)
            transaction.commit(producer, deadline)
        except transaction.InterleavedError as error:
            self._interleaved_at[writer.lane.topic] = time.monotonic()
            transaction.abort(producer)
            raise _RetryError from error
        except _LIBRARY_ERRORS as error:
            # The error reported may be a consequence of another record's, which a report for each record would show.
            if not in_doubt or transaction.requires_abort(error):
                self._interleaved_at[writer.lane.topic] = time.monotonic()
            raise self._interpret(writer, producer, new, in_doubt, error) from error
        writer.receipts, writer.encoded = receipts, encoded
        writer.own_digests = frozenset({writer.last_digest()})
        self._await_markers(writer.lane, appended, deadline)
        return appended

    def _report_each(self, topic: Topic) -> bool:
        """Return whether to ask for a delivery report of each record: a batch was interleaved lately."""
        return time.monotonic() - self._interleaved_at.get(topic, -_REPORT_EACH_SECONDS) < _REPORT_EACH_SECONDS

    def _await_markers(self, lane: Lane, appended: Sequence[Appended], deadline: float) -> None:
        """Wait until Kafka has written the transaction's markers, so that a reader finds the batches from now on.

        They follow the commit within milliseconds; a broker that never writes them has lost the transaction
        (KAFKA-20734), and then nothing is acknowledged. A stable offset before the first record is held back by
        another producer's open transaction, and not waited for.

        Raises:
            UnavailableError: OUTCOME_UNKNOWN.
        """
        waiting: dict[int, tuple[int, int]] = {}
        for run in (run for receipt in appended for run in receipt.runs):
            first, last = waiting.get(run.partition, (run.first, run.last))
            waiting[run.partition] = (min(first, run.first), max(last, run.last))
        delay = 0.001
        while waiting:
            stable = self._client.stable_offsets(lane.topic, waiting, deadline)
            waiting = {number: (a, z) for number, (a, z) in waiting.items() if a <= stable[number] <= z}
            if waiting:
                if time.monotonic() >= deadline:
                    raise _outcome_unknown(lane)
                time.sleep(delay)
                delay = min(delay * 2, 0.05)

    def _interpret(
        self,
        writer: _LaneWriter,
        producer: Producer,
        new: Sequence[Append],
        in_doubt: tuple[Appended, ...],
        error: BaseException,
    ) -> Exception:
        """Translate an error of the library in mid-transaction; abort unless the transaction may be committed."""
        code = code_of(error)
        if code in _FENCED:
            return writer.mark_fenced()
        if in_doubt and not transaction.requires_abort(error):
            return _RetryError(in_doubt)
        if not isinstance(error, TimeoutError):
            transaction.abort(producer)
        if code in _TOO_LARGE:
            failure: Exception = _too_large(writer.lane, new[0].sequence)
        elif code == KafkaError.INVALID_TIMESTAMP:
            failure = _clock_ahead()
        elif code == KafkaError.KAFKA_STORAGE_ERROR:
            failure = unavailable(error)
        else:
            return _RetryError()
        writer.discard_producer()
        return failure

    @contextlib.contextmanager
    def _in_order(self, topic: Topic, deadline: float) -> Iterator[None]:
        """Serialise a topic's appends, from reading its newest time to writing the last record.

        So recorded_at never falls within a partition, however many lanes this gateway has.
        """
        with self._lock:
            lock = self._topic_locks.setdefault(topic, threading.Lock())
        if not lock.acquire(timeout=transaction.remaining(deadline)):
            raise unavailable(None, f"finish the appends before this one to {topic}")
        try:
            yield
        finally:
            lock.release()


def _producer_of(writer: _LaneWriter) -> Producer:
    if writer.producer is None:
        raise _RetryError
    return writer.producer


def _too_large(lane: Lane, sequence: int) -> InvalidError:
    return InvalidError(
        Reason.BATCH_TOO_LARGE,
        f"batch {sequence} of {lane} holds a record that is larger than Kafka accepts ({MAX_RECORD_BYTES} bytes); "
        "nothing of the batch was stored",
        details={"sequence": str(sequence)},
    )


def _clock_ahead() -> UnavailableError:
    return UnavailableError(
        Reason.CLOCK_JUMPED,
        "Kafka rejects the batch's time as too far ahead of its own clock; compare the clocks of the two machines",
        retry_after=10.0,
    )


def _outcome_unknown(lane: Lane) -> UnavailableError:
    return UnavailableError(
        Reason.OUTCOME_UNKNOWN,
        f"Kafka did not say whether it has stored the last batches of {lane}; resume the lane",
        retry_after=1.0,
    )
