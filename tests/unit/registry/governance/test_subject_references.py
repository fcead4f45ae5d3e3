"""Whose record it is: a record type of a base class says so, and in one form."""

import json
from typing import Any

import pytest

from registry.governance.subject_references import (
    KINDS,
    SubjectReference,
    find_unnamed,
    require_subjects,
    subjects_of,
)
from schemas import library
from schemas.errors import InvalidError, Reason

SELF = {"kind": "person", "role": "self", "id": "number", "type": "number_type"}


def schema(personal: str = "D", **attributes: Any) -> dict[str, Any]:
    known = {"zh": "x", "level": "G4", "sensitive": "N", "mask": "drop"}
    fields = [
        known | {"name": "number", "type": "string", "personal": personal},
        known | {"name": "number_type", "type": "string", "personal": "N"},
    ]
    return {"type": "record", "name": "R", "zh": "x", "fields": fields} | attributes


def messages(value: Any) -> list[str]:
    return [one.message for one in find_unnamed(value)]


@pytest.mark.parametrize("class_code", ["101001", "105001"])
def test_a_record_type_of_a_base_class_that_identifies_persons_names_whose_record_it_is(class_code: str) -> None:
    (message,) = messages(schema(class_code=class_code))
    assert message.startswith('missing: "subject"')
    with pytest.raises(InvalidError) as refused:
        require_subjects(schema(class_code=class_code))
    assert refused.value.reason is Reason.SCHEMA_UNCLASSIFIED
    require_subjects(schema(class_code=class_code, subject=[SELF]))


@pytest.mark.parametrize("value", [schema(class_code="203001"), schema(), schema("P", class_code="101001"), "string"])
def test_other_schemas_need_none(value: Any) -> None:
    assert messages(value) == []


def test_an_identifier_within_a_record_counts() -> None:
    inner = schema()
    inner["name"] = "Inner"
    outer = schema("N", class_code="101001")
    outer["fields"].append({"name": "contact", "zh": "x", "type": inner, "level": "G4", "personal": "N",
                            "sensitive": "N", "mask": "drop"})  # fmt: skip
    assert len(messages(outer)) == 1


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("id_number", "no list of 1 to 16"),
        ([], "no list of 1 to 16"),
        ([SELF | {"role": f"role_{chr(97 + number)}"} for number in range(17)], "no list of 1 to 16"),
        (["number"], "other members"),
        ([SELF | {"note": "x"}], "other members"),
        ([{"kind": "person", "id": "number"}], "other members"),
        ([SELF | {"id": 7}], "other members"),
        ([SELF | {"kind": "animal"}], f"one of {', '.join(KINDS)}"),
        ([SELF | {"role": "The Holder"}], "another role"),
        ([SELF | {"id": "elsewhere"}], "as its id that the record does not have"),
        ([SELF | {"type": "elsewhere"}], "as its type that the record does not have"),
        ([SELF, SELF], "there twice"),
    ],
)
def test_a_subject_of_another_form_is_refused_for_every_class(subject: Any, expected: str) -> None:
    (message,) = messages(schema(subject=subject))
    assert expected in message


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("population", {"self": "id_number", "guardian": "guardian_id_number"}),
        ("legal_entity", {"self": "uscc", "legal_rep": "legal_rep_id_number"}),
        ("address", {"self": "address_code", "parcel": "parcel_number"}),
        ("credit", {"self": "subject_code"}),
        ("e_licence", {"holder": "holder_code"}),
        ("service_item_case", {"applicant": "applicant_code"}),
        ("tax_social_status", {"self": "id_number"}),
    ],
)
def test_the_bundled_record_types_name_their_subjects(name: str, roles: dict[str, str]) -> None:
    value = json.loads(library.text(name))
    assert messages(value) == []
    assert {one.role: one.id for one in subjects_of(value)} == roles
    assert all(isinstance(one, SubjectReference) for one in subjects_of(value))
