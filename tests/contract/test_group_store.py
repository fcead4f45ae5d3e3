"""What every group store keeps true, in memory and on PostgreSQL: one call for many grants is many calls for one."""

import threading
from dataclasses import dataclass, replace
from datetime import date

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.access.grants.group import Count, GroupStore, MemoryGroupStore, PositionChange
from exchange.access.grants.group_postgres import PostgresGroupStore
from exchange.access.grants.memory import MemoryAccessStore
from exchange.access.grants.postgres import PostgresAccessStore, metadata
from exchange.access.grants.row_mac import RowMac
from exchange.access.grants.store import AccessStore, GrantPosition
from registry.database.unit_of_work import Database, MemoryDatabase, PostgresDatabase
from schemas.errors import RefusedError, UnavailableError
from tests.kit.cases.grants import NOW, a_grant
from tests.kit.row_tags import row_tags

KEY = bytes(range(32))
DAY = date(2026, 5, 4)
IDS = [f"01890000-0000-7000-8000-0000000000{number:02x}" for number in range(8)]
UNKNOWN = "01890000-0000-7000-8000-0000000000ff"


@dataclass
class Home:
    store: AccessStore
    group: GroupStore
    db: Database


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def home(request: pytest.FixtureRequest) -> Home:
    if request.param == "memory":
        store = MemoryAccessStore(RowMac(KEY))
        made = Home(store, MemoryGroupStore(store), MemoryDatabase())
    else:
        engine: sa.Engine = request.getfixturevalue("engine")
        metadata.create_all(engine)
        access = PostgresAccessStore(RowMac(KEY), row_tags())
        made = Home(access, PostgresGroupStore(RowMac(KEY)), PostgresDatabase(engine))
    with made.db.begin() as work:
        for grant_id in IDS:
            made.store.put(work, a_grant(id=grant_id), entry_id="entry-1", at=NOW)
    return made


def test_grants_are_those_of_the_single_store_and_an_unknown_one_is_left_out(home: Home) -> None:
    wanted = [IDS[3], UNKNOWN, IDS[0]]
    with home.db.begin() as work:
        expected = {grant_id: home.store.get(work, grant_id) for grant_id in (IDS[0], IDS[3])}
        assert home.group.get(work, wanted) == expected
        assert home.group.lock(work, wanted) == expected


def test_counts_are_those_of_single_calls(home: Home) -> None:
    day = iter(range(1, 10_000))

    @settings(max_examples=25)
    @given(
        st.lists(
            st.dictionaries(
                st.sampled_from(IDS),
                st.builds(Count, st.integers(1, 5), st.none() | st.integers(0, 9)),
                min_size=1,
            ),
            min_size=1,
            max_size=4,
        )
    )
    def check(groups: list[dict[str, Count]]) -> None:
        at = date.fromordinal(DAY.toordinal() + 2 * next(day))
        twin = date.fromordinal(at.toordinal() + 1)
        for counts in groups:
            with home.db.begin() as work:
                added = set(home.group.add_released(work, counts, at))
            for grant_id, count in counts.items():
                try:
                    with home.db.begin() as work:
                        home.store.add_released(work, grant_id, twin, count.records, count.limit)
                    assert grant_id in added
                except RefusedError:
                    assert grant_id not in added
        with home.db.read() as reader:
            single = {grant_id: home.store.released(reader, grant_id, twin) for grant_id in IDS}
            assert home.group.released(reader, [*IDS, UNKNOWN], at) == {one: n for one, n in single.items() if n}

    check()


def test_positions_are_replaced_and_first_ones_added(home: Home) -> None:
    first = GrantPosition(committed=b"c", released=b"r", tracked=b"t", runs=3)
    moved = replace(first, released=b"s", runs=4)
    with home.db.begin() as work:
        assert home.group.lock_positions(work, IDS[:2]) == {}
        assert set(home.group.replace_positions(work, {IDS[0]: PositionChange(None, first)})) == {IDS[0]}
    with home.db.begin() as work:
        assert home.group.lock_positions(work, IDS[:2]) == {IDS[0]: first}
        changes = {IDS[1]: PositionChange(None, first), IDS[0]: PositionChange(first, moved)}
        assert set(home.group.replace_positions(work, changes)) == set(IDS[:2])
    with home.db.read() as reader:
        assert [home.store.position(reader, grant_id) for grant_id in IDS[:3]] == [moved, first, GrantPosition()]


@pytest.fixture
def desk(engine: sa.Engine) -> Home:
    metadata.create_all(engine)
    access = PostgresAccessStore(RowMac(KEY), row_tags())
    made = Home(access, PostgresGroupStore(RowMac(KEY)), PostgresDatabase(engine))
    with made.db.begin() as work:
        for grant_id in IDS:
            made.store.put(work, a_grant(id=grant_id), entry_id="entry-1", at=NOW)
    return made


@pytest.mark.postgres
def test_a_grant_that_is_being_changed_and_a_forged_one_are_left_out(desk: Home, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE access_grant SET text = text || ' ' WHERE id = :id"), {"id": IDS[1]})
    with desk.db.begin() as other:
        desk.store.lock_for_update(other, IDS[0])
        with desk.db.begin() as work:
            assert set(desk.group.lock(work, IDS[:4])) == set(IDS[2:4])
            assert set(desk.group.get(work, IDS[:4])) == {IDS[0], *IDS[2:4]}


@pytest.mark.postgres
def test_a_change_waits_for_a_group_that_has_the_grant(desk: Home) -> None:
    locked, changed = threading.Event(), threading.Event()

    def change() -> None:
        locked.wait()
        with desk.db.begin() as other:
            desk.store.lock_for_update(other, IDS[2])
            changed.set()

    thread = threading.Thread(target=change)
    thread.start()
    with desk.db.begin() as work:
        desk.group.lock(work, IDS)
        locked.set()
        assert not changed.wait(0.3)
    thread.join()
    assert changed.is_set()


def count_and_lock(desk: Home) -> None:
    with desk.db.begin() as work:
        desk.group.lock(work, IDS)
        desk.group.add_released(work, {IDS[0]: Count(1, None)}, DAY)
        desk.group.lock_positions(work, IDS)


@pytest.mark.postgres
def test_a_group_that_would_wait_long_gives_up_and_has_written_nothing(desk: Home) -> None:
    position = GrantPosition(released=b"r")
    with desk.db.begin() as work:
        desk.store.replace_position(work, IDS[0], expected=GrantPosition(), new=position)
    with desk.db.begin() as other:
        desk.store.replace_position(other, IDS[0], expected=position, new=GrantPosition(released=b"s"))
        with pytest.raises(UnavailableError):
            count_and_lock(desk)
    with desk.db.read() as reader:
        assert desk.store.released(reader, IDS[0], DAY) == 0


@pytest.mark.postgres
def test_first_positions_that_another_transaction_has_added_are_not_overwritten(desk: Home) -> None:
    theirs, ours = GrantPosition(released=b"theirs"), GrantPosition(released=b"ours")
    with desk.db.begin() as work:
        assert desk.group.lock_positions(work, IDS[:2]) == {}
        with desk.db.begin() as other:
            desk.store.replace_position(other, IDS[0], expected=GrantPosition(), new=theirs)
        changes = {grant_id: PositionChange(None, ours) for grant_id in IDS[:2]}
        assert list(desk.group.replace_positions(work, changes)) == [IDS[1]]
    with desk.db.read() as reader:
        assert desk.store.position(reader, IDS[0]) == theirs
