"""Parquet part of a release: its records as columns of the view's own types, after three of the connector's.

    _record_key     string, 32 hexadecimal digits
    _recorded_at    timestamp of microseconds, UTC
    _operation      string, upsert or withdrawn
    …               the fields; all are nullable, since a withdrawn record has none

What Parquet has no type for is refused before anything is made: a union of more than null and one type, a record
without fields.
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.port import DecodedRelease
from schemas.errors import ConflictError, Reason

__all__ = ["parquet_part", "parquet_table", "require_parquet"]

_UTC = pa.timestamp("us", "UTC")


def parquet_part(release: DecodedRelease) -> bytes:
    """Return the records of a release, in order, as a Parquet file."""
    buffer = pa.BufferOutputStream()
    pq.write_table(parquet_table(release), buffer, compression="zstd")
    content: bytes = buffer.getvalue().to_pybytes()
    return content


def parquet_table(release: DecodedRelease) -> pa.Table:
    """Return the records of a release, in order, as the columns that the module states."""
    withdrawn = np.array(release.withdrawn, np.bool_)
    rows = pa.array(np.cumsum(~withdrawn) - 1, pa.int64(), mask=withdrawn)
    own = {
        "_record_key": pa.array([key.hex() for key in release.keys], pa.string()),
        "_recorded_at": pa.array(release.recorded_at, pa.int64()).cast(_UTC),
        "_operation": pa.array(np.where(withdrawn, "withdrawn", "upsert").tolist(), pa.string()),
    }
    fields = zip(release.records.schema.names, release.records.columns, strict=True)
    return pa.table({**own, **{name: column.cast(_nullable(column.type)).take(rows) for name, column in fields}})


def _nullable(kind: pa.DataType) -> pa.DataType:
    """Return a type whose parts may all be null: those of a withdrawn record's are."""
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _nullable(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(kind.key_type, _nullable(kind.item_type))
    return pa.list_(_nullable(kind.value_type)) if pa.types.is_list(kind) else kind


def require_parquet(schema: pa.Schema) -> None:
    """Check that Parquet has a type for each field of a view.

    Raises:
        ConflictError: CONTRACT_BROKEN, naming the fields.
    """
    unfit = [field.name for field in schema if not _fits(field.type)]
    if unfit:
        raise ConflictError(
            Reason.CONTRACT_BROKEN,
            f"Parquet has no type for unions and for records without fields: {', '.join(unfit)}. Nothing was made; use "
            "`kind: jsonl`, or fetch without these fields: a grant names those that it shows",
            details={"fields": ",".join(unfit)},
        )


def _fits(kind: pa.DataType) -> bool:
    if pa.types.is_union(kind):
        return False
    if pa.types.is_struct(kind):
        return kind.num_fields > 0 and all(_fits(field.type) for field in kind)
    if pa.types.is_map(kind):
        return _fits(kind.item_type)
    return not pa.types.is_list(kind) or _fits(kind.value_type)
