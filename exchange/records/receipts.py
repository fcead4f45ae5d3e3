"""Receipts of batches: each stored in one transaction with its audit entry, and signed by the pool.

A receipt names the batch's root, where its records are, and the leaf hash of its entry. So a connector that has one
can prove that the log must contain the entry.

The head of a lane (sequence number and root of its last batch) is cached for the gateway that appends to it: the next
batch must name this root, and asking the database for it would cost each append a query.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from exchange.audit.store import ReceiptStore
from exchange.authorization.enforcement import AuditWriter, Authorized
from exchange.broker.port import Appended
from exchange.erasure.retractions import Retraction, RetractionStore
from exchange.records.ports import ReceiptSigner
from registry.database.unit_of_work import Reader, UnitOfWork
from schemas.audit import AuditEntry, publish_data
from schemas.names import Lane
from schemas.record import Receipt, receipt_statement

__all__ = ["LaneHead", "LaneReceipts", "Publication"]


class LaneHead(NamedTuple):
    """The last batch of a lane."""

    sequence: int
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A batch that the broker has appended, and what else its entry and receipt state.

    Attributes:
        authorized: whose act it is.
        appended: the broker's receipt.
        schema_ids: among its records; empty when a recovery cannot know them.
        keys: pseudonyms of its records' keys; empty when a recovery cannot know them.
        void_leaves: masked leaf hashes of its voids, end to end; empty when a recovery cannot know them.
        retractions: among its records; None when they have to be read from the broker first.
        recovered: a dead gateway had appended it, and its entry comes late.
    """

    authorized: Authorized
    appended: Appended
    schema_ids: tuple[int, ...] = ()
    keys: Sequence[bytes] = ()
    void_leaves: bytes = b""
    retractions: Sequence[Retraction] | None = None
    recovered: bool = False

    def entry(self) -> AuditEntry:
        """Build the audit entry."""
        appended = self.appended
        return self.authorized.entry(
            publish_data(
                lane=str(appended.lane),
                sequence=appended.sequence,
                count=appended.count,
                schema_ids=self.schema_ids,
                root=appended.digest,
                runs=appended.runs,
                recovered=self.recovered,
            )
        )


class LaneReceipts:
    """The receipts of all lanes, and the cached heads of those that this gateway appends to. Thread-safe."""

    def __init__(
        self, *, ledger: AuditWriter, store: ReceiptStore, retractions: RetractionStore, signer: ReceiptSigner
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._retractions = retractions
        self._signer = signer
        self._heads: dict[Lane, LaneHead] = {}
        self._lock = threading.Lock()

    def write(self, work: UnitOfWork, publications: Sequence[Publication]) -> dict[int, Receipt]:
        """Write entries, receipts and retractions of one lane's batches; return the receipts by sequence number.

        It waits for running releases of the topic where there are retractions, so it comes last in *work*. The batches
        are acknowledged when the release window has passed after the commit (`has_retraction`).

        Raises:
            ConflictError: ALREADY_EXISTS, one of the batches has a receipt; nothing is written.
        """
        entries = [publication.entry() for publication in publications]
        leaves = self._ledger.write(work, entries)
        receipts = {
            publication.appended.sequence: self._receipt(publication.appended, entry, leaf)
            for publication, entry, leaf in zip(publications, entries, leaves, strict=True)
        }
        self._store.put(
            work,
            [(receipts[one.appended.sequence], one.keys) for one in publications],
            {one.appended.sequence: one.void_leaves for one in publications if one.void_leaves},
        )
        retractions = [one for publication in publications for one in publication.retractions or ()]
        if retractions:
            self._retractions.add(work, publications[0].appended.lane.topic, retractions)
        return receipts

    def get(self, reader: Reader, lane: Lane, sequence: int) -> Receipt | None:
        """Return one receipt."""
        return self._store.get(reader, lane, sequence)

    def last(self, reader: Reader, lane: Lane) -> Receipt | None:
        """Return the receipt of the lane's highest sequence number."""
        return self._store.last(reader, lane)

    def cached_head(self, lane: Lane) -> LaneHead | None:
        """Return the head that this gateway appended; None if it appended nothing since it took the lane over."""
        with self._lock:
            return self._heads.get(lane)

    def cache_head(self, lane: Lane, head: LaneHead) -> None:
        """Cache the head of a lane to which this gateway has just appended."""
        with self._lock:
            self._heads[lane] = head

    def forget_head(self, lane: Lane) -> None:
        """Drop the cached head: another gateway may have appended."""
        with self._lock:
            self._heads.pop(lane, None)

    def _receipt(self, appended: Appended, entry: AuditEntry, leaf: bytes) -> Receipt:
        receipt = Receipt(
            lane=appended.lane,
            sequence=appended.sequence,
            root=appended.digest,
            runs=appended.runs,
            entry_id=entry.id,
            leaf_hash=leaf,
            source_position=appended.source_position,
        )
        return replace(receipt, signature=self._signer.sign(receipt_statement(receipt)))
