"""Where departments stand and who their officers are, over both stores."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from exchange.demo.people import credit_codes
from registry.database.unit_of_work import PostgresDatabase
from registry.directory.departments import Departments
from registry.directory.hierarchy import superiors
from registry.directory.model import (
    CatalogueEntry,
    Department,
    DepartmentKind,
    DepartmentStatus,
    GovernmentLevel,
    ShareType,
    Zone,
)
from registry.postgres import tables
from registry.postgres.directory import PostgresDepartments
from schemas.access import Level
from schemas.errors import PoolError, Reason
from tests.kit.cases.registry import AT, OTHER_USCC, TOPIC, USCC, Stores, directory, refused
from tests.kit.row_tags import row_tags

CITY = {"level": GovernmentLevel.CITY, "division_code": "520100"}


def two(departments: Departments) -> tuple[Department, Department]:
    facts = {"name": "某省大数据局", "short_name": "大数据局", "level": GovernmentLevel.PROVINCE}
    above = departments.register(uscc=USCC, division_code="520000", **facts)  # type: ignore[arg-type, call-arg]
    below = departments.register(uscc=OTHER_USCC, name="某市公安局", short_name="公安局", **CITY)  # type: ignore[arg-type, call-arg]
    return above, below


def test_who_has_taken_a_department_over_is_known_over_two_mergers(stores: Stores) -> None:
    departments = directory(stores)[0]
    above, below = two(departments)
    last = departments.register(uscc=next(credit_codes(5)), name="某市行政执法局", short_name="执法局", **CITY)  # type: ignore[arg-type, call-arg]
    assert departments.heir(below.id) == below.id
    departments.merge(below.id, into=above.id, version=1)
    departments.merge(above.id, into=last.id, version=1)
    assert (departments.heir(below.id), departments.heir(last.id)) == (last.id, last.id)
    assert departments.taken_over_by(last.id) == {above.id, below.id}
    assert departments.taken_over_by(above.id) == {below.id}
    assert departments.taken_over_by(below.id) == frozenset()


def test_a_department_is_placed_and_keeps_its_officers(stores: Stores) -> None:
    departments = directory(stores)[0]
    above, below = two(departments)
    kinds = (DepartmentKind.PROVIDER, DepartmentKind.AUTHORITY)
    placed = departments.place(below.id, parent=above.id, kinds=kinds, contract_ends=None, version=1, **CITY)
    assert departments.get(below.id) == placed
    assert (placed.parent, placed.kinds, placed.version) == (above.id, kinds, 2)
    officers = {"office_head": "li", "office_deputy": "", "security_officer": "zhao"}
    named = departments.name_officers(below.id, version=2, **officers)
    assert departments.get(below.id) == named
    assert [one for _, one in departments.history(below.id)] == [below, placed, named]
    refused(Reason.VERSION_CONFLICT, lambda: departments.name_officers(below.id, version=2, **officers))
    facts = {"kinds": kinds, "contract_ends": None, "version": 3, **CITY}
    refused(Reason.DEPARTMENT_UNKNOWN, lambda: departments.place(below.id, parent="0195-none", **facts))
    refused(Reason.REQUEST_INVALID, lambda: departments.place(below.id, parent=below.id, **facts))


def test_some_departments_are_read_at_once_and_one_moves_to_another_zone(stores: Stores) -> None:
    departments = directory(stores)[0]
    above, below = two(departments)
    assert {one.id for one in departments.some([above.id, below.id, below.id, "0195-none"])} == {above.id, below.id}
    assert departments.some([]) == []
    assert below.zone is Zone.DEFAULT
    moved = departments.move(below.id, zone=Zone.OUTER, version=1)
    assert (departments.get(below.id), moved.zone) == (moved, Zone.OUTER)
    refused(Reason.VERSION_CONFLICT, lambda: departments.move(below.id, zone=Zone.INNER, version=1))


def test_a_draft_is_in_its_provider_s_zone(stores: Stores) -> None:
    departments, catalogue = directory(stores)
    provider = two(departments)[1]
    departments.move(provider.id, zone=Zone.INNER, version=1)
    entry = CatalogueEntry(
        topic=TOPIC,
        title="自然人基础信息",
        provider=provider.id,
        code="101001/000001",
        share_type=ShareType.UNCONDITIONAL,
        level=Level.G2,
    )
    assert catalogue.create(entry).zone is Zone.INNER
    assert catalogue.get(TOPIC).zone is Zone.INNER


def test_departments_under_one_that_ends_go_under_its_successor_or_the_one_above(stores: Stores) -> None:
    departments = directory(stores)[0]
    above, middle = two(departments)
    kinds = (DepartmentKind.PROVIDER,)
    codes = (code for code in credit_codes() if code not in {USCC, OTHER_USCC})

    def under(parent: Department, **changes: object) -> Department:
        made = departments.register(uscc=next(codes), name="某局", short_name="某局", **CITY)  # type: ignore[arg-type, call-arg]
        facts = {"kinds": kinds, "contract_ends": None, "version": 1, **CITY, **changes}
        return departments.place(made.id, parent=parent.id, **facts)  # type: ignore[no-any-return]

    middle = departments.place(middle.id, parent=above.id, kinds=kinds, contract_ends=None, version=1, **CITY)
    successor, other = under(middle), under(middle)
    merged = departments.merge(middle.id, into=successor.id, version=middle.version)
    assert {one.id for one in departments.move_inferiors(merged.id)} == {successor.id, other.id}
    assert departments.get(successor.id).parent == above.id
    assert departments.get(other.id).parent == successor.id
    firm = under(successor, kinds=(DepartmentKind.CONTRACTOR,), contract_ends=AT)
    abolished = departments.abolish(successor.id, version=departments.get(successor.id).version)
    refused(Reason.TRANSITION_NOT_ALLOWED, lambda: departments.move_inferiors(abolished.id))
    departments.abolish(firm.id, version=firm.version)
    assert [one.id for one in departments.move_inferiors(abolished.id)] == [other.id]
    active = {one.id for one in departments.all() if one.status is DepartmentStatus.ACTIVE}
    assert all(departments.get(one).parent in {None, *active} for one in active)


def test_the_end_of_a_contract_is_stored_as_it_is(stores: Stores) -> None:
    departments = directory(stores)[0]
    above, below = two(departments)
    ends = datetime(2026, 12, 31, 16, 0, 0, 1, tzinfo=UTC)
    firm = departments.place(
        below.id, parent=above.id, kinds=(DepartmentKind.CONTRACTOR,), contract_ends=ends, version=1, **CITY
    )
    assert departments.get(below.id) == firm
    assert firm.contract_ends == ends


@pytest.mark.postgres
def test_a_department_of_an_earlier_version_provides_and_consumes(engine: sa.Engine) -> None:
    tables.metadata.create_all(engine)
    store, database = PostgresDepartments(row_tags()), PostgresDatabase(engine)
    departments = Departments(store, clock=lambda: AT, new_id=lambda: "0195-0000")
    with database.begin() as work:
        made = departments.register(work, uscc=USCC, name="某市公安局", short_name="公安局", **CITY)  # type: ignore[arg-type]
    earlier = {"parent", "kinds", "contract_ends", "office_head", "office_deputy", "security_officer"}
    with engine.begin() as connection:
        body = json.loads(connection.execute(sa.select(tables.department.c.body)).scalar_one())
        text = json.dumps({name: value for name, value in body.items() if name not in earlier}, ensure_ascii=False)
    with database.begin() as work:
        row_tags().change(work, tables.department, tables.department.c.id == made.id, {"body": text})
    with database.read() as reader:
        assert departments.get(reader, made.id) == made


@pytest.mark.postgres
def test_two_at_once_make_no_circle(engine: sa.Engine) -> None:
    tables.metadata.create_all(engine)
    database = PostgresDatabase(engine)
    ids = iter(("d-1", "d-2"))
    departments = Departments(PostgresDepartments(row_tags()), clock=lambda: AT, new_id=lambda: next(ids))
    with database.begin() as work:
        for uscc in (USCC, OTHER_USCC):
            departments.register(work, uscc=uscc, name="某市某局", short_name="某局", **CITY)  # type: ignore[arg-type]

    def place(one: str, above: str) -> Reason | None:
        try:
            with database.begin() as work:
                kinds = (DepartmentKind.PROVIDER,)
                departments.place(work, one, parent=above, kinds=kinds, contract_ends=None, version=1, **CITY)  # type: ignore[arg-type]
        except PoolError as error:
            return error.reason
        return None

    for _ in range(5):
        with ThreadPoolExecutor(2) as threads:
            outcomes = {*threads.map(place, ("d-1", "d-2"), ("d-2", "d-1"))}
        assert None not in outcomes or outcomes == {None, Reason.REQUEST_INVALID}
    with database.read() as reader:
        every = {one.id: one for one in departments.all(reader)}
    assert sorted(len(superiors(every, one)) for one in every) == [0, 1]
