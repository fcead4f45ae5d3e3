"""Check of what was read from Kafka, before anything of it is released.

    tags       each record was stored so by the pool, in this topic and partition (`record_tags`)
    receipts   each record is where the receipt of its batch says: nobody has repeated or exchanged records
    holes      every record of those batches, and of their lanes' neighbouring batches, between the positions of the
               read is there, unless it was erased or the topic keeps the latest of each key

One query a read returns the receipts. A batch whose receipt is not stored yet is not compared. Records of before the
pool wrote tags are accepted below the marks that were made at the migration.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter

from exchange.broker.kafka.message import Message, is_replacement
from exchange.broker.kafka.record_tags import (
    NUMBERS,
    Columns,
    RecordTags,
    all_tagged,
    batch_number,
    batch_of,
    is_tagged,
    number_of,
)
from exchange.broker.port import RecordsCorruptError, Retention, TopicInfo
from schemas.errors import InvalidError
from schemas.names import Lane, Topic
from schemas.record import OffsetRange, Positions

__all__ = ["ReadCheck", "ReceiptRuns", "columns_of"]

ReceiptRuns = Callable[[Collection[tuple[Lane, int]]], Mapping[tuple[Lane, int], Sequence[OffsetRange]]]
"""Returns the offsets of batches by their receipts; those without one are left out."""

_MAX_BETWEEN = 1_000  # batches of a lane between two that were read, which are looked for
_ID = (1 << 40) - 1  # of a generation: the topic's own, without the restores


def columns_of(messages: Sequence[Message]) -> Columns:
    """Return messages without the replacements of erased values, and what they are made of."""
    values = [message.value() for message in messages]
    # Framed values begin with 0, so a replacement is greater than all of them; this is the quickest way to look.
    if max(filter(None, values), default=b"\0")[:1] > b"\0":
        messages = [message for message, value in zip(messages, values, strict=True) if not is_replacement(value)]
        values = [message.value() for message in messages]
    return Columns(
        messages,
        [message.key() or b"" for message in messages],
        values,
        [message.timestamp()[1] for message in messages],
        [message.offset() for message in messages],
    )


@dataclass(frozen=True, slots=True)
class _Slice:
    """Records of one batch that were read one after another."""

    partition: int
    offsets: Sequence[int]
    numbers: Sequence[bytes]


class ReadCheck:
    """Checks reads. Thread-safe.

    Args:
        tags: with the pool's key.
        describe: returns a topic's description.
        untagged: by topic, its generation, and by partition the offset before which records may have no tag.
        receipts: returns the offsets of batches by their receipts.
        erased: returns those of a topic's records, (partition, offset), that an erasure has removed.
    """

    def __init__(
        self,
        tags: RecordTags,
        describe: Callable[[Topic], TopicInfo],
        untagged: Mapping[Topic, tuple[int, Positions]],
        receipts: ReceiptRuns,
        erased: Callable[[Topic, Collection[tuple[int, int]]], Collection[tuple[int, int]]],
    ) -> None:
        self._tags = tags
        self._describe = describe
        self._untagged = untagged
        self._receipts = receipts
        self._erased = erased

    def check(self, topic: Topic, after: Positions, read: Mapping[int, Columns], until: Positions) -> None:
        """Check all records between two positions.

        Raises:
            RecordsCorruptError: one is not the pool's, or not where it was, or some are missing.
        """
        placed: defaultdict[tuple[Lane, int], list[_Slice]] = defaultdict(list)
        for number, columns in read.items():
            tagged = self._tagged(topic, number, columns)
            for batch, found in self._slices(topic, number, tagged, self._verify(topic, number, tagged)):
                placed[batch].append(found)
        if not placed:
            return
        runs = self._receipts(_with_neighbours(placed))
        for batch, slices in placed.items():
            stated = runs.get(batch)
            if stated is not None:
                for each in slices:
                    _check_place(topic, each, [run for run in stated if run.partition == each.partition])
        self._check_holes(topic, after, read, until, [run for each in runs.values() for run in each])

    def _verify(self, topic: Topic, number: int, columns: Columns) -> list[range]:
        """Verify all tags; return the indexes of whole chunks, each of one batch and its numbers consecutive."""
        chunks = self._tags.verified_chunks(str(topic), number, columns)
        rest = columns
        if chunks:
            bounds = [0, *(bound for chunk in chunks for bound in (chunk.start, chunk.stop)), len(columns.keys)]
            between = zip(bounds[::2], bounds[1::2], strict=True)
            rest = columns.of([index for first, last in between for index in range(first, last)])
        wrong = self._tags.first_unverified(str(topic), number, rest)
        if wrong is not None:
            offset = rest.offsets[wrong]
            raise _corrupt(topic, number, offset, offset, "a record whose tag does not fit")
        return chunks

    def _tagged(self, topic: Topic, number: int, columns: Columns) -> Columns:
        """Return the records that have tags, with full keys; nothing is verified."""
        if all_tagged(columns.keys):
            return columns
        keys, tagged = list(columns.keys), []
        for index, message in enumerate(columns.messages):
            if not is_tagged(keys[index]):
                key = self._tags.tagged_key(message)
                if key is None and columns.offsets[index] < self._mark(topic, number):
                    continue
                if key is None or not is_tagged(key):
                    offset = columns.offsets[index]
                    raise _corrupt(topic, number, offset, offset, "a record without a tag")
                keys[index] = key
            tagged.append(index)
        return replace(columns.of(tagged), keys=[keys[at] for at in tagged])

    def _mark(self, topic: Topic, number: int) -> int:
        generation, marks = self._untagged.get(topic, (0, ()))
        if number >= len(marks) or (generation ^ self._describe(topic).generation) & _ID:
            return 0
        return marks[number]

    def _slices(
        self, topic: Topic, number: int, columns: Columns, chunks: Sequence[range]
    ) -> Iterator[tuple[tuple[Lane, int], _Slice]]:
        at = 0
        for batch, group in groupby(_numbers(columns.keys, chunks), itemgetter(0)):
            numbers = [each for _, part in group for each in part]
            first, offsets = columns.messages[at], columns.offsets[at : at + len(numbers)]
            at += len(numbers)
            headers = dict(first.headers() or ())
            source, sequence = headers.get("ce_source") or b"", headers.get("ce_id") or b""
            try:
                name = Lane.parse(source.decode()), int(sequence)
            except (ValueError, InvalidError):
                name = None
            if name is None or batch_number(source, sequence) != batch:
                raise _corrupt(topic, number, offsets[0], offsets[0], "a record whose headers name another batch")
            yield name, _Slice(number, offsets, numbers)

    def _check_holes(
        self,
        topic: Topic,
        after: Positions,
        read: Mapping[int, Columns],
        until: Positions,
        runs: Sequence[OffsetRange],
    ) -> None:
        missing: set[tuple[int, int]] = set()
        for run in runs:
            number = run.partition
            if number < len(after):
                first, last = max(run.first, after[number]), min(run.last, until[number] - 1)
                there = read[number].offsets if number in read else ()
                found = there[bisect_left(there, first) : bisect_right(there, last)] if first <= last else []
                if len(found) < last - first + 1:
                    missing.update((number, offset) for offset in {*range(first, last + 1)}.difference(found))
        if missing and self._describe(topic).keep is Retention.ALL:
            missing.difference_update(self._erased(topic, missing))
            if missing:
                number, first = min(missing)
                last = first
                while (number, last + 1) in missing:
                    last += 1
                raise _corrupt(topic, number, first, last, "records that a receipt names are missing")


def _numbers(keys: Sequence[bytes], chunks: Sequence[range]) -> Iterator[tuple[bytes, Sequence[bytes]]]:
    """Return the batches of records in order, and their numbers, of as many at once as is known to belong together."""
    at = 0
    for chunk in [*chunks, range(len(keys), len(keys))]:
        for batch, group in groupby(keys[at : chunk.start], batch_of):
            yield batch, list(map(number_of, group))
        if chunk:
            first = int.from_bytes(number_of(keys[chunk.start]), "big")
            yield batch_of(keys[chunk.start]), NUMBERS[first : first + len(chunk)]
        at = chunk.stop


def _with_neighbours(batches: Collection[tuple[Lane, int]]) -> set[tuple[Lane, int]]:
    """Return batches, those of their lanes between them, and one before and after."""
    by_lane: defaultdict[Lane, list[int]] = defaultdict(list)
    for lane, sequence in batches:
        by_lane[lane].append(sequence)
    wanted = set(batches)
    for lane, sequences in by_lane.items():
        first, last = max(min(sequences) - 1, 1), max(sequences) + 1
        wanted.update((lane, one) for one in range(first, min(last, first + _MAX_BETWEEN) + 1))
        wanted.add((lane, last))
    return wanted


def _check_place(topic: Topic, found: _Slice, runs: Sequence[OffsetRange]) -> None:
    """Check that records lie in the runs of their batch, each at the place of its number.

    Raises:
        RecordsCorruptError: they do not.
    """
    offsets, numbers = found.offsets, found.numbers
    first = int.from_bytes(numbers[0], "big")
    before = 0  # records of the batch before this run
    for run in runs:
        if run.first <= offsets[0] and offsets[-1] <= run.last:
            in_order = (
                offsets[-1] - offsets[0] == len(offsets) - 1 and list(numbers) == NUMBERS[first : first + len(numbers)]
            )
            if in_order and before + offsets[0] - run.first == first:
                return
        before += run.last - run.first + 1
    for offset, number in zip(offsets, numbers, strict=True):
        before = 0
        for run in runs:
            if run.first <= offset <= run.last:
                if before + offset - run.first != int.from_bytes(number, "big"):
                    raise _corrupt(topic, found.partition, offset, offset, "a record in the place of another")
                break
            before += run.last - run.first + 1
        else:
            raise _corrupt(topic, found.partition, offset, offset, "the receipt of its batch names other offsets")


def _corrupt(topic: Topic, number: int, first: int, last: int, why: str) -> RecordsCorruptError:
    return RecordsCorruptError(str(topic), number, (first, last), why)
