"""What a view delivers, joint by joint; the whole is held against a naive one in tests/property."""

import json
import random

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from exchange.access.view.mask import MASKS
from exchange.access.view.plan import COMPARED_BATCHES
from exchange.access.view.view import _cached_plan
from schemas.access import Compare, Exists, MaskRule, Member, Not
from schemas.errors import CorruptError, Reason
from schemas.record import Packed, frame
from tests.kit.cases.random_avro import POPULATION, encode, population
from tests.kit.cases.views import PERSON, delivered, derived, person, record, refused, view

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
    _cached_plan.cache_clear()
    rng = random.Random(7)
    rows = [frame(1, encode(POPULATION, population(rng))) for _ in range(200)]
    masks = (("id_number", MaskRule.KEEP_3_4), ("full_name", MaskRule.NAME_FIRST), ("birth_date", MaskRule.YEAR_ONLY))
    fields = ("full_name", "id_number", "birth_date", "former_name")
    compiled, _ = view(
        POPULATION, fields, {1: POPULATION}, masks=masks, row_filter=Compare("eq", "household_division_code", "110105")
    )
    yield compiled, rows
    _cached_plan.cache_clear()


def test_a_mask_that_blanks_a_field_that_may_not_be_null_delivers_nothing(population_view, monkeypatch):
    compiled, rows = population_view

    def blank(column):
        return pc.if_else(pa.repeat(pa.scalar(value=True), len(column)), None, column)

    plan = next(iter(compiled._plans.values()))
    for pipeline in (plan._pipeline, plan._row_pipeline):
        fields = [
            each if each.name != "id_number" else each.__class__(**_attributes(each) | {"mask": blank})
            for each in pipeline._fields
        ]
        monkeypatch.setattr(pipeline, "_fields", fields)
    message = refused(Reason.INTERNAL, lambda: compiled.apply(rows), CorruptError)
    assert "id_number" in message


def _attributes(field):
    return {name: getattr(field, name) for name in field.__slots__}


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
    monkeypatch.setattr(plan, "_batches", iter([COMPARED_BATCHES]))
    honest = plan._pipeline.run

    class PanicException(BaseException):
        pass

    def run(batch):
        values, kept = honest(batch)
        if fault == "bytes":
            return Packed(values.offsets, values.values[:-1] + b"!"), kept
        if fault == "rows":
            return values, ~kept
        raise PanicException("11010519491231002X")

    monkeypatch.setattr(plan._pipeline, "run", run)
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
    original = plan._row_pipeline.run
    monkeypatch.setattr(plan._row_pipeline, "run", lambda batch: both.append(1) or original(batch))
    one = rows[:1]
    for _ in range(COMPARED_BATCHES + 1):
        compiled.apply(one)
    assert len(both) == 2


def test_a_view_is_compiled_once_for_a_grant_and_a_writer(population_view):
    _cached_plan.cache_clear()
    for _ in range(3):
        view(PERSON, ("id",), {1: PERSON})
    view(PERSON, ("id",), {1: PERSON, 2: PERSON})
    assert _cached_plan.cache_info().misses == 2
    assert _cached_plan.cache_info().maxsize <= 1024


def test_every_mask_of_a_grant_is_applied_by_the_view(population_view):
    rows = [frame(1, encode(record("r", ("a", "string")), {"a": "110105194912"}))] * 40
    for rule, mask in MASKS.items():
        if "string" in mask.accepts:
            got, _ = delivered(
                record("r", ("a", "string")), ("a",), {1: record("r", ("a", "string"))}, rows, masks=((("a", rule)),)
            )
            assert got == [{"a": mask.apply(pa.array(["110105194912"]))[0].as_py()}] * 40


def test_a_view_compiled_for_true_is_not_taken_for_one_of_1():
    schema = record("r", ("flag", "boolean"))
    view(schema, ("flag",), {1: schema}, row_filter=Compare("eq", "flag", value=True))
    refused(Reason.FILTER_INVALID, lambda: view(schema, ("flag",), {1: schema}, row_filter=Compare("eq", "flag", 1)))


def test_a_batch_of_nan_does_not_raise_a_false_alarm():
    schema, signal = record("r", ("x", "float")), b"\x01\x00\xa0\x7f"
    compiled, _ = view(schema, ("x",), {1: schema})
    result = compiled.apply(Packed.of([frame(1, signal)] * 40))  # the first batch goes through both engines
    assert (result.engine, result.alarm) == ("columns", "")
    assert set(result.values) == {frame(9, signal)}
