"""Fields and the data elements that they name: what does not fit is found, all of it, and nothing else."""

from typing import Any

import pytest

from registry.catalogue.elements import DataElement
from registry.governance.element_rules import element_fields, find_unfit, require_fit
from schemas.access import Level
from schemas.errors import InvalidError, Reason

SEX = DataElement(
    code="DE2", zh="性别", en="Sex", type="text", length=1, value_domain="0|1|2|9", standard="GB/T 2261.1", personal="P"
)
ELEMENTS = {
    "DE1": DataElement(
        code="DE1", zh="号码", en="Number", type="text", length=18, level=Level.G4, personal="D", sensitive=True
    ),
    "DE2": SEX,
    "DE3": DataElement(code="DE3", zh="日期", en="Date", type="date"),
    "DE4": DataElement(code="DE4", zh="金额", en="Amount", type="money", length=12, value_domain="人民币, 元"),
    "DE5": DataElement(code="DE5", zh="其他", en="Other", type="general"),
}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}


def schema(*fields: dict[str, Any]) -> dict[str, Any]:
    known = {"zh": "x", "level": "G4", "personal": "D", "sensitive": "S", "mask": "drop"}
    return {"type": "record", "name": "R", "zh": "x", "fields": [known | {"name": "f"} | field for field in fields]}


def found(*fields: dict[str, Any]) -> list[str]:
    known = {code: element.definition for code, element in ELEMENTS.items()}
    return [str(one) for one in find_unfit(schema(*fields), known.get)]


@pytest.mark.parametrize(
    "field",
    [
        {"type": "string"},
        {"type": "string", "element": "DE1", "check": ["not_empty", {"rule": "cn_id18", "when": {"t": ["a"]}}]},
        {"type": ["null", "string"], "element": "DE2", "codes": ["1", "2"], "standard": "GB/T 2261.1"},
        {"type": {"type": "enum", "name": "E", "symbols": ["1", "2"]}, "element": "DE2"},
        {"type": ["null", {"type": "int", "logicalType": "date"}], "element": "DE3"},
        {"type": DECIMAL, "element": "DE4"},
        {"type": {"type": "array", "items": "string"}, "element": "DE5"},
    ],
    ids=lambda field: str(field.get("element", "none")),
)
def test_a_field_that_fits_its_element_or_names_none_is_fine(field: dict[str, Any]) -> None:
    assert found(field) == []


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"type": "string", "element": "DE9"}, "not in the dictionary"),
        ({"type": "string", "element": "DE 1"}, "expected the code of a data element"),
        ({"type": "string", "element": ["DE1"]}, "expected the code of a data element"),
        ({"type": "int", "element": "DE1"}, "the type is int"),
        ({"type": "string", "element": "DE3"}, "the type is string; expected date"),
        ({"type": ["null", "string", "int"], "element": "DE1"}, "the type is union"),
        ({"type": "double", "element": "DE4"}, "the type is double"),
        ({"type": DECIMAL | {"precision": 13}, "element": "DE4"}, "13 characters or digits; expected 12"),
        ({"type": "string", "element": "DE1", "codes": ["x" * 19]}, "19 characters or digits; expected 18"),
        ({"type": "string", "element": "DE2"}, "missing: codes"),
        ({"type": "string", "element": "DE2", "codes": ["1", "3"]}, "the codes 3 are not among"),
        ({"type": "string", "element": "DE2", "codes": ["1"], "standard": "GB/T 1"}, '"standard" is'),
        ({"type": "string", "element": "DE1", "level": "G3"}, '"level" is G3; expected G4'),
        ({"type": "string", "element": "DE1", "personal": "P"}, '"personal" is P; expected D'),
        ({"type": "string", "element": "DE1", "sensitive": "s"}, '"sensitive" is s; expected S'),
    ],
    ids=str,
)
def test_each_way_not_to_fit_is_one_finding_that_says_so(field: dict[str, Any], words: str) -> None:
    (finding,) = found(field)
    assert words in finding
    assert finding.startswith("$.fields[0] (f): ")


def test_every_fault_of_every_field_is_in_one_refusal() -> None:
    fields = ({"type": "int", "element": "DE1", "level": "G1"}, {"name": "g", "type": "string", "element": "DE9"})
    with pytest.raises(InvalidError) as refused:
        require_fit(schema(*fields), lambda code: ELEMENTS[code].definition if code in ELEMENTS else None)
    assert refused.value.reason is Reason.ELEMENT_UNFIT
    assert refused.value.details == {"fields": "f,g"}
    assert refused.value.message.count("$.fields") == 3


def test_fields_of_records_within_are_looked_at_and_inherit() -> None:
    inner = {
        "type": "record",
        "name": "In",
        "level": "G1",
        "fields": [{"name": "id", "type": "string", "element": "DE1"}],
    }
    outer = schema({"name": "holder", "type": {"type": "array", "items": inner}, "level": "G3"})
    assert [field.path for field in element_fields(outer)] == ["holder", "holder.id"]
    (finding,) = find_unfit(outer, lambda code: ELEMENTS[code].definition)
    assert '"level" is G3; expected G4' in str(finding), "the level of what holds it counts: the higher wins"


@pytest.mark.parametrize("domain", ["1|2|9", " 1 | 2|9 "])
def test_a_value_domain_of_codes_is_closed_and_one_in_words_is_not(domain: str) -> None:
    element = DataElement(code="DE1", zh="x", en="x", type="text", value_domain=domain)
    assert element.definition.codes == {"1", "2", "9"}
    assert ELEMENTS["DE4"].definition.codes is None
