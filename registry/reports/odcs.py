"""Open Data Contract Standard (ODCS, Bitol, version 3.1.0): a schema as a contract, and back. Pure.

    contract                        schema
    name, version, id, status       subject, version number
    schema[0].physicalName          full name of the record       businessName: zh      description: doc
    properties[].physicalType       the Avro type, as JSON unless it is a plain name: a round trip keeps it
    properties[].logicalType        one of the standard's nine, for readers that do not know Avro
    required, primaryKey            not null; the record's key, in its order
    businessName, classification    zh, level
    customProperties                personal, sensitive, mask, check, codes … and Avro's default and aliases
    customProperties of the contract   metadata.properties

A contract from elsewhere has no Avro types: then the logical type decides, and a property that is not required may be
null. Its classification is a term of its author's choice; `levels` maps it to one of ours, and without a mapping the
field is unclassified, which `pool-schema lint` reports. Nothing is guessed.
"""

import json
from collections.abc import Mapping
from typing import Any

from registry.avro.fields import resolved_json
from registry.avro.parser import ParsedSchema, parse
from schemas.access import Level
from schemas.errors import InvalidError, PoolError, Reason

__all__ = ["API_VERSION", "from_contract", "to_contract"]

API_VERSION = "v3.1.0"
_VERSIONS = ("v3.",)
_DEFAULT, _ALIASES, _ORDER = "avro.default", "avro.aliases", "avro.order"
_OWN = frozenset({"name", "type", "doc", "zh", "level", "default", "aliases", "order"})
_LOGICAL = {  # Avro's logical type, or its type, → the standard's
    "date": "date",
    "time-millis": "time",
    "time-micros": "time",
    "timestamp-millis": "timestamp",
    "timestamp-micros": "timestamp",
    "timestamp-nanos": "timestamp",
    "local-timestamp-millis": "timestamp",
    "local-timestamp-micros": "timestamp",
    "local-timestamp-nanos": "timestamp",
    "decimal": "number",
    "boolean": "boolean",
    "int": "integer",
    "long": "integer",
    "float": "number",
    "double": "number",
    "array": "array",
    "map": "object",
    "record": "object",
    "error": "object",
}
_AVRO = {  # the standard's logical type → Avro's type, where a contract states none
    "string": "string",
    "date": {"type": "int", "logicalType": "date"},
    "timestamp": {"type": "long", "logicalType": "timestamp-micros"},
    "time": {"type": "long", "logicalType": "time-micros"},
    "number": "double",
    "integer": "long",
    "boolean": "boolean",
}


