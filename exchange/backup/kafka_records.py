"""Records on Kafka, which outlived the database: receipts and retractions are brought up to them.

A restored database knows the batches of its backup. Kafka still has those that came later, and remembers the last ones
of each lane (`Broker.lanes`). So no lane is set back, and no connector publishes anything again:

    of the log     a batch whose entry the surviving log holds gets its receipt from the entry. The connector's own
                   position is in no entry: it is there for the batches that Kafka remembers. The receipt of another
                   one is left unsigned, since the pool has signed one with a position
    of Kafka       a later batch, which Kafka alone has, gets receipt and entry, marked `recovered`
    retractions    are read from the records, from the first of these batches on

Refused is what cannot be known: a lane of which Kafka has less than the log (Kafka lost records too, or is another
one), another root than the log's, and batches that are neither in the log nor remembered by Kafka.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import sqlalchemy as sa

from exchange.audit.store import ReceiptStore
from exchange.broker.port import Appended, Broker, LaneFault
from exchange.control.stored_retractions import stored_retractions
from exchange.erasure.retractions import RetractionStore
from registry.database.unit_of_work import UnitOfWork, connection_of
from schemas.access import Action
from schemas.errors import CorruptError, InvalidError, Reason, UnavailableError
from schemas.names import Lane, Topic
from schemas.record import OffsetRange, Receipt, receipt_statement

__all__ = ["KafkaRecords"]

_PAGE = 500  # receipts
_READ_RECORDS, _READ_BYTES = 16_384, 16 * 1024 * 1024
_WITHOUT_RECEIPT = sa.text("""
SELECT e.leaf_index, CAST(e.id AS text) AS id, e.leaf, e.leaf_hash FROM audit_entry AS e
WHERE e.leaf_index >= :start AND e.action = :action AND e.decision = 'allow' AND NOT e.refused
  AND NOT EXISTS (SELECT FROM audit_receipt AS r WHERE r.entry_id = e.id)
