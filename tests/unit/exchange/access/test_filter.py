"""Row filters: their JSON, what is refused, and the three-valued logic on columns."""

import itertools
import json
from decimal import Decimal

import pyarrow as pa
import pytest

from exchange.access.view.filter import (
    MAX_DEPTH,
    MAX_NODES,
    MAX_TEXT,
    MAX_VALUES,
    compile_filter,
    fields_of,
    filter_from_json,
    filter_from_text,
    filter_to_json,
    filter_to_text,
    validate,
)
from exchange.access.view.filter_literal import comparison_of
from registry.avro.parser import parse
from registry.avro.type_tree import arrow_type
from schemas.access import AllOf, AnyOf, Compare, Exists, Member, Not, Prefix, Range
from schemas.errors import InvalidError, Reason

DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}
TYPES = {
    "text": "string",
    "maybe": ["null", "string"],
    "flag": "boolean",
    "small": "int",
    "large": "long",
    "single": "float",
    "double": "double",
    "amount": DECIMAL,
    "sex": {"type": "enum", "name": "Sex", "symbols": ["M", "F"]},
    "born": {"type": "int", "logicalType": "date"},
    "clock": {"type": "int", "logicalType": "time-millis"},
    "seen": {"type": "long", "logicalType": "timestamp-millis"},
    "nanos": {"type": "long", "logicalType": "timestamp-nanos"},
    "local": {"type": "long", "logicalType": "local-timestamp-micros"},
    "raw": "bytes",
    "many": {"type": "array", "items": "int"},
    "either": ["null", "int", "string"],
    "both": ["int", "string"],
}
SCHEMA = parse(
    json.dumps({"type": "record", "name": "T", "fields": [{"name": n, "type": t} for n, t in TYPES.items()]})
)
KINDS = {field.name: comparison_of(field.type_tree) for field in SCHEMA.fields}


def outcome(row_filter, field, values, present=True):
    """Return the filter's answers for a column of these values: True, False or None."""
    column = values if isinstance(values, pa.Array) else pa.array(values, arrow_type(TYPES[field]))
    batch = pa.RecordBatch.from_arrays([column], [field if present else "other"])
    present_fields = frozenset({field}) if present else frozenset()
    return compile_filter(row_filter, KINDS, present_fields)(batch).to_pylist()


def refused(call, *words):
    with pytest.raises(InvalidError) as caught:
        call()
    assert caught.value.reason is Reason.FILTER_INVALID
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


EVERY_FORM = AllOf(
    (
        Compare("eq", "text", "王"),
        Compare("ne", "flag", value=True),
        Member("small", (1, 2)),
        AnyOf((Range("born", "1990-01-01", None), Prefix("text", "1101"))),
        Not(Exists("maybe")),
    )
)


def test_a_filter_survives_its_json():
    assert filter_from_text(filter_to_text(EVERY_FORM)) == EVERY_FORM
    assert filter_from_json(filter_to_json(EVERY_FORM)) == EVERY_FORM


def test_the_text_is_canonical():
    assert filter_to_text(Compare("eq", "b", "王")) == '{"field":"b","op":"eq","value":"王"}'
    shuffled = '{ "value": 6, "op" : "eq", "field": "ward" }'
    assert filter_to_text(filter_from_text(shuffled)) == '{"field":"ward","op":"eq","value":6}'


def test_the_fields_of_a_filter_are_those_it_looks_at():
    assert fields_of(EVERY_FORM) == {"text", "flag", "small", "born", "maybe"}
    assert fields_of(None) == frozenset()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "6",
        '"eq"',
        "null",
        '{"op":"like","field":"a","value":"b%"}',
        '{"op":["eq"],"field":"a","value":1}',
        '{"op":"eq","field":"a"}',
        '{"op":"eq","field":"a","value":1,"note":"x"}',
        '{"op":"eq","field":1,"value":1}',
        '{"op":"eq","field":"a","value":1.5}',
        '{"op":"eq","field":"a","value":null}',
        '{"op":"eq","field":"a","value":[1]}',
        '{"op":"in","field":"a","values":[]}',
        '{"op":"in","field":"a","values":[null]}',
        '{"op":"in","field":"a","values":"abc"}',
        '{"op":"range","field":"a","low":null,"high":null}',
        '{"op":"prefix","field":"a","value":""}',
        '{"op":"prefix","field":"a","value":1}',
        '{"op":"and","parts":[]}',
        '{"op":"or","parts":{}}',
        '{"op":"not","part":null}',
        '{"op":"eq","field":"a","value":"\\ud800"}',
        "[" * 100_000,
    ],
)
def test_what_is_no_filter_is_refused_with_what_is_expected(text):
    refused(lambda: filter_from_text(text), "expected")


