"""Data contract of a resource: fields, value types, key and rules, parsed from the Avro schema.

A connector maps flat rows, so a field is one of Avro's plain types, with or without a logical type, and nullable
or not. Arrays, maps, nested records and unions of several types cannot be read from one column of text; a schema
that has them is refused when the mapping is compiled, with the field's name.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.avro.type_tree import MAX_DECIMAL_DIGITS
from schemas.errors import InvalidError, Reason

__all__ = ["Contract", "ContractField", "ValueType", "parse_contract"]

_PLAIN_TYPES = frozenset({"string", "int", "long", "float", "double", "boolean", "bytes", "fixed", "enum"})
_LOGICAL_TYPES = {
    ("int", "date"): "date",
    ("int", "time-millis"): "time-millis",
    ("long", "time-micros"): "time-micros",
    ("long", "timestamp-millis"): "timestamp-millis",
    ("long", "timestamp-micros"): "timestamp-micros",
    ("long", "timestamp-nanos"): "timestamp-nanos",
    ("long", "local-timestamp-millis"): "local-timestamp-millis",
    ("long", "local-timestamp-micros"): "local-timestamp-micros",
    ("long", "local-timestamp-nanos"): "local-timestamp-nanos",
    ("bytes", "decimal"): "decimal",
    ("fixed", "decimal"): "decimal",
    ("string", "uuid"): "uuid",
}
_SEMANTIC_KEYS = ("type", "name", "namespace", "fields", "items", "values", "symbols", "size", "logicalType",
                  "precision", "scale", "key")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueType:
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
        """Return whether an empty text is a value of it."""
        return self.name == "string"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractField:
    """One field of the contract.

    Attributes:
        name: as declared.
        value_type: of its values.
        nullable: null is one of them.
        rules: names of the contract's rules for it (`registry.avro.field_rules`), and `codes` where it lists the
            permitted texts.
    """

    name: str
    value_type: ValueType
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
        semantic_hash: 8 bytes that change when what the bytes of a record mean changes, and not when a label does.
    """

    schema_id: int
    text: str
    fields: tuple[ContractField, ...]
    key: tuple[str, ...]
    semantic_hash: bytes

    def field(self, name: str) -> ContractField | None:
        """Return the field of this name."""
        return next((each for each in self.fields if each.name == name), None)


def parse_contract(schema_id: int, text: str) -> Contract:
    """Parse a schema.

    Raises:
        InvalidError: CONTRACT_BROKEN, when it is not a record with a key, or a field is not flat.
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
    semantic_hash = hashlib.sha256(json.dumps(_semantic_form(schema), sort_keys=True).encode()).digest()[:8]
    return Contract(schema_id=schema_id, text=text, fields=fields, key=key, semantic_hash=semantic_hash)


def _field(field: Mapping[str, Any], named: dict[str, Any]) -> ContractField:
    avro_type, nullable = field["type"], False
    if isinstance(avro_type, list):
        rest = [each for each in avro_type if each != "null"]
        nullable = len(rest) < len(avro_type)
        if len(rest) != 1:
            raise _not_flat(field["name"], "a union of several types")
        avro_type = rest[0]
    return ContractField(
        name=field["name"],
        value_type=_value_type(field["name"], avro_type, named),
        nullable=nullable,
        rules=_rules(field),
    )


def _rules(field: Mapping[str, Any]) -> tuple[str, ...]:
    stated = field.get("check", [])
    rules = [stated] if isinstance(stated, (str, dict)) else stated
    names = [rule["rule"] if isinstance(rule, dict) else str(rule) for rule in rules]
    return (*names, *(["codes"] if "codes" in field else []))


def _value_type(name: str, avro_type: Any, named: dict[str, Any]) -> ValueType:
    if isinstance(avro_type, str):
        avro_type = named.get(avro_type, {"type": avro_type})
    plain = avro_type["type"]
    if isinstance(plain, dict):  # {"type": {"type": "string"}}
        return _value_type(name, plain, named)
    if plain not in _PLAIN_TYPES:
        raise _not_flat(name, str(plain))
    if "name" in avro_type:
        named[avro_type["name"]] = avro_type
    logical = _LOGICAL_TYPES.get((plain, avro_type.get("logicalType", "")), plain)
    if logical == "decimal" and avro_type["precision"] > MAX_DECIMAL_DIGITS:
        raise InvalidError(
            Reason.CONTRACT_BROKEN,
            f"field {name!r} of the contract is a decimal of {avro_type['precision']} digits; a connector fills one of "
            f"{MAX_DECIMAL_DIGITS} at most. Register a version with a smaller one, or a string, under a new major",
        )
    if logical == "decimal":
        return ValueType(
            name="decimal",
            precision=avro_type["precision"],
            scale=avro_type.get("scale", 0),
            size=avro_type.get("size", 0),
        )
    return ValueType(name=logical, size=avro_type.get("size", 0), symbols=tuple(avro_type.get("symbols", ())))


def _not_flat(name: str, what: str) -> InvalidError:
    return InvalidError(
        Reason.CONTRACT_BROKEN,
        f"field {name!r} of the contract is {what}; a connector of rows fills plain fields, each from one column",
    )


def _semantic_form(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _semantic_form(node[name]) for name in _SEMANTIC_KEYS if name in node}
    if isinstance(node, list):
        return [_semantic_form(each) for each in node]
    return node
