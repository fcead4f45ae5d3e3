"""Earlier contracts of a resource: whether a row says the same as it did under one of them.

A ledger knows a published record by the digest of its bytes, and these change with the schema: a field that is added
and is null in every row would have the whole table published again, though no row says anything new. So a row whose
digest differs is written as each earlier contract would have written it, and compared once more. A field that the
earlier contract lacks must be null, and one that it alone has is taken for null. Pure.
"""

import hashlib
from collections.abc import Mapping, Sequence

import pyarrow as pa

from connectors.mapping.contract import Contract
from registry.codec.codec import Engine
from schemas.errors import InvalidError

__all__ = ["EarlierContracts", "digest_of"]


def digest_of(datum: bytes, contract: Contract) -> bytes:
    """Return 16 bytes that change with a datum and with what it means."""
    return hashlib.blake2b(datum, digest_size=16, key=contract.semantic_hash).digest()


class EarlierContracts:
    """Contracts under which keys of a ledger may have been published, latest first, each with its engine."""

    def __init__(self, contracts: Sequence[tuple[Contract, Engine]] = ()) -> None:
        self._contracts = contracts

    def unchanged(self, batch: pa.RecordBatch, published: Mapping[int, bytes]) -> set[int]:
        """Return the rows that say the same as what was published.

        Args:
            batch: of the current contract.
            published: row of the batch → digest of what was published of its key.
        """
        found: set[int] = set()
        for contract, engine in self._contracts:
            left = [row for row in published if row not in found]
            rows = _without_new_values(batch, engine.schema, left)
            found |= _same(batch, rows, contract, engine, published)
        return found


def _without_new_values(batch: pa.RecordBatch, earlier: pa.Schema, rows: list[int]) -> list[int]:
    """Return the rows that are null in every field that the earlier contract lacks."""
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if field.name not in earlier.names and rows:
            values = column.is_valid().to_pylist()
            rows = [row for row in rows if not values[row]]
    return rows


def _same(
    batch: pa.RecordBatch, rows: list[int], contract: Contract, engine: Engine, published: Mapping[int, bytes]
) -> set[int]:
    if not rows:
        return set()
    chosen = batch.take(pa.array(rows, pa.int64()))
    columns = [
        chosen.column(name) if name in chosen.schema.names else pa.nulls(len(rows), engine.schema.field(name).type)
        for name in engine.schema.names
    ]
    try:
        datums = engine.encode(pa.RecordBatch.from_arrays(columns, names=engine.schema.names))
    except (InvalidError, pa.ArrowException):  # a value that the earlier contract had no place for
        if len(rows) == 1:
            return set()
        middle = len(rows) // 2
        parts = (_same(batch, part, contract, engine, published) for part in (rows[:middle], rows[middle:]))
        return set().union(*parts)
    return {row for row, datum in zip(rows, datums, strict=True) if digest_of(datum, contract) == published[row]}
