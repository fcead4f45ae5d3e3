"""Data elements (数据元) of fields: whether a field fits the element that it names. Pure: schema JSON in, findings out.

A field names the element of the dictionary that it is in its attribute `element`:

    {"name": "id_number", "type": "string", "element": "DE00001", …}

It must fit: the type, the length where the field states one (symbols, codes, size, precision, or a rule whose texts
have one length), the value domain where the element lists its codes (`1|2|9`), the standard where both name one, and
level, personal and sensitive at least as high, since the higher wins (GB/T 43697-2024). A field without an element is
reported (`exchange.control.catalogue.element_use`), not refused.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from registry.governance.classification import (
    PERSONAL,
    SENSITIVE,
    ClassificationFinding,
    effective_fields,
)
from schemas.access import Level
from schemas.errors import InvalidError, Reason

__all__ = ["ElementDefinition", "ElementField", "element_fields", "find_unfit", "require_fit", "unfit"]

_CODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", re.ASCII)  # as `registry.catalogue.elements` has it
_NUMBERS: Final = frozenset({"int", "long", "float", "double", "decimal"})
_TIMES: Final = frozenset(f"{prefix}timestamp-{unit}" for prefix in ("", "local-") for unit in ("millis", "micros"))
_TYPES: Final[Mapping[str, frozenset[str]]] = {
    "text": frozenset({"string", "enum", "uuid"}),
    "memo": frozenset({"string"}),
    "number": _NUMBERS,
    "money": _NUMBERS - {"float", "double"},
    "date": frozenset({"date"}),
    "datetime": _TIMES,
    "boolean": frozenset({"boolean"}),
    "binary": frozenset({"bytes", "fixed"}),
}
"""Item type → Avro types that hold its values; any, for a type that is not here."""
_LOGICAL: Final = frozenset({"date", "decimal", "uuid", *_TIMES})
_LENGTHS: Final = {"cn_id18": 18, "uscc": 18, "cn_mobile": 11}  # of the texts that a rule accepts


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementDefinition:
    """What a field that names an element must fit.

    Attributes:
        code: of the element. type: id of the list `item_types`.
        length: characters or digits at most; None = not stated.
        codes: values of a closed domain; None = the domain is stated in words alone.
        standard: where it is defined; empty = nowhere.
        level, personal, sensitive: grade at least.
    """

    code: str
    type: str
    length: int | None = None
    codes: frozenset[str] | None = None
    standard: str = ""
    level: Level = Level.G1
    personal: str = "N"
    sensitive: str = "N"


@dataclass(frozen=True, slots=True)
class ElementField:
    """A field at its place, and the element that it names; None = it names none.

    Attributes:
        node: the field as JSON, with what it inherits and what the record that holds it raises.
    """

    path: str
    at: str
    element: Any
    node: Mapping[str, Any]


def element_fields(schema: Mapping[str, Any]) -> list[ElementField]:
    """Return the fields of a record schema at any depth, in order; a field that holds a record is none of its own."""
    return [
        ElementField(path, at, node.get("element"), node)
        for path, at, _, node in effective_fields(schema)
        if "element" in node or _avro_type(node.get("type")) != "record"
    ]


def find_unfit(
    schema: Mapping[str, Any], definition: Callable[[str], ElementDefinition | None]
) -> list[ClassificationFinding]:
    """Return what is wrong with the elements that the fields of a schema name.

    Args:
        schema: with its named types resolved.
        definition: returns that of a code, None for an unknown one.
    """
    return [
        ClassificationFinding(path=field.path, at=field.at, message=message)
        for field in element_fields(schema)
        if field.element is not None
        for message in unfit(field, definition)
    ]


def require_fit(schema: Mapping[str, Any], definition: Callable[[str], ElementDefinition | None]) -> None:
    """Check that each field fits the element that it names.

    Raises:
        InvalidError: ELEMENT_UNFIT, naming each field and what does not fit.
    """
    findings = find_unfit(schema, definition)
    if findings:
        raise InvalidError(
            Reason.ELEMENT_UNFIT,
            "a field fits the data element that it names; got: " + "; ".join(map(str, findings)),
            details={"fields": ",".join(sorted({item.path for item in findings}))},
        )


def unfit(field: ElementField, definition: Callable[[str], ElementDefinition | None]) -> Iterator[str]:
    """Yield what does not fit the element that a field names, in words."""
    code = field.element
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        yield f'"element" is {str(code)[:40]!r}; expected the code of a data element, such as DE00001'
        return
    element = definition(code)
    if element is None:
        yield f'"element" {code} is not in the dictionary; see `pool element list`'
        return
    node = field.node
    type_ = _avro_type(node.get("type"))
    allowed = _TYPES.get(element.type)
    if allowed is not None and type_ not in allowed:
        yield f"the type is {type_}; expected {' or '.join(sorted(allowed))} for {code}, which is {element.type}"
    length = _length(node)
    if element.length is not None and length is not None and length > element.length:
        yield f"values have {length} characters or digits; expected {element.length} at most for {code}"
    yield from _outside_domain(node, element)
    if element.standard and node.get("standard") not in {None, element.standard}:
        yield f'"standard" is {str(node["standard"])[:40]!r}; expected {element.standard!r}, which defines {code}'
    yield from _below(node, element)


def _outside_domain(node: Mapping[str, Any], element: ElementDefinition) -> Iterator[str]:
    if element.codes is None:
        return
    stated = _codes(node)
    domain = "|".join(sorted(element.codes)[:20])
    if stated is None:
        yield f"missing: codes; expected some of {domain}, the value domain of {element.code}"
    elif stated - element.codes:
        yield f"the codes {', '.join(sorted(stated - element.codes)[:20])} are not among {domain} of {element.code}"


def _below(node: Mapping[str, Any], element: ElementDefinition) -> Iterator[str]:
    level = str(node.get("level"))
    if level in Level.__members__ and Level[level] < element.level:
        yield f'"level" is {level}; expected {element.level.name} at least, the level of {element.code}'
    for name, scale, least in (("personal", PERSONAL, element.personal), ("sensitive", SENSITIVE, element.sensitive)):
        value = node.get(name)
        if value in scale and scale.index(value) < scale.index(least):
            yield f'"{name}" is {value}; expected {least} at least, as {element.code} has it'


def _single(type_: Any) -> Any:
    """Return the type of a field that may be null."""
    if isinstance(type_, list):
        others = [one for one in type_ if one != "null"]
        return _single(others[0]) if len(others) == 1 else "union"
    if isinstance(type_, dict) and isinstance(type_.get("type"), (dict, list)):
        return _single(type_["type"])
    return type_


def _avro_type(type_: Any) -> str:
    single = _single(type_)
    if isinstance(single, dict):
        logical = single.get("logicalType")
        return str(logical) if logical in _LOGICAL else str(single.get("type"))
    return str(single)


def _codes(node: Mapping[str, Any]) -> frozenset[str] | None:
    """Return the values that a field's codes or symbols allow; None = it states none."""
    single = _single(node.get("type"))
    found = node.get("codes", single.get("symbols") if isinstance(single, dict) else None)
    return frozenset(map(str, found)) if isinstance(found, list) else None


def _length(node: Mapping[str, Any]) -> int | None:
    """Return the characters or digits that values have at most, as far as the field states it."""
    codes = _codes(node)
    if codes:
        return max(map(len, codes))
    single = _single(node.get("type"))
    if isinstance(single, dict):
        stated = single.get("precision", single.get("size"))
        if isinstance(stated, int):
            return stated
    checks = node.get("check", [])
    names = [
        one.get("rule") if isinstance(one, dict) else one for one in (checks if isinstance(checks, list) else [checks])
    ]
    return max((_LENGTHS[name] for name in names if name in _LENGTHS), default=None)
