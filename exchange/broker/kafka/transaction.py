"""One transaction on a lane's producer, in the order that makes it whole: produce, count, send the receipts, commit.

Functions over librdkafka's producer, which raise its own errors; `kafka_lanes` knows what each of them means.

Where records stand is told by delivery reports, and a report a record is dear: for each of them threads hand the
interpreter to each other. So only the first and the last record of a batch in each partition are reported. Where as
many offsets lie between them as records were sent, the records fill them: brokers take a producer's records of a
partition in a row or not at all, and a transaction of which any record fails cannot be committed. Where it is another
number, others have written in between, and only a report of each record tells where (ADR 0038).
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from exchange.broker.kafka.receipts import headers, runs_of
from exchange.broker.port import Append, Appended
from schemas.failpoints import reached
from schemas.names import Lane

__all__ = ["InterleavedError", "abort", "aborts", "commit", "initialise", "left", "produce", "send_receipts"]

_ABORT = 2.0  # seconds for an abort, which only spares readers the transaction's timeout
_SERVE = 500  # records produced between two looks at delivery reports
_PAUSE = 0.05
_GRACE = 2.0  # seconds beyond its timeout that a call may take
_NO_TIMES = bytes(16)

Report = Callable[[KafkaError | None, Any], None]


class InterleavedError(Exception):
    """The ends of a batch do not tell where its records stand; the transaction must be aborted."""


def left(deadline: float) -> float:
    """Return the seconds until a moment, at least a little: librdkafka takes a negative number forever."""
    return max(deadline - time.monotonic(), 0.05)


def initialise(producer: Producer, lane: Lane, deadline: float) -> None:
    """Fence whoever had the lane, abort what it left open, wait for what it had begun to commit."""
    # Without the metadata at hand, the next step sometimes waits half a second.
    producer.list_topics(str(lane.topic), timeout=left(deadline))
    while True:
        try:
            producer.init_transactions(left(deadline))
        except KafkaException as error:
            again = error.args[0].retriable() or error.args[0].code() == KafkaError._TIMED_OUT  # noqa: SLF001
            if not again or time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE)
        else:
            return


def produce(
    producer: Producer, batches: Sequence[Append], floor: int, deadline: float, *, each: bool = True
) -> list[Appended]:
    """Begin a transaction, produce the batches and wait until the brokers have all of it; give the receipts-to-be.

    Args:
        producer: the lane's.
        batches: checked, consecutive.
        floor: milliseconds UTC below which no record's time may fall.
        deadline: monotonic seconds.
        each: have each record reported; else those at the ends, which tells enough unless others write as well.

    Raises:
        KafkaException: a record was not taken; the transaction must be aborted.
        TimeoutError: not all delivery reports came in time.
        InterleavedError: the ends do not tell where the others are.
    """
    producer.begin_transaction()
    failed: list[KafkaError] = []
    places: list[tuple[int, dict[int, list[int]]]] = []
    for batch in batches:
        floor = max(floor, batch.recorded_at // 1000, 0)
        places.append((floor, _produce(producer, batch, floor, failed, deadline, each=each)))
    waiting = producer.flush(left(deadline))
    if failed:
        raise KafkaException(failed[0])
    if waiting:
        raise TimeoutError
    appended = [
        _receipt(batch, millisecond, offsets if each else _between(batch, offsets))
        for batch, (millisecond, offsets) in zip(batches, places, strict=True)
    ]
    whole = all(receipt.count == len(batch.keys) for receipt, batch in zip(appended, batches, strict=True))
    # A report can be without an offset, where the library has concluded from another answer that a record was taken.
    if not whole or any(run.first < 0 for receipt in appended for run in receipt.runs):
        raise TimeoutError
    reached("after_produce")
    return appended


def _produce(
    producer: Producer, batch: Append, millisecond: int, failed: list[KafkaError], deadline: float, *, each: bool
) -> dict[int, list[int]]:
    topic, send = str(batch.lane.topic), producer.produce
    told = range(len(batch.partitions)) if each else _ends(batch.partitions)
    offsets: defaultdict[int, list[int]] = defaultdict(list)
    reports: dict[int, Report] = {number: _reporter(offsets[number], failed) for number in set(batch.partitions)}
    shared: dict[int, Any] = headers(batch)
    valid = batch.valid
    rows = zip(batch.values, batch.keys, batch.partitions, batch.marks, strict=True)
    for index, (value, key, partition, mark) in enumerate(rows):
        head = shared[mark]
        if valid and (times := valid[16 * index : 16 * index + 16]) != _NO_TIMES:
            head = [*head, ("pool_valid", times)]
        while True:
            try:
                report = reports[partition] if index in told else None
                send(topic, value, key, partition, report, timestamp=millisecond, headers=head)
            except BufferError:
                if time.monotonic() >= deadline:
                    raise TimeoutError from None
                producer.poll(_PAUSE)
            else:
                break
        if not index % _SERVE:
            producer.poll(0)
    return offsets


def _ends(partitions: Sequence[int]) -> set[int]:
    """Return the places of the first and the last record in each partition."""
    count = len(partitions)
    first = dict(zip(reversed(partitions), range(count - 1, -1, -1), strict=True))
    last = dict(zip(partitions, range(count), strict=True))
    return {*first.values(), *last.values()}


def _between(batch: Append, ends: dict[int, list[int]]) -> dict[int, range]:
    """Return the offsets of a batch's records in each partition, of which the first and the last were reported."""
    between = {}
    for partition, count in Counter(batch.partitions).items():
        told = ends[partition]
        if len(told) != min(count, 2):
            raise TimeoutError
        between[partition] = range(told[0], told[-1] + 1)
        if len(between[partition]) != count:
            raise InterleavedError
    return between