def deep(levels):
    row_filter = Exists("text")
    for _ in range(levels - 1):
        row_filter = Not(row_filter)
    return row_filter


@pytest.mark.parametrize(
    ("fits", "too_much"),
    [
        (deep(MAX_DEPTH), deep(MAX_DEPTH + 1)),
        (AllOf((Exists("text"),) * (MAX_NODES - 1)), AllOf((Exists("text"),) * MAX_NODES)),
        (Member("text", ("a",) * MAX_VALUES), Member("text", ("a",) * (MAX_VALUES + 1))),
        (Compare("eq", "text", "x" * MAX_TEXT), Compare("eq", "text", "x" * (MAX_TEXT + 1))),
    ],
)
def test_a_filter_has_limits(fits, too_much):
    validate(fits, KINDS)
    filter_from_json(filter_to_json(fits))
    refused(lambda: validate(too_much, KINDS))
    refused(lambda: filter_from_json(filter_to_json(too_much)))


def test_a_filter_nested_without_end_is_refused_before_it_is_read():
    refused(lambda: filter_from_text('{"op":"not","part":' * 100_000 + "1" + "}" * 100_000))


def test_a_field_that_does_not_exist_is_refused():
    refused(lambda: validate(Exists("salary"), KINDS), "salary")


LITERALS = {
    "text": (["", "a", "2024"], [1, True]),
    "flag": ([True, False], ["true", 1, 0]),
    "small": ([0, -(2**31), 2**31 - 1, "7", "-7"], [2**31, -(2**31) - 1, True, "07", "1.0", "1e3", "x", "", "１"]),
    "large": ([2**53 - 1, str(2**63 - 1), "9007199254740993"], [2**53, -(2**53), "9223372036854775808", "0x1", "+1"]),
    "single": ([1, "0.1", "-2.50", 16_777_216], [16_777_217, "nan", "inf", "1e5", "9" * 60, True]),
    "double": ([2**53 - 1, "0.1", str(2**53)], [2**53, "9" * 400, "NaN", "-inf"]),
    "amount": (["12.34", "12.340", 9999, "-9999.99", "0"], ["12.345", 10_000, "10000.00", "1,5", True]),
    "sex": (["M"], ["X", "m", 0]),
    "born": (["2024-02-29", "0001-01-01"], ["2023-02-29", "2024-2-9", "20240229", 19_000, "2024-02-29T00:00:00"]),
    "clock": (["00:00:00", "23:59:59.999"], ["24:00:00", "23:59:60", "12:00", "12:00:00.0001", "12:00:00Z"]),
    "seen": (
        ["2024-02-29T08:30:00+08:00", "2024-02-29T08:30:00.123Z"],
        [
            "2024-02-29T08:30:00",
            "2024-02-29",
            "2024-02-29T08:30:00.1234Z",
            "2024-02-29T08:30:00+8",
            "2024-02-30T00:00:00Z",
        ],
    ),
    "nanos": (["2024-02-29T08:30:00.123456789Z"], ["2500-01-01T00:00:00Z"]),
    "local": (["2024-02-29T08:30:00.123456"], ["2024-02-29T08:30:00Z"]),
}


@pytest.mark.parametrize(("field", "literal"), [(f, x) for f, (good, _) in LITERALS.items() for x in good])
def test_a_literal_that_fits_its_field_is_accepted(field, literal):
    validate(Compare("eq", field, literal), KINDS)


@pytest.mark.parametrize(("field", "literal"), [(f, x) for f, (_, bad) in LITERALS.items() for x in bad])
def test_a_literal_that_does_not_fit_its_field_is_refused(field, literal):
    refused(lambda: validate(Compare("eq", field, literal), KINDS), field, "expects")
    refused(lambda: validate(Not(Member(field, (literal,))), KINDS))


