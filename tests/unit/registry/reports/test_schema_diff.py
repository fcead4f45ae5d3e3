"""The semantic diff: what changed, who must move first, and that no incompatibility is missing from it."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.avro.compatibility import read_conflicts
from registry.avro.parser import parse
from registry.reports.diff import ChangeKind, ReaderImpact, SchemaChange, diff

GOOD = {"zh": "身份号码", "level": "G3", "personal": "P", "sensitive": "s", "mask": "keep_3_4"}


def fld(name: str, kind: Any = "string", **facts: Any) -> dict[str, Any]:
    return {"name": name, "type": kind} | GOOD | facts


def schema(*fields: dict[str, Any], **facts: Any) -> str:
    return json.dumps({"type": "record", "name": "R", "zh": "人员", "fields": list(fields)} | facts)


def changes(old: str, new: str) -> list[SchemaChange]:
    return diff(parse(old), parse(new))


def only(old: str, new: str) -> SchemaChange:
    (change,) = changes(old, new)
    return change


def test_the_same_schema_written_differently_has_no_change() -> None:
    old = schema(fld("id", "int"), key=["id"])
    new = schema(fld("id", {"type": "int"}), key=["id"])
    assert changes(old, new) == []


def test_an_added_field_with_a_default_lets_everybody_read_on() -> None:
    change = only(schema(fld("id")), schema(fld("id"), fld("note", default="")))
    assert (change.kind, change.path, change.readers) == (ChangeKind.ADDED, "note", ReaderImpact.BOTH)
    assert "level G3" in change.after


def test_an_added_field_without_a_default_needs_the_writers_first() -> None:
    change = only(schema(fld("id")), schema(fld("id"), fld("note")))
    assert change.readers is ReaderImpact.WRITERS_FIRST
    assert "has no default" in change.because[0]


def test_a_removed_field_without_a_default_needs_the_readers_first() -> None:
    change = only(schema(fld("id"), fld("note")), schema(fld("id")))
    assert (change.kind, change.path, change.readers) == (ChangeKind.REMOVED, "note", ReaderImpact.READERS_FIRST)


def test_a_renamed_field_is_one_change() -> None:
    change = only(schema(fld("sfzh")), schema(fld("id_number", aliases=["sfzh"])))
    assert (change.kind, change.was, change.path) == (ChangeKind.RENAMED, "sfzh", "id_number")
    assert change.readers is ReaderImpact.READERS_FIRST


def test_a_wider_number_needs_the_readers_first_and_a_text_instead_breaks() -> None:
    assert only(schema(fld("n", "int")), schema(fld("n", "long"))).readers is ReaderImpact.READERS_FIRST
    assert only(schema(fld("n", "int")), schema(fld("n", "string"))).readers is ReaderImpact.BROKEN


def test_another_scale_breaks_although_avro_reads_on() -> None:
    def money(scale: int) -> str:
        return schema(fld("m", {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": scale}))

    change = only(money(2), money(4))
    assert (change.kind, change.readers) == (ChangeKind.TYPE, ReaderImpact.BROKEN)
    assert change.before != change.after


def test_a_symbol_more_is_named() -> None:
    def coded(*symbols: str) -> str:
        return schema(fld("c", {"type": "enum", "name": "C", "symbols": list(symbols)}))

    change = only(coded("A"), coded("A", "B"))
    assert change.readers is ReaderImpact.READERS_FIRST
    assert "lacks B" in change.because[0]


def test_a_field_within_a_record_has_a_dotted_path() -> None:
    def held(*fields: dict[str, Any]) -> str:
        return schema(fld("home", ["null", {"type": "record", "name": "Home", "fields": list(fields)}], default=None))

    change = only(held(fld("city")), held(fld("city"), fld("street")))
    assert (change.kind, change.path, change.readers) == (ChangeKind.ADDED, "home.street", ReaderImpact.WRITERS_FIRST)


@pytest.mark.parametrize(
    ("facts", "kind", "approval"),
    [
        ({"level": "G2"}, ChangeKind.LEVEL, True),
        ({"level": "G4"}, ChangeKind.LEVEL, False),
        ({"sensitive": "N"}, ChangeKind.SENSITIVE, True),
        ({"mask": "none"}, ChangeKind.MASK, True),
        ({"zh": "证件号"}, ChangeKind.LABEL, False),
        ({"doc": "Of a person."}, ChangeKind.DOC, False),
        ({"check": "not_empty"}, ChangeKind.CHECK, False),
        ({"standard": "GB 11643"}, ChangeKind.ATTRIBUTE, False),
        ({"default": ""}, ChangeKind.DEFAULT, False),
    ],
)
def test_what_is_said_about_a_field(facts: dict[str, Any], kind: ChangeKind, approval: bool) -> None:
    change = only(schema(fld("id")), schema(fld("id", **facts)))
    assert (change.kind, change.path, change.approval) == (kind, "id", approval)
    assert change.readers is (ReaderImpact.BOTH if kind is ChangeKind.DEFAULT else ReaderImpact.UNTOUCHED)


def test_a_change_of_key_and_of_place() -> None:
    old = schema(fld("a"), fld("b"), key=["a"])
    new = schema(fld("b"), fld("a"), key=["a", "b"])
    assert [change.kind for change in changes(old, new)] == [ChangeKind.KEY, ChangeKind.MOVED, ChangeKind.MOVED]


def test_a_schema_that_is_no_record() -> None:
    assert only('"int"', '"string"').readers is ReaderImpact.BROKEN


TYPES = st.sampled_from(
    [
        "int",
        "long",
        "string",
        ["null", "int"],
        {"type": "int", "logicalType": "date"},
        {"type": "array", "items": "int"},
        {"type": "map", "values": "long"},
        {"type": "enum", "name": "E", "symbols": ["A"]},
        {"type": "enum", "name": "E", "symbols": ["A", "B"], "default": "A"},
        {"type": "record", "name": "In", "fields": [{"name": "x", "type": "int"}]},
        {"type": "record", "name": "In", "fields": [{"name": "y", "type": "int"}, {"name": "x", "type": "long"}]},
        {"type": "record", "name": "Other", "fields": [{"name": "x", "type": "int"}]},
    ]
)


@st.composite
def records(draw: st.DrawFn) -> str:
    kinds = draw(st.dictionaries(st.sampled_from("abc"), TYPES, min_size=1))
    fields, named = [], False
    for name, kind in kinds.items():
        if isinstance(kind, dict) and "name" in kind:
            if named:
                continue
            named = True
        aliases = draw(st.sets(st.sampled_from("abc"), max_size=1)) - {name}
        fields.append({"name": name, "type": kind} | ({"aliases": sorted(aliases)} if aliases else {}))
    return json.dumps({"type": "record", "name": draw(st.sampled_from(["R", "S"])), "fields": fields})


@given(old=records(), new=records())
@settings(max_examples=150)
def test_no_incompatibility_is_missing_from_the_list(old: str, new: str) -> None:
    found = changes(old, new)
    backward, forward = read_conflicts(new, old, strict=True), read_conflicts(old, new, strict=True)
    assert bool(backward) == any(
        change.readers in {ReaderImpact.WRITERS_FIRST, ReaderImpact.BROKEN} for change in found
    )
    assert bool(forward) == any(change.readers in {ReaderImpact.READERS_FIRST, ReaderImpact.BROKEN} for change in found)
    told = " ".join(text for change in found for text in change.because)
    assert all(item.detail in told for item in (*backward, *forward))


def test_a_level_that_fields_inherit_shows_at_the_fields() -> None:
    plain = {"name": "id", "type": "string", "zh": "号", "personal": "P", "sensitive": "N", "mask": "none"}
    change = only(schema(plain, level="G3"), schema(plain, level="G2"))
    assert (change.kind, change.path, change.approval) == (ChangeKind.LEVEL, "id", True)
    assert (change.before, change.after) == ("G3", "G2")


def test_tags_of_fields_and_records_are_compared_in_whatever_form_they_are_stated() -> None:
    home = {"type": "record", "name": "Home", "zh": "住所", "fields": [fld("street")]}
    old = schema(fld("id", **{"confluent:tags": ["PII"]}), fld("home", {**home, "confluent:tags": ["PLACE"]}))
    new = schema(fld("id"), fld("house", home, aliases=["home"], **{"confluent:tags": ["NEW"]}))
    before, after = '{"tags": {"**.street": ["ADDRESS"]}}', '{"tags": {"R.id": ["PII"], "R": ["LAW"]}}'
    found = diff(parse(old), parse(new), metadata=(before, after))
    assert [(one.path, one.was, one.before, one.after, one.approval) for one in found if one.kind == "tags"] == [
        ("", "", "", "record: LAW", False),
        ("house", "home", "", "NEW", False),
        ("house", "home", "record: PLACE", "", True),
        ("house.street", "home.street", "ADDRESS", "", True),
    ]
    assert [one.kind for one in found if one.kind != "tags"] == ["field renamed"]
