"""A view has one output schema, whatever version of the resource's a record was written under."""

import struct

import pytest

from schemas.access import Compare
from schemas.errors import CorruptError, Reason
from schemas.record import Packed, frame
from tests.kit.cases.random_avro import encode
from tests.kit.cases.views import PERSON, SEX, delivered, person, record, refused, view

# --- versions of the writer -----------------------------------------------------------------------------------------


def test_a_field_added_later_is_not_seen():
    later = {**PERSON, "fields": [{"name": "salary", "type": "int", "default": 1}, *PERSON["fields"]]}
    got, _ = delivered(PERSON, ("ward",), {2: later}, [frame(2, encode(later, person(salary=5)))])
    assert got == [{"ward": 6}]


def test_a_field_added_inside_of_a_record_later_is_not_seen():
    old = record("r", ("home", record("home", ("city", "string"))))
    new = record("r", ("home", record("home", ("street", "string"), ("city", "string"))))
    row = frame(2, encode(new, {"home": {"street": "secret", "city": "b"}}))
    got, _ = delivered(old, ("home",), {2: new}, [row])
    assert got == [{"home": {"city": "b"}}]


@pytest.mark.parametrize(
    ("avro", "default", "expected"),
    [
        ("string", "王", "王"),
        ("bytes", "\u00ff\u0000", b"\xff\0"),
        ({"type": "fixed", "name": "F", "size": 3}, "\u00ff\u0000a", b"\xff\0a"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, "\u0001\u0000", "2.56"),
        ("long", -(2**63), -(2**63)),
        ("double", 1, 1.0),
        (["null", "string"], None, None),
        (["string", "null"], "a", "a"),
        (["null", "int", "string"], "b", "b"),
        ({"type": "enum", "name": "E", "symbols": ["a", "b"]}, "b", "b"),
        ({"type": "array", "items": ["null", "int"]}, [1, None], [1, None]),
        ({"type": "map", "values": "int"}, {"k": 1}, [("k", 1)]),
        (record("inner", ("a", "int"), ("b", "string", ("default", "x"))), {"a": 7}, {"a": 7, "b": "x"}),
    ],
)
@pytest.mark.parametrize("count", [1, 40])
def test_a_missing_field_takes_its_default(avro, default, expected, count):
    old = record("r", ("a", "int"))
    new = record("r", ("a", "int"), ("b", avro, ("default", default)))
    got, _ = delivered(new, ("b",), {1: old}, [frame(1, b"\x02")] * count)
    assert [str(row["b"]) if isinstance(expected, str) else row["b"] for row in got] == [expected] * count


@pytest.mark.parametrize(
    "avro",
    [
        ["null", "string"],
        ["string", "null"],
        ["int", "null", "string"],
        "null",
        ["null", {"type": "array", "items": SEX}],
    ],
)
def test_a_missing_field_without_a_default_is_null_if_it_may_be(avro):
    new = record("r", ("a", "int"), ("b", avro))
    got, _ = delivered(new, ("a", "b"), {1: record("r", ("a", "int"))}, [frame(1, b"\x02")] * 40)
    assert got == [{"a": 1, "b": None}] * 40


def test_a_missing_field_with_neither_is_refused_when_the_view_is_compiled():
    new = record("r", ("a", "int"), ("born", "string"))
    message = refused(Reason.SCHEMA_INCOMPATIBLE, lambda: view(new, ("born",), {1: record("r", ("a", "int"))}))
    assert "'born'" in message


def test_a_field_that_was_renamed_is_read_under_its_former_name():
    new = record("r", ("b", "string", ("aliases", ["a"])))
    rows = [frame(1, encode(record("r", ("a", "string")), {"a": text})) for text in "xy"]
    got, _ = delivered(new, ("b",), {1: record("r", ("a", "string"))}, rows, row_filter=Compare("eq", "b", "y"))
    assert got == [{"b": "y"}]


FLOAT = struct.unpack("<f", struct.pack("<f", 2**53 + 1))[0]


