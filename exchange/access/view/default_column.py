"""Default values of fields, each as a column of one row.

A schema holds a default as JSON (Avro 1.12, "Complex Types, Records"). It is encoded as one Avro datum and decoded by
the codec, so that a default of any type becomes exactly what a record with that value would have become.
"""

import struct
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from exchange.access.view.derive import record_schema_text
from registry.avro.defaults import default_fits
from registry.avro.parser import parse
from registry.codec.row_engine import RowEngine

__all__ = ["default_column"]


def default_column(avro: Any, value: Any) -> pa.Array:
    """Return the one-row column of a default.

    Args:
        avro: the field's type, resolved (`registry.avro.parser.Field.type`).
        value: its default as JSON, which fits it: `registry.avro.parser` refuses a schema with another one.
    """
    out = bytearray()
    _write(out, avro, value, {})
    return RowEngine(parse(record_schema_text([("value", avro)]))).decode([bytes(out)]).column(0)


def _write(  # noqa: C901, PLR0912 - one branch a type of Avro
    out: bytearray, avro: Any, value: Any, enclosing: Mapping[str, Any]
) -> None:
    if isinstance(avro, list):
        index = next(index for index, branch in enumerate(avro) if default_fits(branch, value, enclosing))
        _write_long(out, index)
        _write(out, avro[index], value, enclosing)
        return
    if isinstance(avro, str) and avro in enclosing:
        avro = enclosing[avro]
    match avro if isinstance(avro, str) else avro["type"]:
        case "null":
            pass
        case "boolean":
            out.append(value)
        case "int" | "long":
            _write_long(out, value)
        case "float":
            out += struct.pack("<f", value)
        case "double":
            out += struct.pack("<d", value)
        case "string":
            _write_sized(out, value.encode())
        case "bytes":
            _write_sized(out, value.encode("latin-1"))
        case "fixed":
            out += value.encode("latin-1")
        case "enum":
            _write_long(out, avro["symbols"].index(value))
        case "array":
            _write_block(out, [("", item) for item in value], avro["items"], enclosing)
        case "map":
            _write_block(out, list(value.items()), avro["values"], enclosing, keyed=True)
        case _:
            inner = {**enclosing, avro["name"]: avro}
            for field in avro["fields"]:
                _write(out, field["type"], value.get(field["name"], field.get("default")), inner)


def _write_block(
    out: bytearray, items: list[tuple[str, Any]], avro: Any, enclosing: Mapping[str, Any], *, keyed: bool = False
) -> None:
    if items:
        _write_long(out, len(items))
        for key, item in items:
            if keyed:
                _write_sized(out, key.encode())
            _write(out, avro, item, enclosing)
    out.append(0)


def _write_sized(out: bytearray, content: bytes) -> None:
    _write_long(out, len(content))
    out += content


def _write_long(out: bytearray, number: int) -> None:
    number = (number << 1) ^ (number >> 63)
    while number > 0x7F:
        out.append((number & 0x7F) | 0x80)
        number >>= 7
    out.append(number)
