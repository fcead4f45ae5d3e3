"""Codec of records that the hub decodes and of golden records that it writes: framed Avro by schema id.

A golden record is of one Avro schema a library, whose fields are those that its rules store, each nullable. A field of
the rule `set` is an array of values, each with the index of its source in the provenance.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

import pyarrow as pa

from exchange.hub.fold.claim import Value
from exchange.hub.fold.golden import Golden, Sourced
from exchange.hub.fold.rules import Kind, Rules
from registry.avro.parser import parse
from registry.codec.codec import Engine, engine_for
from schemas.canonical import Json, canonical
from schemas.record import frame, unframe

__all__ = ["GoldenCodec", "RecordCodec", "golden_schema"]

_ENGINES = 256


class RecordCodec:
    """Decodes framed records.

    Args:
        schema: returns the Avro text of a schema id.
    """

    def __init__(self, schema: Callable[[int], str]) -> None:
        self._engine: Callable[[int], Engine] = lru_cache(maxsize=_ENGINES)(
            lambda schema_id: engine_for(parse(schema(schema_id)))
        )

    def decode(self, framed: Sequence[bytes]) -> list[Mapping[str, Value] | None]:
        """Return the fields of each record; None for one without a value.

        Raises:
            InvalidError: RECORD_INVALID.
        """
        found: list[Mapping[str, Value] | None] = [None] * len(framed)
        by_schema: dict[int, list[int]] = {}
        datums: list[bytes] = [b""] * len(framed)
        for at, one in enumerate(framed):
            if one:
                schema_id, datums[at] = unframe(one)
                by_schema.setdefault(schema_id, []).append(at)
        for schema_id, places in by_schema.items():
            rows = self._engine(schema_id).decode([datums[at] for at in places]).to_pylist()
            for at, row in zip(places, rows, strict=True):
                found[at] = MappingProxyType(row)
        return found


class GoldenCodec:
    """Encodes and decodes golden records of one library.

    Args:
        schema_id: under which the schema is registered.
        text: the schema, as `golden_schema` returns it.
    """

    def __init__(self, schema_id: int, text: str) -> None:
        self._id = schema_id
        self._engine = engine_for(parse(text))

    def encode(self, records: Sequence[Golden]) -> list[bytes]:
        """Return golden records as framed Avro, in order.

        Raises:
            InvalidError: RECORD_INVALID or FIELD_UNKNOWN, a value is not of the schema's type.
        """
        if not records:
            return []
        names = self._engine.schema.names
        rows = [{name: _plain(one, name) for name in names} for one in records]
        batch = pa.RecordBatch.from_pylist(rows, schema=self._engine.schema)
        return [frame(self._id, datum) for datum in self._engine.encode(batch)]

    def encode_columns(self, values: Mapping[str, pa.Array], size: int) -> list[bytes]:
        """Return golden records whose values stand in columns; a field without one is empty.

        Raises:
            InvalidError: RECORD_INVALID, a value is not of the schema's type.
        """
        if not size:
            return []
        schema = self._engine.schema
        columns = [values[one.name] if one.name in values else pa.nulls(size, one.type) for one in schema]
        batch = pa.RecordBatch.from_arrays(columns, schema=schema)
        return [frame(self._id, datum) for datum in self._engine.encode(batch)]

    def columns(self, rows: Sequence[Mapping[str, Value]], names: Collection[str]) -> dict[str, pa.Array]:
        """Return fields of rows as columns of the schema's types; a field that the schema lacks is left out.

        Raises:
            pyarrow.ArrowException, TypeError, ValueError: a value is not of its field's type.
        """
        schema = self._engine.schema
        return {
            name: pa.array([row.get(name) for row in rows], schema.field(name).type)
            for name in schema.names
            if name in names
        }

    def decode(self, framed: Sequence[bytes]) -> list[dict[str, Value]]:
        """Return the values of golden records, in order.

        Raises:
            InvalidError: RECORD_INVALID.
        """
        if not framed:
            return []
        rows: list[dict[str, Value]] = self._engine.decode([unframe(one)[1] for one in framed]).to_pylist()
        return rows


def golden_schema(rules: Rules, types: Mapping[str, Json]) -> str:
    """Return the Avro schema of a library's golden records.

    Args:
        rules: name the fields.
        types: Avro type of each field, without null.

    Raises:
        KeyError: a field has no type.
    """
    fields: list[Json] = []
    for name in rules.stored:
        value = types[name]
        if rules.fields[name].kind is Kind.SET:
            entry: Json = {
                "type": "record",
                "name": f"{name}_entry",
                "fields": [{"name": "value", "type": value}, {"name": "source", "type": "int"}],
            }
            value = {"type": "array", "items": entry}
        fields.append({"name": name, "type": ["null", value], "default": None})
    return canonical(
        {
            "type": "record",
            "namespace": "hub",
            "name": rules.library.replace("-", "_"),
            "fields": fields,
        }
    ).decode()


def _plain(golden: Golden, name: str) -> Value:
    cell = golden.fields.get(name)
    if cell is None or not isinstance(cell.value, tuple):
        return None if cell is None else cell.value
    return [{"value": one.value, "source": one.source} for one in cell.value if isinstance(one, Sourced)]
