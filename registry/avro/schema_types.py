"""The types of schemas beside Avro: JSON Schema and Protobuf. Pure.

They are kept, given back, and found again by what they say rather than by how they are written: JSON by its
members in any order, Protobuf by its words without white space and comments (a serialized descriptor by its bytes).
Whether one may follow another is not judged: see docs/adr/0028. What the pool moves is Avro.
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

__all__ = ["EXACT", "Kind", "canonical_of", "kind_of"]

_PROTO_TOKENS = re.compile(
    r"""\s+|//[^\n]*|/\*.*?\*/|(?P<text>"(?:[^"\\\n]|\\.)*+"|'(?:[^'\\\n]|\\.)*+')|(?P<word>[\w.+-]++)|(?P<mark>[^\w\s])""",
    re.DOTALL,
)
_FRACTION = re.compile(r"[0-9][.eE]")
EXACT = "\ud800"
"""Before the digits of a number that no double holds, in a canonical form: two numbers are not to be one. No text of a
schema can begin like it."""
_JSON_TYPES = frozenset({"null", "boolean", "object", "array", "number", "string", "integer"})
_PAIRS = {"}": "{", "]": "[", ")": "("}


class Kind(StrEnum):
    """The types of schemas that are taken."""

    JSON = "JSON"
    PROTOBUF = "PROTOBUF"
    AVRO = "AVRO"


def kind_of(text: str) -> Kind:
    """Read a schema type.

    Raises:
        InvalidError: SCHEMA_INVALID.
    """
    try:
        return Kind(text.upper())
    except ValueError as error:
        raise schema_invalid(f"got the schema type {text[:40]!r}; expected one of {', '.join(sorted(Kind))}") from error


def canonical_of(kind: Kind, text: str) -> Any:
    """Check a schema's form; give what is the same for every way of writing it, as JSON.

    Raises:
        InvalidError: SCHEMA_INVALID or SCHEMA_UNSAFE.
    """
    if len(text) > MAX_TEXT_BYTES:
        raise schema_unsafe(f"got a schema of {len(text)} characters; expected at most {MAX_TEXT_BYTES}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise schema_invalid("got a schema with a lone surrogate in it; expected text that has a UTF-8 form") from error
    return _json_schema(text) if kind is Kind.JSON else _protobuf(text)


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
    stated = found.get("type") if isinstance(found, dict) else None
    listed = stated if isinstance(stated, list) else [] if stated is None else [stated]
    if not all(isinstance(one, str) and one in _JSON_TYPES for one in listed):
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
    return number if same else EXACT + text


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _protobuf(text: str) -> Any:
    described = _descriptor(text)
    if described is not None:
        return ["descriptor", described]
    words: list[str] = []
    open_: list[str] = []
    end = 0
    for token in _PROTO_TOKENS.finditer(text):
        if token.start() != end:
            break
        end = token.end()
        if token.lastgroup is None:
            continue
        word = token.group()
        words.append(word)
        if word in "{[(":
            open_.append(word)
            if len(open_) > MAX_DEPTH:
                raise schema_unsafe(f"got a schema of more than {MAX_DEPTH} nested brackets; expected fewer")
        elif word in _PAIRS and (not open_ or open_.pop() != _PAIRS[word]):
            raise schema_invalid("got a .proto text with brackets that do not match")
    if end != len(text) or open_:
        raise schema_invalid("got a .proto text that ends within a bracket, a string or a comment")
    if not {"message", "enum", "service", "extend", "syntax", "edition"} & set(words):
        raise schema_invalid("got a text that is no .proto file; expected a message, an enum or a service in it")
    return words


def _descriptor(text: str) -> str | None:
    """Return a serialized FileDescriptorProto in its own base64, None for a text that is none."""
    try:
        raw = base64.b64decode(text, validate=True)
        found = FileDescriptorProto.FromString(raw)
    except (binascii.Error, ValueError, DecodeError):
        return None
    if not found.name and not found.message_type and not found.enum_type:
        return None
    return base64.b64encode(found.SerializeToString(deterministic=True)).decode()
