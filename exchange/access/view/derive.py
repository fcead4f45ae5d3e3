"""A view's output schema, from the resource's schema and what was granted of it.

    fields      the granted ones, in the grant's order, with their types, defaults and former names; a field whose
                mask is `drop` is absent
    attributes  kept (`zh`, `level`, `personal`, `sensitive`, `mask` …), the field's as well as the record's. A masked
                field states its mask as `masked`, and loses `codes`, which its values no longer keep. No field keeps
                `check`: such a rule may look at a field that was not granted
    key         kept only where every part of it is granted and unmasked
    types       a mask keeps its field's type: text stays text, a date stays a date

The schema is self-contained: what the resource's schema takes from others stands in it in full.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from exchange.access.view.mask import mask_named, mask_of
from registry.avro.parser import NO_DEFAULT, Field, ParsedSchema, parse
from registry.avro.type_tree import Kind
from schemas.access import MaskRule
from schemas.errors import InvalidError, Reason

__all__ = ["derive_schema", "mask_word", "mentions", "record_text"]

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
            MASK_UNKNOWN; REQUEST_INVALID, a name twice, or no field that would be seen; SCHEMA_UNSAFE, a field
            whose type holds the resource's own record, and with it every field of it; SCHEMA_INVALID, *name*.
    """
    rules = _rules(masks)
    if len(set(fields)) != len(fields):
        raise InvalidError(Reason.REQUEST_INVALID, "got a field that is granted twice; expected each name once")
    for stray in rules.keys() - set(fields):
        raise InvalidError(
            Reason.FIELD_UNKNOWN,
            f"got a mask on the field {stray[:100]!r}, which is not granted; grant it or leave the mask out",
        )
    shown = [field for field in map(resource.field, fields) if _checked(field, rules) is not MaskRule.DROP]
    if not shown:
        raise InvalidError(Reason.REQUEST_INVALID, "got no field that would be seen; expected at least one")
    for field in shown:
        if mentions(field.type, resource.fullname):
            raise InvalidError(
                Reason.SCHEMA_UNSAFE,
                f"got the field {field.name!r}, whose type holds {resource.fullname} itself and so every field of it; "
                "such a field cannot be granted",
                details={"field": field.name},
            )
    plain = {field.name for field in shown if rules.get(field.name, MaskRule.NONE) is MaskRule.NONE}
    attributes = dict(resource.attributes)
    if not plain.issuperset(resource.key):
        attributes.pop("key", None)
    emitter = _Emitter(name.rpartition(".")[0])
    text = json.dumps(
        {
            "type": "record",
            "name": name,
            **attributes,
            "fields": [_field(field, rules.get(field.name, MaskRule.NONE), emitter) for field in shown],
        },
        ensure_ascii=False,
    )
    parse(text)
    return text


def mask_word(field: Field) -> str:
    """Return the word by which a mask knows the type of a field (`exchange.access.view.mask`), null aside."""
    shape = field.shape.parts[0] if field.shape.kind is Kind.OPTIONAL else field.shape
    avro = field.type[1 - field.shape.null_index] if field.shape.kind is Kind.OPTIONAL else field.type
    if isinstance(avro, dict) and avro.get("logicalType") in ("date", "uuid"):
        return str(avro["logicalType"])
    return shape.kind.value


def record_text(fields: Sequence[tuple[str, Any]]) -> str:
    """Return a schema of fields alone: their names and resolved types, without attributes, defaults and rules."""
    emitter = _Emitter("pool.view")
    described = [{"name": name, "type": emitter.emit(avro)} for name, avro in fields]
    return json.dumps({"type": "record", "name": "pool.view.record", "fields": described})


def _rules(masks: Sequence[tuple[str, str]] | Mapping[str, str]) -> dict[str, MaskRule]:
    pairs = list(masks.items()) if isinstance(masks, Mapping) else list(masks)
    rules: dict[str, MaskRule] = {}
    for name, rule in pairs:
        if name in rules:
            raise InvalidError(Reason.REQUEST_INVALID, f"got two masks on the field {name[:100]!r}; expected one")
        rules[name] = mask_named(rule)
    return rules


def _checked(field: Field, rules: Mapping[str, MaskRule]) -> MaskRule:
    return mask_of(rules.get(field.name, MaskRule.NONE), field.name, mask_word(field)).rule


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


def mentions(avro: Any, fullname: str) -> bool:
    """Return whether a type refers to the record *fullname* that encloses it."""
    if isinstance(avro, list):
        return any(mentions(branch, fullname) for branch in avro)
    if isinstance(avro, str):
        return avro == fullname
    inner = [avro[key] for key in ("items", "values") if key in avro]
    inner.extend(field["type"] for field in avro.get("fields", ()))
    return any(mentions(part, fullname) for part in inner)


class _Emitter:
    """Writes resolved types into one schema: a named type in full once, its name afterwards.

    Avro has no way to refer to a type without a namespace from within one, so such types take the schema's.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._names: set[str] = set()

    def emit(self, avro: Any) -> Any:
        """Return a type as it stands at this place."""
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
