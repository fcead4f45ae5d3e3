"""For random trees of departments: superiors, common superiors, and what may stand where; no circle is accepted."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.directory.hierarchy import check_hierarchy, common_superior, inferiors, superiors
from registry.directory.model import Department, DepartmentKind, GovernmentLevel
from schemas.errors import InvalidError, Reason

LEVELS = tuple(GovernmentLevel)
CODES = {"national": "000000", "province": "330000", "city": "330100", "county": "330106", "township": "330106001"}


def department(number: int, parent: int | None, level: GovernmentLevel = GovernmentLevel.CITY) -> Department:
    return Department(
        id=f"d-{number:02}",
        uscc="11520000000000019J",
        name=f"部门{number}",
        short_name=f"部门{number}",
        level=level,
        division_code=CODES[level],
        parent=None if parent is None else f"d-{parent:02}",
    )


@st.composite
def forests(draw: st.DrawFn) -> dict[str, Department]:
    """Each department is under an earlier one of a level not lower than its own, or under none."""
    made: list[Department] = []
    for number in range(draw(st.integers(1, 20))):
        level = draw(st.sampled_from(LEVELS))
        above = [None, *(n for n, one in enumerate(made) if LEVELS.index(one.level) <= LEVELS.index(level))]
        made.append(department(number, draw(st.sampled_from(above)), level))
    return {one.id: one for one in made}


@given(forests(), st.data())
def test_a_common_superior_is_symmetric_above_both_and_the_nearest(
    known: dict[str, Department], data: st.DataObject
) -> None:
    first, second = (data.draw(st.sampled_from(sorted(known))) for _ in range(2))
    found = common_superior(known, first, second)
    assert found == common_superior(known, second, first)
    shared = [one for one in superiors(known, first) if one in superiors(known, second)]
    assert (found is None) == (not shared)
    if found is not None:
        assert found not in {first, second}
        assert set(shared) - {found} == set(superiors(known, found)), "no other shared one is nearer"


@given(forests(), st.data())
def test_every_department_is_below_its_superiors_and_none_below_itself(
    known: dict[str, Department], data: st.DataObject
) -> None:
    one = data.draw(st.sampled_from(sorted(known)))
    chain = superiors(known, one)
    assert one not in chain
    assert len(set(chain)) == len(chain)
    for below, above in zip((one, *chain), chain, strict=False):
        assert below in inferiors(known, above)
    for each in known.values():
        check_hierarchy(known, each)


@given(forests(), st.data())
def test_a_department_under_one_of_its_own_is_refused_as_a_circle(
    known: dict[str, Department], data: st.DataObject
) -> None:
    one = data.draw(st.sampled_from(sorted(known)))
    above = data.draw(st.sampled_from([one, *superiors(known, one)]))
    changed = replace(known[above], parent=one)
    with pytest.raises(InvalidError, match="circle") as caught:
        check_hierarchy(known, changed)
    assert caught.value.reason is Reason.REQUEST_INVALID
    with pytest.raises(InvalidError, match="circle"):  # stored all the same, it is found
        superiors({**known, above: changed}, one)


def province(**changes: object) -> Department:
    return replace(department(1, None, GovernmentLevel.PROVINCE), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("above", "below", "expected"),
    [
        (department(1, None, GovernmentLevel.COUNTY), department(2, 1), "one not below city"),
        (province(division_code="520000"), department(2, 1), "whose area contains"),
        (province(kinds=(DepartmentKind.PUBLIC,)), department(2, 1), "of the government"),
    ],
)
def test_level_area_and_kind_say_who_may_stand_above(above: Department, below: Department, expected: str) -> None:
    with pytest.raises(InvalidError, match=expected):
        check_hierarchy({above.id: above}, below)
    under = {above.id: province(), below.id: below}
    with pytest.raises(InvalidError, match=expected):  # the one above changes, and those under it no longer fit
        check_hierarchy(under, above)
    check_hierarchy({above.id: province()}, below)


def test_a_contractor_stands_under_whoever_commissioned_it() -> None:
    county = department(1, None, GovernmentLevel.COUNTY)
    firm = replace(
        department(2, 1, GovernmentLevel.PROVINCE),
        division_code="110000",
        kinds=(DepartmentKind.CONTRACTOR,),
        contract_ends=datetime(2027, 1, 1, tzinfo=UTC),
    )
    check_hierarchy({county.id: county}, firm)
    with pytest.raises(InvalidError, match="of the government"):
        check_hierarchy({county.id: county, firm.id: firm}, department(3, 2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"kinds": ()},
        {"kinds": (DepartmentKind.PROVIDER, DepartmentKind.PROVIDER)},
        {"kinds": (DepartmentKind.CONTRACTOR, DepartmentKind.PROVIDER)},
        {"kinds": (DepartmentKind.CONTRACTOR,)},
        {"kinds": (DepartmentKind.CONTRACTOR,), "parent": "d-01"},
        {"contract_ends": datetime(2027, 1, 1, tzinfo=UTC)},
        {"kinds": (DepartmentKind.CONTRACTOR,), "parent": "d-01", "contract_ends": datetime(2027, 1, 1)},  # noqa: DTZ001
    ],
)
def test_kinds_and_contracts_that_do_not_go_together_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidError):
        replace(department(2, None), **wrong)  # type: ignore[arg-type]