@pytest.mark.parametrize(
    ("old", "new", "value", "expected"),
    [
        ("int", "long", -5, -5),
        ("int", "float", 16_777_217, 16_777_216.0),
        ("int", "double", 16_777_217, 16_777_217.0),
        ("long", "float", 2**53 + 1, FLOAT),
        ("long", "double", 2**53 + 1, float(2**53)),
        ("float", "double", struct.pack("<f", 0.1), struct.unpack("<f", struct.pack("<f", 0.1))[0]),
        ("string", "bytes", "王", "王".encode()),
        ("bytes", "string", "王".encode(), "王"),
        ("int", ["null", "long"], 7, 7),
        ("null", ["null", {"type": "array", "items": "int"}], None, None),
        (["null", "int"], ["null", "int", "string"], (1, 7), 7),
        (["null", "int"], ["string", "long", "null"], (0, None), None),
        (["int", "string"], ["null", "bytes", "string", "int"], (1, "王"), "王"),
        (["int", "long"], "long", (0, 7), 7),
        (["int", "null"], ["null", "double"], (0, 7), 7.0),
        ({"type": "array", "items": "int"}, {"type": "array", "items": ["null", "long"]}, [1, 2], [1, 2]),
        ({"type": "map", "values": "int"}, {"type": "map", "values": "double"}, [("k", 1)], [("k", 1.0)]),
        (
            {"type": "enum", "name": "E", "symbols": ["a", "b", "c"]},
            {"type": "enum", "name": "E", "symbols": ["c", "b"], "default": "c"},
            "a",
            "c",
        ),
    ],
)
@pytest.mark.parametrize("count", [1, 40])
def test_an_older_type_is_read_as_the_newer_one(old, new, value, expected, count):
    writer, reader = record("r", ("a", old)), record("r", ("a", new))
    got, _ = delivered(reader, ("a",), {1: writer}, [frame(1, encode(writer, {"a": value}))] * count)
    assert got == [{"a": expected}] * count


def test_a_value_keeps_its_branch_where_two_records_look_alike():
    one, other = record("one", ("x", "int")), record("other", ("x", "int"))
    writer, reader = record("r", ("a", [one, other])), record("r", ("a", ["null", other, one]))
    compiled, engine = view(reader, ("a",), {1: writer})
    rows = [frame(1, encode(writer, {"a": (place, {"x": place})})) for place in (0, 1)] * 20
    column = engine.decode([value[5:] for value in compiled.apply(Packed.of(rows)).values]).column(0)
    assert list(column.type_codes.to_numpy()) == [2, 1] * 20


def test_records_with_unions_under_nulls_are_resolved():
    old = ["null", record("inner", ("u", ["int", "string"]), ("e", SEX))]
    new = ["null", record("inner", ("u", ["int", "string", "null"]), ("e", {**SEX, "symbols": ["F", "M"]}))]
    writer, reader = record("r", ("a", old)), record("r", ("a", new))
    values = [(0, None), (1, {"u": (1, "x"), "e": "F"}), (0, None), (1, {"u": (0, 5), "e": "M"})] * 10
    got, _ = delivered(reader, ("a",), {1: writer}, [frame(1, encode(writer, {"a": value})) for value in values])
    assert got == [{"a": v} for v in (None, {"u": "x", "e": "F"}, None, {"u": 5, "e": "M"})] * 10


DATE = {"type": "int", "logicalType": "date"}
NODE = record("node", ("x", "int"), ("next", ["null", "node"]))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("long", "int"),
        (["null", "int"], "int"),
        ("int", "string"),
        (DATE, "int"),
        (DATE, "long"),
        ("int", DATE),
        ({"type": "long", "logicalType": "timestamp-millis"}, {"type": "long", "logicalType": "timestamp-micros"}),
        (
            {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2},
            {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 1},
        ),
        (["int", "string"], ["null", "int"]),
        ({"type": "fixed", "name": "F", "size": 3}, {"type": "fixed", "name": "F", "size": 4}),
        (record("inner", ("a", "int")), record("inner", ("a", "int"), ("b", "int"))),
        (NODE, record("node", ("x", "long"), ("next", ["null", "node"]))),
    ],
)
def test_a_type_that_cannot_be_read_is_refused_when_the_view_is_compiled(old, new):
    writer, reader = record("r", ("a", old)), record("r", ("a", new))
    assert "'a" in refused(Reason.SCHEMA_INCOMPATIBLE, lambda: view(reader, ("a",), {1: writer}))


def test_a_recursive_type_that_stays_as_it_is_is_delivered():
    schema = record("r", ("a", NODE), ("b", "int"))
    rows = [frame(1, encode(schema, {"a": {"x": 1, "next": (1, {"x": 2, "next": (0, None)})}, "b": 3}))] * 40
    compiled, _ = view(schema, ("a",), {1: schema})
    assert list(compiled.apply(Packed.of(rows)).values) == [frame(9, b"\x02\x02\x04\x00")] * 40


@pytest.mark.parametrize("count", [1, 40])
def test_a_symbol_that_the_view_does_not_know_stops_the_view(count):
    old = record("r", ("a", {"type": "enum", "name": "E", "symbols": ["x", "y"]}))
    new = record("r", ("a", {"type": "enum", "name": "E", "symbols": ["y"]}))
    compiled, _ = view(new, ("a",), {1: old})
    assert len(compiled.apply([frame(1, b"\x02")] * count).values) == count
    refused(Reason.SCHEMA_INCOMPATIBLE, lambda: compiled.apply([frame(1, b"\x00")] * count), CorruptError)


def test_bytes_that_are_no_text_stop_a_view_that_shows_text():
    compiled, _ = view(record("r", ("a", "string")), ("a",), {1: record("r", ("a", "bytes"))})
    refused(Reason.RECORD_INVALID, lambda: compiled.apply([frame(1, b"\x02\xff")] * 40), CorruptError)
