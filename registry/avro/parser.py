"""Schema parser: Avro schema text to a checked `ParsedSchema`, under limits that apply before anything is parsed.

    text ── limits (bytes, depth, fields) ── JSON, strictly ── Apache Avro: is it a schema?
         ── names resolved, sizes bounded ── gaps of Avro's parser (logical types, names, defaults)
         ── type tree (registry.avro.type_tree: amplification) ── attributes that the codec acts on (`check`, `codes`,
         `key`)

Anyone who may register a schema may send anything, so nothing here may recurse without a bound, loop for long or end
in anything but an InvalidError: SCHEMA_INVALID for a text that is not a schema, SCHEMA_UNSAFE for one that would
exhaust a reader of its records. The message names the field.

A record's attributes that the codec acts on:

    "key": ["id_number"]       of the record: the fields that make up a record's key, in order
    "check": "cn_id18"         of a field: rules of a closed list (registry.avro.field_rules); one, or a list of them
    "codes": ["0", "1", "9"]   of a field: the only texts allowed

Every other attribute (`zh`, `level`, `mask` …) is kept and passed on unchanged.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import avro.errors
import avro.name
import avro.schema
from avro.constants import PRIMITIVE_TYPES

from registry.avro.field_rules import Rule, parse_rules
from registry.avro.name_resolution import (
    MAX_DEPTH,
    MAX_NODES,
    MAX_TEXT_BYTES,
    Resolver,
    schema_invalid,
    schema_unsafe,
    unwrapped,
)
from registry.avro.type_tree import MAX_FIXED_BYTES, TypeKind, TypeNode, compile_type
from schemas.errors import InvalidError, Reason

__all__ = [
    "MAX_DEPTH",
    "MAX_FIELDS",
    "MAX_NODES",
    "MAX_TEXT_BYTES",
    "NO_DEFAULT",
    "Field",
    "ParsedSchema",
    "PrimitiveFirstNames",
    "load_json",
    "parse",
]

MAX_FIELDS = 2_000  # of all records of a schema together
MAX_NAME = 500  # characters of a name or a namespace: every use of a name is written with its namespace

_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[{]|[\]}]', re.DOTALL)
_AVRO_TYPES = frozenset({"type", "fields", "items", "values"})  # attributes that hold types
_AVRO_ATTRIBUTES = _AVRO_TYPES | {"name", "namespace", "aliases", "symbols", "size", "default", "order", "doc"}
_FIELD_ATTRIBUTES = frozenset({"name", "type", "default", "doc", "order", "aliases"})
_KEY_TYPES = (TypeKind.STRING, TypeKind.INT, TypeKind.LONG, TypeKind.ENUM)


class _NoDefault:
    """Marker for a field without a default, which differs from a default of null."""

    def __repr__(self) -> str:
        return "NO_DEFAULT"


NO_DEFAULT: Final = _NoDefault()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Field:
    """One field of a record schema.

    Attributes:
        name: as declared.
        type: its Avro type as JSON, resolved: named types are written in full at every use, under their full names; a
            bare name is left only where a record refers to one that encloses it. Self-contained.
        nullable: null is one of its values.
        attributes: every attribute of the field that Avro itself does not define (`zh`, `level`, `mask`, `check` …).
        default: its default as JSON, or NO_DEFAULT.
        doc: its description, empty when it has none.
        aliases: former names.
        type_tree: its compiled type.
    """

    name: str
    type: Any
    nullable: bool
    attributes: Mapping[str, Any]
    default: Any
    doc: str
    aliases: tuple[str, ...]
    type_tree: TypeNode


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParsedSchema:
    """A schema that is well-formed and, unless it is non-terminating, safe to read records with.

    Schemas are equal by text and references.

    Attributes:
        text: as submitted.
        references: texts of the schemas that it refers to, as submitted, each before those that need it.
        json: `text` as JSON, unresolved: for attributes at any depth.
        fullname: of the record; empty for a schema that is not a record.
        fields: of the record, in order; none for a schema that is not a record.
        key: names of the fields that make up a record's key, in order; empty when the schema declares none.
        rules: what the codec checks of each record beyond its type.
        type_tree: the compiled type.
        attributes: attributes of the record that Avro itself does not define.
    """

    text: str
    references: tuple[str, ...]
    json: Any
    fullname: str
    fields: tuple[Field, ...]
    key: tuple[str, ...]
    rules: tuple[Rule, ...]
    type_tree: TypeNode
    attributes: Mapping[str, Any]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ParsedSchema) and (self.text, self.references) == (other.text, other.references)

    def __hash__(self) -> int:
        return hash((self.text, self.references))

    def field(self, name: str) -> Field:
        """Return the field of that name.

        Raises:
            InvalidError: FIELD_UNKNOWN.
        """
        for field in self.fields:
            if field.name == name:
                return field
        raise InvalidError(
            Reason.FIELD_UNKNOWN,
            f"got the field {name[:100]!r}, which {self.fullname or 'the schema'} does not have; expected one of its "
            f"{len(self.fields)} fields",
            details={"field": name[:100]},
        )


@lru_cache(maxsize=512)
def parse(
    text: str, *, references: tuple[str, ...] = (), strict: bool = True, allow_non_terminating: bool = False
) -> ParsedSchema:
    """Parse a schema.

    Args:
        text: the schema as JSON.
        references: texts of schemas whose named types it uses, each before those that need it.
        strict: also refuse what Avro's own parser lets pass: names and aliases outside Avro's grammar, invalid
            decimals, defaults that do not fit their type. Off, a logical type that is invalid is ignored instead.
        allow_non_terminating: also accept an infinitely recursive record, to describe and compare it. No engine reads
            or writes with such a schema (`registry.avro.type_tree.require_terminating`).

    Raises:
        InvalidError: SCHEMA_INVALID or SCHEMA_UNSAFE; `details["field"]` names the field where there is one.
    """
    loaded = [load_json(each) for each in (*references, text)]
    names = PrimitiveFirstNames(validate_names=strict)
    for data in loaded:
        try:
            avro.schema.make_avsc_object(_for_avro(data), names, strict, strict)
        except Exception as error:  # hostile JSON makes it fail in more ways than it declares
            raise schema_invalid(
                f"got a text that is no Avro schema ({_brief(error)}); expected one by Avro 1.12"
            ) from error
    resolver = Resolver(strict)
    for data in loaded[:-1]:
        resolver.resolve(data, "", (), "")
    resolved = resolver.resolve(loaded[-1], "", (), "")
    type_tree = compile_type(resolved, allow_non_terminating=allow_non_terminating)
    return _assemble(text, references, loaded[-1], resolved, type_tree)


def _assemble(text: str, references: tuple[str, ...], data: Any, resolved: Any, type_tree: TypeNode) -> ParsedSchema:
    record: Mapping[str, Any] = resolved if type_tree.kind is TypeKind.RECORD else {"name": "", "fields": []}
    fields = tuple(
        Field(
            name=field["name"],
            type=field["type"],
            nullable=part.nullable or (bool(part.parts) and any(one.kind is TypeKind.NULL for one in part.parts)),
            attributes={key: value for key, value in field.items() if key not in _FIELD_ATTRIBUTES},
            default=field.get("default", NO_DEFAULT),
            doc=str(field.get("doc") or ""),
            aliases=tuple(field.get("aliases", ())),
            type_tree=part,
        )
        for field, part in zip(record["fields"], type_tree.parts, strict=False)
    )
    _refuse_wide(type_tree)
    reserved = {"type", "name", "namespace", "fields", "doc", "aliases"}
    attributes = {key: value for key, value in record.items() if key not in reserved}
    return ParsedSchema(
        text=text,
        references=references,
        json=data,
        fullname=record["name"],
        fields=fields,
        key=_key(attributes, fields),
        rules=parse_rules({field.name: (field.type_tree, field.attributes) for field in fields}),
        type_tree=type_tree,
        attributes=attributes,
    )


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + "…"


# --- the text ---------------------------------------------------------------------------------------------------


def load_json(text: str) -> Any:
    """Parse a schema's JSON within the limits; two members of one name, NaN and lone surrogates are refused.

    Raises:
        InvalidError: SCHEMA_INVALID or SCHEMA_UNSAFE.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise schema_invalid("got a schema with a lone surrogate in it; expected text that has a UTF-8 form") from error
    if size > MAX_TEXT_BYTES:
        raise schema_unsafe(f"got a schema of {size} bytes; expected at most {MAX_TEXT_BYTES}")
    deepest = _depth(text)
    if deepest > MAX_DEPTH:
        raise schema_unsafe(f"got a schema of {deepest} nested brackets; expected at most {MAX_DEPTH}")
    try:
        data = _DECODER.decode(text)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(data, ensure_ascii=False).encode()  # an escaped lone surrogate has no UTF-8 form either
    except (ValueError, RecursionError) as error:
        raise schema_invalid(f"got a text that is no JSON ({_brief(error)}); expected an Avro schema") from error
    if len(text) > 2 * MAX_FIELDS:  # a field, and so a type, takes two characters at least
        _count_fields(data)
    return data


