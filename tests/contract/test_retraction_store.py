"""What every store of retractions keeps true, in memory and on PostgreSQL."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from exchange.erasure.postgres_retractions import PostgresRetractions, chain_existing
from exchange.erasure.retractions import NO_RETRACTIONS, Head, MemoryRetractions, Retraction, RetractionStore
from exchange.erasure.tables import metadata
from registry.database.unit_of_work import Database, MemoryDatabase, PostgresDatabase
from schemas.errors import CorruptError, Reason
from schemas.names import Topic
from tests.kit.row_tags import row_tags

TOPIC = Topic.parse("permits.v1")
OTHER = Topic.parse("permits.v2")
WAIT = 10.0  # seconds; only ever used up by a test that fails
BLOCKED = 0.3  # seconds to see that somebody waits


@dataclass
class Home:
    store: RetractionStore
    db: Database

    def add(self, *retractions: Retraction, topic: Topic = TOPIC) -> None:
        with self.db.begin() as work:
            self.store.add(work, topic, retractions)

    def found(self, after: Head = NO_RETRACTIONS, topic: Topic = TOPIC) -> dict[bytes, tuple[int, int]]:
        with self.db.read() as reader:
            newer, _ = self.store.newer(reader, topic, after, 100)
        return {one.key: (one.position, one.version) for one in newer}

    def head(self, topic: Topic = TOPIC) -> Head:
        with self.db.begin() as work:
            return self.store.join(work, topic)


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def home(request: pytest.FixtureRequest) -> Iterator[Home]:
    if request.param == "memory":
        yield Home(MemoryRetractions(), MemoryDatabase())
    else:
        engine: sa.Engine = request.getfixturevalue("engine")
        metadata.create_all(engine)
        yield Home(PostgresRetractions(row_tags()), PostgresDatabase(engine))


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def retraction(number: int, position: int) -> Retraction:
    return Retraction(key=key(number), partition=number % 4, position=position)


def test_each_transaction_is_a_version_and_a_topic_has_its_own(home: Home) -> None:
    home.add(retraction(1, 10), retraction(2, 11))
    first = home.head()
    home.add(retraction(3, 12))
    home.add(retraction(1, 5), topic=OTHER)
    assert home.found() == {key(1): (10, 1), key(2): (11, 1), key(3): (12, 2)}
    assert home.found(after=first) == {key(3): (12, 2)}
    assert home.found(topic=OTHER) == {key(1): (5, 1)}
    assert (home.head().version, home.head(OTHER).version) == (2, 1)
    assert home.head(Topic.parse("never.v1")) == NO_RETRACTIONS


def test_of_a_key_the_last_retraction_stands(home: Home) -> None:
    home.add(retraction(1, 10), retraction(1, 20))
    home.add(retraction(1, 15), retraction(2, 16))
    assert home.found() == {key(1): (20, 1), key(2): (16, 2)}
    home.add(retraction(1, 30))
    with home.db.read() as reader:
        (one,) = home.store.of_keys(reader, TOPIC, [key(1), key(9)])
    assert (one.position, one.version, one.partition) == (30, 3, 1)
    assert one.at > 0


def test_no_more_are_returned_than_asked_for(home: Home) -> None:
    home.add(*(retraction(number, 10) for number in range(20)))
    with home.db.read() as reader:
        assert len(home.store.newer(reader, TOPIC, NO_RETRACTIONS, 7)[0]) == 7


def test_what_is_rolled_back_is_no_retraction(home: Home) -> None:
    def fail_in_the_end() -> None:
        with home.db.begin() as work:
            home.store.add(work, TOPIC, [retraction(1, 10)])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_in_the_end()
    assert home.found() == {}
    with home.db.begin() as work:
        assert home.store.join(work, TOPIC).version == 0


def test_a_retraction_waits_for_a_release_that_has_joined_and_the_next_one_sees_it(home: Home) -> None:
    stored = threading.Event()

    def retract() -> None:
        home.add(retraction(1, 10))
        stored.set()

    thread = threading.Thread(target=retract)
    with home.db.begin() as work:
        assert home.store.join(work, TOPIC).version == 0
        thread.start()
        assert not stored.wait(BLOCKED), "it was stored while a release ran"
    assert stored.wait(WAIT)
    thread.join()
    with home.db.begin() as work:
        assert home.store.join(work, TOPIC).version == 1


def test_a_release_waits_for_a_retraction_that_is_being_stored(home: Home) -> None:
    seen: list[int] = []

    def release() -> None:
        with home.db.begin() as work:
            seen.append(home.store.join(work, TOPIC).version)

    thread = threading.Thread(target=release)
    with home.db.begin() as work:
        home.store.add(work, TOPIC, [retraction(1, 10)])
        thread.start()
        thread.join(BLOCKED)
        assert not seen, "it joined while a retraction was being stored"
    thread.join(WAIT)
    assert seen == [1]


def test_releases_do_not_wait_for_each_other(home: Home) -> None:
    if isinstance(home.db, MemoryDatabase):
        pytest.skip("one transaction at a time")
    with home.db.begin() as one, home.db.begin() as two:
        assert home.store.join(one, TOPIC) == home.store.join(two, TOPIC) == NO_RETRACTIONS


def test_who_stores_after_another_process_or_after_a_rollback_goes_on_from_the_head_that_is_there(home: Home) -> None:
    home.add(retraction(1, 10))
    with contextlib.suppress(RuntimeError), home.db.begin() as work:
        home.store.add(work, TOPIC, [retraction(1, 20)])
        raise RuntimeError
    other = home
    if isinstance(home.store, PostgresRetractions):
        other = Home(PostgresRetractions(row_tags()), home.db)
    other.add(retraction(2, 11))
    home.add(retraction(3, 12))
    other.add(retraction(4, 13))
    assert {version for _, version in home.found().values()} == {1, 2, 3, 4}


@pytest.mark.postgres
@pytest.mark.parametrize(
    "attack",
    [
        "DELETE FROM erasure_retraction WHERE version = 2",
        "DELETE FROM erasure_retraction WHERE version = 3",
        "DELETE FROM erasure_retraction",
        "DELETE FROM erasure_retraction_version",
        "UPDATE erasure_retraction SET position = position - 1 WHERE version = 1",
        "UPDATE erasure_retraction SET partition = 3 WHERE version = 1",
        "UPDATE erasure_retraction SET topic = 'another.v1' WHERE version = 3",
        "UPDATE erasure_retraction_version SET chain = NULL",
        "UPDATE erasure_retraction_version SET chain = sha256('x')",
        "INSERT INTO erasure_retraction VALUES ('permits.v1', sha256('x'), 1, 99, 4, 1)",
    ],
)
def test_retractions_that_another_hand_changed_are_refused(engine: sa.Engine, attack: str) -> None:
    metadata.create_all(engine)
    refused: list[tuple[str, str]] = []
    home = Home(PostgresRetractions(row_tags(refused)), PostgresDatabase(engine))
    for number in (1, 2, 3):
        home.add(retraction(number, 10 * number))
    assert len(home.found()) == 3
    with engine.begin() as connection:
        assert connection.exec_driver_sql(attack).rowcount > 0
    for _ in range(2):
        with pytest.raises(CorruptError) as caught:
            home.found()
        assert caught.value.reason is Reason.ROW_FORGED
        assert ("erasure_retraction_version", '["permits.v1"]') in refused
        home.add(retraction(9, 90))  # what comes later does not repair it


@pytest.mark.postgres
def test_retractions_that_were_set_back_are_refused_by_who_has_seen_newer_ones(engine: sa.Engine) -> None:
    metadata.create_all(engine)
    home = Home(PostgresRetractions(row_tags()), PostgresDatabase(engine))
    home.add(retraction(1, 10))
    with engine.begin() as connection:
        chain = connection.exec_driver_sql("SELECT chain FROM erasure_retraction_version").scalar_one()
    home.add(retraction(2, 20))
    seen = home.head()
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM erasure_retraction WHERE version = 2")
        connection.exec_driver_sql("UPDATE erasure_retraction_version SET version = 1, chain = %s", (bytes(chain),))
    with pytest.raises(CorruptError):
        home.found(after=seen)
    home.add(retraction(3, 30))
    assert home.head().version == seen.version
    with pytest.raises(CorruptError):
        home.found(after=seen)


@pytest.mark.postgres
def test_retractions_from_before_chains_get_one_as_they_are(engine: sa.Engine) -> None:
    metadata.create_all(engine)
    home = Home(PostgresRetractions(row_tags()), PostgresDatabase(engine))
    for number in (1, 2, 3):
        home.add(retraction(number, 10 * number), retraction(7, 10 * number + 1))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE erasure_retraction_version SET chain = NULL, version = 4")
        # As they were stored before: of each key the last alone.
        connection.exec_driver_sql("DELETE FROM erasure_retraction WHERE key = %s AND version < 3", (key(7),))
    with pytest.raises(CorruptError):
        home.found()
    with home.db.begin() as work:
        assert chain_existing(work, row_tags()) == 4
    home.add(retraction(8, 80))
    assert len(home.found()) == 5


@pytest.mark.postgres
def test_a_topic_from_before_retractions_is_incomplete_until_its_voids_are_stored(engine: sa.Engine) -> None:
    metadata.create_all(engine)
    home = Home(PostgresRetractions(row_tags()), PostgresDatabase(engine))
    home.add(retraction(1, 10), topic=OTHER)
    with engine.begin() as connection:
        # As the migration does for each topic of the catalogue.
        connection.exec_driver_sql(
            "INSERT INTO erasure_retraction_version (topic, version, complete) VALUES (%s, 0, false)", (str(TOPIC),)
        )
    with home.db.read() as reader:
        assert home.store.incomplete(reader) == [TOPIC]
    home.add(retraction(1, 10))
    with home.db.begin() as work:
        home.store.complete(work, TOPIC)
    with home.db.read() as reader:
        assert home.store.incomplete(reader) == []
    assert home.found() == {key(1): (10, 1)}
