"""What every store of grants keeps true, in memory and on PostgreSQL."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.access.decision.purposes import SEED, Purpose
from exchange.access.grants.grant_json import grant_hash, to_text
from exchange.access.grants.memory import MemoryAccessStore
from exchange.access.grants.postgres import PostgresAccessStore, metadata
from exchange.access.grants.row_mac import MacedRow, RowMac
from exchange.access.grants.store import (
    AccessStore,
    DeliveredRun,
    GrantPosition,
    GrantQuery,
    quota_day,
)
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Database, MemoryDatabase, PostgresDatabase
from schemas.access import GrantState
from schemas.errors import ConflictError, CorruptError, InvalidError, Reason, RefusedError
from schemas.names import ResourceName, Topic
from tests.kit.cases.grants import CONSUMER, GRANT, NOW, POPULATION, PROVIDER, STRANGER, a_grant
from tests.kit.row_tags import row_tags

KEY = bytes(range(32))
DAY = date(2026, 5, 4)
WAIT = 10.0  # seconds; only ever used up by a test that fails
BLOCKED = 0.3  # seconds to see that somebody waits


@dataclass
class Home:
    store: AccessStore
    db: Database

    def put(self, *grants: Any) -> None:
        for grant in grants:
            with self.db.begin() as work:
                self.store.put(work, grant, entry_id=f"entry-{grant.version}", at=NOW)


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def home(request: pytest.FixtureRequest) -> Iterator[Home]:
    if request.param == "memory":
        yield Home(MemoryAccessStore(RowMac(KEY)), MemoryDatabase())
    else:
        engine: sa.Engine = request.getfixturevalue("engine")
        metadata.create_all(engine)
        yield Home(PostgresAccessStore(RowMac(KEY), row_tags()), PostgresDatabase(engine))


def test_a_grant_is_read_back_as_it_was_put(home: Home) -> None:
    home.put(a_grant())
    with home.db.begin() as work:
        for read in (home.store.get, home.store.lock_shared, home.store.lock_for_update):
            assert read(work, GRANT) == a_grant()


def test_an_unknown_grant_is_unknown(home: Home) -> None:
    for read in ("get", "lock_shared", "lock_for_update"):
        with pytest.raises(InvalidError) as error, home.db.begin() as work:
            getattr(home.store, read)(work, GRANT)
        assert error.value.reason is Reason.GRANT_UNKNOWN
    with home.db.begin() as work:
        assert list(home.store.versions(work, GRANT)) == []


def test_every_version_stays_readable_with_its_hash_and_entry(home: Home) -> None:
    history = [a_grant(version=1, state=GrantState.SUBMITTED), a_grant(version=2), a_grant(version=3, quota_per_day=9)]
    home.put(*history)
    with home.db.begin() as work:
        versions = home.store.versions(work, GRANT)
        assert home.store.get(work, GRANT) == history[-1]
    assert [version.grant for version in versions] == history
    assert [version.hash for version in versions] == [grant_hash(grant) for grant in history]
    assert [(v.entry_id, v.recorded_at) for v in versions] == [(f"entry-{n}", NOW) for n in (1, 2, 3)]


@pytest.mark.parametrize("version", [0, 1, 2, 4])
def test_a_version_that_does_not_follow_is_a_conflict_and_leaves_no_trace(home: Home, version: int) -> None:
    home.put(a_grant(version=1), a_grant(version=2))
    with pytest.raises(ConflictError) as error:
        home.put(a_grant(version=version, quota_per_day=1))
    assert error.value.reason is Reason.VERSION_CONFLICT
    with home.db.begin() as work:
        assert home.store.get(work, GRANT) == a_grant(version=2)
        assert len(home.store.versions(work, GRANT)) == 2


def test_a_new_grant_begins_with_version_one(home: Home) -> None:
    with pytest.raises(ConflictError):
        home.put(a_grant(version=2))


def test_what_is_rolled_back_never_happened(home: Home) -> None:
    home.put(a_grant())
    day_before = DAY - timedelta(days=1)
    with home.db.begin() as work:
        home.store.add_released(work, GRANT, day_before, 5, None)

    def fail_in_the_end() -> None:
        with home.db.begin() as work:
            home.store.put(work, a_grant(version=2), entry_id="e", at=NOW)
            home.store.put(work, a_grant(id="another"), entry_id="e", at=NOW)
            home.store.add_released(work, GRANT, DAY, 7, None)
            home.store.add_released(work, GRANT, day_before, 7, None)
            home.store.replace_position(work, GRANT, expected=GrantPosition(), new=GrantPosition(committed=b"a"))
            home.store.seed_purposes(work)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_in_the_end()
    with home.db.begin() as work:
        assert home.store.get(work, GRANT).version == 1
        assert [grant.id for grant in home.store.list(work, GrantQuery())] == [GRANT]
        assert home.store.released(work, GRANT, DAY) == 0
        assert home.store.released(work, GRANT, day_before) == 5
        assert home.store.position(work, GRANT) == GrantPosition()
        assert list(home.store.purposes(work)) == []


def test_lists_are_filtered_ordered_and_cut_into_pages(home: Home) -> None:
    other = Topic(ResourceName("credit"), 1)
    grants = [
        a_grant(id="a"),
        a_grant(id="b", consumer=STRANGER),
        a_grant(id="c", provider=CONSUMER, consumer=PROVIDER),
        a_grant(id="d", topic=other, state=GrantState.SUSPENDED),
        a_grant(id="e", expires=NOW + timedelta(days=1)),
    ]
    home.put(*reversed(grants))

    def ids(**query: Any) -> str:
        with home.db.begin() as work:
            return "".join(grant.id for grant in home.store.list(work, GrantQuery(**query)))

    assert ids() == "abcde"
    assert ids(consumer=CONSUMER) == "ade"
    assert ids(provider=PROVIDER) == "abde"
    assert ids(party=CONSUMER) == "acde"
    assert ids(topic=other) == "d"
    assert ids(topic=POPULATION) == "abce"
    assert ids(states=frozenset({GrantState.SUSPENDED, GrantState.EXPIRED})) == "d"
    assert ids(states=frozenset()) == ""
    assert ids(expires_before=NOW + timedelta(days=1)) == ""
    assert ids(expires_before=NOW + timedelta(days=2)) == "e"
    assert ids(consumer=CONSUMER, topic=POPULATION, limit=1) == "a"
    assert ids(consumer=CONSUMER, after="a") == "de"


def test_overdue_grants_are_told_page_by_page(home: Home) -> None:
    minute = timedelta(minutes=1)
    for number in range(5):
        home.put(a_grant(id=f"g-{number}", expires=NOW - minute))
    home.put(a_grant(id="g-later", expires=NOW))
    home.put(a_grant(id="g-off", expires=NOW - minute, state=GrantState.SUSPENDED))
    home.put(a_grant(id="g-done", expires=NOW - minute), a_grant(id="g-done", version=2, state=GrantState.EXPIRED))
    with home.db.begin() as work:
        assert list(home.store.overdue(work, NOW)) == [f"g-{number}" for number in range(5)]
        assert list(home.store.overdue(work, NOW, limit=2)) == ["g-0", "g-1"]
        assert list(home.store.overdue(work, NOW, after="g-1", limit=2)) == ["g-2", "g-3"]
        assert list(home.store.overdue(work, NOW, after="g-4")) == []


def test_active_grants_are_told_page_by_page_and_no_row_is_verified(home: Home) -> None:
    for number in range(3):
        home.put(a_grant(id=f"g-{number}"))
    home.put(a_grant(id="g-off", state=GrantState.SUSPENDED))
    with home.db.begin() as work:
        assert list(home.store.active(work)) == ["g-0", "g-1", "g-2"]
        assert list(home.store.active(work, after="g-0", limit=1)) == ["g-1"]
        assert list(home.store.active(work, after="g-2")) == []


def test_a_resource_is_all_its_majors_and_no_other_name_that_begins_with_its_own(home: Home) -> None:
    names = [("population", 1), ("population", 12), ("population-v1", 1), ("popul", 1)]
    for number, (name, major) in enumerate(names):
        home.put(a_grant(id=f"g-{number}", topic=Topic(ResourceName(name), major)))
    with home.db.begin() as work:
        found = home.store.list(work, GrantQuery(resource=ResourceName("population")))
    assert [grant.id for grant in found] == ["g-0", "g-1"]


def test_a_list_shows_current_versions(home: Home) -> None:
    home.put(a_grant(version=1), a_grant(version=2, state=GrantState.SUSPENDED))
    with home.db.begin() as work:
        assert list(home.store.list(work, GrantQuery(states=frozenset({GrantState.ACTIVE})))) == []
        assert [grant.version for grant in home.store.list(work, GrantQuery())] == [2]


# locks


def in_background(act: Callable[[], Any]) -> tuple[threading.Thread, threading.Event, list[Any]]:
    done, result = threading.Event(), list[Any]()

    def run() -> None:
        result.append(act())
        done.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, done, result


def test_decisions_on_what_a_department_holds_follow_each_other(home: Home) -> None:
    def decide() -> int:
        with home.db.begin() as work:
            home.store.lock_holding(work, CONSUMER, POPULATION.name)
            return len(home.store.list(work, GrantQuery(consumer=CONSUMER, resource=POPULATION.name)))

    with home.db.begin() as work:
        home.store.lock_holding(work, CONSUMER, POPULATION.name)
        thread, done, result = in_background(decide)
        assert not done.wait(BLOCKED)
        home.store.put(work, a_grant(), entry_id="e", at=NOW)
    assert done.wait(WAIT)
    thread.join()
    assert result == [1], "the second sees what the first brought about"


def test_a_revocation_waits_for_the_releases_that_have_begun(home: Home) -> None:
    home.put(a_grant())

    def revoke() -> None:
        with home.db.begin() as work:
            grant = home.store.lock_for_update(work, GRANT)
            home.store.put(work, replace(grant, version=2, state=GrantState.SUSPENDED), entry_id="e", at=NOW)

    with home.db.begin() as work:
        assert home.store.lock_shared(work, GRANT).state is GrantState.ACTIVE
        thread, done, _ = in_background(revoke)
        assert not done.wait(BLOCKED)
    assert done.wait(WAIT)
    thread.join()


def test_no_release_follows_a_revocation(home: Home) -> None:
    home.put(a_grant())

    def release() -> GrantState:
        with home.db.begin() as work:
            return home.store.lock_shared(work, GRANT).state

    with home.db.begin() as work:
        grant = home.store.lock_for_update(work, GRANT)
        thread, done, seen = in_background(release)
        assert not done.wait(BLOCKED)
        home.store.put(work, replace(grant, version=2, state=GrantState.SUSPENDED), entry_id="e", at=NOW)
    assert done.wait(WAIT)
    thread.join()
    assert seen == [GrantState.SUSPENDED]


@pytest.mark.postgres
def test_releases_of_one_grant_do_not_wait_for_each_other(engine: sa.Engine) -> None:
    metadata.create_all(engine)
    home = Home(PostgresAccessStore(RowMac(KEY), row_tags()), PostgresDatabase(engine))
    home.put(a_grant())
    with home.db.begin() as one, home.db.begin() as two:
        assert home.store.lock_shared(one, GRANT) == home.store.lock_shared(two, GRANT)


def test_grants_are_counted_by_state_for_all_and_for_one_department(home: Home) -> None:
    for number in range(3):
        home.put(a_grant(id=f"g-{number}", state=GrantState.SUBMITTED))
    home.put(a_grant(id="g-3", state=GrantState.ACTIVE))
    home.put(a_grant(id="g-4", state=GrantState.ACTIVE, consumer="d-other"))
    with home.db.read() as reader:

        def counted(party: str | None, most: int = 10) -> dict[GrantState, int]:
            return home.store.state_counts(reader, party=party, most=most)

        assert counted(None) == {GrantState.SUBMITTED: 3, GrantState.ACTIVE: 2}
        assert counted(None, most=2) == {GrantState.SUBMITTED: 2, GrantState.ACTIVE: 2}
        assert counted(CONSUMER) == {GrantState.SUBMITTED: 3, GrantState.ACTIVE: 1}
        assert counted(PROVIDER) == {GrantState.SUBMITTED: 3, GrantState.ACTIVE: 2}
        assert counted("d-other") == {GrantState.ACTIVE: 1}
        assert counted("d-nobody") == {}


# quotas


def test_a_quota_is_counted_by_day_and_never_passed(home: Home) -> None:
    home.put(a_grant())
    with home.db.begin() as work:
        assert home.store.add_released(work, GRANT, DAY, 60, 100) == 60
        assert home.store.add_released(work, GRANT, DAY, 40, 100) == 100
        assert home.store.add_released(work, GRANT, DAY + timedelta(days=1), 100, 100) == 100
    for count in (1, 1_000):
        with pytest.raises(RefusedError) as error, home.db.begin() as work:
            home.store.add_released(work, GRANT, DAY, count, 100)
        assert error.value.reason is Reason.QUOTA_EXHAUSTED
    with pytest.raises(RefusedError), home.db.begin() as work:
        home.store.add_released(work, GRANT, DAY + timedelta(days=2), 101, 100)
    with home.db.begin() as work:
        assert home.store.released(work, GRANT, DAY) == 100
        assert home.store.released(work, GRANT, DAY + timedelta(days=2)) == 0
        assert home.store.add_released(work, GRANT, DAY, 3_000_000_000, None) == 3_000_000_100


def test_parallel_releases_do_not_overdraw(home: Home) -> None:
    home.put(a_grant())

    def release(_: int) -> bool:
        try:
            with home.db.begin() as work:
                home.store.add_released(work, GRANT, DAY, 30, 100)
        except RefusedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(release, range(16))) == 3
    with home.db.begin() as work:
        assert home.store.released(work, GRANT, DAY) == 90


def test_a_day_begins_at_midnight_in_shanghai() -> None:
    assert quota_day(datetime(2026, 5, 4, 15, 59, 59, tzinfo=UTC)) == date(2026, 5, 4)
    assert quota_day(datetime(2026, 5, 4, 16, 0, tzinfo=UTC)) == date(2026, 5, 5)
    with pytest.raises(InvalidError):
        quota_day(datetime(2026, 5, 4))  # noqa: DTZ001 - that is the point


# positions


def test_a_position_moves_only_from_where_the_caller_saw_it(home: Home) -> None:
    home.put(a_grant())
    start, first = GrantPosition(), GrantPosition(committed=b"", released=b"\x00one")
    second = GrantPosition(committed=b"\x00one", released=b"\x00one", tracked=b"\x00t", runs=3)
    with home.db.begin() as work:
        assert home.store.position(work, GRANT) == start
        home.store.replace_position(work, GRANT, expected=start, new=first)
        home.store.replace_position(work, GRANT, expected=first, new=second)
    for seen in (start, first):
        with pytest.raises(ConflictError) as error, home.db.begin() as work:
            home.store.replace_position(work, GRANT, expected=seen, new=GrantPosition(committed=b"two"))
        assert error.value.reason is Reason.VERSION_CONFLICT
    with home.db.begin() as work:
        assert home.store.position(work, GRANT) == second
        home.store.replace_position(work, GRANT, expected=second, new=start)
        home.store.replace_position(work, GRANT, expected=start, new=first)


def test_of_two_consumers_at_one_position_one_moves_it(home: Home) -> None:
    home.put(a_grant())

    def move(n: int) -> bool:
        try:
            with home.db.begin() as work:
                home.store.replace_position(
                    work, GRANT, expected=GrantPosition(), new=GrantPosition(committed=bytes([n + 1]))
                )
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(move, range(8))) == 1


# purposes


def test_purposes_are_seeded_once_and_kept_as_they_are(home: Home) -> None:
    own = Purpose(
        id="eligibility", parent=None, zh="资格", en="Eligibility", dpv="https://w3id.org/dpv#X", active=False
    )
    with home.db.begin() as work:
        home.store.seed_purposes(work, [own])
        home.store.seed_purposes(work)
        home.store.seed_purposes(work)
        stored = {purpose.id: purpose for purpose in home.store.purposes(work)}
    assert stored == {purpose.id: purpose for purpose in SEED} | {"eligibility": own}
    assert list(stored) == sorted(stored)


# a database administrator's edits


WIDER = a_grant(fields=("id_number", "full_name", "birth_date", "mobile_phone"))


@pytest.fixture
def desk(engine: sa.Engine) -> Home:
    metadata.create_all(engine)
    home = Home(PostgresAccessStore(RowMac(KEY), row_tags()), PostgresDatabase(engine))
    home.put(a_grant(), a_grant(id="other", consumer=STRANGER))
    return home


def edit(engine: sa.Engine, statement: str, **parameters: Any) -> None:
    with engine.begin() as connection:
        assert connection.execute(sa.text(statement), parameters).rowcount >= 1


FORGERIES: list[tuple[str, dict[str, Any]]] = [
    ("UPDATE access_grant SET text = :text WHERE id = :id", {"text": to_text(WIDER)}),
    (
        "UPDATE access_grant SET text = :text, hash = :hash WHERE id = :id",
        {"text": to_text(WIDER), "hash": grant_hash(WIDER)},
    ),
    (
        "UPDATE access_grant SET text = :text, hash = :hash, seal = :seal WHERE id = :id",
        {
            "text": to_text(WIDER),
            "hash": grant_hash(WIDER),
            "seal": RowMac(bytes(32)).protect(GRANT, to_text(WIDER)).mac,
        },
    ),
    ("UPDATE access_grant SET text = text || ' ' WHERE id = :id", {}),
    ("UPDATE access_grant SET seal = hash WHERE id = :id", {}),
    (
        """UPDATE access_grant SET (text, hash, seal) =
           (SELECT o.text, o.hash, o.seal FROM access_grant o WHERE o.id = 'other') WHERE id = :id""",
        {},
    ),
]


@pytest.mark.postgres
@pytest.mark.parametrize(("statement", "parameters"), FORGERIES, ids=map(str, range(len(FORGERIES))))
def test_a_row_edited_behind_the_pool_s_back_is_refused(
    desk: Home, engine: sa.Engine, statement: str, parameters: dict[str, Any]
) -> None:
    edit(engine, statement, id=GRANT, **parameters)
    for read in ("get", "lock_shared", "lock_for_update"):
        with pytest.raises(CorruptError) as error, desk.db.begin() as work:
            getattr(desk.store, read)(work, GRANT)
        assert error.value.reason is Reason.GRANT_FORGED
    with pytest.raises(CorruptError), desk.db.begin() as work:
        desk.store.list(work, GrantQuery())
    with desk.db.begin() as work:
        page = desk.store.page(work, GrantQuery())
        assert {one.cursor for one in page if isinstance(one, DamagedRow)} == {GRANT}
        assert all(isinstance(one, DamagedRow) or one.id != GRANT for one in page)
        found, damaged = desk.store.lock_to_end(work, GRANT)
        assert (found, damaged) == (a_grant(), True)
        ended = replace(found, version=2, state=GrantState.SUSPENDED)
        put = desk.store.put_over_damaged(work, ended, entry_id="entry-2", at=NOW)
        assert desk.store.get(work, GRANT) == put.grant == ended
        assert desk.store.lock_to_end(work, GRANT) == (ended, False)


@pytest.mark.postgres
def test_a_version_that_was_made_up_is_in_nobody_s_way_and_none_of_the_pool_s_leaves_nothing_to_end(
    desk: Home, engine: sa.Engine
) -> None:
    edit(
        engine,
        "INSERT INTO access_grant_version SELECT grant_id, 2, text, hash, hash, entry_id, recorded_at "
        "FROM access_grant_version WHERE grant_id = :id",
        id=GRANT,
    )
    edit(engine, "UPDATE access_grant SET seal = hash WHERE id = :id", id=GRANT)
    with desk.db.begin() as work:
        found, _ = desk.store.lock_to_end(work, GRANT)
        ended = replace(found, version=2, state=GrantState.SUSPENDED)
        assert desk.store.put_over_damaged(work, ended, entry_id="entry-3", at=NOW).grant.version == 3
    edit(engine, "UPDATE access_grant SET seal = hash WHERE id = :id", id=GRANT)
    edit(engine, "UPDATE access_grant_version SET seal = hash WHERE grant_id = :id", id=GRANT)
    with pytest.raises(CorruptError) as error, desk.db.begin() as work:
        desk.store.lock_to_end(work, GRANT)
    assert error.value.reason is Reason.GRANT_FORGED


@pytest.mark.postgres
def test_a_made_up_row_is_refused(desk: Home, engine: sa.Engine) -> None:
    edit(
        engine,
        "INSERT INTO access_grant SELECT 'made-up', version, replace(text, id, 'made-up'), "
        "sha256(convert_to(replace(text, id, 'made-up'), 'UTF8')), seal, consumer, provider, topic, state, expires "
        "FROM access_grant WHERE id = :id",
        id=GRANT,
    )
    with pytest.raises(CorruptError), desk.db.begin() as work:
        desk.store.lock_shared(work, "made-up")


@pytest.mark.postgres
def test_history_is_proved_too(desk: Home, engine: sa.Engine) -> None:
    edit(engine, "UPDATE access_grant_version SET text = :text WHERE grant_id = :id", id=GRANT, text=to_text(WIDER))
    with pytest.raises(CorruptError), desk.db.begin() as work:
        desk.store.versions(work, GRANT)


@pytest.mark.postgres
def test_columns_beside_the_text_grant_nothing(desk: Home, engine: sa.Engine) -> None:
    edit(
        engine, "UPDATE access_grant SET consumer = :other, state = 'expired' WHERE id = :id", id=GRANT, other=STRANGER
    )
    with desk.db.begin() as work:
        assert desk.store.lock_shared(work, GRANT) == a_grant()


def test_a_seal_fits_one_grant_one_text_and_one_key() -> None:
    row_mac, text = RowMac(KEY), to_text(a_grant())
    row = row_mac.protect(GRANT, text)
    assert row_mac.verify(GRANT, row) == a_grant()
    for grant_id, forged in (
        ("other", row),
        (GRANT, RowMac(bytes(32)).protect(GRANT, text)),
        (GRANT, replace(row, text=text + " ")),
        (GRANT, replace(row, hash=bytes(32))),
        (GRANT, row_mac.protect("other", text)),
        (GRANT, row_mac.protect(GRANT, to_text(a_grant(id="other")))),
        (GRANT, row_mac.protect(GRANT, "{}")),
        (GRANT, MacedRow("", b"", b"")),
    ):
        with pytest.raises(CorruptError):
            row_mac.verify(grant_id, forged)
    with pytest.raises(ValueError, match="32"):
        RowMac(bytes(31))


# delivered keys


def test_runs_of_delivered_keys_are_read_in_order_and_a_merged_one_replaces_its_parts(home: Home) -> None:
    home.put(a_grant())
    runs = [DeliveredRun(first=n, last=n, events=bytes([n]) * 24) for n in range(1, 5)]
    with home.db.begin() as work:
        for run in runs:
            home.store.replace_delivered_runs(work, GRANT, 7, run)
        assert list(home.store.delivered_runs(work, GRANT, 7, 0)) == runs
        assert list(home.store.delivered_runs(work, GRANT, 7, 2)) == runs[2:]
        merged = DeliveredRun(first=2, last=5, events=b"m" * 24)
        home.store.replace_delivered_runs(work, GRANT, 7, merged)
        assert list(home.store.delivered_runs(work, GRANT, 7, 0)) == [runs[0], merged]
        assert list(home.store.delivered_runs(work, GRANT, 7, 3)) == [merged]
        assert list(home.store.delivered_runs(work, GRANT, 8, 0)) == [], "another generation of the topic"