def _depth(text: str) -> int:
    """Return how deep brackets are nested in a text, or, if that is within the limit, how many brackets there are."""
    brackets = text.count("[") + text.count("{")
    if brackets <= MAX_DEPTH:
        return brackets
    depth = deepest = 0
    for token in _TOKENS.finditer(text):
        first = text[token.start()]
        if first in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif first in "]}":
            depth -= 1
    return deepest


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has two members of one name")
    return members


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_no_constant)


def _count_fields(data: Any) -> None:
    fields = nodes = 0
    todo = [data]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            nodes += 1
            _refuse_long_names(value)
            inner = value.get("fields")
            fields += len(inner) if isinstance(inner, list) else 0
            todo.extend(part for name, part in value.items() if name not in {"default", "symbols", "codes"})
        elif isinstance(value, list):
            nodes += 1 + sum(isinstance(part, str) for part in value)
            todo.extend(part for part in value if not isinstance(part, str))
        if fields > MAX_FIELDS or nodes > MAX_NODES:
            raise schema_unsafe(
                f"got a schema of more than {MAX_FIELDS} fields or {MAX_NODES} types; expected fewer",
            )


_primitive: Any = avro.schema.PrimitiveSchema
_SIMPLE: Final[Mapping[str, Any]] = {name: _primitive(name) for name in PRIMITIVE_TYPES}


