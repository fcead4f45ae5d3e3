"""Which requests are ones of return flow (回流): the own rows of a lower level, of a higher level's resource."""

from typing import Any

import pytest

from exchange.access.decision.parties import DepartmentProfile
from exchange.access.grants.exposure import FieldMask
from exchange.access.grants.returned import division_fields, returned_area
from schemas.access import AllOf, Compare, MaskRule, Prefix
from tests.kit.cases.grants import a_draft

MASKS = {
    "id_number": FieldMask(stated="keep_3_4", default=MaskRule.KEEP_3_4),
    "home": FieldMask(stated="div_city", default=MaskRule.DIV_CITY),
    "birth_division_code": FieldMask(stated="none", default=MaskRule.NONE),
    "phone": FieldMask(stated="phone_3_4", default=MaskRule.PHONE_3_4),
}
CITY = DepartmentProfile(id="city", rank=2, division_code="330100", area="3301")
COUNTY = DepartmentProfile(id="county", rank=3, division_code="330102", area="330102")
ELSEWHERE = DepartmentProfile(id="elsewhere", rank=3, division_code="330205", area="330205")


def area(
    row_filter: Any, provider: DepartmentProfile | None = CITY, consumer: DepartmentProfile | None = COUNTY
) -> str:
    return returned_area(a_draft(row_filter=row_filter), MASKS, provider, consumer)


def test_division_fields_are_those_that_the_schema_masks_or_names_as_such() -> None:
    assert division_fields(MASKS) == ["home", "birth_division_code"]
    assert division_fields({}) == []


@pytest.mark.parametrize("field", ["home", "birth_division_code"])
@pytest.mark.parametrize("division", ["330102", "330102003"])
def test_the_own_rows_of_a_lower_level_are_returned(field: str, division: str) -> None:
    assert area(Prefix(field, division)) == division


@pytest.mark.parametrize(
    ("row_filter", "parties"),
    [
        (None, {}),
        (Prefix("home", "3301"), {}),  # more than its own area
        (Prefix("home", "330103"), {}),
        (Prefix("phone", "330102"), {}),  # a field that is no division
        (Compare("eq", "home", "330102"), {}),
        (AllOf((Prefix("home", "330102"), Compare("eq", "phone", "1"))), {}),
        (Prefix("home", "330205"), {"consumer": ELSEWHERE}),  # of an area apart
        (Prefix("home", "3301"), {"provider": COUNTY, "consumer": CITY}),  # upwards
        (Prefix("home", "330102"), {"provider": COUNTY}),  # of the same level
        (Prefix("home", "330102"), {"provider": None}),
        (Prefix("home", "330102"), {"consumer": None}),
        (Prefix("home", "330102"), {"consumer": DepartmentProfile(id="x", rank=3, division_code="330102", area="")}),
    ],
    ids=str,
)
def test_other_requests_are_none(row_filter: Any, parties: dict[str, Any]) -> None:
    assert area(row_filter, **parties) == ""
