"""What a view delivers, joint by joint; the whole is held against a naive one in tests/property."""

import json
import random
import struct

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from exchange.access.derive import derive_schema
from exchange.access.mask import MASKS
from exchange.access.plan import SAMPLE
from exchange.access.view import ViewSpec, _plan, compile_view
from registry.codec import engine_for
from registry.parsing import parse
from schemas.access import Compare, Exists, MaskRule, Member, Not
from schemas.errors import CorruptError, InvalidError, Reason
from schemas.record import Packed, frame
from tests.kit.avro import POPULATION, encode, population

SEX = {"type": "enum", "name": "gov.Sex", "symbols": ["M", "F"], "zh": "性别"}
PERSON = {
    "type": "record",
    "name": "gov.person",
    "zh": "自然人",
    "key": ["id"],
    "fields": [
        {"name": "id", "type": "string", "zh": "号码", "level": "G4", "mask": "keep_3_4", "check": "cn_id18"},
        {"name": "name", "type": "string", "level": "G3", "codes": ["王小明", "李四"]},
        {"name": "ward", "type": "int", "level": "G1"},
        {"name": "sex", "type": SEX, "level": "G2"},
        {"name": "partner_sex", "type": ["null", "gov.Sex"], "default": None, "level": "G2"},
    ],
}


def person(**changed):
    value = {"id": "11010519491231002X", "name": "王小明", "ward": 6, "sex": "M", "partner_sex": (0, None)}
    return value | changed


def derived(schema, fields, masks=(), name="view.g1.v1"):
    return json.loads(derive_schema(parse(json.dumps(schema)), fields, masks, name))


def view(resource, fields, writers, *, masks=(), row_filter=None, output_id=9):
    text = json.dumps(resource)
    output = derive_schema(parse(text), fields, masks, "view.g1.v1")
    spec = ViewSpec(output=output, output_id=output_id, masks=tuple(masks), row_filter=row_filter, resource=text)
    compiled = compile_view(spec, {id_: parse(json.dumps(writer)) for id_, writer in writers.items()})
    return compiled, engine_for(parse(output))


def delivered(resource, fields, writers, rows, **more):
    compiled, engine = view(resource, fields, writers, **more)
    result = compiled.apply(Packed.of(rows))
    assert result.alarm == ""
    return engine.decode([value[5:] for value in result.values]).to_pylist(), list(result.states)


def record(name, *fields):
    return {"type": "record", "name": name, "fields": [{"name": n, "type": t, **dict(more)} for n, t, *more in fields]}


def refused(reason, call, kind=InvalidError):
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.reason is reason
    return str(caught.value)


# --- the output schema ----------------------------------------------------------------------------------------------


def test_the_view_s_schema_has_the_granted_fields_in_the_grant_s_order_with_their_attributes():
    schema = derived(PERSON, ("sex", "id", "name"), [("name", "name_first")])
    assert [field["name"] for field in schema["fields"]] == ["sex", "id", "name"]
    assert (schema["name"], schema["zh"]) == ("view.g1.v1", "自然人")
    sex, id_, name = schema["fields"]
    assert sex["type"]["symbols"] == ["M", "F"]
    assert {key: id_[key] for key in ("zh", "level", "mask")} == {"zh": "号码", "level": "G4", "mask": "keep_3_4"}
    assert (name["masked"], name["level"]) == ("name_first", "G3")


def test_a_field_with_the_mask_drop_is_absent():
    schema = derived(PERSON, ("id", "name"), [("id", "drop")])
    assert [field["name"] for field in schema["fields"]] == ["name"]


def test_a_view_does_not_claim_rules_that_its_values_do_not_keep():
    schema = derived(PERSON, ("id", "name"), [("id", "keep_3_4"), ("name", "name_first")])
    assert "key" not in schema
    assert not any({"check", "codes"} & field.keys() for field in schema["fields"])
    assert derived(PERSON, ("id", "ward"))["key"] == ["id"]
    assert "key" not in derived(PERSON, ("ward",))