class PrimitiveFirstNames(avro.name.Names):
    """Named types and the primitive ones, which cannot be redefined (Avro 1.12, "Names").

    A primitive type is created once, not at each use: that was a third of the work of Avro's parser.
    """

    def has_name(self, name_attr: str, space_attr: str | None = None) -> bool:
        """Return whether a name is defined."""
        return name_attr in _SIMPLE or super().has_name(name_attr, space_attr)

    def get_name(self, name_attr: str, space_attr: str | None = None) -> Any:
        """Return the type of that name."""
        return _SIMPLE.get(name_attr) or super().get_name(name_attr, space_attr)


def _refuse_long_names(node: Mapping[str, Any]) -> None:
    for attribute in ("name", "namespace"):
        name = node.get(attribute)
        if isinstance(name, str) and len(name) > MAX_NAME:
            raise schema_unsafe(f"got a {attribute} of {len(name)} characters; expected {MAX_NAME} at most")


def _for_avro(data: Any) -> Any:
    """Return the JSON with Avro's own attributes alone, for Apache Avro's parser.

    Logical types are left out: the parser warns of invalid and of unknown ones, and warnings are not safe in
    threads; `Resolver` checks them. A type wrapped once more (`{"type": {"type": "int"}}`) is unwrapped, which
    Java's parser does and this one does not. Other attributes would only be copied.
    """
    if isinstance(data, list):
        return [part if isinstance(part, str) else _for_avro(part) for part in data]
    if not isinstance(data, dict):
        return data
    inner = unwrapped(data)
    if inner is not None:
        return _for_avro(inner)
    return {
        name: value if name not in _AVRO_TYPES or isinstance(value, str) else _for_avro(value)
        for name, value in data.items()
        if name in _AVRO_ATTRIBUTES
    }


# --- what the codec acts on -----------------------------------------------------------------------------------------


def _refuse_wide(type_tree: TypeNode) -> None:
    """Refuse a record of which 10,000 without content would fill the memory of a batch."""
    if type_tree.fixed_arrow_size <= MAX_FIXED_BYTES or type_tree.amplification_excess <= 0:
        return
    worst = max(
        zip(type_tree.names, type_tree.parts, strict=True),
        key=lambda each: each[1].amplification_excess,
        default=("", type_tree),
    )[0]
    raise schema_unsafe(
        f"got a record that takes {type_tree.fixed_arrow_size:.0f} bytes of Arrow with nothing in it, most of it in "
        f"the field {worst or '(the top)'}; expected at most {MAX_FIXED_BYTES}, or fields that are not hidden behind "
        "null",
        worst,
    )


def _key(attributes: Mapping[str, Any], fields: Iterable[Field]) -> tuple[str, ...]:
    key = attributes.get("key", [])
    known = {field.name: field.type_tree for field in fields}
    if not isinstance(key, list) or len(set(map(str, key))) != len(key):
        raise schema_invalid(
            'got a "key" that is no list of different field names; expected ["id_number"], for example'
        )
    for name in key:
        type_tree = known.get(name) if isinstance(name, str) else None
        if type_tree is None:
            raise schema_invalid(
                f"got the key part {str(name)[:100]!r}; expected a field of the record", str(name)[:100]
            )
        inner = type_tree.parts[0] if type_tree.kind is TypeKind.OPTIONAL else type_tree
        if inner.kind not in _KEY_TYPES:
            raise schema_invalid(
                f"got the key part {name}, a {inner.kind}; expected a string, an enum, an integer or a date", name
            )
    return tuple(key)
