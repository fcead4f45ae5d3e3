"""The record types that ship with the pool: each is a valid, safe, classified schema that does what it says."""

import dataclasses
import io
import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import avro.schema
import fastavro
import pytest

from registry.avro.field_rules import Verdict
from registry.avro.parser import parse
from registry.governance import classification
from registry.subjects.fingerprint import canonical_text, content_key, guid
from registry.subjects.model import Content
from schemas import library
from schemas.access import Actor, CaseRule, Grant, GrantState, History, Level
from schemas.audit import AuditEntry, Decision, Flow, GrantRef
from schemas.errors import InvalidError, Reason

BASE = [name for name in library.names() if name.startswith("base/")]
SAMPLES: dict[str, Any] = {
    "string": "x",
    "int": 1,
    "double": 1.5,
    "boolean": True,
    "date": date(2026, 1, 31),
    "timestamp-millis": datetime(2026, 1, 31, 8, 30, tzinfo=UTC),
    "decimal": Decimal("12.50"),
    "bytes": b"\x00\xff",
}


def test_the_eight_base_types_are_there() -> None:
    assert BASE == [
        "base/address",
        "base/credit",
        "base/e_licence",
        "base/legal_entity",
        "base/population",
        "base/service_item_case",
        "base/service_request",
        "base/tax_social_status",
    ]


@pytest.mark.parametrize("name", library.names())
def test_each_is_avro_to_every_library(name: str) -> None:
    text = library.text(name)
    assert parse(text).fullname.startswith("pool.")
    fastavro.parse_schema(json.loads(text))
    avro.schema.parse(text)


@pytest.mark.parametrize("name", BASE)
def test_each_base_type_is_classified_and_has_a_key_that_cannot_be_empty(name: str) -> None:
    parsed = parse(library.text(name))
    fields = {field.path: field for field in classification.require_classification(parsed.json)}
    assert parsed.key
    for field in parsed.fields:
        assert re.search(r"[\u4e00-\u9fff]", fields[field.name].zh), field.name
        if fields[field.name].personal == "D":
            assert fields[field.name].mask != "none", f"{field.name} identifies a person as it stands"
    for key in parsed.key:
        assert not parsed.field(key).nullable
    assert re.fullmatch(r"[123]\d{5}", parsed.attributes["class_code"])


@pytest.mark.parametrize("name", BASE)
def test_each_base_type_carries_a_record_both_ways(name: str) -> None:
    document = json.loads(library.text(name))
    schema = fastavro.parse_schema(document)

    def sample(kind: Any) -> Any:
        if isinstance(kind, list):
            return sample(kind[1])
        if isinstance(kind, dict):
            if kind["type"] == "enum":
                return kind["symbols"][0]
            return sample(kind.get("logicalType", kind["type"]))
        return SAMPLES[kind]

    full = {field["name"]: sample(field["type"]) for field in document["fields"]}
    least = {
        field["name"]: None if isinstance(field["type"], list) else full[field["name"]] for field in document["fields"]
    }
    for record in (full, least):
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, schema, record)
        buffer.seek(0)
        assert fastavro.schemaless_reader(buffer, schema, None) == record


def test_levels_follow_the_most_sensitive_field() -> None:
    highest = {
        name: classification.highest_level(classification.require_classification(json.loads(library.text(name))))
        for name in BASE
    }
    assert highest["base/population"] is Level.G4
    assert highest["base/credit"] is Level.G2
    assert highest["base/address"] is Level.G3


def test_population_checks_the_numbers_that_have_a_check_digit_and_only_those() -> None:
    rules = {(rule.name, rule.field): rule for rule in parse(library.text("population")).rules}
    rule = rules["cn_id18", "id_number"]
    assert {text for condition in rule.conditions for text in condition.texts} == {"ric18", "hk_macau_tw_residence"}
    assert rule.check_text("11010519491231002X") is Verdict.VALID
    assert rule.check_text("110105194912310021") is Verdict.INVALID


def test_a_name_may_be_short_and_an_unknown_one_lists_the_known() -> None:
    assert library.text("population") == library.text("base/population")
    for name in ("nothing", "base/../../errors", "", "base/"):
        with pytest.raises(InvalidError, match="base/population") as caught:
            library.text(name)
        assert caught.value.reason is Reason.NOT_FOUND


# --- when two schemas are the same -----------------------------------------------------------------------------

