"""Exactly-once append on Kafka: one transactional producer per active lane.

The records of a group of batches and the lane's receipts are one transaction: the receipts travel as the metadata of
an offset of the lane's own group. The producer's transactional id is the lane, so that taking the lane over
(`init_transactions`) fences the older owner in Kafka itself: a gateway that was stopped in mid-transaction and wakes
up later appends nothing. Writing records first and removing doubles later would not do: the sleeper's records are in.

An append, step by step; the order is what makes it hold:

1. own the lane: take it over, then read its receipts, waiting for stable ones;
2. tell known batches from new ones; a number too high is believed only of a lane that is still ours;
3. produce everything, flush, and hold the delivery reports against what was sent: a record that is too large fails
   alone;
4. offsets are known now, before the commit: pack them into the receipts and send them to the transaction;
5. commit. Only now do the receipts hold. A commit is never repeated: where its outcome is unknown, the lane is taken
   over and its receipts tell;
6. wait for the transaction's markers: what is acknowledged can be read.

After any error the producer is dropped. A lane that another gateway has taken stays lost until `resume`.
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
from exchange.broker.kafka.receipts import Kept, encode, unpack
from exchange.broker.kafka.settings import MAX_RECORD_BYTES, code_of, unavailable
from exchange.broker.kafka.timestamp_floor import TimestampFloors
from exchange.broker.kafka.topics import lane_group
from exchange.broker.port import Append, Appended
from exchange.broker.rules import RECEIPTS_PER_LANE, lane_fenced, split_duplicates
from schemas.errors import ConflictError, InvalidError, Reason, UnavailableError
from schemas.names import Lane, Topic

__all__ = ["Lanes"]

_ATTEMPTS = 3
_UNCLEAR = 600.0  # seconds for which each record of a topic is reported; that the ends do not do costs a takeover
_FENCED = {
    KafkaError._FENCED,  # noqa: SLF001 - the library spells its local codes so
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.PRODUCER_FENCED,
}
_TOO_LARGE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE}
_FOREIGN = (KafkaException, SystemError, TimeoutError)


class _Again(Exception):  # noqa: N818 - it ends an attempt, not a call
    """The attempt failed and the producer is spent. `doubt`: what may have been committed all the same."""

    def __init__(self, doubt: tuple[Appended, ...] = ()) -> None:
        super().__init__()
        self.doubt = doubt


@dataclass(slots=True)
class _Writer:
    """One lane as this gateway knows it. Everything is touched under its lock."""

    lane: Lane
    lock: threading.Lock = field(default_factory=threading.Lock)
    producer: Producer | None = None
    group: object = None
    receipts: tuple[Appended, ...] = ()
    text: str = ""  # the receipts as they stand on Kafka
    fenced: bool = False
    mine: frozenset[bytes] | None = None  # last digests by which the lane is known to be untouched by others
    resumes: int = 0

    def drop(self) -> None:
        """Return the producer up; what the lane's last batch may be is remembered."""
        self.producer = None
        self.receipts, self.text = (), ""

    def lost(self) -> ConflictError:
        """Note that another gateway has the lane."""
        self.drop()
        self.fenced = True
        return lane_fenced(self.lane)

    def last(self) -> bytes:
        """Return the digest of the last batch, empty if there is none."""
        return self.receipts[-1].digest if self.receipts else b""


