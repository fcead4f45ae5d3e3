"""Kafka transaction of one append: produce, check the delivery reports, send the receipts, commit.

Functions over librdkafka's producer, which raise its own errors; `producers` decides what each of them means.

Delivery reports say which offsets the records got, and a report for each record is expensive: for each one, threads
hand over the interpreter lock. So only the first and the last record of a batch in each partition are reported. Where
as many offsets lie between them as records were sent, they are the batch's: brokers take a producer's records of a
partition contiguously or not at all, and a transaction of which any record fails cannot be committed. Where the
number differs, other producers have written in between, and only a report for each record shows where (ADR 0038).
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from exchange.broker.kafka.message import Header
from exchange.broker.kafka.receipts import headers, runs_of
from exchange.broker.kafka.record_tags import RecordTags, header_of
from exchange.broker.port import Append, Appended
from schemas.failpoints import reached
from schemas.names import Lane

__all__ = [
    "InterleavedError",
    "abort",
    "commit",
    "initialise",
    "produce",
    "remaining",
    "requires_abort",
    "send_receipts",
]

_ABORT_TIMEOUT = 2.0  # seconds; an abort only spares readers the transaction's timeout
_POLL_EVERY = 500  # records between two polls for delivery reports
_RETRY_DELAY = 0.05
_GRACE = 2.0  # seconds beyond its timeout that a call may take
_NO_TIMES = bytes(16)

Report = Callable[[KafkaError | None, Any], None]


class InterleavedError(Exception):
    """Other producers' records lie between those of a batch; the transaction must be aborted and repeated."""


def remaining(deadline: float) -> float:
    """Return the seconds until a deadline, at least 0.05: librdkafka waits forever on a negative number."""
    return max(deadline - time.monotonic(), 0.05)


def initialise(producer: Producer, lane: Lane, deadline: float) -> None:
    """Initialise transactions: fence the former owner, abort its open transaction, wait for one being committed."""
    # Without cached metadata, the next step sometimes waits half a second.
    producer.list_topics(str(lane.topic), timeout=remaining(deadline))
    while True:
        try:
            producer.init_transactions(remaining(deadline))
        except KafkaException as error:
            retriable = error.args[0].retriable() or error.args[0].code() == KafkaError._TIMED_OUT  # noqa: SLF001
            if not retriable or time.monotonic() >= deadline:
                raise
            time.sleep(_RETRY_DELAY)
        else:
            return


