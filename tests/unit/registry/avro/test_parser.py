import json
import time
from typing import Any

import avro.schema
import pyarrow as pa
import pytest

from registry.avro import parser
from registry.avro.parser import MAX_FIELDS, NO_DEFAULT, parse
from registry.avro.type_tree import arrow_type, compile_type
from schemas.errors import InvalidError, Reason
from tests.kit.cases.random_avro import POPULATION


def record(*fields: Any, **more: Any) -> str:
    return json.dumps({"type": "record", "name": "r", "fields": list(fields), **more})


def field(name: str, avro_type: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": avro_type, **more}


def refused(text: str, **options: Any) -> InvalidError:
    with pytest.raises(InvalidError) as caught:
        parse(text, **options)
    return caught.value


WIDE = {"type": "record", "name": "wide", "fields": [field(f"f{i}", "long") for i in range(200)]}


def test_a_record_schema_is_read_with_its_fields_attributes_and_key() -> None:
    schema = parse(json.dumps(POPULATION))
    assert schema.fullname == "population"
    assert schema.key == ("id_number",)
    assert len(schema.fields) == 20
    former = schema.field("former_name")
    assert former.nullable
    assert former.default is None
    assert schema.field("id_number").default is NO_DEFAULT
    assert schema.field("sex_code").attributes == {"codes": ["0", "1", "2", "9"]}
    assert {rule.name for rule in schema.rules} == {"cn_id18", "not_empty", "codes", "cn_mobile"}


def test_names_are_replaced_by_what_they_name_and_types_are_self_contained() -> None:
    code = {"type": "enum", "name": "Code", "symbols": ["a", "b"]}
    schema = parse(record(field("x", code), field("y", ["null", "Code"]), namespace="gov.pool"))
    assert schema.fullname == "gov.pool.r"
    assert schema.field("y").type == ["null", {**code, "name": "gov.pool.Code"}]
    assert schema.field("y").type_tree.arrow == pa.dictionary(pa.int32(), pa.string())


def accepted_by_avro(text: str) -> Any:
    """Return what Apache Avro makes of a text in the form in which the parser asks it."""
    return avro.schema.make_avsc_object(
        parser._for_avro(json.loads(text)), parser.PrimitiveFirstNames(validate_names=True)
    )


def test_a_recursive_reference_stays_a_name_and_its_value_stays_bytes() -> None:
    node = {"type": "record", "name": "Node", "fields": [field("next", ["null", "Node"])]}
    schema = parse(record(field("list", node), field("again", "Node")))
    for name in ("list", "again"):
        assert schema.field(name).type["fields"][0]["type"] == ["null", "Node"]
        assert schema.field(name).type_tree.arrow == pa.struct([pa.field("next", pa.binary())])


def test_the_name_of_a_primitive_means_the_primitive_whatever_is_defined_beside_it() -> None:
    record_of_that_name = {"type": "record", "name": "gov.string", "fields": [field("x", "int")]}
    schema = parse(record(field("a", record_of_that_name), field("b", "string"), namespace="gov"))
    assert schema.field("b").type_tree.arrow == pa.string()
    assert accepted_by_avro(schema.text).fields[1].type.type == "string"


def test_a_schema_may_refer_to_types_of_another_text() -> None:
    code = json.dumps({"type": "enum", "name": "gov.Code", "symbols": ["a"]})
    schema = parse(record(field("x", "gov.Code")), references=(code,))
    assert schema.field("x").type["symbols"] == ["a"]
    assert refused(record(field("x", "gov.Code"))).reason is Reason.SCHEMA_INVALID


def test_a_schema_that_is_no_record_parses_and_has_no_fields() -> None:
    for text in ('"string"', '{"type": "int"}', '["null", "long"]', '{"type": {"type": "string"}}'):
        assert parse(text).fields == ()


def test_parsing_the_same_text_again_costs_nothing_and_equals() -> None:
    text = record(field("a", "int"))
    assert parse(text) is parse(text)
    assert parse(text) == parse(text, strict=False)
    assert parse(text) != parse(record(field("a", "long")))


ARROW = [
    ("null", pa.null()),
    ("boolean", pa.bool_()),
    ("int", pa.int32()),
    ("long", pa.int64()),
    ("float", pa.float32()),
    ("double", pa.float64()),
    ("bytes", pa.binary()),
    ("string", pa.string()),
    ({"type": "string", "logicalType": "uuid"}, pa.string()),
    ({"type": "int", "logicalType": "date"}, pa.date32()),
    ({"type": "int", "logicalType": "time-millis"}, pa.time32("ms")),
    ({"type": "long", "logicalType": "time-micros"}, pa.time64("us")),
    ({"type": "long", "logicalType": "timestamp-millis"}, pa.timestamp("ms", "UTC")),
    ({"type": "long", "logicalType": "timestamp-micros"}, pa.timestamp("us", "UTC")),
    ({"type": "long", "logicalType": "timestamp-nanos"}, pa.timestamp("ns", "UTC")),
    ({"type": "long", "logicalType": "local-timestamp-millis"}, pa.timestamp("ms")),
    ({"type": "long", "logicalType": "local-timestamp-micros"}, pa.timestamp("us")),
    ({"type": "int", "logicalType": "timestamp-micros"}, pa.int32()),
    ({"type": "long", "logicalType": "somebody's own"}, pa.int64()),
    ({"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 2}, pa.decimal128(18, 2)),
    ({"type": "bytes", "logicalType": "decimal", "precision": 39}, pa.decimal256(39, 0)),
    ({"type": "bytes", "logicalType": "decimal", "precision": 77}, pa.binary()),
    ({"type": "fixed", "name": "f", "size": 16}, pa.binary(16)),
    ({"type": "fixed", "name": "f", "size": 8, "logicalType": "decimal", "precision": 9}, pa.decimal128(9, 0)),
    ({"type": "fixed", "name": "f", "size": 12, "logicalType": "duration"}, pa.binary(12)),
    ({"type": "enum", "name": "e", "symbols": ["a"]}, pa.dictionary(pa.int32(), pa.string())),
    ({"type": "array", "items": "long"}, pa.list_(pa.field("item", pa.int64(), nullable=False))),
    ({"type": "map", "values": ["null", "int"]}, pa.map_(pa.string(), pa.int32())),
    (["null", "string"], pa.string()),
    (["int", "null"], pa.int32()),
    (["null", "int", "string"], pa.sparse_union([pa.field(f"b{i}", t) for i, t in enumerate(
        [pa.null(), pa.int32(), pa.string()])])),
    ({"type": "record", "name": "q", "fields": [field("a", "int"), field("b", ["null", "long"])]},
     pa.struct([pa.field("a", pa.int32(), nullable=False), pa.field("b", pa.int64())])),
]  # fmt: skip


def test_types_made_once_do_not_change_what_avros_own_parser_makes() -> None:
    primitives = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]
    types = [*primitives, *(["null", name] for name in primitives[1:]), {"type": "array", "items": "string"}]
    types += [{"type": "map", "values": ["int", "string"]}, {"type": "string"}, "test.Other", ["null", "Other"]]
    other = {"type": "fixed", "name": "Other", "size": 2}
    listed = [field("other", other), *(field(f"f{number}", one) for number, one in enumerate(types))]
    text = json.dumps({"type": "record", "name": "R", "namespace": "test", "fields": listed})
    for _ in range(2):
        assert accepted_by_avro(text) == avro.schema.parse(text)
        assert str(accepted_by_avro(text)) == str(avro.schema.parse(text))


@pytest.mark.parametrize(("avro_type", "expected"), ARROW, ids=lambda each: str(each)[:60])
def test_every_avro_type_has_its_arrow_type(avro_type: Any, expected: pa.DataType) -> None:
    assert arrow_type(avro_type) == expected
    parsed = parse(record(field("x", avro_type))).field("x")
    assert parsed.type_tree.arrow == expected
    assert parsed.nullable == (avro_type == "null" or (isinstance(avro_type, list) and "null" in avro_type))


def test_a_union_of_more_branches_than_arrow_can_number_stays_bytes() -> None:
    branches = [{"type": "fixed", "name": f"f{i}", "size": 1} for i in range(128)]
    assert arrow_type(branches) == pa.binary()
    assert pa.types.is_union(arrow_type(branches[:127]))


# --- what is refused ------------------------------------------------------------------------------------------------

INVALID = {
    "not JSON": "nope",
    "empty": "",
    "an object without a type": "{}",
    "an unknown type": '"uuid"',
    "a number": "7",
    "two members of one name": '{"type": "int", "type": "long"}',
    "NaN": '{"type": "record", "name": "r", "fields": [{"name": "a", "type": "double", "default": NaN}]}',
    "a number of 10,000 digits": "9" * 10_000,
    "a lone surrogate, escaped": '{"type": "int", "doc": "\\ud800"}',
    "a lone surrogate": '{"type": "int", "doc": "\ud800"}',
    "an unfinished string full of escapes": '"' + '\\"' * 300_000 + "\\",
    "a record without fields": '{"type": "record", "name": "r"}',
    "two fields of one name": record(field("a", "int"), field("a", "long")),
    "a union inside a union": record(field("a", ["null", ["int", "long"]])),
    "a union with one type twice": record(field("a", ["int", "int"])),
    "fields that are text": '{"type": "record", "name": "r", "fields": "abc"}',
    "a field that is text": '{"type": "record", "name": "r", "fields": ["abc"]}',
    "a field without a type": '{"type": "record", "name": "r", "fields": [{"name": "a"}]}',
    "symbols that are numbers": record(field("a", {"type": "enum", "name": "e", "symbols": [1]})),
    "a size that is text": record(field("a", {"type": "fixed", "name": "f", "size": "9"})),
    "a size below 0": record(field("a", {"type": "fixed", "name": "f", "size": -1})),
    "a size beyond measure": record(field("a", {"type": "fixed", "name": "f", "size": 2**40})),
    "an enum default that is no symbol": record(
        field("a", {"type": "enum", "name": "e", "symbols": ["a"], "default": "b"})
    ),
    "a key that is no list": record(field("a", "string"), key="a"),
    "a key of an unknown field": record(field("a", "string"), key=["b"]),
    "a key of a field that is no text or number": record(field("a", "double"), key=["a"]),
    "a key with a part twice": record(field("a", "string"), key=["a", "a"]),
    "an unknown check": record(field("a", "string", check="id18")),
    "a check that is a number": record(field("a", "string", check=7)),
    "a check of a number": record(field("a", "int", check="cn_id18")),
    "codes that are numbers": record(field("a", "string", codes=[1, 2])),
    "no codes": record(field("a", "string", codes=[])),
    "a condition on an unknown field": record(field("a", "string", check={"rule": "uscc", "when": {"b": ["x"]}})),
    "a misspelt condition": record(field("a", "string", check={"rule": "uscc", "wenn": {"a": ["x"]}})),
    "a check inside another record": record(
        field("a", {"type": "record", "name": "q", "fields": [field("b", "string", check="uscc")]})
    ),
}

LAX = {  # what Apache Avro's parser lets pass
    "a name with a hyphen": record(field("a-b", "int")),
    "an alias with a blank": record(field("a", "int", aliases=["a b"])),
    "an int default that is text": record(field("a", "int", default="x")),
    "an int default beyond 32 bits": record(field("a", "int", default=2**31)),
    "a default of no branch": record(field("a", ["null", "int"], default="x")),
    "a bytes default beyond U+00FF": record(field("a", "bytes", default="王")),
    "a decimal without precision": record(field("a", {"type": "bytes", "logicalType": "decimal"})),
    "a decimal of a larger scale than precision": record(
        field("a", {"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 3})
    ),
    "a decimal that its fixed cannot hold": record(
        field("a", {"type": "fixed", "name": "f", "size": 2, "logicalType": "decimal", "precision": 5})
    ),
}

BUSHY = [field("a", {"type": "record", "name": "r0", "fields": [field("x", "int")]})] + [
    field(f"f{i}", {"type": "record", "name": f"r{i}", "fields": [field("a", f"r{i - 1}"), field("b", f"r{i - 1}")]})
    for i in range(1, 50)
]
CHAIN = [{"type": "record", "name": "r0", "fields": [field("x", "int")]}] + [
    {"type": "record", "name": f"r{i}", "fields": [field("a", f"r{i - 1}")]} for i in range(1, 100)
]
WEB = [
    {"type": "record", "name": f"w{i}", "fields": [field(f"f{j}", ["null", f"w{j}"]) for j in range(20) if j <= i]}
    for i in range(20)
]


def uses(named: dict[str, Any], count: int = 1_900) -> list[dict[str, Any]]:
    """Fields that all have one named type."""
    return [field("f0", named | {"name": "E"}), *(field(f"f{i}", "E") for i in range(1, count))]


UNSAFE = {
    "a text of 1 MiB and more": record(field("a", "int", doc="x" * 2**20)),
    "brackets without end": "[" * 200_000,
    "objects without end": '{"a":' * 200_000,
    "types nested 65 deep": '{"type":"array","items":' * 65 + '"int"' + "}" * 65,
    "more fields than allowed": record(*(field(f"f{i}", "int") for i in range(MAX_FIELDS + 1))),
    "names that double at each use": record(*BUSHY),
    "a namespace that every use repeats": record(*uses({"type": "fixed", "size": 1}), namespace="a" * 300_000),
    "a name that its fields repeat": record(*uses({"type": "fixed", "size": 1}), name="a." * 200_000 + "b"),
    "an enum of many symbols at many uses": record(
        *uses({"type": "enum", "symbols": [f"S{i}" for i in range(60_000)]})
    ),
    "many aliases at many uses": record(
        *uses({"type": "fixed", "size": 1, "aliases": [f"A{i}" for i in range(15_000)]})
    ),
    "names that nest without brackets": json.dumps(CHAIN),
    "names that all refer to each other": json.dumps(WEB),
    "an array of null": record(field("deep", {"type": "array", "items": "null"})),
    "an array of a record of nulls": record(
        field("deep", {"type": "array", "items": {"type": "record", "name": "q", "fields": [field("n", "null")]}})
    ),
    "a map of null": record(field("deep", {"type": "map", "values": "null"})),
    "an array of fixed(0)": record(
        field("deep", {"type": "array", "items": {"type": "fixed", "name": "q", "size": 0}})
    ),
    "a record that holds itself": record(field("deep", "r")),
    "an array that amplifies": record(field("deep", {"type": "array", "items": ["null", WIDE]})),
    "a map that amplifies through a union": record(field("deep", {"type": "map", "values": ["int", "string", WIDE]})),
    "a record that fills the memory when empty": record(
        field("deep", ["null", {**WIDE, "fields": [field(f"f{i}", "long") for i in range(900)]}])
    ),
}


@pytest.mark.parametrize("text", INVALID.values(), ids=INVALID.keys())
def test_a_text_that_is_no_schema_is_refused_as_such(text: str) -> None:
    error = refused(text)
    assert error.reason is Reason.SCHEMA_INVALID
    assert "expected" in error.message
    assert len(error.message) < 600


@pytest.mark.parametrize("text", LAX.values(), ids=LAX.keys())
def test_what_avros_parser_lets_pass_is_refused_unless_told_otherwise(text: str) -> None:
    error = refused(text)
    assert error.reason is Reason.SCHEMA_INVALID
    assert error.details["field"] in {"a", "a-b"}
    assert parse(text, strict=False).fields


@pytest.mark.parametrize("text", UNSAFE.values(), ids=UNSAFE.keys())
def test_a_schema_that_would_exhaust_its_readers_is_refused_quickly(text: str) -> None:
    started = time.process_time()
    error = refused(text)
    assert error.reason is Reason.SCHEMA_UNSAFE
    assert time.process_time() - started < 5  # generous: each takes well under a second
    if '"deep"' in text:
        assert "deep" in error.message


@pytest.mark.parametrize(("symbol", "count"), [("[", 64), ("[", 65)])
def test_the_limit_of_nesting_is_where_it_is_said_to_be(symbol: str, count: int) -> None:
    error = refused(symbol * count)
    assert error.reason is (Reason.SCHEMA_UNSAFE if count > 64 else Reason.SCHEMA_INVALID)


def test_brackets_inside_strings_do_not_count() -> None:
    assert parse(record(field("a", "int", doc="[{" * 500 + '\\"[' * 50))).fields


def test_amplification_is_judged_by_the_worst_value_not_by_the_type() -> None:
    # 200 longs behind one byte of null amplify; the same record where it must be written out does not.
    assert compile_type(["null", WIDE]).amplification_excess > 0
    assert compile_type(WIDE).amplification_excess < 0
    parse(record(field("deep", {"type": "array", "items": WIDE})))
    narrow = {**WIDE, "name": "narrow", "fields": WIDE["fields"][:8]}
    parse(record(field("deep", {"type": "array", "items": ["null", narrow]})))


def test_an_optional_part_of_twenty_fields_is_no_amplification_at_the_top() -> None:
    part = {"type": "record", "name": "address", "fields": [field(f"f{i}", ["null", "string"]) for i in range(20)]}
    assert parse(record(field("a", "string"), field("b", ["null", part]))).fields