def test_a_rule_that_looks_at_a_field_outside_of_the_grant_does_not_spoil_the_view():
    assert derived(POPULATION, ("id_number",))["fields"][0]["name"] == "id_number"


def test_a_named_type_stands_in_full_once_whatever_its_namespace():
    schema = derived(PERSON, ("partner_sex", "sex"))
    assert schema["fields"][0]["type"][1]["symbols"] == ["M", "F"]
    assert schema["fields"][1]["type"] == "gov.Sex"
    bare = json.loads(json.dumps(PERSON).replace("gov.", ""))
    assert derived(bare, ("partner_sex", "sex"), name="view.g1.v1")["fields"][1]["type"] == "view.g1.Sex"
    assert derived(bare, ("partner_sex", "sex"), name="view")["fields"][1]["type"] == "Sex"


@pytest.mark.parametrize(
    ("fields", "masks", "reason"),
    [
        (("salary",), (), Reason.FIELD_UNKNOWN),
        (("id",), (("name", "drop"),), Reason.FIELD_UNKNOWN),
        (("id",), (("id", "blur"),), Reason.MASK_UNKNOWN),
        (("ward",), (("ward", "keep_3_4"),), Reason.MASK_UNKNOWN),
        (("sex",), (("sex", "name_first"),), Reason.MASK_UNKNOWN),
        (("id", "id"), (), Reason.REQUEST_INVALID),
        (("id",), (("id", "drop"), ("id", "none")), Reason.REQUEST_INVALID),
        (("id",), (("id", "drop"),), Reason.REQUEST_INVALID),
        ((), (), Reason.REQUEST_INVALID),
    ],
)
def test_a_grant_that_makes_no_view_is_refused(fields, masks, reason):
    refused(reason, lambda: derived(PERSON, fields, masks))


@pytest.mark.parametrize("inner", [["null", "gov.person"], {"type": "array", "items": "gov.person"}])
def test_a_field_that_holds_the_whole_record_again_cannot_be_granted(inner):
    schema = {**PERSON, "fields": [*PERSON["fields"], {"name": "parent", "type": inner}]}
    refused(Reason.SCHEMA_UNSAFE, lambda: derived(schema, ("ward", "parent")))
    rows = [frame(1, encode(schema, {**person(), "parent": (0, None) if isinstance(inner, list) else []}))] * 40
    got, _ = delivered(schema, ("ward",), {1: schema}, rows)
    assert got == [{"ward": 6}] * 40


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


# --- rows -----------------------------------------------------------------------------------------------------------


def test_a_filter_may_look_at_a_field_that_is_not_granted():
    rows = [frame(1, encode(PERSON, person(ward=ward))) for ward in (6, 7)] * 20
    got, states = delivered(PERSON, ("name",), {1: PERSON}, rows, row_filter=Compare("eq", "ward", 6))
    assert got == [{"name": "王小明"}] * 20
    assert states == [1, 0] * 20


@pytest.mark.parametrize(
    ("row_filter", "kept"),
    [
        (Compare("eq", "b", 1), False),
        (Not(Compare("eq", "b", 1)), False),
        (Not(Member("b", (2,))), False),
        (Exists("b"), False),
        (Not(Exists("b")), True),
    ],
)
def test_a_filter_s_field_that_the_writer_lacks_is_missing_whatever_its_default(row_filter, kept):
    new = record("r", ("a", "int"), ("b", "int", ("default", 1)))
    got, _ = delivered(new, ("a", "b"), {1: record("r", ("a", "int"))}, [frame(1, b"\x02")], row_filter=row_filter)
    assert got == ([{"a": 1, "b": 1}] if kept else [])


def test_a_filter_sees_an_older_type_as_the_newer_one():
    new = record("r", ("a", "long"))
    row_filter = Not(Compare("eq", "a", 2**40))
    got, _ = delivered(new, ("a",), {1: record("r", ("a", "int"))}, [frame(1, b"\x02")], row_filter=row_filter)
    assert got == [{"a": 1}]