def to_contract(
    parsed: ParsedSchema, *, subject: str, version: int = 1, properties: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the contract of a record schema.

    Args:
        parsed: the schema.
        subject: its name; the contract's too.
        version: the subject's version.
        properties: metadata.properties, such as owner or legal basis.

    Raises:
        InvalidError: SCHEMA_INVALID, for a schema that is not a record.
    """
    if not parsed.fullname:
        raise InvalidError(Reason.SCHEMA_INVALID, "got a schema that is no record; a contract describes a record")
    # A self-contained schema is taken as written: a type that is used twice is then defined once.
    record = resolved_json(parsed) if parsed.references or "fields" not in parsed.json else parsed.json
    described = {"type", "name", "namespace", "zh", "doc", "key", "fields", "aliases"}
    custom = {name: value for name, value in record.items() if name not in described}
    if record.get("aliases"):
        custom[_ALIASES] = record["aliases"]
    element = {
        "name": parsed.fullname.rpartition(".")[2],
        "physicalName": parsed.fullname,
        "physicalType": "record",
        "logicalType": "object",
        **_named(record),
        "properties": [_property(field, parsed.key) for field in record["fields"]],
        **_as_custom_properties(custom),
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "DataContract",
        "id": f"urn:schema:{subject}",
        "name": subject,
        "version": str(version),
        "status": "active",
        "schema": [element],
        **_as_custom_properties(properties or {}),
    }


def from_contract(document: Any, *, levels: Mapping[str, str] | None = None) -> tuple[str, dict[str, Any]]:
    """Return the schema of a contract, as text, and the metadata to register with it.

    Args:
        document: the contract, as read from YAML or JSON.
        levels: term of its classification → one of G1 … IMP.

    Raises:
        InvalidError: REQUEST_INVALID, for anything but a contract of version 3 with one record; SCHEMA_INVALID or
            SCHEMA_UNSAFE, naming the field, when the result is not a valid schema.
    """
    if not isinstance(document, Mapping) or document.get("kind") != "DataContract":
        raise _request_invalid("got a document without kind: DataContract; expected a contract of ODCS v3")
    if not str(document.get("apiVersion", "")).startswith(_VERSIONS):
        raise _request_invalid(f"got the version {str(document.get('apiVersion'))[:20]!r}; expected v3")
    elements = document.get("schema")
    if not isinstance(elements, list) or len(elements) != 1 or not isinstance(elements[0], Mapping):
        count = len(elements) if isinstance(elements, list) else 0
        raise _request_invalid(f"got a contract of {count} schema objects; expected one: a subject has one record")
    try:
        record = _record(elements[0], {**{name: name for name in Level.__members__}, **(levels or {})})
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise _request_invalid(
            f"got a schema object of another form ({type(error).__name__}: {str(error)[:60]})"
        ) from error
    text = json.dumps(record, ensure_ascii=False, indent=2)
    try:
        parse(text)
    except PoolError as error:
        raise InvalidError(
            error.reason, f"the contract gives no schema: {error.message}", details=error.details
        ) from error
    properties = {name: str(value) for name, value in _custom_properties(document).items()}
    return text, {"properties": properties} if properties else {}


def _property(field: Mapping[str, Any], key: tuple[str, ...] = ()) -> dict[str, Any]:
    kind = field["type"]
    nullable = isinstance(kind, list) and "null" in kind
    custom = {name: value for name, value in field.items() if name not in _OWN and name != "confluent:tags"}
    for name, own in ((_DEFAULT, "default"), (_ALIASES, "aliases"), (_ORDER, "order")):
        if own in field:
            # As JSON text: a default of null differs from no default.
            custom[name] = json.dumps(field[own], ensure_ascii=False) if own == "default" else field[own]
    found: dict[str, Any] = {
        "name": field["name"],
        "logicalType": _logical(kind),
        "physicalType": kind if isinstance(kind, str) else json.dumps(kind, ensure_ascii=False),
        "required": not nullable,
        **_named(field),
    }
    if field["name"] in key:
        found |= {"primaryKey": True, "primaryKeyPosition": key.index(field["name"]) + 1}
    if "level" in field:
        found["classification"] = field["level"]
    if field.get("confluent:tags"):
        found["tags"] = list(field["confluent:tags"])
    return found | _as_custom_properties(custom)


def _named(node: Mapping[str, Any]) -> dict[str, Any]:
    names = (("businessName", "zh"), ("description", "doc"))
    return {theirs: node[ours] for theirs, ours in names if isinstance(node.get(ours), str)}


def _as_custom_properties(values: Mapping[str, Any]) -> dict[str, Any]:
    listed = [{"property": name, "value": value} for name, value in values.items()]
    return {"customProperties": listed} if listed else {}


def _logical(kind: Any) -> str:
    if isinstance(kind, list):
        inner = [branch for branch in kind if branch != "null"]
        return _logical(inner[0]) if len(inner) == 1 else "object"
    if isinstance(kind, dict):
        for word in (kind.get("logicalType"), kind["type"]):
            if isinstance(word, str) and word in _LOGICAL:
                return _LOGICAL[word]
        return "string" if isinstance(kind["type"], str) else _logical(kind["type"])
    return _LOGICAL.get(str(kind), "string")


def _record(element: Mapping[str, Any], levels: Mapping[str, str]) -> dict[str, Any]:
    custom = _custom_properties(element)
    record: dict[str, Any] = {"type": "record", "name": str(element.get("physicalName") or element["name"])}
    if custom.get(_ALIASES):
        record["aliases"] = list(custom[_ALIASES])
    record |= _labels(element)
    listed = _list(element.get("properties"))
    keys = [item for item in listed if item.get("primaryKey") is True]
    if keys:
        keys.sort(key=lambda item: int(item.get("primaryKeyPosition", 0)))
        record["key"] = [item["name"] for item in keys]
    record |= {name: value for name, value in custom.items() if name != _ALIASES}
    record["fields"] = [_field(item, levels, record["name"]) for item in listed]
    return record


def _field(item: Mapping[str, Any], levels: Mapping[str, str], path: str) -> dict[str, Any]:
    custom = _custom_properties(item)
    field: dict[str, Any] = {"name": item["name"], "type": _type(item, levels, f"{path}.{item['name']}")}
    if _DEFAULT in custom:
        field["default"] = json.loads(custom[_DEFAULT])
    elif isinstance(field["type"], list) and field["type"][0] == "null" and not _avro(item):
        field["default"] = None
    for name, own in ((_ALIASES, "aliases"), (_ORDER, "order")):
        if name in custom:
            field[own] = custom[name]
    field |= _labels(item)
    word = item.get("classification")
    if word is not None:
        field |= {"level": levels[word]} if word in levels else {"classification": word}
    if item.get("tags"):
        field["confluent:tags"] = [str(tag) for tag in item["tags"]]
    return field | {name: value for name, value in custom.items() if name not in {_DEFAULT, _ALIASES, _ORDER}}


def _type(item: Mapping[str, Any], levels: Mapping[str, str], path: str) -> Any:
    stated = _avro(item)
    if stated is not None:
        return stated
    logical = item.get("logicalType", "string")
    if logical == "object":
        inner: Any = {
            "type": "record",
            "name": f"{path}_record".replace(".", "_"),
            "fields": [_field(each, levels, path) for each in _list(item.get("properties"))],
        }
    elif logical == "array":
        inner = {"type": "array", "items": _type({**item["items"], "required": True}, levels, f"{path}_item")}
    elif logical in _AVRO:
        inner = _AVRO[logical]
    else:
        raise ValueError(f"the logical type {str(logical)[:40]!r}")
    return inner if item.get("required") is True else ["null", inner]


def _avro(item: Mapping[str, Any]) -> Any:
    """Return the Avro type of a property, None where its physical type is another system's."""
    stated = item.get("physicalType")
    if not isinstance(stated, str):
        return None
    if stated[:1] in "[{":
        return json.loads(stated)
    # A plain name may be any system's; it is Avro's where the logical type agrees.
    return (
        stated
        if stated in _PRIMITIVES and _logical(stated) == item.get("logicalType") and item.get("required")
        else None
    )


_PRIMITIVES = frozenset({"boolean", "int", "long", "float", "double", "bytes", "string"})


def _labels(node: Mapping[str, Any]) -> dict[str, Any]:
    names = (("zh", "businessName"), ("doc", "description"))
    return {ours: node[theirs] for ours, theirs in names if isinstance(node.get(theirs), str)}


def _custom_properties(node: Mapping[str, Any]) -> dict[str, Any]:
    return {str(item["property"]): item.get("value") for item in _list(node.get("customProperties"))}


def _list(value: Any) -> list[Mapping[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise TypeError("expected a list of mappings")
    return value


def _request_invalid(message: str) -> InvalidError:
    return InvalidError(Reason.REQUEST_INVALID, message)
