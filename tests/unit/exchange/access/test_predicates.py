"""What a registered predicate answers, on which day, and what it does not tell."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.access.predicates.evaluation import (
    LIBRARIES,
    Answer,
    age_on,
    check_expression,
    compile_predicate,
    source_fields,
    today_in_china,
)
from exchange.access.predicates.model import (
    PredicateState,
    RegisteredPredicate,
    check_predicate,
    definition,
    shared_fields,
)
from exchange.access.view.filter import compile_filter, filter_from_json
from exchange.access.view.filter_literal import comparison_of
from registry.avro.parser import parse
from schemas import library
from schemas.access import AllOf, Compare, Exists, Not, Range, RowFilter
from schemas.errors import ConflictError, InvalidError, Reason

ALIVE_80: RowFilter = AllOf((Range("age", 80, None), Compare("eq", "death_flag", value=False)))
VALID: RowFilter = AllOf((Compare("eq", "licence_status", "valid"), Compare("eq", "valid_now", value=True)))
NOW = datetime(2026, 12, 1, tzinfo=UTC)
TYPES = {
    "birth_date": pa.date32(),
    "death_flag": pa.bool_(),
    "death_date": pa.date32(),
    "valid_from_date": pa.date32(),
    "valid_to_date": pa.date32(),
}
(_licence_status,) = (one for one in parse(library.text("e_licence")).fields if one.name == "licence_status")
STATUS = pa.DictionaryArray.from_arrays(
    pa.array(range(len(_licence_status.type_tree.symbols)), pa.int32()), [*_licence_status.type_tree.symbols]
)


def a_predicate(**changes: Any) -> RegisteredPredicate:
    plain = RegisteredPredicate(
        id="0198c0de-0000-7000-8000-000000000001",
        name="alive-80",
        version=1,
        library="population",
        expression=ALIVE_80,
        answers="年满八十周岁且健在",
        replaces=("CERT-0031",),
        proposed_by="one",
        proposed_at=NOW,
    )
    return replace(plain, **changes)


def answer(
    expression: RowFilter, today: date, *, of: str = "population", unsure: tuple[str, ...] = (), **record: Any
) -> Answer:
    arrays = [
        pa.array([value], TYPES[name]) if name in TYPES else STATUS.take(pa.array([value], pa.int32()))
        for name, value in record.items()
    ]
    batch = pa.RecordBatch.from_arrays(arrays, [*record])
    (found,) = compile_predicate(of, expression).answers(batch, today=today, unsure=[unsure])
    return found


def test_who_is_80_is_so_from_midnight_of_the_birthday_in_shanghai() -> None:
    born = {"birth_date": date(1946, 12, 2), "death_flag": False}
    midnight = datetime(2026, 12, 1, 16, 0, tzinfo=UTC)  # 00:00 in Asia/Shanghai
    before, after = today_in_china(midnight - timedelta(microseconds=1)), today_in_china(midnight)
    assert (before, after) == (date(2026, 12, 1), date(2026, 12, 2))
    assert answer(ALIVE_80, before, **born) is Answer.NO
    assert answer(ALIVE_80, after, **born) is Answer.YES


def test_who_was_born_on_29_february_completes_a_year_on_1_march_where_there_is_no_such_day() -> None:
    born = {"birth_date": date(1944, 2, 29), "death_flag": False}
    assert [answer(ALIVE_80, date(2024, 2, day), **born) for day in (28, 29)] == [Answer.NO, Answer.YES]
    leap = date(1948, 2, 29)
    assert [age_on(leap, day) for day in (date(2026, 2, 28), date(2026, 3, 1))] == [77, 78]


@given(st.dates(date(1850, 1, 1), date(2030, 12, 31)), st.dates(date(1850, 1, 1), date(2030, 12, 31)))
def test_an_age_rises_by_one_a_year_and_never_falls(birth: date, day: date) -> None:
    age = age_on(birth, day)
    assert age_on(birth, day + timedelta(days=1)) in {age, age + 1}
    next_year = day.replace(year=day.year + 1, day=min(day.day, 28) if day.month == 2 else day.day)
    assert age_on(birth, next_year) - age in ({1} if (day.month, day.day) != (2, 29) else {0, 1})
    assert (age < 0) == (day < birth)


@pytest.mark.parametrize(
    ("record", "unsure", "expected"),
    [
        ({"birth_date": date(1940, 1, 1), "death_flag": False}, (), Answer.YES),
        ({"birth_date": date(1940, 1, 1), "death_flag": True}, (), Answer.NO),
        ({"birth_date": date(1940, 1, 1), "death_flag": None}, (), Answer.UNKNOWN),
        ({"birth_date": None, "death_flag": False}, (), Answer.UNKNOWN),
        ({"birth_date": None, "death_flag": True}, (), Answer.NO),
        ({"birth_date": date(1940, 1, 1)}, (), Answer.UNKNOWN),
        ({"death_flag": True}, (), Answer.NO),
        ({"birth_date": date(1940, 1, 1), "death_flag": False}, ("birth_date",), Answer.UNKNOWN),
        ({"birth_date": date(1940, 1, 1), "death_flag": True}, ("birth_date",), Answer.NO),
        ({"birth_date": date(1940, 1, 1), "death_flag": False}, ("full_name",), Answer.YES),
    ],
)
def test_no_needs_a_positive_fact(record: dict[str, Any], unsure: tuple[str, ...], expected: Answer) -> None:
    assert answer(ALIVE_80, date(2026, 12, 1), unsure=unsure, **record) is expected


def test_that_a_value_is_missing_is_unknown_where_it_is_unsure() -> None:
    alive = Not(Exists("death_date"))
    today = date(2026, 12, 1)
    assert answer(alive, today, death_date=None) is Answer.YES
    assert answer(alive, today, death_date=date(2020, 1, 1)) is Answer.NO
    assert answer(alive, today, death_date=None, unsure=("death_date",)) is Answer.UNKNOWN


@pytest.mark.parametrize(
    ("since", "until", "unsure", "expected"),
    [
        (date(2026, 1, 1), date(2026, 12, 1), (), Answer.YES),
        (date(2026, 1, 1), date(2026, 11, 30), (), Answer.NO),
        (date(2026, 12, 2), None, (), Answer.NO),
        (date(2026, 12, 1), None, (), Answer.YES),
        (date(2026, 1, 1), None, ("valid_to_date",), Answer.UNKNOWN),
        (None, date(2026, 12, 31), (), Answer.UNKNOWN),
    ],
)
def test_a_licence_is_valid_from_its_first_day_to_its_last(
    since: date | None, until: date | None, unsure: tuple[str, ...], expected: Answer
) -> None:
    dates = {"valid_from_date": since, "valid_to_date": until, "licence_status": 0}
    assert answer(VALID, date(2026, 12, 1), of="e-licence", unsure=unsure, **dates) is expected


def test_days_to_a_date_count_from_today() -> None:
    soon = Range("days_to:valid_to_date", 0, 181)
    today = date(2026, 12, 1)
    for days, expected in ((-1, Answer.NO), (0, Answer.YES), (180, Answer.YES), (181, Answer.NO)):
        assert answer(soon, today, of="e-licence", valid_to_date=today + timedelta(days=days)) is expected
    assert answer(soon, today, of="e-licence", valid_to_date=None) is Answer.UNKNOWN


plain_rows = st.lists(
    st.tuples(st.none() | st.dates(date(1900, 1, 1), date(2030, 1, 1)), st.none() | st.booleans()),
    min_size=1,
    max_size=8,
)
leaves = st.one_of(
    st.builds(lambda low: Range("birth_date", low.isoformat(), None), st.dates(date(1900, 1, 1), date(2030, 1, 1))),
    st.builds(lambda op, value: Compare(op, "death_flag", value), st.sampled_from(["eq", "ne"]), st.booleans()),
    st.sampled_from([Exists("birth_date"), Exists("death_flag")]),
)
expressions = st.recursive(
    leaves,
    lambda inner: (
        st.builds(lambda parts: AllOf(tuple(parts)), st.lists(inner, min_size=1, max_size=3)) | st.builds(Not, inner)
    ),
    max_leaves=6,
)


@given(expressions, plain_rows)
def test_without_derived_fields_a_predicate_is_the_row_filter(
    expression: RowFilter, some: list[tuple[date | None, bool | None]]
) -> None:
    arrays = [pa.array([row[0] for row in some], pa.date32()), pa.array([row[1] for row in some], pa.bool_())]
    batch = pa.RecordBatch.from_arrays(arrays, ["birth_date", "death_flag"])
    fields = {field.name: comparison_of(field.type_tree) for field in parse(library.text("population")).fields}
    theirs = compile_filter(expression, fields, frozenset({"birth_date", "death_flag"}))(batch).to_pylist()
    ours = compile_predicate("population", expression).answers(batch, today=date(2026, 12, 1))
    assert [{Answer.YES: True, Answer.NO: False, Answer.UNKNOWN: None}[one] for one in ours] == theirs


@given(expressions, plain_rows, st.sets(st.sampled_from(["birth_date", "death_flag"])))
def test_doubt_never_turns_an_answer_into_the_other_one(
    expression: RowFilter, some: list[tuple[date | None, bool | None]], unsure: set[str]
) -> None:
    arrays = [pa.array([row[0] for row in some], pa.date32()), pa.array([row[1] for row in some], pa.bool_())]
    batch = pa.RecordBatch.from_arrays(arrays, ["birth_date", "death_flag"])
    compiled = compile_predicate("population", expression)
    sure = compiled.answers(batch, today=date(2026, 12, 1))
    doubted = compiled.answers(batch, today=date(2026, 12, 1), unsure=[unsure] * len(some))
    assert all(one in {other, Answer.UNKNOWN} for one, other in zip(doubted, sure, strict=True))


@pytest.mark.parametrize(
    ("of", "expression"),
    [
        ("population", Range("age", "eighty", None)),
        ("population", Compare("eq", "valid_now", value=True)),
        ("population", Range("days_to:full_name", 0, 9)),
        ("population", Range("days_to:", 0, 9)),
        ("population", Compare("eq", "income", 9)),
        ("legal-entity", Range("age", 18, None)),
        ("e-licence", Range("days_to:nothing", 0, 9)),
    ],
)
def test_an_expression_that_does_not_suit_its_library_is_refused(of: str, expression: RowFilter) -> None:
    with pytest.raises(InvalidError) as refused:
        check_expression(of, expression)
    assert refused.value.reason is Reason.FILTER_INVALID


def test_a_library_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidError, match="expected one of population"):
        check_expression("income", ALIVE_80)
    assert all(parse(library.text(name)).fields for name in LIBRARIES.values())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "Alive 80"}, "a name of small letters"),
        ({"answers": " "}, "`answers` in words"),
        ({"answers": "年" * 201}, "`answers` in words"),
        ({"replaces": ("CERT-1", "CERT-1")}, "each once"),
        ({"replaces": ("证明 1",)}, "codes of certificates"),
    ],
)
def test_a_predicate_that_breaks_a_rule_is_told_what_was_expected(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidError, match=expected):
        check_predicate(a_predicate(**changes))
    check_predicate(a_predicate())


def test_what_is_decided_stays_decided() -> None:
    confirmed = a_predicate().decide(confirmed=True, by="two", at=NOW)
    assert confirmed.state is PredicateState.CONFIRMED
    assert definition(confirmed) == definition(a_predicate())
    with pytest.raises(ConflictError):
        confirmed.decide(confirmed=False, by="two", at=NOW)


def test_predicates_that_bracket_one_value_are_found() -> None:
    older = a_predicate(name="alive-90", expression=Range("age", 90, None))
    born = a_predicate(name="born", expression=filter_from_json({"op": "exists", "field": "birth_date"}))
    other = a_predicate(name="dead", expression=Compare("eq", "death_flag", value=True))
    assert source_fields(ALIVE_80) == {"birth_date", "death_flag"}
    assert shared_fields((older, other)) == frozenset()
    assert shared_fields((older, born)) == {"birth_date"}
    assert shared_fields((a_predicate(), older, other)) == {"birth_date", "death_flag"}