def test_versions_voids_and_rows_that_do_not_match_keep_their_places():
    new = record("r", ("b", "string", ("default", "-")), ("a", "long"))
    old = record("r", ("a", "int"))
    rows = []
    for number in range(200):
        values = [frame(1, encode(old, {"a": number})), frame(2, encode(new, {"a": number, "b": "n"})), None]
        rows.append(values[number * 7 % 3])
    compiled, engine = view(new, ("a", "b"), {1: old, 2: new}, row_filter=Not(Member("a", (10, 20, 30))))
    result = compiled.apply(rows)
    assert compiled.apply(Packed.of(rows)) == result
    got = engine.decode([value[5:] for value in result.values]).to_pylist()
    kept = [number for number in range(200) if rows[number] is not None and number not in (10, 20, 30)]
    assert [row["a"] for row in got] == kept
    assert [row["b"] for row in got] == ["-n"[number * 7 % 3] for number in kept]
    assert result.kept.nonzero()[0].tolist() == kept
    assert result.voids.nonzero()[0].tolist() == [number for number in range(200) if rows[number] is None]


@pytest.mark.parametrize("rows", [[], [b""], [b"", None, b""]])
def test_nothing_in_nothing_out(rows):
    compiled, _ = view(PERSON, ("id",), {1: PERSON})
    result = compiled.apply(rows)
    assert (len(result.values), result.values, list(result.states)) == (0, Packed.of([]), [2] * len(rows))


@pytest.mark.parametrize("count", [1, 40])
def test_a_batch_of_which_nothing_matches(count):
    rows = [frame(1, encode(PERSON, person()))] * count
    compiled, _ = view(PERSON, ("id",), {1: PERSON}, row_filter=Compare("eq", "ward", 5))
    result = compiled.apply(rows)
    assert (list(result.values), list(result.states)) == ([], [0] * count)


def test_a_frame_that_names_no_writer_is_refused():
    compiled, _ = view(PERSON, ("id",), {1: PERSON})
    assert "1" in refused(Reason.SCHEMA_UNKNOWN, lambda: compiled.apply([frame(2, b"")]))
    for row in (b"\0\0\0", b"\1\0\0\0\1x"):
        refused(Reason.RECORD_INVALID, lambda row=row: compiled.apply([row]))


@pytest.mark.parametrize("count", [1, 40])
def test_a_stored_value_that_is_not_of_its_schema_is_the_operator_s_business(count):
    compiled, _ = view(PERSON, ("ward",), {1: PERSON})
    rows = [frame(1, encode(PERSON, person()))] * (count - 1) + [frame(1, encode(PERSON, person()))[:-2]]
    message = refused(Reason.RECORD_INVALID, lambda: compiled.apply(rows), CorruptError)
    assert "11010519491231002X" not in message


@pytest.mark.parametrize("output_id", [1, 0x0000_807F, 0x0000_C0FF, 0x7FFF_FFFF])
@pytest.mark.parametrize("writer_id", [5, 0x0001_807F, 0x7F80_FFFF])
def test_an_id_whose_bytes_are_a_nan_survives(output_id, writer_id):
    rows = [frame(writer_id, encode(PERSON, person()))] * 40
    compiled, _ = view(PERSON, ("ward",), {writer_id: PERSON}, output_id=output_id)
    assert list(compiled.apply(Packed.of(rows)).values) == [frame(output_id, b"\x0c")] * 40


# --- engines and traps ----------------------------------------------------------------------------------------------


