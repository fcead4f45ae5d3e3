"""Rules of a library as data: canonical text, refusals that name their place, leads."""

import json
from datetime import date
from typing import Any

import pytest

from exchange.hub.fold.fold import derived
from exchange.hub.fold.normalise import normaliser
from exchange.hub.fold.rules import Rules, leads_that_differ, parse, require_leads, without_lead
from schemas.errors import InvalidError, Reason
from tests.kit.cases.hub_claims import document


def with_field(**rule: Any) -> dict[str, Any]:
    return document(full_name=rule)


def test_the_canonical_text_reads_back_and_leaves_defaults_out() -> None:
    whole = document(sex_code={"rule": "lead", "order": ["population.v1"], "strict": False, "normalise": "exact"})
    rules = parse(whole)
    assert parse(json.loads(rules.text())) == rules
    assert b"strict" not in rules.text()
    assert b"exact" not in rules.text()
    assert parse(json.loads(json.dumps(whole, sort_keys=True))).hash() == rules.hash()


@pytest.mark.parametrize(
    ("whole", "place"),
    [
        ([], "rules"),
        (document() | {"library": "people"}, "library"),
        (document() | {"version": 0}, "version"),
        (document() | {"version": True}, "version"),
        (document() | {"fields": {}}, "fields"),
        (document() | {"owner": "x"}, "rules.owner"),
        (document() | {"links": ["Population"]}, "links[0]"),
        (document() | {"codes": {"sex": {"男": 1}}}, "codes.sex.男"),
        (with_field(rule="latest"), "fields.full_name.rule"),
        (with_field(rule="lead", order="population.v1"), "fields.full_name.order"),
        (with_field(rule="lead", order=["population.v1", "population.v1"]), "fields.full_name.order"),
        (with_field(rule="lead", order=["population"]), "fields.full_name.order[0]"),
        (with_field(rule="newest", order=["population.v1"], strict=True), "fields.full_name.strict"),
        (with_field(rule="lead", order=["population.v1"], normalise="code:sex"), "fields.full_name.normalise"),
        (with_field(rule="lead", order=["population.v1"], fresh_days=-1), "fields.full_name.fresh_days"),
        (with_field(rule="lead", order=["population.v1"], of=["sex_code"]), "fields.full_name.of"),
        (with_field(rule="derived", function="age_class", of=["birth_date"]), "fields.full_name.of"),
        (with_field(rule="derived", function="eval", of=["sex_code"]), "fields.full_name.function"),
        (with_field(rule="derived", function="age_class", of=["sex_code"], order=["a.v1"]), "fields.full_name.order"),
        (document(1, **{"a b": {"rule": "set"}}), "fields.a b"),
    ],
)
def test_a_fault_is_refused_by_its_place(whole: Any, place: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse(whole)
    assert caught.value.reason is Reason.RULES_INVALID
    assert caught.value.details["place"] == place
    assert str(caught.value).startswith(f"rules_invalid: {place}:") or f"{place}: got" in str(caught.value)


def test_rules_that_leave_a_field_without_lead_are_not_ready() -> None:
    rules = parse(with_field(rule="lead"))
    assert without_lead(rules) == ("full_name",)
    with pytest.raises(InvalidError, match="full_name") as caught:
        require_leads(rules)
    assert caught.value.reason is Reason.NO_LEAD
    require_leads(parse(document()))


def leads(before: dict[str, Any] | None, after: dict[str, Any]) -> set[str]:
    return set(leads_that_differ(None if before is None else parse(before), parse(after)))


def test_the_departments_of_a_lead_that_is_given_taken_or_trusted_agree() -> None:
    base = document()
    assert leads(base, document(version=2)) == set()
    turned = document(full_name={"rule": "lead", "order": ["marriages.v1", "population.v1"]})
    assert leads(base, turned) == {"population.v1", "marriages.v1"}
    assert leads(base, base | {"links": []}) == {"travel-permits.v1"}
    assert leads(None, with_field(rule="lead", order=["insured.v2"])) >= {"insured.v2", "travel-permits.v1"}


@pytest.mark.parametrize(
    ("name", "one", "other", "agree"),
    [
        ("exact", "a", "a ", False),
        ("exact", 1, True, False),
        ("exact", ["a"], ["a"], True),
        ("nfkc_space", " 王　伟 ", "王 伟", True),
        ("digits", "+86 138-0013-8000", "８６13800138000", True),
        ("date", "2026-05-04", "2026年5月4日", True),
        ("date", "20260504", date(2026, 5, 4), True),
        ("date", (date(2026, 5, 4) - date(1970, 1, 1)).days, date(2026, 5, 4), True),
        ("date", "2026-02-30", "2026-02-28", False),
        ("code:sex", "男", "1", True),
        ("code:sex", "9", "1", False),
    ],
)
def test_values_agree_by_their_normal_form(name: str, one: object, other: object, agree: bool) -> None:
    normal = normaliser(name, {"sex": {"男": "1", "女": "2"}})
    assert normal is not None
    assert (normal(one) == normal(other)) is agree


def test_an_unknown_normaliser_is_none() -> None:
    assert normaliser("lower", {}) is None
    assert normaliser("code:sex", {}) is None


@pytest.mark.parametrize(
    ("born", "day", "expected"),
    [
        (date(1946, 5, 4), date(2026, 5, 3), "60-79"),
        (date(1946, 5, 4), date(2026, 5, 4), "80+"),
        (date(2012, 2, 29), date(2026, 2, 28), "0-13"),
        (date(2012, 2, 29), date(2026, 3, 1), "14-17"),
        (date(2027, 1, 1), date(2026, 3, 1), None),
        (None, date(2026, 3, 1), None),
    ],
)
def test_a_derived_field_is_computed_on_the_day_of_reading(born: date | None, day: date, expected: str | None) -> None:
    rules: Rules = parse(
        document(
            birth_date={"rule": "lead", "order": ["population.v1"]},
            age_class={"rule": "derived", "function": "age_class", "of": ["birth_date"]},
        )
    )
    assert "age_class" not in rules.stored
    assert derived(rules, {"birth_date": born}, day) == {"age_class": expected}
