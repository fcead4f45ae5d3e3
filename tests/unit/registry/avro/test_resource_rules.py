"""What a new schema may hold: numbers in range; and, for a published resource, what every target can hold."""

import json
from typing import Any

import pytest

from registry.avro.parser import parse
from registry.avro.resource_rules import find_unpublishable, require_numbers_in_range, require_publishable
from registry.subjects.model import Content
from schemas.errors import InvalidError, Reason
from tests.kit.cases.registry import Subjects, memory_store

FIELD = {"zh": "甲", "level": "G1", "personal": "N", "sensitive": "N", "mask": "none"}


def schema(*fields: dict[str, Any]) -> str:
    named = [{"name": "id", "type": "string"}, *fields]
    return json.dumps(
        {"type": "record", "name": "R", "zh": "乙", "key": ["id"], "fields": [{**FIELD, **each} for each in named]}
    )


def decimal(digits: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": digits, "scale": 2}


NUMBERS = [
    ("double", "1e400", "out of range of double"),
    ("double", "-1e400", "out of range of double"),
    ("double", "1" + "0" * 400, "out of range of double"),
    ("float", "1e39", "out of range of float"),
    ("float", "3.4028236e38", "out of range of float"),
]


@pytest.mark.parametrize(("kind", "number", "expected"), NUMBERS)
@pytest.mark.parametrize("normalize", [True, False])
def test_a_default_out_of_range_has_one_answer(kind: str, number: str, expected: str, normalize: bool) -> None:
    text = schema({"name": "a", "type": kind, "default": 0}).replace('"default": 0', f'"default": {number}')
    subjects = Subjects(memory_store(), governed=lambda _: False, strict=False)
    with pytest.raises(InvalidError, match=expected) as error:
        subjects.register("s", Content(text=text), normalize=normalize)
    assert error.value.reason is Reason.SCHEMA_INVALID
    assert error.value.details == {"field": "a"}


@pytest.mark.parametrize(("kind", "number"), [("double", "1.7976931348623157e308"), ("float", "3.4028235e38")])
def test_the_largest_numbers_are_in_range(kind: str, number: str) -> None:
    text = schema({"name": "a", "type": kind, "default": 0}).replace('"default": 0', f'"default": {number}')
    require_numbers_in_range(parse(text))


def test_a_number_of_an_attribute_is_in_range_too() -> None:
    text = schema({"name": "a", "type": "int", "limit": 0}).replace('"limit": 0', '"limit": 1e400')
    with pytest.raises(InvalidError, match="a number that is out of range of double"):
        require_numbers_in_range(parse(text))


UNPUBLISHABLE = [
    ({"name": "_record_key", "type": "string"}, "_record_key", "a column that connectors add"),
    ({"name": "_Deleted_At", "type": "string"}, "_Deleted_At", "a column that connectors add"),
    ({"name": "ID", "type": "string"}, "ID", "differs from id in case alone"),
    ({"name": "d", "type": decimal(77)}, "d", "77 digits"),
    ({"name": "d", "type": ["null", {"type": "array", "items": decimal(80)}]}, "d", "80 digits"),
    (
        {
            "name": "r",
            "type": {
                "type": "record",
                "name": "Q",
                "zh": "丙",
                "fields": [{**FIELD, "name": "d", "type": decimal(80)}],
            },
        },
        "r.d",
        "80 digits",
    ),
]


@pytest.mark.parametrize(("field", "path", "expected"), UNPUBLISHABLE)
def test_what_no_connector_or_target_can_hold_is_not_registered_for_a_resource(
    field: dict[str, Any], path: str, expected: str
) -> None:
    (finding,) = find_unpublishable(parse(schema(field)))
    assert finding[0] == path
    assert expected in finding[1]
    subjects = Subjects(memory_store(), governed=lambda subject: subject == "g", strict=False)
    with pytest.raises(InvalidError, match=expected):
        subjects.register("g", Content(text=schema(field)))
    subjects.register("other", Content(text=schema(field)))


def test_what_they_can_hold_is() -> None:
    require_publishable(parse(schema({"name": "d", "type": decimal(76)}, {"name": "record_key", "type": "string"})))
