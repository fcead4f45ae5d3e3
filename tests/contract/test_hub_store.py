"""What every store of the hub keeps true, in memory and on PostgreSQL."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import sqlalchemy as sa

from exchange.hub.fold.claim import Position
from exchange.hub.fold.identity import Handle
from exchange.hub.store.model import (
    ConflictRow,
    DrawPosition,
    GoldenFlag,
    ItemRow,
    LinkRow,
    Mark,
)
from exchange.hub.store.postgres import PostgresHub
from exchange.hub.store.store import HubStore, MemoryHub
from exchange.hub.store.tables import metadata
from registry.database.unit_of_work import Database, MemoryDatabase, PostgresDatabase, UnitOfWork, take_row_changes
from schemas.errors import ConflictError, CorruptError, PoolError, Reason
from tests.kit.cases.hub_rows import FOUR, MONTH, ONE, THREE, TWO, Vault
from tests.kit.row_tags import row_tags


@dataclass
class Home:
    store: HubStore
    db: Database
    vault: Vault


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def home(request: pytest.FixtureRequest) -> Iterator[Home]:
    if request.param == "memory":
        yield Home(MemoryHub(), MemoryDatabase(), Vault.new())
        return
    yield on_postgres(request.getfixturevalue("engine"))


def on_postgres(engine: sa.Engine) -> Home:
    metadata.create_all(engine)
    return Home(PostgresHub(row_tags()), PostgresDatabase(engine), Vault.new())


def noted(work: UnitOfWork) -> None:
    """Take the notes of changed rows, as the entry of the act does."""
    take_row_changes(work)


def place(number: int) -> Position:
    return Position(number, 1, 0, 2**40 + number)


def test_claims_come_back_as_they_were_stored_in_order_of_handle_and_place(home: Home) -> None:
    vault = home.vault
    claims = [
        vault.claim(handle=TWO, offset=2**62, valid_from=None, valid_to=9, recorded_at=2**61),
        vault.claim(resource=2, item=b"j" * 16),
        vault.claim(offset=5),
        replace(vault.claim(offset=6), sealed=None),
        vault.claim(handle=THREE),
    ]
    with home.db.begin() as work:
        home.store.add_claims(work, claims)
        home.store.add_claims(work, [])
    with home.db.read() as reader:
        assert home.store.claims(reader, [ONE, TWO]) == [claims[2], claims[3], claims[1], claims[0]]
        assert home.store.claims(reader, [FOUR]) == []
        assert home.store.claims(reader, []) == []
        found = home.store.handles_of(reader, 1, [b"i" * 16, b"x" * 16])
        assert found == {b"i" * 16: {ONE, TWO, THREE}}
        assert home.store.handles_of(reader, 2, [b"j" * 16]) == {b"j" * 16: {ONE}}


def test_a_claim_whose_place_is_taken_stops_the_step_that_writes_it(home: Home) -> None:
    with home.db.begin() as work:
        home.store.add_claims(work, [home.vault.claim()])

    def again() -> None:
        with home.db.begin() as work:
            home.store.put_golden(work, [home.vault.golden()])
            home.store.add_claims(work, [home.vault.claim(offset=1), home.vault.claim()])

    with pytest.raises(CorruptError) as caught:
        again()
    assert caught.value.reason is Reason.LOG_CORRUPT
    with home.db.read() as reader:
        assert len(home.store.claims(reader, [ONE])) == 1
        assert home.store.golden(reader, [ONE]) == {}


def test_a_golden_record_replaces_the_one_of_its_handle_and_all_may_be_dropped(home: Home) -> None:
    first = [home.vault.golden(handle=one) for one in (ONE, TWO)]
    moved = home.vault.golden(handle=ONE, applied=2, flags=GoldenFlag.MOVED | GoldenFlag.LINKED, prov=TWO)
    with home.db.begin() as work:
        home.store.put_golden(work, first)
        home.store.put_golden(work, [])
        home.store.put_golden(work, [moved])
    with home.db.read() as reader:
        assert home.store.golden(reader, [ONE, TWO, THREE]) == {ONE: moved, TWO: first[1]}
    with home.db.begin() as work:
        home.store.drop_golden(work)
    with home.db.read() as reader:
        assert home.store.golden(reader, [ONE, TWO]) == {}


def test_items_of_a_subject_are_listed_by_library(home: Home) -> None:
    def item(library: str, key: bytes, handle: Handle, applied: int = 1) -> ItemRow:
        return ItemRow(
            library=library, item=key * 16, handle=handle, rules=1, applied=applied, flags=GoldenFlag(0),
            sealed=b"s", prov=b"p",
        )  # fmt: skip

    rows = [
        item("e-licence", b"b", ONE),
        item("e-licence", b"a", ONE),
        item("credit", b"a", ONE),
        item("e-licence", b"c", TWO),
    ]
    with home.db.begin() as work:
        home.store.put_items(work, rows)
        home.store.put_items(work, [item("e-licence", b"b", TWO, applied=2)])
    with home.db.read() as reader:
        assert [(one.item[:1], one.handle) for one in home.store.items(reader, "e-licence", [ONE, TWO])] == [
            (b"a", ONE),
            (b"b", TWO),
            (b"c", TWO),
        ]
        assert len(home.store.items(reader, "credit", [ONE])) == 1


def test_a_key_is_stored_once_erased_once_and_never_comes_back(home: Home) -> None:
    first, other = home.vault.row(ONE), Vault.new().row(ONE)
    with home.db.begin() as work:
        home.store.add_keys(work, [first, home.vault.row(TWO)])
        home.store.add_keys(work, [other])
        assert home.store.lock_keys(work, [ONE, THREE]) == {ONE: first}
    with home.db.begin() as work:
        assert home.store.erase_key(work, ONE, 77)
        assert not home.store.erase_key(work, ONE, 78)
        assert not home.store.erase_key(work, THREE, 78)
        home.store.add_keys(work, [other])
        assert home.store.rewrap(work, [replace(first, kek=MONTH + 1)]) == 0, "a key that is gone is not wrapped again"
    with home.db.read() as reader:
        assert home.store.keys(reader, [ONE]) == {ONE: replace(first, wrapped=None, erased_at=77)}
        assert home.store.subjects(reader, b"", 9) == [ONE, TWO]
        assert home.store.subjects(reader, b"", 1) == [ONE]
        assert home.store.subjects(reader, ONE, 9) == [TWO]


def test_survivors_of_a_month_are_wrapped_under_the_next(home: Home) -> None:
    rows = [home.vault.row(one) for one in (ONE, TWO, THREE)]
    with home.db.begin() as work:
        home.store.add_keys(work, rows)
        home.store.erase_key(work, TWO, 1)
    with home.db.begin() as work:
        page = home.store.keys_of_month(work, MONTH, b"", 1)
        assert [one.handle for one in page] == [ONE]
        page = home.store.keys_of_month(work, MONTH, ONE, 9)
        assert [one.handle for one in page] == [THREE]
        assert home.store.rewrap(work, [replace(one, kek=MONTH + 1, wrapped=b"w" * 60) for one in rows]) == 2
        assert home.store.keys_of_month(work, MONTH, b"", 9) == []
        assert [one.handle for one in home.store.keys_of_month(work, MONTH + 1, b"", 9)] == [ONE, THREE]


def test_links_are_followed_over_any_number_and_keep_their_first_claim(home: Home) -> None:
    links = [
        LinkRow(left=ONE, right=TWO, claim=place(1), applied=1),
        LinkRow(left=TWO, right=THREE, claim=place(2), applied=4),
    ]
    with home.db.begin() as work:
        home.store.add_links(work, links)
        home.store.add_links(
            work, [replace(links[0], applied=9), LinkRow(left=ONE, right=TWO, claim=place(3), applied=8)]
        )
        home.store.add_links(work, [])
    with home.db.read() as reader:
        found = home.store.related(reader, [ONE, FOUR])
        assert found == {ONE: {ONE, TWO, THREE}, FOUR: {FOUR}}
        assert home.store.related(reader, [THREE])[THREE] == {ONE, TWO, THREE}


def test_open_conflicts_of_a_library_come_by_field_and_place_up_to_a_limit(home: Home) -> None:
    first = ConflictRow(handle=TWO, library="population", field="a", winner=place(3), loser=place(1), opened=1)
    second = replace(first, handle=ONE, loser=place(2))
    third = replace(first, handle=ONE, field="b", loser=place(1))
    closed, other = replace(first, field="c", closed=4), replace(first, library="address")
    with home.db.begin() as work:
        home.store.put_conflicts(work, [third, closed, other, second, first])
    with home.db.read() as reader:
        assert home.store.conflicts_in(reader, "population", 9) == [first, second, third]
        assert home.store.conflicts_in(reader, "population", 2) == [first, second]
        assert home.store.conflicts_in(reader, "credit", 9) == []


def test_conflicts_open_close_and_open_again_with_their_intervals(home: Home) -> None:
    row = ConflictRow(handle=ONE, library="population", field="full_name", winner=place(1), loser=place(2), opened=3)
    other = replace(row, field="sex_code")
    with home.db.begin() as work:
        home.store.put_conflicts(work, [row, other, replace(row, handle=TWO)])
        home.store.put_conflicts(work, [replace(row, closed=5)])
        assert home.store.open_conflicts(work, [ONE]) == [other]
        home.store.put_conflicts(work, [replace(row, opened=7)])
        home.store.put_conflicts(work, [])
    with home.db.read() as reader:
        found = home.store.open_conflicts(reader, [ONE, TWO, THREE])
        assert {(one.handle, one.field, one.opened) for one in found} == {
            (ONE, "full_name", 7),
            (ONE, "sex_code", 3),
            (TWO, "full_name", 3),
        }


def test_a_mark_stands_once_and_ends_once(home: Home) -> None:
    mark = Mark(
        handle=ONE,
        library="population",
        field="full_name",
        kind="disputed",
        from_applied=4,
        to_applied=None,
        ticket="t",
    )
    with home.db.begin() as work:
        home.store.add_mark(work, mark)
        noted(work)

    def change(then: str) -> None:
        with home.db.begin() as work:
            if then == "add":
                home.store.add_mark(work, replace(mark, from_applied=5))
            else:
                home.store.end_mark(work, mark, 9)

    def attempt(then: str, reason: Reason) -> None:
        with pytest.raises(ConflictError) as caught:
            change(then)
        assert caught.value.reason is reason

    attempt("add", Reason.ALREADY_EXISTS)
    with home.db.begin() as work:
        home.store.end_mark(work, mark, 6)
        home.store.add_mark(work, replace(mark, kind="restricted", field=""))
        home.store.add_mark(work, replace(mark, from_applied=8))
        noted(work)
    attempt("end", Reason.VERSION_CONFLICT)
    with home.db.read() as reader:
        assert [(one.field, one.from_applied, one.to_applied) for one in home.store.marks(reader, [ONE, TWO])] == [
            ("", 4, None),
            ("full_name", 4, 6),
            ("full_name", 8, None),
        ]


def test_batches_of_a_bucket_are_numbered_without_a_gap_and_their_times_rise(home: Home) -> None:
    with home.db.begin() as work:
        home.store.lock_group(work, 0)
        assert home.store.next_batch(work, [3, 200], 100, "e1") == {3: 1, 200: 1}
        assert home.store.next_batch(work, [], 100, "e1") == {}
    with home.db.begin() as work:
        assert home.store.next_batch(work, [3], 50, "e2") == {3: 2}
        assert home.store.next_batch(work, [3, 4], 400, "e3") == {3: 3, 4: 1}
    with home.db.read() as reader:
        assert [*home.store.batches(reader, 3)] == [100, 101, 400]
        assert [*home.store.batches(reader, 9)] == []
        assert home.store.last_batches(reader) == {3: 3, 4: 1, 200: 1}


def test_a_position_is_moved_by_one_who_knows_it(home: Home) -> None:
    first = DrawPosition(grant="g", group=0, position=b"p1", vector=(1, 0))
    second = replace(first, position=b"p2", vector=(7, 2**40))

    def move(before: DrawPosition | None, after: DrawPosition) -> None:
        with home.db.begin() as work:
            home.store.move_position(work, before, after)

    move(None, first)
    with pytest.raises(ConflictError) as caught:
        move(None, second)
    assert caught.value.reason is Reason.VERSION_CONFLICT
    move(first, second)
    with pytest.raises(ConflictError):
        move(first, replace(second, position=b"p3"))
    with home.db.read() as reader:
        assert home.store.position(reader, "g", 0) == second
        assert home.store.position(reader, "g", 1) is None


def test_a_number_of_a_resource_is_given_once(home: Home) -> None:
    with home.db.begin() as work:
        home.store.number_resources(work, ["b.v1", "a.v1"])
        home.store.number_resources(work, ["c.v1", "a.v1"])
        home.store.number_resources(work, [])
        noted(work)
    with home.db.read() as reader:
        assert home.store.resources(reader) == {"a.v1": 1, "b.v1": 2, "c.v1": 3}


def test_a_transaction_that_fails_leaves_nothing(home: Home) -> None:
    class StopError(Exception):
        pass

    def fail() -> None:
        with home.db.begin() as work:
            home.store.add_keys(work, [home.vault.row(ONE)])
            home.store.add_claims(work, [home.vault.claim()])
            home.store.put_golden(work, [home.vault.golden()])
            home.store.next_batch(work, [0], 5, "e")
            home.store.number_resources(work, ["a.v1"])
            home.store.move_position(work, None, DrawPosition(grant="g", group=0, position=b"p", vector=()))
            home.store.add_links(work, [LinkRow(left=ONE, right=TWO, claim=place(1), applied=1)])
            raise StopError

    with pytest.raises(StopError):
        fail()
    with home.db.read() as reader:
        assert home.store.keys(reader, [ONE]) == {}
        assert home.store.claims(reader, [ONE]) == []
        assert home.store.golden(reader, [ONE]) == {}
        assert [*home.store.batches(reader, 0)] == []
        assert home.store.resources(reader) == {}
        assert home.store.position(reader, "g", 0) is None
        assert home.store.related(reader, [ONE]) == {ONE: {ONE}}


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("change", "read"),
    [
        ("UPDATE hub_position SET vector = '{9,9}'", "position"),
        ("UPDATE hub_position SET position = 'p9'", "position"),
        ("UPDATE hub_batch SET at = at - 50 WHERE applied = 2", "batches"),
        ("UPDATE hub_batch SET entry = 'other'", "batches"),
        ("DELETE FROM hub_batch WHERE applied = 1", "batches"),
        ("UPDATE hub_resource SET number = 9 WHERE name = 'a.v1'", "resources"),
        ("UPDATE hub_mark SET to_applied = 5", "marks"),
        ("UPDATE hub_mark SET field = 'sex_code'", "marks"),
    ],
)
def test_a_row_that_the_hub_did_not_write_is_refused(engine: sa.Engine, change: str, read: str) -> None:
    home = on_postgres(engine)
    mark = Mark(
        handle=ONE,
        library="population",
        field="full_name",
        kind="disputed",
        from_applied=4,
        to_applied=None,
        ticket="t",
    )
    with home.db.begin() as work:
        home.store.move_position(work, None, DrawPosition(grant="g", group=0, position=b"p1", vector=(1, 0)))
        home.store.next_batch(work, [0], 100, "e1")
        home.store.next_batch(work, [0], 200, "e2")
        home.store.number_resources(work, ["a.v1"])
        home.store.add_mark(work, mark)
        noted(work)
    reads = {
        "position": lambda reader: home.store.position(reader, "g", 0),
        "batches": lambda reader: home.store.batches(reader, 0),
        "resources": home.store.resources,
        "marks": lambda reader: home.store.marks(reader, [ONE]),
    }
    with home.db.read() as reader:
        reads[read](reader)  # type: ignore[no-untyped-call]
    with engine.begin() as connection:
        assert connection.execute(sa.text(change)).rowcount >= 1
    with pytest.raises(PoolError) as caught, home.db.read() as reader:
        reads[read](reader)  # type: ignore[no-untyped-call]
    assert caught.value.reason is Reason.ROW_FORGED