def test_a_refusal_does_not_repeat_the_literal():
    message = refused(lambda: validate(Compare("eq", "small", "110101199003071234"), KINDS))
    assert "110101199003071234" not in message


@pytest.mark.parametrize("field", ["raw", "many", "either", "both"])
def test_of_a_nested_or_binary_field_one_can_only_ask_whether_it_is_there(field):
    validate(Exists(field), KINDS)
    refused(lambda: validate(Compare("eq", field, "a"), KINDS), "exists")


@pytest.mark.parametrize(("form", "field"), [(Prefix("small", "1"), "small"), (Range("sex", "F", "M"), "sex")])
def test_a_form_that_the_type_does_not_know_is_refused(form, field):
    refused(lambda: validate(form, KINDS), field, "expects")


@pytest.mark.parametrize(("low", "high"), [("2024-01-02", "2024-01-02"), ("2024-01-02", "2024-01-01")])
def test_a_range_that_holds_nothing_is_refused(low, high):
    refused(lambda: validate(Range("born", low, high), KINDS), "holds nothing")


# --- the logic ----------------------------------------------------------------------------------------------------

T, F, U = True, False, None
ATOM = {T: Compare("eq", "maybe", "a"), F: Compare("eq", "maybe", "b"), U: Compare("eq", "sex", "M")}


def tree(*states):
    """Return atoms that, over one row with maybe = "a" and a null enum, are true, false and unknown."""
    return tuple(ATOM[state] for state in states)


@pytest.mark.parametrize(("left", "right"), list(itertools.product([T, F, U], repeat=2)))
def test_and_or_and_not_follow_kleene(left, right):
    batch = pa.RecordBatch.from_arrays(
        [pa.array(["a"]), pa.array([None], arrow_type(TYPES["sex"]))],
        ["maybe", "sex"],
    )

    def answer(row_filter):
        return compile_filter(row_filter, KINDS, frozenset({"maybe", "sex"}))(batch).to_pylist()[0]

    conjunction = F if F in (left, right) else U if U in (left, right) else T
    disjunction = T if T in (left, right) else U if U in (left, right) else F
    assert answer(AllOf(tree(left, right))) is conjunction
    assert answer(AnyOf(tree(left, right))) is disjunction
    assert answer(Not(ATOM[left])) is (None if left is None else not left)


@pytest.mark.parametrize(
    "row_filter",
    [
        Compare("eq", "maybe", "a"),
        Compare("ne", "maybe", "a"),
        Member("maybe", ("a",)),
        Range("maybe", "a", None),
        Range("maybe", None, "z"),
        Range("maybe", "a", "z"),
        Prefix("maybe", "a"),
    ],
)
def test_a_comparison_with_null_is_unknown_and_so_is_its_negation(row_filter):
    assert outcome(row_filter, "maybe", ["a", None])[1] is None
    assert outcome(Not(row_filter), "maybe", ["a", None])[1] is None
    assert outcome(row_filter, "maybe", ["a", "a"], present=False) == [None, None]
    assert outcome(Not(row_filter), "maybe", ["a", "a"], present=False) == [None, None]


def test_exists_is_never_unknown():
    assert outcome(Exists("maybe"), "maybe", ["a", None, ""]) == [True, False, True]
    assert outcome(Not(Exists("maybe")), "maybe", ["a", None, ""]) == [False, True, False]
    assert outcome(Exists("maybe"), "maybe", ["a"], present=False) == [False]


def test_exists_of_a_union_asks_for_its_branch():
    def union(branches):
        children = [pa.nulls(2), pa.array([1, 2], pa.int32()), pa.array(["a", "b"])][-branches:]
        names = [f"b{place}" for place in range(branches)]
        return pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), children, names)

    assert outcome(Exists("either"), "either", union(3)) == [False, True]
    assert outcome(Exists("both"), "both", union(2)) == [True, True]


