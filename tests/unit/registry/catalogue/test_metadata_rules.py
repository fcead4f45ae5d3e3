"""Rules of the metadata: every element is checked, every fault is said, with its clause."""

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.catalogue.code_lists import code_lists
from registry.catalogue.metadata import DataItem, Metadata
from registry.catalogue.metadata_rules import FaultCode, Stage, element_names, faults_of
from schemas.reason_texts import Language
from tests.kit.cases.catalogue import metadata

LISTS = code_lists()
MANDATORY = (  # decree 809, Art. 13, and the guide of 2017
    "title", "abstract", "class_code", "theme", "format", "items", "share_type", "share_modes", "share_scope",
    "use_purpose", "open_type", "update_cycle", "contact_name", "contact_phone", "level",
)  # fmt: skip
FOR_REVIEW = ("title_en", "abstract_en", "pia_id", "secrecy_assessment_id")
REFUSED = {
    "share_type": "none",
    "share_modes": (),
    "share_scope": "",
    "use_purpose": "",
    "refuse_reason": "涉及个人隐私",
}


def found(stage: Stage = Stage.DRAFT, **changes: Any) -> list[tuple[str, str]]:
    return [(fault.element, str(fault.code)) for fault in faults_of(metadata(**changes), LISTS, stage)]


def test_complete_metadata_has_no_fault() -> None:
    assert found(Stage.REVIEW) == []


@pytest.mark.parametrize("element", MANDATORY)
def test_each_mandatory_element_is_missed(element: str) -> None:
    assert (element, "missing") in found(**{element: () if element in {"items", "share_modes"} else ""})


@pytest.mark.parametrize("element", FOR_REVIEW)
def test_assessments_and_english_texts_are_needed_for_the_review_only(element: str) -> None:
    assert found(**{element: ""}) == []
    assert found(Stage.REVIEW, **{element: ""}) == [(element, "missing_for_submission")]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"class_code": "401001"}, ("class_code", "unknown")),
        ({"class_code": "199001"}, ("class_code", "unknown")),
        ({"class_code": "10100"}, ("class_code", "malformed")),
        ({"code": "101001-000001"}, ("code", "malformed")),
        ({"code": "102001/000001"}, ("code", "contradiction")),
        ({"theme": "x"}, ("theme", "unknown")),
        ({"format": "8"}, ("format", "unknown")),
        ({"update_cycle": "hourly"}, ("update_cycle", "unknown")),
        ({"level": "G9"}, ("level", "unknown")),
        ({"share_modes": ("post",)}, ("share_modes", "unknown")),
        ({"share_modes": ("api", "api")}, ("share_modes", "duplicate")),
        ({"secrecy": "secret"}, ("secrecy", "secret")),
        ({"title": "x" * 201}, ("title", "too_long")),
        ({"abstract": "x" * 2001}, ("abstract", "too_long")),
        ({"contact_phone": "call me"}, ("contact_phone", "malformed")),
        ({"contact_email": "office"}, ("contact_email", "malformed")),
        ({"related_codes": ("x",)}, ("related_codes", "malformed")),
        ({"related_codes": ("101001/1", "101001/1")}, ("related_codes", "duplicate")),
        # Art. 15: what is shared without conditions has none, what is not shared has a law
        ({"share_type": "unconditional", "use_purpose": ""}, ("share_scope", "not_allowed")),
        ({"refuse_reason": "x"}, ("refuse_reason", "not_allowed")),
        ({**REFUSED, "legal_basis": ""}, ("legal_basis", "missing")),
        ({**REFUSED, "legal_basis": "内部规定"}, ("legal_basis", "no_legal_basis")),
        ({**REFUSED, "legal_basis": "《统计法》第九条", "share_modes": ("api",)}, ("share_modes", "not_allowed")),
        ({**REFUSED, "legal_basis": "《统计法》第九条", "open_type": "unconditional"}, ("open_type", "contradiction")),
        ({"open_type": "conditional"}, ("open_conditions", "missing")),
        ({"open_conditions": "x"}, ("open_conditions", "not_allowed")),
        ({"items": (DataItem(name="", type="text"),)}, ("items[0].name", "missing")),
        ({"items": (DataItem(name="a", type="varchar"),)}, ("items[0].type", "unknown")),
        ({"items": (DataItem(name="a", type="text", length=0),)}, ("items[0].length", "malformed")),
        ({"items": (DataItem(name="a", type="text", length=10**4000),)}, ("items[0].length", "malformed")),
        ({"items": (DataItem(name="a", type="text"),) * 2}, ("items[1].name", "duplicate")),
        ({"items": (DataItem(name="a", type="text", element="a b"),)}, ("items[0].element", "malformed")),
    ],
)
def test_each_rule_finds_its_fault_and_no_other(changes: dict[str, Any], expected: tuple[str, str]) -> None:
    assert found(**changes) == [expected]


def test_what_is_lawfully_not_shared_is_complete() -> None:
    assert found(Stage.REVIEW, **REFUSED, legal_basis="《统计法》第九条") == []


def test_all_faults_are_said_at_once() -> None:
    faults = faults_of(Metadata(), LISTS, Stage.REVIEW)
    named = {fault.element for fault in faults}
    assert {*FOR_REVIEW, "title", "class_code", "items", "share_type", "level"} <= named
    assert [fault.element for fault in faults] == sorted(named, key=[*element_names()].index), "in the guide's order"


def test_each_element_of_the_metadata_and_each_fault_has_words_in_both_languages() -> None:
    assert [*element_names()] == [one.name for one in fields(Metadata) if one.name in element_names()]
    assert {one.name for one in fields(Metadata)} == {*element_names()}
    for code in FaultCode:
        fault = next(iter(faults_of(Metadata(), LISTS)))
        for language in Language:
            assert type(fault)(fault.element, code, fault.clause).text(language)


@pytest.mark.parametrize("name", ["themes", "formats", "share_types", "share_modes", "open_types", "update_cycles"])
def test_a_term_is_named_by_its_id_its_digit_or_its_name_in_either_language(name: str) -> None:
    for term in LISTS.terms(name):
        assert {LISTS.find(name, f" {text} ") for text in term.names} == {term}


def test_normalized_metadata_has_ids_and_what_is_unknown_stays() -> None:
    written = metadata(theme="公共服务", format="3", share_modes=("批量交换", "fax"), update_cycle=" 每日 ", level="x")
    normal = written.normalized(LISTS)
    assert (normal.theme, normal.format, normal.share_modes) == ("public-services", "database", ("batch", "fax"))
    assert (normal.update_cycle, normal.level) == ("daily", "x")


texts = st.text(max_size=30)


@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            one.name: texts for one in fields(Metadata) if one.name not in {"items", "share_modes", "related_codes"}
        }
        | {
            "share_modes": st.lists(texts, max_size=3).map(tuple),
            "related_codes": st.lists(texts, max_size=3).map(tuple),
            "items": st.lists(
                st.builds(DataItem, name=texts, type=texts, length=st.none() | st.integers(), element=texts), max_size=3
            ).map(tuple),
        },
    )
)
def test_whatever_is_written_is_judged_and_a_document_keeps_it(changes: dict[str, Any]) -> None:
    written = metadata(**changes)
    assert Metadata.from_document(written.to_document()) == written
    normal = written.normalized(LISTS)
    assert normal.normalized(LISTS) == normal
    draft, review = (faults_of(normal, LISTS, stage) for stage in Stage)
    assert set(draft) <= set(review), "a review asks for all that a draft needs, and more"
