"""What every store of retractions keeps true, in memory and on PostgreSQL."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from exchange.erasure.postgres_retractions import PostgresRetractions
from exchange.erasure.retractions import MemoryRetractions, Retraction, RetractionStore
from exchange.erasure.tables import metadata
from registry.database.unit_of_work import Database, MemoryDatabase, PostgresDatabase
from schemas.names import Topic

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

    def found(self, version: int = 0, topic: Topic = TOPIC) -> dict[bytes, tuple[int, int]]:
        with self.db.read() as reader:
            return {one.key: (one.position, one.version) for one in self.store.newer(reader, topic, version, 100)}


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def home(request: pytest.FixtureRequest) -> Iterator[Home]:
    if request.param == "memory":
        yield Home(MemoryRetractions(), MemoryDatabase())
    else:
        engine: sa.Engine = request.getfixturevalue("engine")
        metadata.create_all(engine)
        yield Home(PostgresRetractions(), PostgresDatabase(engine))


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def retraction(number: int, position: int) -> Retraction:
    return Retraction(key=key(number), partition=number % 4, position=position)


def test_each_transaction_is_a_version_and_a_topic_has_its_own(home: Home) -> None:
    home.add(retraction(1, 10), retraction(2, 11))
    home.add(retraction(3, 12))
    home.add(retraction(1, 5), topic=OTHER)
    assert home.found() == {key(1): (10, 1), key(2): (11, 1), key(3): (12, 2)}
    assert home.found(version=1) == {key(3): (12, 2)}
    assert home.found(topic=OTHER) == {key(1): (5, 1)}
    with home.db.begin() as work:
        assert (home.store.join(work, TOPIC), home.store.join(work, OTHER)) == (2, 1)
        assert home.store.join(work, Topic.parse("never.v1")) == 0


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
        assert len(home.store.newer(reader, TOPIC, 0, 7)) == 7


def test_what_is_rolled_back_is_no_retraction(home: Home) -> None:
    def fail_in_the_end() -> None:
        with home.db.begin() as work:
            home.store.add(work, TOPIC, [retraction(1, 10)])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_in_the_end()
    assert home.found() == {}
    with home.db.begin() as work:
        assert home.store.join(work, TOPIC) == 0


def test_a_retraction_waits_for_a_release_that_has_joined_and_the_next_one_sees_it(home: Home) -> None:
    stored = threading.Event()

    def retract() -> None:
        home.add(retraction(1, 10))
        stored.set()

    thread = threading.Thread(target=retract)
    with home.db.begin() as work:
        assert home.store.join(work, TOPIC) == 0
        thread.start()
        assert not stored.wait(BLOCKED), "it was stored while a release ran"
    assert stored.wait(WAIT)
    thread.join()
    with home.db.begin() as work:
        assert home.store.join(work, TOPIC) == 1


def test_a_release_waits_for_a_retraction_that_is_being_stored(home: Home) -> None:
    seen: list[int] = []

    def release() -> None:
        with home.db.begin() as work:
            seen.append(home.store.join(work, TOPIC))

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
        assert home.store.join(one, TOPIC) == home.store.join(two, TOPIC) == 0


@pytest.mark.postgres
def test_a_topic_from_before_retractions_is_incomplete_until_its_voids_are_stored(engine: sa.Engine) -> None:
    metadata.create_all(engine)
    home = Home(PostgresRetractions(), PostgresDatabase(engine))
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