@pytest.mark.parametrize("field", ["single", "double"])
def test_nan_compares_with_nothing_but_is_there(field):
    nan = float("nan")
    for row_filter in (Compare("eq", field, 1), Compare("ne", field, 1), Range(field, 0, None), Member(field, (1, 2))):
        assert outcome(row_filter, field, [nan, None]) == [None, None]
        assert outcome(Not(row_filter), field, [nan, None]) == [None, None]
    assert outcome(Exists(field), field, [nan, None]) == [True, False]


@pytest.mark.parametrize("field", ["single", "double"])
@pytest.mark.parametrize("literal", [0, "0.0", "-0"])
def test_zero_has_no_sign(field, literal):
    assert outcome(Member(field, (literal,)), field, [-0.0, 0.0, 1.0]) == [True, True, False]
    assert outcome(Compare("eq", field, literal), field, [-0.0, 0.0, 1.0]) == [True, True, False]


def test_a_float_equals_the_decimal_text_that_it_was_written_as():
    assert outcome(Compare("eq", "single", "0.1"), "single", [0.1, 0.25]) == [True, False]
    assert outcome(Compare("eq", "double", "0.1"), "double", [0.1, 0.25]) == [True, False]


def test_a_long_is_compared_exactly_beyond_2_53():
    column = [2**53, 2**53 + 1, 2**53 + 2]
    assert outcome(Compare("eq", "large", str(2**53 + 1)), "large", column) == [False, True, False]
    assert outcome(Member("large", (str(2**53 + 1),)), "large", column) == [False, True, False]
    assert outcome(Range("large", None, str(2**53 + 1)), "large", column) == [True, False, False]


def test_a_decimal_is_compared_by_value():
    column = [Decimal("1.50"), Decimal("-0.01"), None]
    assert outcome(Compare("eq", "amount", "1.5"), "amount", column) == [True, False, None]
    assert outcome(Member("amount", ("1.500", 7)), "amount", column) == [True, False, None]
    assert outcome(Range("amount", "-0.01", 1), "amount", column) == [False, True, None]


def test_an_enum_is_compared_by_its_symbol():
    column = pa.array(["F", "M", None], arrow_type(TYPES["sex"]))
    symbols = pa.DictionaryArray.from_arrays(pa.array([1, 0, None], pa.int32()), pa.array(["M", "F"]))
    assert column.to_pylist() == symbols.to_pylist()
    assert outcome(Compare("eq", "sex", "F"), "sex", symbols) == [True, False, None]
    assert outcome(Not(Member("sex", ("F",))), "sex", symbols) == [False, True, None]


def test_a_date_is_compared_as_a_day():
    column = pa.array([-1, 0, 1, None], pa.int32()).cast(pa.date32())
    assert outcome(Range("born", "1970-01-01", "1970-01-02"), "born", column) == [False, True, False, None]
    assert outcome(Compare("eq", "born", "1969-12-31"), "born", column) == [True, False, False, None]


def test_a_timestamp_is_compared_as_an_instant():
    column = pa.array([0, -500], pa.int64()).cast(arrow_type(TYPES["seen"]))
    assert outcome(Compare("eq", "seen", "1970-01-01T08:00:00+08:00"), "seen", column) == [True, False]
    assert outcome(Compare("eq", "seen", "1969-12-31T23:59:59.5Z"), "seen", column) == [False, True]
    local = pa.array([0, 1], pa.int64()).cast(arrow_type(TYPES["local"]))
    assert outcome(Compare("eq", "local", "1970-01-01T00:00:00.000001"), "local", local) == [False, True]
    clock = pa.array([0, 86_399_999], pa.int32()).cast(arrow_type(TYPES["clock"]))
    assert outcome(Compare("eq", "clock", "23:59:59.999"), "clock", clock) == [False, True]


def test_text_is_ordered_by_code_point_and_its_prefix_is_whole_characters():
    column = ["\uffff", "\U00010000", "王小", "王", "z"]
    assert outcome(Range("text", "\U00010000", None), "text", column) == [False, True, False, False, False]
    assert outcome(Prefix("text", "王"), "text", column) == [False, False, True, True, False]
    assert outcome(Prefix("text", "王小"), "text", column) == [False, False, True, False, False]


def test_true_and_false():
    assert outcome(Compare("ne", "flag", value=True), "flag", [True, False]) == [False, True]
    assert outcome(Member("flag", (True, False)), "flag", [True, False]) == [True, True]