@pytest.fixture
def population_view():
    _plan.cache_clear()
    rng = random.Random(7)
    rows = [frame(1, encode(POPULATION, population(rng))) for _ in range(200)]
    masks = (("id_number", MaskRule.KEEP_3_4), ("full_name", MaskRule.NAME_FIRST), ("birth_date", MaskRule.YEAR_ONLY))
    fields = ("full_name", "id_number", "birth_date", "former_name")
    compiled, _ = view(
        POPULATION, fields, {1: POPULATION}, masks=masks, row_filter=Compare("eq", "household_division_code", "110105")
    )
    yield compiled, rows
    _plan.cache_clear()


def test_a_mask_that_blanks_a_field_that_may_not_be_null_delivers_nothing(population_view, monkeypatch):
    compiled, rows = population_view

    def blank(column):
        return pc.if_else(pa.repeat(pa.scalar(value=True), len(column)), None, column)

    plan = next(iter(compiled._plans.values()))
    for pipeline in (plan._main, plan._rows):
        shown = [
            each if each.name != "id_number" else each.__class__(**_fields(each) | {"mask": blank})
            for each in pipeline._shown
        ]
        monkeypatch.setattr(pipeline, "_shown", shown)
    message = refused(Reason.INTERNAL, lambda: compiled.apply(rows), CorruptError)
    assert "id_number" in message


def _fields(shown):
    return {name: getattr(shown, name) for name in shown.__slots__}


def test_the_population_view_uses_columns_and_shows_what_it_should(population_view):
    compiled, rows = population_view
    result = compiled.apply(rows)
    assert (result.engine, result.alarm) == ("columns", "")
    assert 0 < len(result.values) < 200
    for value in result.values:
        assert "**" in value.decode("utf-8", "replace")


@pytest.mark.parametrize("fault", ["bytes", "panic", "rows"])
def test_an_engine_that_differs_raises_an_alarm_and_is_not_used_again(population_view, monkeypatch, fault):
    compiled, rows = population_view
    right = compiled.apply(rows)
    plan = next(iter(compiled._plans.values()))
    monkeypatch.setattr(plan, "_batches", iter([SAMPLE]))
    honest = plan._main.run

    class PanicException(BaseException):
        pass

    def run(batch):
        values, kept = honest(batch)
        if fault == "bytes":
            return Packed(values.offsets, values.values[:-1] + b"!"), kept
        if fault == "rows":
            return values, ~kept
        raise PanicException("11010519491231002X")

    monkeypatch.setattr(plan._main, "run", run)
    wrong = compiled.apply(rows)
    assert wrong.alarm
    assert "11010519491231002X" not in wrong.alarm
    assert (wrong.values, wrong.states, wrong.engine) == (right.values, right.states, "rows")
    after = compiled.apply(rows)
    assert (after.values, after.engine, after.alarm) == (right.values, "rows", "")


def test_one_batch_in_a_thousand_and_the_first_go_through_both_engines(population_view, monkeypatch):
    compiled, rows = population_view
    plan = next(iter(compiled._plans.values()))
    both = []
    original = plan._rows.run
    monkeypatch.setattr(plan._rows, "run", lambda batch: both.append(1) or original(batch))
    one = rows[:1]
    for _ in range(SAMPLE + 1):
        compiled.apply(one)
    assert len(both) == 2


def test_a_view_is_compiled_once_for_a_grant_and_a_writer(population_view):
    _plan.cache_clear()
    for _ in range(3):
        view(PERSON, ("id",), {1: PERSON})
    view(PERSON, ("id",), {1: PERSON, 2: PERSON})
    assert _plan.cache_info().misses == 2
    assert _plan.cache_info().maxsize <= 1024


def test_every_mask_of_a_grant_is_applied_by_the_view(population_view):
    rows = [frame(1, encode(record("r", ("a", "string")), {"a": "110105194912"}))] * 40
    for rule, mask in MASKS.items():
        if "string" in mask.accepts:
            got, _ = delivered(
                record("r", ("a", "string")), ("a",), {1: record("r", ("a", "string"))}, rows, masks=((("a", rule)),)
            )
            assert got == [{"a": mask.apply(pa.array(["110105194912"]))[0].as_py()}] * 40