SAME = [
    ('"int"', '{"type": "int"}'),
    ('{"type":"array","items":"int"}', '{"items":{"type":"int"},"type":"array"}'),
    (
        '{"type":"record","name":"a.R","fields":[{"name":"x","type":"a.R"}]}',
        '{"namespace":"a","name":"R","type":"record","fields":[{"type":"R","name":"x","order":"ascending"}]}',
    ),
    (
        '{"type":"fixed","name":"F","namespace":"a","size":4,"aliases":["G"]}',
        '{"type":"fixed","name":"a.F","size":4,"aliases":["a.G"]}',
    ),
    ('["null",{"type":"string"}]', '["null","string"]'),
    ('{"type":{"type":"int"}}', '"int"'),
    ('{"type":"int","name":"meaningless"}', '"int"'),
]
OTHER = [
    ('"int"', '"long"'),
    ('["null","int"]', '["int","null"]'),
    ('{"type":"string","level":"G1"}', '"string"'),
    ('{"type":"string","level":"G1"}', '{"type":"string","level":"G2"}'),
    ('{"type":"enum","name":"E","symbols":["A","B"]}', '{"type":"enum","name":"E","symbols":["B","A"]}'),
    ('{"type":"enum","name":"E","symbols":["A"],"default":"A"}', '{"type":"enum","name":"E","symbols":["A"]}'),
    ('{"type":"enum","name":"a.E","symbols":["A"]}', '{"type":"enum","name":"b.E","symbols":["A"]}'),
    (
        '{"type":"record","name":"R","doc":"x","fields":[]}',
        '{"type":"record","name":"R","doc":"y","fields":[]}',
    ),
    (
        '{"type":"record","name":"R","fields":[{"name":"x","type":"int","default":1}]}',
        '{"type":"record","name":"R","fields":[{"name":"x","type":"int","default":2}]}',
    ),
    (
        '{"type":"record","name":"R","fields":[{"name":"x","type":"int","mask":"drop"}]}',
        '{"type":"record","name":"R","fields":[{"name":"x","type":"int","mask":"none"}]}',
    ),
    (
        '{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}',
        '{"type":"bytes","logicalType":"decimal","precision":4,"scale":1}',
    ),
]


def key(text: str, **more: Any) -> bytes:
    return content_key(Content(text=text, **more), json.loads(text))


@pytest.mark.parametrize(("one", "other"), SAME)
def test_writing_it_differently_makes_no_other_schema(one: str, other: str) -> None:
    assert key(one) == key(other)
    assert canonical_text(json.loads(one)) == canonical_text(json.loads(canonical_text(json.loads(other))))


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_whatever_it_says_makes_another_schema(one: str, other: str) -> None:
    assert key(one) != key(other)


def test_metadata_and_rules_belong_to_the_content() -> None:
    plain = key('"int"')
    assert key('"int"', metadata='{"a": 1, "b": 2}') == key('"int"', metadata='{"b":2,"a":1}') != plain
    assert key('"int"', rule_set='{"a": 1}') != key('"int"', metadata='{"a": 1}')
    assert guid(plain) != guid(key('"long"'))


# --- the pool's own documents ----------------------------------------------------------------------------------


def inner(kind: Any) -> Any:
    """The type that a field holds if it holds one."""
    if isinstance(kind, list):
        return kind[1]
    return kind["items"] if isinstance(kind, dict) and kind["type"] == "array" else kind


@pytest.mark.parametrize(
    ("name", "path", "kind"),
    [
        ("audit_entry", (), AuditEntry),
        ("audit_entry", ("actor",), Actor),
        ("audit_entry", ("grant",), GrantRef),
        ("grant", (), Grant),
    ],
)
def test_the_export_form_has_the_fields_of_the_type(name: str, path: tuple[str, ...], kind: type) -> None:
    record = json.loads(library.text(name))
    for step in path:
        record = inner(next(field["type"] for field in record["fields"] if field["name"] == step))
    assert [field["name"] for field in record["fields"]] == [field.name for field in dataclasses.fields(kind)]


@pytest.mark.parametrize(
    ("name", "path", "words"),
    [
        ("audit_entry", "decision", [word.value for word in Decision]),
        ("audit_entry", "flow", [word.value for word in Flow]),
        ("grant", "case_rule", [word.value for word in CaseRule]),
        ("grant", "history", [word.value for word in History]),
        ("grant", "ceiling", [level.name for level in Level]),
        ("grant", "state", [word.value for word in GrantState]),
    ],
)
def test_the_export_form_has_the_words_of_the_type(name: str, path: str, words: list[str]) -> None:
    document = json.loads(library.text(name))
    assert inner(next(field["type"] for field in document["fields"] if field["name"] == path))["symbols"] == words