def _reporter(offsets: list[int], failed: list[KafkaError]) -> Report:
    note = offsets.append

    def report(error: KafkaError | None, message: Any) -> None:
        if error is None:
            note(message.offset())
        else:
            failed.append(error)

    return report


def _receipt(batch: Append, millisecond: int, offsets: Mapping[int, Sequence[int]]) -> Appended:
    return Appended(
        lane=batch.lane,
        sequence=batch.sequence,
        digest=batch.digest,
        source_position=batch.source_position,
        recorded_at=millisecond * 1000,
        count=sum(map(len, offsets.values())),
        runs=runs_of(offsets.items()),
    )


def send_receipts(producer: Producer, lane: Lane, group: object, last: int, text: str, deadline: float) -> None:
    """Put the lane's latest receipts into the open transaction; the offset itself is the last sequence.

    Args:
        producer: the lane's.
        lane: whose receipts they are.
        group: the lane's group, as a consumer of it knows it.
        last: sequence of the last one, 0 without any.
        text: the receipts as `kafka_receipts.encode` packs them.
        deadline: monotonic seconds.

    Raises:
        KafkaException: they were not taken.
        TimeoutError: no answer; the producer must be given up.
    """
    place = [TopicPartition(str(lane.topic), 0, last, text)]
    patience = left(deadline)
    errors: list[BaseException] = []

    def send() -> None:
        try:
            producer.send_offsets_to_transaction(place, group, patience)
        except (KafkaException, SystemError) as error:
            errors.append(error)

    # This call alone does not keep to its timeout (librdkafka 2.16.0, issue 5456). A thread that is left behind with
    # its producer is bad; a lane that nobody can ever use again is worse.
    thread = threading.Thread(target=send, name="kafka-receipts", daemon=True)
    thread.start()
    thread.join(patience + _GRACE)
    if thread.is_alive():
        raise TimeoutError
    if errors:
        raise errors[0]


def commit(producer: Producer, deadline: float) -> None:
    """Commit, once: what an error of this call leaves in doubt is for the receipts to tell."""
    producer.commit_transaction(left(deadline))


def abort(producer: Producer) -> None:
    """Abort so that readers do not wait for the transaction's timeout; the producer must not be used again."""
    try:
        producer.abort_transaction(_ABORT)
    except (KafkaException, SystemError):
        return  # the next takeover aborts it, or Kafka itself after its timeout


def aborts(error: BaseException) -> bool:
    """Return whether an error of a commit says for certain that the transaction was not committed."""
    return isinstance(error, KafkaException) and bool(error.args) and error.args[0].txn_requires_abort()