def produce(
    producer: Producer,
    batches: Sequence[Append],
    floor: int,
    deadline: float,
    tags: RecordTags,
    *,
    compacted: bool = False,
    report_each: bool = True,
) -> list[Appended]:
    """Begin a transaction, produce the batches, wait until the brokers have them; return the uncommitted receipts.

    Args:
        producer: the lane's.
        batches: checked, consecutive.
        floor: milliseconds UTC below which no record's time may fall.
        deadline: monotonic seconds.
        tags: of the records.
        compacted: brokers keep the latest record of each key, so the key must be the pseudonym alone.
        report_each: ask for a delivery report of each record; else of the first and last one in each partition,
            which is enough unless other producers write in between.

    Raises:
        KafkaException: a record was not accepted; the transaction must be aborted.
        TimeoutError: not all delivery reports came in time.
        InterleavedError: the first and the last offset do not determine the others.
    """
    producer.begin_transaction()
    failed: list[KafkaError] = []
    produced: list[tuple[int, dict[int, list[int]]]] = []
    for batch in batches:
        floor = max(floor, batch.recorded_at // 1000, 0)
        keys = tags.keys(batch, floor)
        sent = _produce(producer, batch, *keys, floor, failed, deadline, compacted=compacted, report_each=report_each)
        produced.append((floor, sent))
    waiting = producer.flush(remaining(deadline))
    if failed:
        raise KafkaException(failed[0])
    if waiting:
        raise TimeoutError
    appended = [
        _receipt(batch, millisecond, offsets if report_each else _fill_between(batch, offsets))
        for batch, (millisecond, offsets) in zip(batches, produced, strict=True)
    ]
    complete = all(receipt.count == len(batch.keys) for receipt, batch in zip(appended, batches, strict=True))
    # A report has no offset where the library has inferred from another response that a record was accepted.
    if not complete or any(run.first < 0 for receipt in appended for run in receipt.runs):
        raise TimeoutError
    reached("after_produce")
    return appended


def _produce(
    producer: Producer,
    batch: Append,
    keys: Sequence[bytes],
    chunks: Mapping[int, Header],
    millisecond: int,
    failed: list[KafkaError],
    deadline: float,
    *,
    compacted: bool,
    report_each: bool,
) -> dict[int, list[int]]:
    topic, send = str(batch.lane.topic), producer.produce
    reported = range(len(batch.partitions)) if report_each else _first_and_last(batch.partitions)
    offsets: defaultdict[int, list[int]] = defaultdict(list)
    callbacks: dict[int, Report] = {
        number: _delivery_callback(offsets[number], failed) for number in set(batch.partitions)
    }
    reports: list[Report | None] = [None] * len(keys)
    for index in reported:
        reports[index] = callbacks[batch.partitions[index]]
    heads = _heads(batch, keys, chunks, compacted=compacted)
    rows = zip(batch.values, batch.keys if compacted else keys, batch.partitions, reports, heads, strict=True)
    for index, (value, key, partition, report, head) in enumerate(rows):
        while True:
            try:
                # By position, which saves a fifth of the call: callback, on_delivery, timestamp, headers.
                send(topic, value, key, partition, report, None, millisecond, head)
            except BufferError:
                if time.monotonic() >= deadline:
                    raise TimeoutError from None
                producer.poll(_RETRY_DELAY)
            else:
                break
        if not index % _POLL_EVERY:
            producer.poll(0)
    return offsets


def _heads(batch: Append, keys: Sequence[bytes], chunks: Mapping[int, Header], *, compacted: bool) -> list[Any]:
    """Return the headers of each record; most records share a list."""
    shared = headers(batch)
    heads = [shared[mark] for mark in batch.marks]
    if valid := batch.valid:
        for index, head in enumerate(heads):
            if (times := valid[16 * index : 16 * index + 16]) != _NO_TIMES:
                heads[index] = [*head, ("pool_valid", times)]
    if compacted:
        return [[*head, header_of(key)] for head, key in zip(heads, keys, strict=True)]
    for index, chunk in chunks.items():
        heads[index] = [*heads[index], chunk]
    return heads


def _first_and_last(partitions: Sequence[int]) -> set[int]:
    """Return the indexes of the first and the last record of each partition."""
    count = len(partitions)
    first = dict(zip(reversed(partitions), range(count - 1, -1, -1), strict=True))
    last = dict(zip(partitions, range(count), strict=True))
    return {*first.values(), *last.values()}


def _fill_between(batch: Append, ends: dict[int, list[int]]) -> dict[int, range]:
    """Return the offsets of a batch's records in each partition, from those of the first and the last."""
    between = {}
    for partition, count in Counter(batch.partitions).items():
        reported = ends[partition]
        if len(reported) != min(count, 2):
            raise TimeoutError
        between[partition] = range(reported[0], reported[-1] + 1)
        if len(between[partition]) != count:
            raise InterleavedError
    return between


def _delivery_callback(offsets: list[int], failed: list[KafkaError]) -> Report:
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
        group: the lane's group, as its consumer's `consumer_group_metadata` returned it.
        last: sequence of the last one, 0 without any.
        text: the receipts, encoded by `receipts.encode_receipts`.
        deadline: monotonic seconds.

    Raises:
        KafkaException: they were not accepted.
        TimeoutError: no answer; the producer must be discarded.
    """
    offsets = [TopicPartition(str(lane.topic), 0, last, text)]
    timeout = remaining(deadline)
    errors: list[BaseException] = []

    def send() -> None:
        try:
            producer.send_offsets_to_transaction(offsets, group, timeout)
        except (KafkaException, SystemError) as error:
            errors.append(error)

    # This call alone ignores its timeout (librdkafka 2.16.0, issue 5456). A thread that is leaked with its producer is
    # bad; a lane that cannot be used again is worse.
    thread = threading.Thread(target=send, name="kafka-receipts", daemon=True)
    thread.start()
    thread.join(timeout + _GRACE)
    if thread.is_alive():
        raise TimeoutError
    if errors:
        raise errors[0]


def commit(producer: Producer, deadline: float) -> None:
    """Commit, once. Where an error leaves the outcome unknown, the lane's receipts show it."""
    producer.commit_transaction(remaining(deadline))


def abort(producer: Producer) -> None:
    """Abort so that readers do not wait for the transaction's timeout; the producer must not be used again."""
    try:
        producer.abort_transaction(_ABORT_TIMEOUT)
    except (KafkaException, SystemError):
        return  # the next takeover aborts it, or Kafka after its timeout


def requires_abort(error: BaseException) -> bool:
    """Return whether an error of a commit says that the transaction was certainly not committed."""
    return isinstance(error, KafkaException) and bool(error.args) and error.args[0].txn_requires_abort()
