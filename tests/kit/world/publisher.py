"""Batches without a connector: rows → signed batches, for tests that speak to the pool directly."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric import ed25519

from exchange.records.submission import Records
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from registry.codec.framing import add_frames
from schemas.merkle import root_of
from schemas.names import ConnectorId, Lane, Topic
from schemas.record import NO_ROOT, Batch, KeyOccurrence, Mark, Operation, Packed, batch_statement, leaf_hashes

FIRST = int(Mark(Operation.UPSERT, KeyOccurrence.FIRST))
AGAIN = int(Mark(Operation.UPSERT, KeyOccurrence.AGAIN))
VOIDED = int(Mark(Operation.VOID, KeyOccurrence.AGAIN))


def checkable(values: Sequence[bytes], void_keys: Sequence[bytes] = ()) -> tuple[Records, list[bytes]]:
    """Return framed values, empty ones of voids, as a batch's records under their true root, and as a list."""
    marks = bytes(FIRST if value else int(Mark(Operation.VOID)) for value in values)
    root = root_of(leaf_hashes(marks, values, void_keys, b""))
    packed = Records(marks=marks, values=Packed.of(values), void_keys=Packed.of(void_keys), valid=b"", root=root)
    return packed, list(values)


class Publisher:
    """Makes the batches of one lane."""

    def __init__(
        self, pool_id: str, department: str, connector: str, topic: str, key: ed25519.Ed25519PrivateKey
    ) -> None:
        self.lane = Lane(department, ConnectorId(connector), Topic.parse(topic))
        self.pool_id = pool_id
        self.key = key
        self.sequence = 0
        self.root = NO_ROOT

    def voids(self, keys: Sequence[bytes], *, valid: bytes = b"") -> Batch:
        """Sign voids of these keys as the lane's next batch."""
        marks = bytes([VOIDED] * len(keys))
        return self.batch(Packed.of([b""] * len(keys)), marks=marks, void_keys=keys, valid=valid)

    def batch(
        self,
        values: Packed,
        *,
        marks: bytes | None = None,
        void_keys: Sequence[bytes] = (),
        valid: bytes = b"",
        source_position: bytes = b"",
    ) -> Batch:
        """Sign framed values as the lane's next batch."""
        marks = bytes([FIRST] * len(values)) if marks is None else marks
        root = root_of(leaf_hashes(marks, values, void_keys, valid))
        self.sequence += 1
        statement = batch_statement(self.pool_id, self.lane, self.sequence, len(marks), root, self.root)
        batch = Batch(
            lane=self.lane,
            sequence=self.sequence,
            marks=marks,
            values=values,
            void_keys=Packed.of(void_keys),
            valid=valid,
            previous_root=self.root,
            root=root,
            signature=self.key.sign(statement),
            source_position=source_position,
        )
        self.root = root
        return batch


def framed(schema_id: int, schema_text: str, rows: Iterable[dict[str, Any]]) -> Packed:
    """Encode rows (Python values by field name) under a schema."""
    engine = engine_for(parse(schema_text))
    return add_frames(schema_id, engine.encode(pa.RecordBatch.from_pylist(list(rows), schema=engine.schema)))


def chunks(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Cut rows into lists of *size*."""
    chunk: list[dict[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
