"""Times of nanoseconds as text: hardly any target, and no type of Python, holds the last three digits. Pure.

    2023-02-09T10:00:00.123456789Z     timestamp-nanos
    2023-02-09T10:00:00.123456789      local-timestamp-nanos

Nine digits always, so that the texts sort as the times do.
"""

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["as_deliverable", "deliverable_schema"]


def deliverable_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema of `as_deliverable`."""
    return pa.schema(
        [pa.field(each.name, pa.string(), each.nullable) if _nanos(each.type) else each for each in schema]
    )


def as_deliverable(records: pa.RecordBatch) -> pa.RecordBatch:
    """Return the records with text in place of times of nanoseconds; the same records where there are none."""
    if not any(map(_nanos, records.schema.types)):
        return records
    columns = [_text(column) if _nanos(column.type) else column for column in records.columns]
    return pa.RecordBatch.from_arrays(columns, schema=deliverable_schema(records.schema))


def _nanos(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(arrow) and arrow.unit == "ns")


def _text(column: pa.Array) -> pa.Array:
    texts = pc.replace_substring(pc.cast(column.cast(pa.timestamp("ns")), pa.string()), " ", "T")
    return pc.binary_join_element_wise(texts, "Z", "") if column.type.tz else texts