ORDER BY e.leaf_index LIMIT :page
""")
_SCHEMAS = sa.text("SELECT id FROM registry_schema WHERE id = ANY (:ids)")

WriteRecovered = Callable[[UnitOfWork, Appended], tuple[str, bytes]]
"""Writes the entry of a batch that Kafka alone has; returns its id and its leaf hash."""


@dataclass(slots=True)
class KafkaRecords:
    """What Kafka has of a pool whose database was lost.

    Attributes:
        receipts: batches whose receipts were made from the log.
        recovered: batches that Kafka alone had.
        schemas: ids of schemas of the log's batches that the database has lost: their records cannot be read.
    """

    broker: Broker
    lanes: Mapping[Lane, Sequence[Appended]]
    receipts: int = 0
    recovered: int = 0
    schemas: list[int] = field(default_factory=list)
    _first: dict[Topic, dict[int, int]] = field(default_factory=dict)  # by topic and partition, of the new batches

    @classmethod
    def open(cls, broker: Broker) -> Self:
        """Read what Kafka remembers of all lanes.

        Raises:
            CorruptError: LOG_CORRUPT, it cannot be read of one of them.
            UnavailableError: Kafka does not answer, or the records of the last batches cannot be read yet.
        """
        lanes = {}
        for state in broker.lanes():
            if isinstance(state, LaneFault):
                raise state.error
            lanes[state.lane] = state.receipts
            _require_readable(broker, state.receipts[-1])
        return cls(broker, lanes)

    def restore_receipts(
        self, work: UnitOfWork, store: ReceiptStore, sign: Callable[[bytes], bytes], start: int
    ) -> None:
        """Make the receipts of the batches whose entries have come from the log; *start*: index of the first of those.

        Raises:
            CorruptError: LOG_CORRUPT, Kafka has another batch of this number.
        """
        schemas: set[int] = set()
        values = {"action": str(Action.PUBLISH), "start": start, "page": _PAGE}
        while rows := connection_of(work).execute(_WITHOUT_RECEIPT, values).all():
            made = []
            for row in rows:
                data = json.loads(bytes(row.leaf)).get("data", {})
                if "failed" not in data:
                    schemas |= set(data["schema_ids"])
                    made.append((self._receipt_of(row, data, sign), ()))
            if made:
                store.put(work, made)
                self.receipts += len(made)
            values["start"] = rows[-1].leaf_index + 1
        known = set(connection_of(work).execute(_SCHEMAS, {"ids": sorted(schemas)}).scalars())
        self.schemas = sorted(schemas - known)

    def restore_unlogged(
        self, work: UnitOfWork, store: ReceiptStore, sign: Callable[[bytes], bytes], write: WriteRecovered
    ) -> None:
        """Write entry and receipt of the batches that Kafka alone has.

        Raises:
            InvalidError: CONFIG_INVALID, Kafka has less than the log, or does not remember all that the log lacks.
        """
        known = store.last_sequences(work)
        for lane in sorted({*known, *self.lanes}, key=str):
            last, kept = known.get(lane, 0), self.lanes.get(lane, ())
            for one in _missing(lane, last, kept):
                entry_id, leaf_hash = write(work, one)
                receipt = Receipt(
                    lane=lane,
                    sequence=one.sequence,
                    root=one.digest,
                    runs=one.runs,
                    entry_id=entry_id,
                    leaf_hash=leaf_hash,
                    source_position=one.source_position,
                )
                store.put(work, [(replace(receipt, signature=sign(receipt_statement(receipt))), ())])
                self._note(lane.topic, one.runs)
                self.recovered += 1

    def restore_retractions(self, work: UnitOfWork, store: RetractionStore) -> int:
        """Store the retractions among the records of all these batches; return their number. Comes last in *work*.

        Raises:
            UnavailableError: Kafka does not answer.
            RecordsCorruptError: its records are not those that the pool stored.
        """
        count = 0
        for topic, first in self._first.items():
            for found in stored_retractions(self.broker, topic, first):
                store.add(work, topic, found)
                count += len(found)
        return count

    def _receipt_of(self, row: Any, data: Mapping[str, Any], sign: Callable[[bytes], bytes]) -> Receipt:
        lane, sequence = Lane.parse(data["lane"]), data["sequence"]
        remembered = next((one for one in self.lanes.get(lane, ()) if one.sequence == sequence), None)
        if remembered is not None and remembered.digest.hex() != data["root"]:
            raise CorruptError(
                Reason.LOG_CORRUPT,
                f"batch {sequence} of lane {lane} is another one on Kafka than in the log: the configuration names "
                "another Kafka than that of the pool, or one of the two was changed",
            )
        runs = tuple(OffsetRange(partition=at, first=first, last=last) for at, first, last in data["runs"])
        self._note(lane.topic, runs)
        receipt = Receipt(
            lane=lane,
            sequence=sequence,
            root=bytes.fromhex(data["root"]),
            runs=runs,
            entry_id=row.id,
            leaf_hash=bytes(row.leaf_hash),
            source_position=b"" if remembered is None else remembered.source_position,
        )
        return receipt if remembered is None else replace(receipt, signature=sign(receipt_statement(receipt)))

    def _note(self, topic: Topic, runs: Sequence[OffsetRange]) -> None:
        first = self._first.setdefault(topic, {})
        for run in runs:
            first[run.partition] = min(run.first, first.get(run.partition, run.first))


def _missing(lane: Lane, last: int, kept: Sequence[Appended]) -> Iterator[Appended]:
    """Yield the batches after *last*; raises where Kafka has less, or does not remember all of them."""
    head = kept[-1].sequence if kept else 0
    if head < last:
        raise InvalidError(
            Reason.CONFIG_INVALID,
            f"Kafka has {head} batches of lane {lane}, database and log have {last}: Kafka has lost records too, or is "
            "another one than the pool's. Bring that Kafka back, all of it, and restore again; records that no broker "
            "has any more come from their sources alone: make a new pool, into which every connector publishes again",
        )
    if head > last and kept[0].sequence > last + 1:
        raise InvalidError(
            Reason.CONFIG_INVALID,
            f"batches {last + 1} to {kept[0].sequence - 1} of lane {lane} are on Kafka, which does not remember what "
            "they were, and in no log that was given: receipts and retractions of them cannot be known. Restore with "
            "--log and the newest copy of the old pool's log, or a newer backup",
        )
    for one in kept:
        if one.sequence > last:
            yield one


def _require_readable(broker: Broker, last: Appended) -> None:
    ends = broker.ends(last.lane.topic).latest
    if any(run.last >= ends[run.partition] for run in last.runs):
        raise UnavailableError(
            Reason.BROKER_UNAVAILABLE,
            f"records of {last.lane.topic} lie behind a transaction that has not ended: the old pool still runs, or "
            "Kafka has not given it up yet. Stop it, and restore again in a minute",
        )
