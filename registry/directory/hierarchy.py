"""Hierarchy of departments: who is above whom, and the common superior of two. Pure.

A department names the one above it (上级). The rules of that relation:

    active        the one above is active, and neither a contractor nor of the public
    no circle     nothing is above itself
    level         the one above is of a higher level of government, or of the same
    area          the division of the one above contains that of the department (GB/T 2260: 33 contains 3301)

The one above a contractor is the department that commissioned it (State Council decree 809, Art. 36); level and area
say nothing there.

A dispute that two departments do not settle goes to their common superior where their levels or regions differ
(Art. 28): the nearest department that is above both, and that is neither of them.
"""

from collections.abc import Mapping
from typing import Final

from registry.directory.government_level import DepartmentKind, GovernmentLevel
from registry.directory.model import Department, DepartmentStatus
from schemas.errors import InvalidError, Reason

__all__ = ["area_of", "check_hierarchy", "common_superior", "inferiors", "superiors"]

_RANK: Final = {level: rank for rank, level in enumerate(GovernmentLevel)}  # 0 is the highest
_DIGITS: Final = {
    GovernmentLevel.NATIONAL: 0,
    GovernmentLevel.PROVINCE: 2,
    GovernmentLevel.CITY: 4,
    GovernmentLevel.COUNTY: 6,
    GovernmentLevel.TOWNSHIP: 9,
}
_OUTSIDE: Final = frozenset({DepartmentKind.CONTRACTOR, DepartmentKind.PUBLIC})


def area_of(department: Department) -> str:
    """Return the prefix that the codes of all divisions in a department's area have; empty = the whole country."""
    return department.division_code[: _DIGITS[department.level]]


def superiors(departments: Mapping[str, Department], department_id: str) -> tuple[str, ...]:
    """Return the ids of all departments above one, nearest first.

    Args:
        departments: by id.
        department_id: of the one at the bottom.

    Raises:
        InvalidError: DEPARTMENT_UNKNOWN; REQUEST_INVALID, they form a circle.
    """
    found: dict[str, None] = {}
    above = _get(departments, department_id).parent
    while above is not None:
        if above == department_id or above in found:
            raise InvalidError(
                Reason.REQUEST_INVALID, f"the departments above {department_id[:40]} form a circle; expected a tree"
            )
        found[above] = None
        above = _get(departments, above).parent
    return tuple(found)


def inferiors(departments: Mapping[str, Department], department_id: str) -> tuple[str, ...]:
    """Return the ids of the departments directly under one, sorted."""
    return tuple(sorted(one.id for one in departments.values() if one.parent == department_id))


def common_superior(departments: Mapping[str, Department], first: str, second: str) -> str | None:
    """Return the id of the nearest department that is above both, and neither of them; None = there is none.

    The order of the two does not matter.

    Raises:
        InvalidError: DEPARTMENT_UNKNOWN; REQUEST_INVALID, departments above one of them form a circle.
    """
    above = set(superiors(departments, second))
    return next((one for one in superiors(departments, first) if one in above and one not in {first, second}), None)


def check_hierarchy(departments: Mapping[str, Department], changed: Department) -> None:
    """Check that a changed department may stand where it does: under the one above it, and over those under it.

    Args:
        departments: as they are stored, by id.
        changed: the department as it is to be.

    Raises:
        InvalidError: DEPARTMENT_UNKNOWN, no such department above it; REQUEST_INVALID, a rule of the module fails.
    """
    known = {**departments, changed.id: changed}
    superiors(known, changed.id)
    if changed.parent is not None:
        _check_pair(known[changed.parent], changed)
    for below in known.values():
        if below.parent == changed.id and below.status is DepartmentStatus.ACTIVE:
            _check_pair(changed, below)


def _check_pair(above: Department, below: Department) -> None:
    for wrong, expected in (
        (above.status is not DepartmentStatus.ACTIVE, f"an active one; it is {above.status}"),
        (bool(_OUTSIDE & {*above.kinds}), "a department of the government, neither a contractor nor of the public"),
        (not _OUTSIDE & {*below.kinds} and _RANK[above.level] > _RANK[below.level], f"one not below {below.level}"),
        (
            not _OUTSIDE & {*below.kinds} and not below.division_code.startswith(area_of(above)),
            f"one whose area contains the division {below.division_code}; its own is {above.division_code}",
        ),
    ):
        if wrong:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got {above.short_name} ({above.id}) above {below.short_name} ({below.id}); expected {expected}",
            )


def _get(departments: Mapping[str, Department], department_id: str) -> Department:
    if department_id not in departments:
        raise InvalidError(
            Reason.DEPARTMENT_UNKNOWN, f"got the department {department_id[:40]}; no department has this id"
        )
    return departments[department_id]
