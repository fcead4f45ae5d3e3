"""Output schema of a view, derived from the resource's schema and what was granted of it.

    fields      the granted ones, in the grant's order, with their types, defaults and aliases; a field whose mask is
                `drop` is absent
    attributes  copied (`zh`, `level`, `personal`, `sensitive`, `mask` …), the field's as well as the record's. A masked
                field states its mask as `masked`, and loses `codes`, which its values may no longer satisfy. `check` is
                never copied: such a rule may refer to a field that was not granted
    key         copied only where every part of it is granted and unmasked
    types       a mask does not change its field's type: text stays text, a date stays a date

The schema is self-contained: types that the resource's schema takes by reference are written into it in full.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from exchange.access.view.mask import mask_named, mask_of
from registry.avro.parser import NO_DEFAULT, Field, ParsedSchema, parse
from registry.avro.type_tree import TypeKind
from schemas.access import MaskRule
from schemas.errors import InvalidError, Reason

__all__ = ["derive_schema", "mask_type_of", "record_schema_text", "refers_to"]

_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


def derive_schema(
    resource: ParsedSchema, fields: Sequence[str], masks: Sequence[tuple[str, str]] | Mapping[str, str], name: str
) -> str:
    """Return the output schema of a view.

    Args:
        resource: the resource's schema as it is at approval.
        fields: names granted, in the view's order.
        masks: field → rule.
        name: full name of the view's record.

    Raises:
        InvalidError: FIELD_UNKNOWN, a name that the schema lacks, or a mask on a field that is not granted;
            MASK_UNKNOWN; REQUEST_INVALID, a name twice, or no visible field; SCHEMA_UNSAFE, a field
            whose type holds the resource's own record, and with it every field of it; SCHEMA_INVALID, *name*.
    """
    rules = _masks_by_field(masks)
    if len(set(fields)) != len(fields):
        raise InvalidError(Reason.REQUEST_INVALID, "got a field that is granted twice; expected each name once")
    for stray in rules.keys() - set(fields):
        raise InvalidError(
            Reason.FIELD_UNKNOWN,
            f"got a mask on the field {stray[:100]!r}, which is not granted; grant it or leave the mask out",
        )
    visible = [field for field in map(resource.field, fields) if _mask_rule(field, rules) is not MaskRule.DROP]
    if not visible:
        raise InvalidError(Reason.REQUEST_INVALID, "got no field that would be seen; expected at least one")
    for field in visible:
        if refers_to(field.type, resource.fullname):
            raise InvalidError(
                Reason.SCHEMA_UNSAFE,
                f"got the field {field.name!r}, whose type holds {resource.fullname} itself and so every field of it; "
                "such a field cannot be granted",
                details={"field": field.name},
            )
    unmasked = {field.name for field in visible if rules.get(field.name, MaskRule.NONE) is MaskRule.NONE}
    attributes = dict(resource.attributes)
    if not unmasked.issuperset(resource.key):
        attributes.pop("key", None)
    emitter = _Emitter(name.rpartition(".")[0])
    text = json.dumps(
        {
            "type": "record",
            "name": name,
            **attributes,
            "fields": [_field(field, rules.get(field.name, MaskRule.NONE), emitter) for field in visible],
        },
        ensure_ascii=False,
    )
    parse(text)
    return text


def mask_type_of(field: Field) -> str:
    """Return the name by which a mask knows the type of a field (`exchange.access.view.mask`), null aside."""
    node = field.type_tree.parts[0] if field.type_tree.kind is TypeKind.OPTIONAL else field.type_tree
    avro = field.type[1 - field.type_tree.null_index] if field.type_tree.kind is TypeKind.OPTIONAL else field.type
    if isinstance(avro, dict) and avro.get("logicalType") in ("date", "uuid"):
        return str(avro["logicalType"])
    return node.kind.value


def record_schema_text(fields: Sequence[tuple[str, Any]]) -> str:
    """Return a schema of fields alone: their names and resolved types, without attributes, defaults and rules."""
    emitter = _Emitter("pool.view")
    described = [{"name": name, "type": emitter.emit(avro)} for name, avro in fields]
    return json.dumps({"type": "record", "name": "pool.view.record", "fields": described})


def _masks_by_field(masks: Sequence[tuple[str, str]] | Mapping[str, str]) -> dict[str, MaskRule]:
    pairs = list(masks.items()) if isinstance(masks, Mapping) else list(masks)
    rules: dict[str, MaskRule] = {}
    for name, rule in pairs:
        if name in rules:
            raise InvalidError(Reason.REQUEST_INVALID, f"got two masks on the field {name[:100]!r}; expected one")
        rules[name] = mask_named(rule)
    return rules


def _mask_rule(field: Field, rules: Mapping[str, MaskRule]) -> MaskRule:
    return mask_of(rules.get(field.name, MaskRule.NONE), field.name, mask_type_of(field)).rule


def _field(field: Field, rule: MaskRule, emitter: "_Emitter") -> dict[str, Any]:
    attributes = {key: value for key, value in field.attributes.items() if key != "check"}
    if rule is not MaskRule.NONE:
        attributes.pop("codes", None)
        attributes["masked"] = rule.value
    described: dict[str, Any] = {
        "name": field.name,
        "type": emitter.emit(field.type),
        **attributes,
    }
    if field.default is not NO_DEFAULT:
        described["default"] = field.default
    if field.doc:
        described["doc"] = field.doc
    if field.aliases:
        described["aliases"] = list(field.aliases)
    return described


def refers_to(avro: Any, fullname: str) -> bool:
    """Return whether a type refers to the record *fullname* that encloses it."""
    if isinstance(avro, list):
        return any(refers_to(branch, fullname) for branch in avro)
    if isinstance(avro, str):
        return avro == fullname
    inner = [avro[key] for key in ("items", "values") if key in avro]
    inner.extend(field["type"] for field in avro.get("fields", ()))
    return any(refers_to(part, fullname) for part in inner)


class _Emitter:
    """Writes resolved types into one schema: a named type in full once, its name afterwards.

    Avro has no way to refer to a type without a namespace from within one, so such types take the schema's.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._names: set[str] = set()

    def emit(self, avro: Any) -> Any:
        """Return a type as it is written here: in full the first time, by its name afterwards."""
        if isinstance(avro, list):
            return [self.emit(branch) for branch in avro]
        if isinstance(avro, str):
            return avro if avro in _PRIMITIVES else self._full(avro)
        match avro["type"]:
            case "array":
                return {**avro, "items": self.emit(avro["items"])}
            case "map":
                return {**avro, "values": self.emit(avro["values"])}
            case "record" | "error" | "enum" | "fixed":
                return self._named(avro)
            case _:
                return avro

    def _named(self, avro: Mapping[str, Any]) -> Any:
        full = self._full(avro["name"])
        if full in self._names:
            return full
        self._names.add(full)
        described = {**avro, "name": full}
        if "fields" in avro:
            described["fields"] = [{**field, "type": self.emit(field["type"])} for field in avro["fields"]]
        return described

    def _full(self, name: str) -> str:
        return name if "." in name or not self._namespace else f"{self._namespace}.{name}"
