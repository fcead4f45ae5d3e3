"""Record verifier: every stored batch against the root in its entry, on any broker.

    collector = PublicationCollector(report.add, wanted)     fed with the log's leaves by `verify_files`
    RecordVerifier(broker, order, report).verify(topic, collector.batches(topic))

The entries of the log are the truth, not the receipts in the database, whose administrator may delete them. A batch's
root is over its records in the order in which they were sent; the broker knows the order within each partition alone.
The pseudonyms of the keys beside the receipt say how the partitions interleave, and need no proof: with another order
the root is another. Kinds of findings:

    records.missing       records of a batch are not there, or cannot be read
    records.changed       the records do not give the root of the entry
    records.extra         records that no entry accounts for
    records.corrupt       the broker itself refused to return them: tag, hole (`RecordsCorruptError`)
    records.twice         two entries claim the same offsets: records were lost and their offsets assigned again
    topic.missing         entries name a topic that the broker does not have
    retraction.missing    a void that is a retraction is not stored as one: values before it would be released
    retraction.moved      it is stored with a lower position than the void has: some of them would be
    retraction.forged     the stored retractions of a topic are not those that the pool stored

No findings: what retention removed when its time had come, what compaction removed, what an erasure removed and left
its leaf hash. A batch whose order or voids are unknown (from before they were kept, or written by a recovery) cannot be
compared; it is counted as `unproven`.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from typing_extensions import override

from exchange.audit.log_invariants import LogInvariants, ReportFinding
from exchange.broker.port import Broker, Ends, PartitionRecords, RecordsCorruptError, Retention, TopicInfo
from exchange.erasure.retractions import is_retraction
from exchange.identity.pseudonyms import PSEUDONYM_SIZE, partitions
from schemas.access import Action
from schemas.audit import Decision, read_leaf
from schemas.errors import InvalidError, Reason
from schemas.merkle import root_of
from schemas.names import Lane, Topic
from schemas.record import OffsetRange

__all__ = ["BatchOrder", "PublicationCollector", "PublishedBatch", "RecordVerifier", "Verified"]

_READ_RECORDS = 10_000
_READ_BYTES = 32 * 1024 * 1024
_LEAD = 200  # batches by which one partition may be ahead of another: bounds what is kept in memory
_SETTLED = 120_000_000  # microseconds after which every record has its entry (the sweeper's included)
_VOIDS = 10_000  # keys whose retractions are read at a time
_NO_TIMES = bytes(16)
_NO_KEY = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedBatch:
    """A batch as its entry states it. `index`: of the entry in the log, None where it is not signed yet."""

    index: int | None
    at: int
    lane: Lane
    sequence: int
    count: int
    root: bytes
    runs: tuple[OffsetRange, ...]

    def __str__(self) -> str:
        return f"batch {self.sequence} of {self.lane}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOrder:
    """What is kept of a batch beside its records, in the order in which they were sent.

    Attributes:
        keys: 16-byte pseudonyms, end to end; empty where they are unknown.
        void_leaves: leaf hashes of its voids; empty where they are unknown.
    """

    keys: bytes
    void_leaves: Sequence[bytes]


class PublicationCollector(LogInvariants):
    """Collects the publications among the leaves of a log while its invariants are checked."""

    def __init__(self, report: ReportFinding, only: Topic | None = None) -> None:
        super().__init__(report)
        self._only = only
        self._batches: dict[Topic, list[PublishedBatch]] = defaultdict(list)

    @override
    def check(self, index: int, leaf: bytes) -> None:
        super().check(index, leaf)
        self.add(index, leaf)

    def add(self, index: int | None, leaf: bytes) -> None:
        """Collect a leaf without a check, such as one that is not signed yet."""
        try:
            entry = read_leaf(leaf)
            data: Any = entry.get("data", {})
            if entry["action"] != Action.PUBLISH or entry["decision"] != Decision.ALLOW or "failed" in data:
                return
            lane = Lane.parse(data["lane"])
            batch = PublishedBatch(
                index=index,
                at=entry["at"],
                lane=lane,
                sequence=data["sequence"],
                count=data["count"],
                root=bytes.fromhex(data["root"]),
                runs=tuple(OffsetRange(partition=p, first=first, last=last) for p, first, last in data["runs"]),
            )
        except (InvalidError, KeyError, TypeError, ValueError):
            return  # the invariants report what cannot be read
        if self._only in {None, lane.topic}:
            self._batches[lane.topic].append(batch)

    @property
    def topics(self) -> list[Topic]:
        """Return the topics of which batches were collected."""
        return sorted(self._batches, key=str)

    def batches(self, topic: Topic) -> Sequence[PublishedBatch]:
        """Return the batches of a topic, in the order of the log."""
        return self._batches[topic]


class FindingReport(Protocol):
    """Takes findings; `exchange.audit.verify.VerificationReport` is one."""

    def add(self, kind: str, index: int | None, message: str) -> None:
        """Add a finding: its kind, the index of the entry that it is about, and a sentence."""
        ...


@dataclass(slots=True)
class Verified:
    """What was compared, in numbers of batches; `records` and `erased` in records."""

    batches: int = 0
    records: int = 0
    proven: int = 0
    unproven: int = 0
    retained: int = 0
    compacted: int = 0
    erased: int = 0


@dataclass(slots=True)
class _Pending:
    """A batch of which some records were read. By partition: keys and leaves; a void's leaf is None."""

    batch: PublishedBatch
    open_runs: int
    keys: dict[int, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    leaves: dict[int, list[bytes | None]] = field(default_factory=lambda: defaultdict(list))
    missing: list[OffsetRange] = field(default_factory=list)
    removed: bool = False  # some of it by retention


class RecordVerifier:
    """Compares the records of topics with their entries.

    Args:
        broker: of the pool.
        order: returns what is kept of a batch beside its records; None where there is nothing.
        report: takes the findings.
        clock: microseconds UTC.
        progress: called with a topic, the offsets that are done, and their number.
        retractions: returns the positions of the stored retractions of a topic's keys; None = they are not compared.
    """

    def __init__(
        self,
        broker: Broker,
        order: Callable[[Lane, int], BatchOrder | None],
        report: FindingReport,
        *,
        clock: Callable[[], int],
        progress: Callable[[Topic, int, int], None] = lambda *_: None,
        retractions: Callable[[Topic, Sequence[bytes]], Mapping[bytes, int]] | None = None,
    ) -> None:
        self._broker = broker
        self._order = order
        self._report = report
        self._clock = clock
        self._progress = progress
        self._retractions = retractions
        self.verified = Verified()

    def verify(self, topic: Topic, batches: Sequence[PublishedBatch]) -> None:
        """Compare all records of a topic with its entries.

        Raises:
            UnavailableError: the broker does not answer.
        """
        try:
            info, ends = self._broker.topic(topic), self._broker.ends(topic)
        except RecordsCorruptError as error:
            self._report.add("records.corrupt", None, _place(error))
            return
        except InvalidError as error:
            if error.reason is not Reason.NOT_FOUND:
                raise
            self._report.add("topic.missing", None, f"{len(batches)} entries name {topic}, which the broker has not")
            return
        _TopicScan(self, info, ends, batches).run()

    # used by the scan

    @property
    def broker(self) -> Broker:
        """Return the broker."""
        return self._broker

    def now(self) -> int:
        """Return the time, microseconds UTC."""
        return self._clock()

    def add(self, kind: str, index: int | None, message: str) -> None:
        """Add a finding."""
        self._report.add(kind, index, message)

    def compare_retractions(self, topic: Topic, voids: Mapping[bytes, tuple[int, int]]) -> None:
        """Report voids that are no stored retractions. *voids*: partition and position of the last void by key."""
        if self._retractions is None or not voids:
            return
        stored = self._retractions(topic, list(voids))
        for key, (partition, position) in voids.items():
            where = f"the void of {topic} partition {partition}, offset {position}"
            if key not in stored:
                self.add("retraction.missing", None, f"{where} is stored as no retraction")
            elif stored[key] < position:
                self.add("retraction.moved", None, f"{where} is stored as a retraction up to {stored[key]}")

    def show(self, topic: Topic, done: int, whole: int) -> None:
        """Show the progress."""
        self._progress(topic, done, whole)

    def kept(self, batch: PublishedBatch) -> BatchOrder | None:
        """Return what is kept beside a batch's records."""
        return self._order(batch.lane, batch.sequence)


class _TopicScan:
    """One pass over all partitions of a topic side by side, so that batches are complete soon."""

    def __init__(
        self, verifier: RecordVerifier, info: TopicInfo, ends: Ends, batches: Sequence[PublishedBatch]
    ) -> None:
        self._verifier = verifier
        self._info = info
        self._earliest, self._until = ends.earliest, ends.latest
        self._batches = batches
        self._erased = verifier.broker.erased(info.topic)
        self._runs = self._runs_by_partition()
        self._next_run = [0] * info.partitions
        self._position = list(ends.earliest)  # of the next record to read
        self._expected = list(ends.earliest)  # of the next record that an entry promises
        self._pending: dict[int, _Pending] = {}
        self._extra: dict[int, list[OffsetRange]] = defaultdict(list)
        self._voids: dict[bytes, tuple[int, int]] = {}  # retractions that are not compared yet

    def run(self) -> None:
        """Read everything, and report."""
        topic = self._info.topic
        for number in range(self._info.partitions):
            self._close_runs(number, self._earliest[number] - 1, retained=True)
        first, whole = sum(self._earliest), sum(self._until) - sum(self._earliest)
        while active := self._active():
            try:
                self._read(active)
            except RecordsCorruptError as error:
                self._verifier.add("records.corrupt", None, _place(error))
                if not self._skip(error, active):
                    return
            self._verifier.show(topic, sum(self._position) - first, whole)
        for number in range(self._info.partitions):
            self._close_runs(number, 1 << 62)
        self._verifier.compare_retractions(topic, self._voids)
        for _, ranges in sorted(self._extra.items()):
            for extra in ranges:
                self._verifier.add("records.extra", None, f"no entry accounts for {topic} {_text(extra)}")

    def _read(self, active: set[int], *, records: int = _READ_RECORDS, size: int = _READ_BYTES) -> None:
        """Read once from these partitions, at most so many records and bytes."""
        vector = tuple(at if number in active else self._until[number] for number, at in enumerate(self._position))
        read = self._verifier.broker.read(self._info.topic, vector, max_records=records, max_bytes=size)
        for part in read.partitions:
            if part.partition in active:
                self._take(part)
        ended = all(read.next[number] <= self._position[number] for number in active)
        for number in active:
            # A broker that returns nothing before the end has nothing there: what entries promise of it is missing.
            self._position[number] = self._until[number] if ended else max(self._position[number], read.next[number])
            self._close_runs(number, self._position[number] - 1)

    def _runs_by_partition(self) -> list[list[tuple[int, int, int]]]:
        """Return (first, last, number of the batch) of each partition, in order."""
        runs: list[list[tuple[int, int, int]]] = [[] for _ in range(self._info.partitions)]
        for number, batch in enumerate(self._batches):
            for run in batch.runs:
                if run.partition < len(runs):
                    runs[run.partition].append((run.first, run.last, number))
                else:
                    self._verifier.add("records.missing", batch.index, f"{batch}: no partition {run.partition}")
        for partition, of_partition in enumerate(runs):
            of_partition.sort()
            kept: list[tuple[int, int, int]] = []
            for claim in of_partition:
                while kept and kept[-1][1] >= claim[0]:
                    one, other = sorted((kept[-1][2], claim[2]))
                    self._verifier.add(
                        "records.twice",
                        self._batches[one].index,
                        f"{self._batches[one]} and {self._batches[other]} claim offsets of partition {partition} twice",
                    )
                    if kept[-1][2] > claim[2]:  # the later entry is the one whose records are there
                        break
                    kept.pop()
                else:
                    kept.append(claim)
            runs[partition] = kept
        return runs

    def _active(self) -> set[int]:
        """Return the partitions to read next: those that are not far ahead of the others."""
        open_ = [number for number, (at, end) in enumerate(zip(self._position, self._until, strict=True)) if at < end]
        at_batch = {number: self._batch_at(number) for number in open_}
        slowest = min(at_batch.values(), default=0)
        return {number for number in open_ if at_batch[number] <= slowest + _LEAD}

    def _batch_at(self, number: int) -> int:
        runs, at = self._runs[number], self._next_run[number]
        return runs[at][2] if at < len(runs) else 0

    def _skip(self, error: RecordsCorruptError, active: set[int]) -> bool:
        """Go on behind what cannot be read; return whether that is possible."""
        number = error.partition
        if number is None or number not in active or error.offsets is None:
            return False
        while self._position[number] < error.offsets[0]:  # what comes before it can be read, a record at a time
            try:
                self._read({number}, records=1, size=0)
            except RecordsCorruptError:
                break
        self._position[number] = max(error.offsets[1], self._position[number]) + 1
        self._close_runs(number, self._position[number] - 1)
        return True

    def _take(self, records: PartitionRecords) -> None:
        number, runs = records.partition, self._runs[records.partition]
        until = self._until[number]
        for index, offset in enumerate(records.offsets):
            if offset >= until:
                return
            self._verifier.verified.records += 1
            self._close_runs(number, offset - 1)
            at = self._next_run[number]
            if at == len(runs) or runs[at][0] > offset:
                if records.recorded_at[index] < self._verifier.now() - _SETTLED:
                    self._note_extra(number, offset)
                continue
            pending = self._of(runs[at][2])
            self._note_gap(pending, number, max(self._expected[number], runs[at][0]), offset - 1)
            self._expected[number] = offset + 1
            pending.keys[number].append(bytes(records.keys[index]))
            pending.leaves[number].append(self._leaf(records, index))
            # Stored with the entry of its batch, which is there.
            if records.values[index] is None and is_retraction(records.mark(index), records.valid(index)):
                self._voids[bytes(records.keys[index])] = (number, offset)
        if len(self._voids) >= _VOIDS:
            self._verifier.compare_retractions(self._info.topic, self._voids)
            self._voids = {}

    def _leaf(self, records: PartitionRecords, index: int) -> bytes | None:
        """Return a record's leaf hash; None of a void."""
        value = records.values[index]
        if value is None:
            return records.leaf(index)  # erased, if it has one
        head = bytes((0, 1, records.mark(index) & 15)) + (records.valid(index) or _NO_TIMES) + _NO_KEY
        return hashlib.sha256(head + value).digest()

    def _of(self, number: int) -> _Pending:
        pending = self._pending.get(number)
        if pending is None:
            batch = self._batches[number]
            pending = self._pending[number] = _Pending(batch, len(batch.runs))
        return pending

    def _close_runs(self, number: int, before: int, *, retained: bool = False) -> None:
        """Close the runs of a partition that end at or before this offset; report what of them was not read."""
        runs = self._runs[number]
        while (at := self._next_run[number]) < len(runs) and runs[at][1] <= before:
            first, last, batch = runs[at]
            pending = self._of(batch)
            if retained:
                pending.removed = True
            else:
                self._note_gap(pending, number, max(self._expected[number], first), last)
            self._expected[number] = max(self._expected[number], last + 1)
            self._next_run[number] += 1
            pending.open_runs -= 1
            if not pending.open_runs:
                del self._pending[batch]
                self._finish(pending)
        if retained and at < len(runs) and runs[at][0] <= before:
            self._of(runs[at][2]).removed = True

    def _note_gap(self, pending: _Pending, number: int, first: int, last: int) -> None:
        """Note records that were not read: missing, unless an erasure removed them and left their leaf hashes."""
        while first <= last:
            erased = self._erased.get((number, first))
            if erased is None:
                end = next((offset - 1 for offset in range(first, last + 1) if (number, offset) in self._erased), last)
                pending.missing.append(OffsetRange(partition=number, first=first, last=end))
                first = end + 1
                continue
            pending.keys[number].append(erased[0])
            pending.leaves[number].append(erased[1])
            first += 1

    def _note_extra(self, number: int, offset: int) -> None:
        ranges = self._extra[number]
        if ranges and ranges[-1].last == offset - 1:
            ranges[-1] = OffsetRange(partition=number, first=ranges[-1].first, last=offset)
        else:
            ranges.append(OffsetRange(partition=number, first=offset, last=offset))

    def _finish(self, pending: _Pending) -> None:
        """Compare a batch of which all was read that there is."""
        batch, verified = pending.batch, self._verifier.verified
        verified.batches += 1
        if pending.removed and self._may_be_removed(batch):
            verified.retained += 1
            return
        if pending.missing and self._info.keep is Retention.LATEST:
            verified.compacted += 1
            return
        if pending.missing or pending.removed:
            where = ", ".join(map(_text, pending.missing)) or "before the first offset that is stored"
            self._verifier.add("records.missing", batch.index, f"{batch}: {where}")
            return
        kept = self._verifier.kept(batch)
        leaves = _in_order(pending, kept, self._info.partitions)
        if leaves is None:
            verified.unproven += 1
        elif len(leaves) != batch.count or root_of(leaves) != batch.root:
            self._verifier.add("records.changed", batch.index, f"{batch}: the records do not give its root")
        else:
            verified.proven += 1

    def _may_be_removed(self, batch: PublishedBatch) -> bool:
        """Return whether the topic's retention lets records of this age go."""
        if self._info.retention is None:
            return False
        return batch.at < self._verifier.now() - self._info.retention.total_seconds() * 1_000_000 + _SETTLED


def _in_order(pending: _Pending, kept: BatchOrder | None, partition_count: int) -> list[bytes] | None:
    """Return the leaves in the order of the batch; none that fit where the keys differ; None where it is unknown."""
    sequence = _sequence(pending, kept, partition_count)
    if sequence is None:
        return None
    leaves: list[bytes] = []
    free = {number: iter(zip(pending.keys[number], pending.leaves[number], strict=True)) for number in pending.keys}
    voids = iter(kept.void_leaves if kept is not None else ())
    for number, key in sequence:
        found_key, leaf = next(free.get(number, iter(())), (b"", None))
        if key is not None and key != found_key:
            return []
        if leaf is None:
            leaf = next(voids, None)
            if leaf is None:
                return None if found_key else []
        leaves.append(leaf)
    return leaves


def _sequence(
    pending: _Pending, kept: BatchOrder | None, partition_count: int
) -> Iterable[tuple[int, bytes | None]] | None:
    """Return partition and key of each record, in the order of the batch."""
    if kept is not None and len(kept.keys) == PSEUDONYM_SIZE * pending.batch.count:
        keys = [kept.keys[at : at + PSEUDONYM_SIZE] for at in range(0, len(kept.keys), PSEUDONYM_SIZE)]
        return zip(partitions(keys, partition_count), keys, strict=True)
    if len(pending.keys) == 1:
        ((number, found),) = pending.keys.items()
        return [(number, None)] * len(found)
    return None


def _place(error: RecordsCorruptError) -> str:
    place = error.topic if error.partition is None else f"{error.topic} partition {error.partition}"
    offsets = "" if error.offsets is None else f" offsets {error.offsets[0]}-{error.offsets[1]}"
    return f"{place}{offsets}: {error.why}"


def _text(offsets: OffsetRange) -> str:
    return f"partition {offsets.partition}, offsets {offsets.first}-{offsets.last}"
