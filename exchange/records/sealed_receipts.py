"""Sealed receipts: the store of receipts with the pseudonyms of a batch's keys under the key of the month."""

from collections.abc import Collection, Mapping, Sequence

from typing_extensions import override

from exchange.audit.store import ReceiptStore
from exchange.identity.audit_pseudonyms import AuditPseudonyms
from registry.database.unit_of_work import Reader, UnitOfWork
from schemas.names import Lane
from schemas.record import OffsetRange, Receipt

__all__ = ["SealedReceipts"]


class SealedReceipts(ReceiptStore):
    """`ReceiptStore` over another one, which sees sealed pseudonyms alone."""

    def __init__(self, store: ReceiptStore, pseudonyms: AuditPseudonyms) -> None:
        self._store = store
        self._pseudonyms = pseudonyms

    @override
    def put(
        self,
        work: UnitOfWork,
        receipts: Sequence[tuple[Receipt, Sequence[bytes]]],
        void_leaves: Mapping[int, bytes] | None = None,
    ) -> None:
        sealed = [(receipt, self._pseudonyms.seal(keys)) for receipt, keys in receipts]
        self._store.put(work, sealed, void_leaves)

    @override
    def get(self, reader: Reader, lane: Lane, sequence: int) -> Receipt | None:
        return self._store.get(reader, lane, sequence)

    @override
    def order(self, reader: Reader, lane: Lane, sequence: int) -> tuple[bytes, bytes] | None:
        found = self._store.order(reader, lane, sequence)
        return None if found is None else (self._pseudonyms.open(found[0]), found[1])

    @override
    def runs(
        self, reader: Reader, batches: Collection[tuple[Lane, int]]
    ) -> Mapping[tuple[Lane, int], Sequence[OffsetRange]]:
        return self._store.runs(reader, batches)

    @override
    def last(self, reader: Reader, lane: Lane) -> Receipt | None:
        return self._store.last(reader, lane)

    @override
    def last_sequences(self, reader: Reader) -> dict[Lane, int]:
        return self._store.last_sequences(reader)

    @override
    def lasts_of(self, reader: Reader, connectors: Collection[tuple[str, str]]) -> Sequence[Receipt]:
        return self._store.lasts_of(reader, connectors)

    @override
    def prune_keys(self, work: UnitOfWork, before: int) -> int:
        return self._store.prune_keys(work, before)
