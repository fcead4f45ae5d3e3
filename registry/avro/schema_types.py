"""Schema types beside Avro: JSON Schema and Protobuf. Pure.

They are stored, returned, and found again by their content rather than their spelling: JSON by its members in any
order, Protobuf by its tokens without white space and comments (a serialized descriptor by its bytes). Whether one
version is compatible with another is not checked: see docs/adr/0028. What the pool moves is Avro.
"""

import base64
import binascii
import json
import re
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError

from registry.avro.name_resolution import MAX_DEPTH, MAX_TEXT_BYTES, schema_invalid, schema_unsafe

__all__ = ["EXACT_NUMBER_MARK", "SchemaType", "canonical_form", "parse_schema_type"]

_PROTO_TOKENS = re.compile(
    r"""\s+|//[^\n]*|/\*.*?\*/|(?P<text>"(?:[^"\\\n]|\\.)*+"|'(?:[^'\\\n]|\\.)*+')|(?P<word>[\w.+-]++)|(?P<mark>[^\w\s])""",
    re.DOTALL,
)
_FRACTION = re.compile(r"[0-9][.eE]")
EXACT_NUMBER_MARK = "\ud800"
"""Prefix, in a canonical form, of the digits of a number that no double holds exactly: two different numbers must not
become one. No text of a schema can begin with it."""

_JSON_TYPES = frozenset({"null", "boolean", "object", "array", "number", "string", "integer"})
_PAIRS = {"}": "{", "]": "[", ")": "("}


class SchemaType(StrEnum):
    """Schema types that may be registered."""

    JSON = "JSON"
    PROTOBUF = "PROTOBUF"
    AVRO = "AVRO"


def parse_schema_type(text: str) -> SchemaType:
    """Parse the name of a schema type.

    Raises:
        InvalidError: SCHEMA_INVALID.
    """
    try:
        return SchemaType(text.upper())
    except ValueError as error:
        raise schema_invalid(
            f"got the schema type {text[:40]!r}; expected one of {', '.join(sorted(SchemaType))}"
        ) from error


def canonical_form(kind: SchemaType, text: str) -> Any:
    """Check the syntax of a JSON or Protobuf schema; return its canonical form as JSON, the same for every spelling.

    Raises:
        InvalidError: SCHEMA_INVALID or SCHEMA_UNSAFE.
    """
    if len(text) > MAX_TEXT_BYTES:
        raise schema_unsafe(f"got a schema of {len(text)} characters; expected at most {MAX_TEXT_BYTES}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise schema_invalid("got a schema with a lone surrogate in it; expected text that has a UTF-8 form") from error
    return _json_schema(text) if kind is SchemaType.JSON else _protobuf(text)


def _json_schema(text: str) -> Any:
    depth = deepest = 0
    for mark in re.findall(r'"(?:[^"\\]|\\.)*+"|[\[{\]}]', text):
        if mark in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif mark in "]}":
            depth -= 1
    if deepest > MAX_DEPTH:
        raise schema_unsafe(f"got a schema of {deepest} nested brackets; expected at most {MAX_DEPTH}")
    try:
        found = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_members)
        json.dumps(found, ensure_ascii=False).encode()
        if _FRACTION.search(text):
            found = json.loads(text, parse_float=_number)
    except (ValueError, RecursionError) as error:
        raise schema_invalid(f"got a text that is no JSON ({type(error).__name__}); expected a JSON schema") from error
    if not isinstance(found, dict | bool):
        raise schema_invalid("got JSON that is no schema; expected an object, true or false (JSON Schema 2020-12)")
    type_ = found.get("type") if isinstance(found, dict) else None
    types = type_ if isinstance(type_, list) else [] if type_ is None else [type_]
    if not all(isinstance(one, str) and one in _JSON_TYPES for one in types):
        raise schema_invalid(f'got a "type" that JSON Schema does not have; expected {", ".join(sorted(_JSON_TYPES))}')
    return found


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has two members of one name")  # readers differ in which of them counts
    return members


def _number(text: str) -> float | str:
    number = float(text)
    try:
        same = Decimal(text) == Decimal(repr(number))
    except InvalidOperation:  # an exponent of twenty digits
        same = False
    return number if same else EXACT_NUMBER_MARK + text


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _protobuf(text: str) -> Any:
    described = _descriptor(text)
    if described is not None:
        return ["descriptor", described]
    lexemes: list[str] = []
    open_brackets: list[str] = []
    end = 0
    for match in _PROTO_TOKENS.finditer(text):
        if match.start() != end:
            break
        end = match.end()
        if match.lastgroup is None:
            continue
        lexeme = match.group()
        lexemes.append(lexeme)
        if lexeme in "{[(":
            open_brackets.append(lexeme)
            if len(open_brackets) > MAX_DEPTH:
                raise schema_unsafe(f"got a schema of more than {MAX_DEPTH} nested brackets; expected fewer")
        elif lexeme in _PAIRS and (not open_brackets or open_brackets.pop() != _PAIRS[lexeme]):
            raise schema_invalid("got a .proto text with brackets that do not match")
    if end != len(text) or open_brackets:
        raise schema_invalid("got a .proto text that ends within a bracket, a string or a comment")
    if not {"message", "enum", "service", "extend", "syntax", "edition"} & set(lexemes):
        raise schema_invalid("got a text that is no .proto file; expected a message, an enum or a service in it")
    return lexemes


def _descriptor(text: str) -> str | None:
    """Return a serialized FileDescriptorProto in canonical base64, None for any other text."""
    try:
        raw = base64.b64decode(text, validate=True)
        found = FileDescriptorProto.FromString(raw)
    except (binascii.Error, ValueError, DecodeError):
        return None
    if not found.name and not found.message_type and not found.enum_type:
        return None
    return base64.b64encode(found.SerializeToString(deterministic=True)).decode()
