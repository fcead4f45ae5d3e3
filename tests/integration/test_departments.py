"""Departments in a running pool: who is above whom, officers, contractors whose time is over; by `pool` and HTTP."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from schemas import library
from schemas.errors import PoolError, Reason
from tests.kit.patience import wait_for
from tests.kit.world.world import Office, World

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World.start() as world:
        yield world


def refused(act: Callable[[], object]) -> Reason:
    with pytest.raises(PoolError) as caught:
        act()
    return caught.value.reason


def pool(world: World, *words: str) -> str:
    token = world.folder / "root.token"
    token.write_text(world.people.tokens["authority-1"])
    noun, command, *rest = words
    options = ("--data", str(world.data), "--token-file", str(token))
    return world.programs.run("pool", noun, *options, command, *rest).stdout


def test_a_tree_of_departments_and_their_common_superior(world: World) -> None:
    province, city, county = (world.department(name) for name in ("大数据局", "市数据局", "区数据局"))
    other = world.department("卫健委")
    for office, level, code, above in (
        (province, "province", "330000", ""),
        (city, "city", "330100", province.id),
        (county, "county", "330106", city.id),
        (other, "city", "330200", province.id),
    ):
        pool(
            world, "department", "place", office.id, "--level", level, "--division-code", code, "--parent", above,
            "--kind", "provider", "--kind", "authority",
        )  # fmt: skip
    tree = pool(world, "department", "tree")
    assert f"大数据局  province 330000  provider, authority  ({province.id})" in tree
    assert f"    区数据局  county 330106  provider, authority  ({county.id})" in tree
    nested = json.loads(pool(world, "department", "tree", "--json"))
    top = next(one for one in nested if one["id"] == province.id)
    assert [one["id"] for one in top["under"]] == [city.id, other.id]
    assert pool(world, "department", "superior", county.id, other.id) == f"{province.id}\n"
    assert pool(world, "department", "superior", county.id, city.id) == f"{province.id}\n"
    shown = pool(world, "department", "show", county.id)
    assert f"市数据局 ({city.id}), 大数据局 ({province.id})" in shown
    place = {"parent": county.id}
    assert refused(lambda: world.root.post(f"/departments/{province.id}/placement", place)) is Reason.REQUEST_INVALID
    assert refused(lambda: county.account("security_officer").post(f"/departments/{county.id}/placement", {})) is (
        Reason.ROLE_MISSING
    )
    found = world.root.get("/audit/entries", {"action": "registry:department:change", "resource": county.id})
    assert any(one["entry"].get("data", {}).get("parent") == city.id for one in found)


def test_no_department_is_left_under_one_that_has_ended(world: World) -> None:
    old, successor, below, firm = (world.department(name) for name in ("旧局", "新局", "下属", "某公司"))
    reason = {"reason": "by decision of the city"}
    ends = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    world.root.post(f"/departments/{below.id}/placement", {"parent": old.id})
    contractor = {"parent": old.id, "kinds": ["contractor"], "contract_ends": ends}
    world.root.post(f"/departments/{firm.id}/placement", contractor)
    assert refused(lambda: world.root.post(f"/departments/{old.id}/deactivation", reason)) is (
        Reason.TRANSITION_NOT_ALLOWED
    )
    assert world.root.get(f"/departments/{old.id}")["status"] == "active", "all or nothing"
    world.root.post(f"/departments/{old.id}/merger", {"into": successor.id, **reason})
    assert {*world.root.get(f"/departments/{successor.id}")["inferiors"]} == {below.id, firm.id}
    every = {one["id"]: one for one in world.root.list("/departments")}
    above = [every[one["parent"]] for one in every.values() if one["status"] == "active" and one["parent"]]
    assert {one["status"] for one in above} == {"active"}


def test_officers_are_accounts_of_the_department_with_the_role_and_two_persons(world: World) -> None:
    office, other = world.department("财政局"), world.department("税务局")
    path = f"/departments/{office.id}/officers"
    for one in ("sharing_office_head", "security_officer"):
        office.account(one), other.account(one)

    def name(of: Office, role: str) -> str:
        accounts = world.root.list("/users")
        return next(one["name"] for one in accounts if one["department"] == of.id and one["role"] == role)

    head, officer = name(office, "sharing_office_head"), name(office, "security_officer")
    named = world.root.post(path, {"office_head": head, "security_officer": officer})
    assert (named["office_head"], named["office_deputy"], named["security_officer"]) == (head, "", officer)
    for wrong, reason in (
        ({"office_head": name(other, "sharing_office_head")}, Reason.REQUEST_INVALID),
        ({"security_officer": head}, Reason.REQUEST_INVALID),
        ({"office_deputy": head}, Reason.REQUEST_INVALID),
        ({"office_deputy": "nobody"}, Reason.NOT_FOUND),
    ):
        assert refused(lambda wrong=wrong: world.root.post(path, wrong)) is reason, wrong  # type: ignore[misc]
    world.root.post(f"/users/{head}/revocation", {"reason": "has left"})
    shown = world.root.get(f"/departments/{office.id}")
    assert shown["officers_in_use"] == {"office_head": False, "security_officer": True}
    assert "not in use" in pool(world, "department", "show", office.id)
    assert world.root.post(path, {"office_head": ""})["office_head"] == ""


def test_a_contractor_is_no_provider_and_nobody_acts_for_it_when_its_contract_has_ended(world: World) -> None:
    commissioned, firm = world.department("民政局"), world.department("某软件公司")
    path = f"/departments/{firm.id}/placement"
    contractor = {"kinds": ["contractor"], "parent": commissioned.id}
    assert refused(lambda: world.root.post(path, contractor)) is Reason.REQUEST_INVALID, "no end"
    ends = datetime.now(UTC) + timedelta(hours=1)
    world.root.post(path, {**contractor, "contract_ends": ends.isoformat()})
    assert refused(lambda: firm.offer("of-a-firm.v1", library.text("population"))) is Reason.DEPARTMENT_KIND
    head = firm.account("sharing_office_head")
    assert head.list("/departments")
    soon = datetime.now(UTC) + timedelta(seconds=2)
    world.root.post(path, {"contract_ends": soon.isoformat()})
    wait_for(lambda: datetime.now(UTC) > soon, "the contract has ended")
    assert refused(lambda: head.list("/departments")) is Reason.CONTRACT_ENDED
    world.root.post(path, {"contract_ends": ends.isoformat()})
    assert head.list("/departments")
