"""The record verifier names what is missing, changed or of no entry, and nothing that retention or compaction did."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from exchange.audit.verify import VerificationReport
from exchange.broker.memory import MemoryBroker
from exchange.broker.port import Append, Appended, Retention
from exchange.identity.pseudonyms import Pseudonyms
from exchange.identity.secrets import MemorySecrets
from exchange.records.record_verifier import BatchOrder, PublishedBatch, RecordVerifier, Verified
from exchange.records.void_leaves import mask_void_leaves, void_leaves
from schemas.merkle import root_of
from schemas.names import Lane, Topic
from schemas.record import Packed, leaf_hashes
from tests.kit.cases.broker import CORRECT, SECOND, START, UPSERT, VOID, append, batch, fresh_topic, lane_of

PARTITIONS = 4
NOW = START + 3600 * SECOND
MARKS = bytes([UPSERT, VOID, CORRECT, UPSERT, UPSERT, VOID, UPSERT, UPSERT])
VOID_KEYS = Packed.of([b"one", b"two"])
VALID = bytes(32) + bytes(range(16)) + bytes(80)


class Case:
    """A topic with some batches, their entries, and what is kept beside their receipts."""

    def __init__(self, keep: Retention = Retention.ALL, retention: timedelta | None = None) -> None:
        self.broker = MemoryBroker()
        self.topic = fresh_topic()
        self.broker.create_topic(self.topic, partitions=PARTITIONS, keep=keep, retention=retention)
        self.entries: list[PublishedBatch] = []
        self.kept: dict[tuple[Lane, int], BatchOrder] = {}
        self.pseudonyms = Pseudonyms(MemorySecrets(b"seed" * 8))
        for sequence in range(1, 6):
            self.publish(sequence)

    def publish(self, sequence: int, connector: str = "c1") -> None:
        """Append a batch with two voids and a valid time, and write its entry."""
        made = batch(lane_of(self.topic, connector), sequence, marks=MARKS, valid=VALID)
        root = root_of(leaf_hashes(MARKS, [value or b"" for value in made.values], VOID_KEYS, VALID))
        (appended,) = append(self.broker, replace(made, digest=root))
        self.entries.append(_entry(made, appended, root, len(self.entries)))
        leaves = void_leaves(MARKS, VOID_KEYS, VALID)
        masked = mask_void_leaves(self.pseudonyms, made.lane, sequence, leaves)
        assert masked != leaves
        self.kept[made.lane, sequence] = BatchOrder(
            keys=b"".join(made.keys), void_leaves=mask_void_leaves(self.pseudonyms, made.lane, sequence, masked)
        )

    def verify(self) -> tuple[set[tuple[str, int | None]], Verified]:
        """Return kinds and entries of the findings, and what was counted."""
        report = VerificationReport()
        verifier = RecordVerifier(
            self.broker, lambda lane, sequence: self.kept.get((lane, sequence)), report, clock=lambda: NOW
        )
        verifier.verify(self.topic, self.entries)
        return {(finding.kind, finding.index) for finding in report.findings}, verifier.verified


def _entry(made: Append, appended: Appended, root: bytes, index: int) -> PublishedBatch:
    return PublishedBatch(
        index=index,
        at=appended.recorded_at,
        lane=made.lane,
        sequence=made.sequence,
        count=appended.count,
        root=root,
        runs=appended.runs,
    )


def records_of(case: Case, sequence: int) -> tuple[int, list[int]]:
    """Return a partition that has records of a batch, and their indexes there."""
    run = case.entries[sequence - 1].runs[0]
    records = case.broker.log.topics[case.topic].partitions[run.partition].records
    return run.partition, [index for index, one in enumerate(records) if run.first <= one.position <= run.last]


def test_untouched_records_give_their_roots() -> None:
    findings, verified = Case().verify()
    assert findings == set()
    assert (verified.batches, verified.proven, verified.records) == (5, 5, 40)


def change(case: Case) -> None:
    partition, indexes = records_of(case, 3)
    records = case.broker.log.topics[case.topic].partitions[partition].records
    records[indexes[0]] = replace(records[indexes[0]], value=b"\0\0\0\0\7other")


def exchange_keys(case: Case) -> None:
    partition, indexes = records_of(case, 3)
    records = case.broker.log.topics[case.topic].partitions[partition].records
    records[indexes[0]] = replace(records[indexes[0]], key=bytes(16))


def remove(case: Case) -> None:
    partition, indexes = records_of(case, 3)
    del case.broker.log.topics[case.topic].partitions[partition].records[indexes[0]]


def remove_last(case: Case) -> None:
    for partition in case.broker.log.topics[case.topic].partitions:
        partition.records = [one for one in partition.records if one.recorded_at < START + 5 * SECOND]


def add(case: Case) -> None:
    append(case.broker, batch(lane_of(case.topic, "stranger"), 1, range(1)))


def claim(case: Case) -> None:
    case.entries.append(replace(case.entries[2], index=9, sequence=9))


def forget(case: Case) -> None:
    case.topic = Topic.parse("unknown.v1")


ATTACKS: list[tuple[Callable[[Case], None], set[tuple[str, int | None]]]] = [
    (change, {("records.changed", 2)}),
    (exchange_keys, {("records.changed", 2)}),
    (remove, {("records.missing", 2)}),
    (remove_last, {("records.missing", 4)}),
    (add, {("records.extra", None)}),
    (claim, {("records.twice", 2)}),
    (forget, {("topic.missing", None)}),
]


@pytest.mark.parametrize(("attack", "expected"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])
def test_what_was_done_is_named(attack: Callable[[Case], None], expected: set[tuple[str, int | None]]) -> None:
    case = Case()
    attack(case)
    assert case.verify()[0] == expected


def test_retention_is_no_finding_once_its_time_has_come() -> None:
    case = Case(retention=timedelta(minutes=30))
    case.broker.retain(START + 3 * SECOND + 1800 * SECOND)
    findings, verified = case.verify()
    assert findings == set()
    assert (verified.retained, verified.proven) == (2, 3)


def test_removal_before_retention_is_a_finding() -> None:
    case = Case(retention=timedelta(days=1))
    case.broker.retain(START + 3 * SECOND + 86_400 * SECOND)  # by a clock that somebody has set forward
    assert case.verify()[0] == {("records.missing", 0), ("records.missing", 1)}


def test_compaction_is_no_finding() -> None:
    case = Case(keep=Retention.LATEST)
    case.broker.compact()
    findings, verified = case.verify()
    assert findings == set()
    assert (verified.compacted, verified.proven) == (4, 1)


def test_a_batch_whose_order_or_voids_are_unknown_is_counted_and_not_blamed() -> None:
    case = Case()
    del case.kept[case.entries[0].lane, 1]
    key = (case.entries[1].lane, 2)
    case.kept[key] = replace(case.kept[key], void_leaves=())
    findings, verified = case.verify()
    assert findings == set()
    assert (verified.unproven, verified.proven) == (2, 3)


def test_records_that_are_just_being_published_are_no_finding() -> None:
    case = Case()
    append(case.broker, batch(lane_of(case.topic, "other"), 1, range(3), recorded_at=NOW))
    assert case.verify()[0] == set()
