"""What a field of a record may hold, read from its schema: the contract that text is held against.

A connector maps flat rows, so a field is one of Avro's plain types, with or without a logical type, and nullable
or not. Arrays, maps, nested records and unions of several types do not come out of one column of text; a schema
that has them is refused when the mapping is compiled, with the field's name.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.errors import InvalidError, Reason

__all__ = ["Contract", "Field", "Kind", "contract"]

_PLAIN = frozenset({"string", "int", "long", "float", "double", "boolean", "bytes", "fixed", "enum"})
_LOGICAL = {
    ("int", "date"): "date",
    ("int", "time-millis"): "time-millis",
    ("long", "time-micros"): "time-micros",
    ("long", "timestamp-millis"): "timestamp-millis",
    ("long", "timestamp-micros"): "timestamp-micros",
    ("long", "local-timestamp-millis"): "local-timestamp-millis",
    ("long", "local-timestamp-micros"): "local-timestamp-micros",
    ("bytes", "decimal"): "decimal",
    ("fixed", "decimal"): "decimal",
    ("string", "uuid"): "uuid",
}
_MEANING = ("type", "name", "namespace", "fields", "items", "values", "symbols", "size", "logicalType", "precision",
            "scale", "key")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The type of a field's values.

    Attributes:
        name: the logical type's name where Avro knows it for this type, else the plain type's.
        precision, scale: of a decimal.
        size: of a fixed, in bytes.
        symbols: of an enum.
    """

    name: str
    precision: int = 0
    scale: int = 0
    size: int = 0
    symbols: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"decimal({self.precision},{self.scale})" if self.name == "decimal" else self.name

    @property
    def text(self) -> bool:
        """Whether an empty text is a value of it."""
        return self.name == "string"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of the contract.

    Attributes:
        name: as declared.
        kind: of its values.
        nullable: null is one of them.
        rules: names of the contract's rules for it (`registry.avro.field_rules`), and `codes` where it lists the
        only texts.
    """

    name: str
    kind: Kind
    nullable: bool
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """A resource's record, as a connector needs it.

    Attributes:
        schema_id: the registry's.
        text: the schema's, as submitted.
        fields: in order.
        key: names of the fields that make the key, in order.
        meaning: 8 bytes that change when what the bytes of a record mean changes, and not when a label does.
    """

    schema_id: int
    text: str
    fields: tuple[Field, ...]
    key: tuple[str, ...]
    meaning: bytes

    def field(self, name: str) -> Field | None:
        """Return the field of this name."""
        return next((each for each in self.fields if each.name == name), None)


def contract(schema_id: int, text: str) -> Contract:
    """Read a schema.

    Raises:
        InvalidError: CONTRACT_BROKEN, when it is no record with a key, or a field is not flat.
    """
    try:
        schema = json.loads(text)
        fields = tuple(_field(each, {}) for each in schema["fields"])
        key = tuple(schema.get("key", ()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidError(
            Reason.CONTRACT_BROKEN, f"schema {schema_id} is not a record in Avro's JSON form ({type(error).__name__})"
        ) from error
    names = {each.name for each in fields}
    if not key or not names.issuperset(key):
        raise InvalidError(
            Reason.CONTRACT_BROKEN,
            f'schema {schema_id} names no key among its fields; expected "key": [field, …] beside "fields"',
        )
    meaning = hashlib.sha256(json.dumps(_meaning(schema), sort_keys=True).encode()).digest()[:8]
    return Contract(schema_id=schema_id, text=text, fields=fields, key=key, meaning=meaning)


def _field(field: Mapping[str, Any], named: dict[str, Any]) -> Field:
    kind, nullable = field["type"], False
    if isinstance(kind, list):
        rest = [each for each in kind if each != "null"]
        nullable = len(rest) < len(kind)
        if len(rest) != 1:
            raise _not_flat(field["name"], "a union of several types")
        kind = rest[0]
    return Field(name=field["name"], kind=_kind(field["name"], kind, named), nullable=nullable, rules=_rules(field))


def _rules(field: Mapping[str, Any]) -> tuple[str, ...]:
    stated = field.get("check", [])
    rules = [stated] if isinstance(stated, (str, dict)) else stated
    names = [rule["rule"] if isinstance(rule, dict) else str(rule) for rule in rules]
    return (*names, *(["codes"] if "codes" in field else []))


def _kind(name: str, kind: Any, named: dict[str, Any]) -> Kind:
    if isinstance(kind, str):
        kind = named.get(kind, {"type": kind})
    plain = kind["type"]
    if isinstance(plain, dict):  # {"type": {"type": "string"}}
        return _kind(name, plain, named)
    if plain not in _PLAIN:
        raise _not_flat(name, str(plain))
    if "name" in kind:
        named[kind["name"]] = kind
    logical = _LOGICAL.get((plain, kind.get("logicalType", "")), plain)
    if logical == "decimal":
        return Kind(name="decimal", precision=kind["precision"], scale=kind.get("scale", 0), size=kind.get("size", 0))
    return Kind(name=logical, size=kind.get("size", 0), symbols=tuple(kind.get("symbols", ())))


def _not_flat(name: str, what: str) -> InvalidError:
    return InvalidError(
        Reason.CONTRACT_BROKEN,
        f"field {name!r} of the contract is {what}; a connector of rows fills plain fields, each from one column",
    )


def _meaning(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _meaning(node[name]) for name in _MEANING if name in node}
    if isinstance(node, list):
        return [_meaning(each) for each in node]
    return node
