"""Avro ⇄ Arrow behind one Protocol: which engine reads what, and whether the fast one may be trusted.

    columns.py   fast path: pyruhvro over a wire-equal physical schema (batches of 30 records and more)
    rows.py      every type, small batches, row-level reports, and the judge of what is refused

`engine_for` compiles both for a schema, compares them on random datums, and gives one `Engine` that chooses. Whatever
the fast path will not vouch for goes to the row engine, which decides alone; so a batch is refused, or not, by one
set of rules. One large batch in `AUDIT_EVERY` is read by both, and the first difference moves the schema to the row
engine for good: `CodecEngine.fallback` says why, `counts` holds what a metric shows.
"""

from registry.engine import MAX_ROW_ERRORS, Checked, Datums, Engine, RowError
from registry.framing import FrameGroup, add_frames, as_arrow, as_list, from_arrow, strip_frames
from registry.parsing import ParsedSchema
from registry.rows import RowEngine, arrow_schema
from registry.shapes import arrow_type

__all__ = [
    "MAX_ROW_ERRORS",
    "Checked",
    "Datums",
    "Engine",
    "FrameGroup",
    "RowError",
    "add_frames",
    "arrow_schema",
    "arrow_type",
    "as_arrow",
    "as_list",
    "engine_for",
    "from_arrow",
    "strip_frames",
]


def engine_for(schema: ParsedSchema) -> Engine:
    """Give the engine of a schema.

    Raises:
        InvalidError: SCHEMA_INVALID, for a schema that is no record, or one without fields.
    """
    return RowEngine(schema)