class Lanes:
    """All lanes of this gateway. Thread-safe; appends to one lane wait for each other.

    Args:
        link: the gateway's line.
        exact: finds the exact runs of a receipt that was kept with ranges.
    """

    def __init__(self, link: KafkaClient, exact: Callable[[Kept], Appended]) -> None:
        self._link = link
        self._exact = exact
        self._floors = TimestampFloors(link)
        self._lock = threading.Lock()
        self._writers: OrderedDict[Lane, _Writer] = OrderedDict()
        self._orders: dict[Topic, threading.Lock] = {}
        self._unclear: dict[Topic, float] = {}  # when reports of the ends did not tell enough, monotonic seconds

    def append(self, lane: Lane, batches: Sequence[Append]) -> tuple[list[Appended], list[Appended]]:
        """Append; give the receipts of batches known before, as duplicates, and of those appended now.

        Raises:
            ConflictError, InvalidError, UnavailableError: see `Broker.append`.
        """
        deadline = self._link.deadline()
        large = next((b for b in batches if max(map(len, filter(None, b.values)), default=0) > MAX_RECORD_BYTES), None)
        if large is not None:
            raise _too_large(large.lane, large.sequence)
        with self._lock:
            known = self._writers.get(lane)
            resumed = known.resumes if known else 0
        with self._writer(lane, deadline) as writer:
            # Resumed while it waited: whoever did was told where the lane stands.
            if writer.fenced or writer.resumes != resumed:
                raise lane_fenced(lane)
            return self._append(writer, batches, deadline)

    def resume(self, lane: Lane) -> tuple[Appended, ...]:
        """Take the lane over, whoever has it; give its receipts, oldest first.

        Raises:
            UnavailableError: BROKER_UNAVAILABLE.
        """
        deadline = self._link.deadline()
        with self._writer(lane, deadline) as writer:
            while True:
                writer.drop()
                writer.fenced, writer.mine = False, None
                try:
                    self._take_over(writer, deadline)
                except ConflictError as error:
                    # Others take it over at this very moment. The last one wins, and we were asked to be it.
                    if time.monotonic() >= deadline:
                        raise unavailable(error, f"let lane {lane} be taken over") from error
                else:
                    writer.resumes += 1
                    return writer.receipts

    def peek_lane(self, lane: Lane) -> tuple[Appended, ...]:
        """Return the lane's committed receipts, oldest first, whoever has it; neither waits for it nor takes it.

        Raises:
            UnavailableError: BROKER_UNAVAILABLE.
        """
        try:
            kept = self._committed(lane, self._link.deadline())
        except _FOREIGN as error:
            raise unavailable(error, f"tell where lane {lane} stands") from error
        return tuple(each.receipt if each.exact else self._exact(each) for each in kept)

    def close(self) -> None:
        """Return every producer back once its append has ended; later appends find a closed link."""
        with self._lock:
            writers = list(self._writers.values())
        for writer in writers:
            if writer.lock.acquire(timeout=self._link.settings.patience):
                writer.drop()
                writer.lock.release()
        self._floors.close()

    @contextlib.contextmanager
    def _writer(self, lane: Lane, deadline: float) -> Iterator[_Writer]:
        with self._lock:
            writer = self._writers.setdefault(lane, _Writer(lane))
            self._writers.move_to_end(lane)
        if not writer.lock.acquire(timeout=transaction.left(deadline)):
            raise unavailable(None, f"finish the append before this one to lane {lane}")
        try:
            yield writer
        except UnavailableError:
            self._link.doubt()
            raise
        finally:
            writer.lock.release()
            self._trim()

    def _trim(self) -> None:
        """Return back the producers of the lanes that were used longest ago."""
        with self._lock:
            held = [writer for writer in self._writers.values() if writer.producer is not None]
        for writer in held[: max(len(held) - self._link.settings.lanes, 0)]:
            if writer.lock.acquire(blocking=False):
                writer.drop()
                writer.lock.release()

    def _append(
        self, writer: _Writer, batches: Sequence[Append], deadline: float
    ) -> tuple[list[Appended], list[Appended]]:
        before: list[Appended] = []
        doubt: tuple[Appended, ...] = ()
        for _ in range(_ATTEMPTS):
            taken = writer.producer is None
            if taken:
                self._take_over(writer, deadline, in_doubt=bool(doubt))
            if doubt and writer.last() == doubt[-1].digest:
                return before, list(doubt)
            try:
                before, new = split_duplicates(writer.receipts, batches)
            except ConflictError as error:
                if error.reason is Reason.SEQUENCE_GAP and not taken:
                    self._prove(writer, deadline)
                raise
            if not new:
                return before, []
            try:
                return before, self._commit(writer, new, deadline, known=len(before))
            except _Again as again:
                doubt = again.doubt
                writer.mine = frozenset({writer.last(), *(receipt.digest for receipt in doubt[-1:])})
                writer.drop()
                if doubt:
                    # What was in doubt is worth waiting for a little longer than was promised.
                    deadline = max(deadline, time.monotonic() + self._link.settings.patience / 2)
                elif time.monotonic() >= deadline:
                    break
        raise _unknown(writer.lane) if doubt else unavailable(None, f"take the batches of lane {writer.lane}")

    def _take_over(self, writer: _Writer, deadline: float, *, in_doubt: bool = False) -> None:
        """Own the lane and know its receipts.

        A lane that was ours and lost its producer is taken back only if nobody has appended in between.

        Raises:
            ConflictError: LANE_FENCED.
            UnavailableError: BROKER_UNAVAILABLE; OUTCOME_UNKNOWN, when batches are in doubt.
        """
        lane = writer.lane
        try:
            if writer.mine is not None and self._last_of(lane, deadline) not in writer.mine:
                raise writer.lost()
            with contextlib.closing(self._link.group(lane_group(lane))) as group:
                producer = Producer(self._link.settings.producer(lane_group(lane)))
                transaction.initialise(producer, lane, deadline)
                text = self._text(group, lane, deadline)
                writer.group = group.consumer_group_metadata()
            kept = unpack(lane, text)
            writer.text = text.rstrip("\0")
            writer.receipts = tuple(each.receipt if each.exact else self._exact(each) for each in kept)
        except _FOREIGN as error:
            if code_of(error) in _FENCED:
                raise writer.lost() from error
            raise (_unknown(lane) if in_doubt else unavailable(error, f"give lane {lane}")) from error
        except UnavailableError as error:
            raise (_unknown(lane) if in_doubt else error) from error
        writer.producer = producer
        writer.mine = frozenset({writer.last()})

    def _committed(self, lane: Lane, deadline: float) -> tuple[Kept, ...]:
        """Return the lane's committed receipts, without taking the lane over and without waiting."""
        with contextlib.closing(self._link.group(lane_group(lane), stable=False)) as group:
            return unpack(lane, self._text(group, lane, deadline))

    def _last_of(self, lane: Lane, deadline: float) -> bytes:
        """Return the digest of the lane's last committed batch; see `_committed`."""
        kept = self._committed(lane, deadline)
        return kept[-1].receipt.digest if kept else b""

    def _text(self, group: Consumer, lane: Lane, deadline: float) -> str:
        place = self._link.stands_at(group, lane.topic, deadline)
        return "" if place is None else place[1]

    def _prove(self, writer: _Writer, deadline: float) -> None:
        """Commit the receipts once more, unchanged: only the lane's owner can.

        Raises:
            ConflictError: LANE_FENCED.
            UnavailableError: BROKER_UNAVAILABLE.
        """
        producer = _held(writer)
        try:
            producer.begin_transaction()
            last = writer.receipts[-1].sequence if writer.receipts else 0
            transaction.send_receipts(producer, writer.lane, writer.group, last, writer.text, deadline)
            transaction.commit(producer, deadline)
        except _FOREIGN as error:
            if code_of(error) in _FENCED:
                raise writer.lost() from error
            writer.drop()
            raise unavailable(error, f"tell who has lane {writer.lane}") from error

    def _commit(self, writer: _Writer, new: Sequence[Append], deadline: float, *, known: int = 0) -> list[Appended]:
        """Append new batches in one transaction, whose receipts keep the *known* ones right before them as well.

        Raises:
            _Again: nothing of it is visible, or the outcome is in doubt; the producer must be dropped.
            ConflictError: LANE_FENCED.
            InvalidError: BATCH_TOO_LARGE.
            UnavailableError: CLOCK_JUMPED or DISK_FULL; nothing was stored.
        """
        producer = _held(writer)
        doubt: tuple[Appended, ...] = ()
        try:
            with self._ordered(writer.lane.topic, deadline):
                touched = {number for batch in new for number in batch.partitions}
                floor = self._floors.floor(writer.lane.topic, touched, deadline)
                appended = transaction.produce(producer, new, floor, deadline, each=self._each(writer.lane.topic))
                runs = [run for receipt in appended for run in receipt.runs]
                if len(runs) > sum(len(set(batch.partitions)) for batch in new):
                    self._unclear[writer.lane.topic] = time.monotonic()
                self._floors.wrote(writer.lane.topic, runs, appended[-1].recorded_at // 1000)
            receipts = (*writer.receipts, *appended)[-RECEIPTS_PER_LANE:]
            # A batch that was known before may still wait for its entry, as the new ones do.
            text = encode(receipts, min(known + len(appended), len(receipts)))
            transaction.send_receipts(producer, writer.lane, writer.group, receipts[-1].sequence, text, deadline)
            doubt = tuple(appended)
            transaction.commit(producer, deadline)
        except transaction.InterleavedError as error:
            self._unclear[writer.lane.topic] = time.monotonic()
            transaction.abort(producer)
            raise _Again from error
        except _FOREIGN as error:
            if not doubt or transaction.aborts(error):  # what is told may be a consequence, the cause another record
                self._unclear[writer.lane.topic] = time.monotonic()
            raise self._failed(writer, producer, new, doubt, error) from error
        writer.receipts, writer.text = receipts, text
        writer.mine = frozenset({writer.last()})
        self._settle(writer.lane, appended, deadline)
        return appended

    def _each(self, topic: Topic) -> bool:
        """Return whether each record is to be reported: the ends did not tell enough lately."""
        return time.monotonic() - self._unclear.get(topic, -_UNCLEAR) < _UNCLEAR

    def _settle(self, lane: Lane, appended: Sequence[Appended], deadline: float) -> None:
        """Wait until Kafka has written the transaction's markers, so that a reader who comes now finds the batches.

        They follow the commit within milliseconds; a broker that never writes them has lost the transaction
        (KAFKA-20734), and then nothing is acknowledged. A stable offset before the first record is held there by
        somebody else's open transaction, and not waited for.

        Raises:
            UnavailableError: OUTCOME_UNKNOWN.
        """
        waiting: dict[int, tuple[int, int]] = {}
        for run in (run for receipt in appended for run in receipt.runs):
            first, last = waiting.get(run.partition, (run.first, run.last))
            waiting[run.partition] = (min(first, run.first), max(last, run.last))
        pause = 0.001
        while waiting:
            stable = self._link.stable(lane.topic, waiting, deadline)
            waiting = {number: (a, z) for number, (a, z) in waiting.items() if a <= stable[number] <= z}
            if waiting:
                if time.monotonic() >= deadline:
                    raise _unknown(lane)
                time.sleep(pause)
                pause = min(pause * 2, 0.05)

    def _failed(
        self,
        writer: _Writer,
        producer: Producer,
        new: Sequence[Append],
        doubt: tuple[Appended, ...],
        error: BaseException,
    ) -> Exception:
        """Return what an error in mid-transaction means."""
        code = code_of(error)
        if code in _FENCED:
            return writer.lost()
        if doubt and not transaction.aborts(error):
            return _Again(doubt)
        if not isinstance(error, TimeoutError):
            transaction.abort(producer)
        if code in _TOO_LARGE:
            answer: Exception = _too_large(writer.lane, new[0].sequence)
        elif code == KafkaError.INVALID_TIMESTAMP:
            answer = _ahead()
        elif code == KafkaError.KAFKA_STORAGE_ERROR:
            answer = unavailable(error)
        else:
            return _Again()
        writer.drop()
        return answer

    @contextlib.contextmanager
    def _ordered(self, topic: Topic, deadline: float) -> Iterator[None]:
        """Let one append at a time go from the topic's newest time to its last record in the log.

        So recorded_at never falls within a partition, however many lanes this gateway has.
        """
        with self._lock:
            order = self._orders.setdefault(topic, threading.Lock())
        if not order.acquire(timeout=transaction.left(deadline)):
            raise unavailable(None, f"finish the appends before this one to {topic}")
        try:
            yield
        finally:
            order.release()


def _held(writer: _Writer) -> Producer:
    if writer.producer is None:
        raise _Again
    return writer.producer


def _too_large(lane: Lane, sequence: int) -> InvalidError:
    return InvalidError(
        Reason.BATCH_TOO_LARGE,
        f"batch {sequence} of {lane} holds a record that is larger than Kafka takes ({MAX_RECORD_BYTES} bytes); "
        "nothing of the batch was stored",
        details={"sequence": str(sequence)},
    )


def _ahead() -> UnavailableError:
    return UnavailableError(
        Reason.CLOCK_JUMPED,
        "Kafka refuses the batch's time as too far ahead of its own clock; compare the clocks of the two machines",
        retry_after=10.0,
    )


def _unknown(lane: Lane) -> UnavailableError:
    return UnavailableError(
        Reason.OUTCOME_UNKNOWN,
        f"Kafka did not say whether it has stored the last batches of {lane}; ask where the lane stands",
        retry_after=1.0,
    )
