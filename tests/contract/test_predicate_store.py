"""What every store of registered predicates keeps true, in memory and on PostgreSQL."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.access.predicates.model import PredicateState, RegisteredPredicate
from exchange.access.predicates.postgres import PostgresPredicates, metadata
from exchange.access.predicates.store import MemoryPredicates, PredicateStore
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Database, MemoryDatabase, PostgresDatabase, UnitOfWork
from schemas.access import Range
from schemas.errors import ConflictError, CorruptError, Reason
from tests.kit.patience import PATIENCE
from tests.kit.row_tags import row_tags

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def predicate(number: int, **changes: Any) -> RegisteredPredicate:
    plain = RegisteredPredicate(
        id=f"0198c0de-0000-7000-8000-{number:012}",
        name="alive-80",
        version=number,
        library="population",
        expression=Range("age", 80, None),
        answers="年满八十周岁",
        replaces=("CERT-0031",),
        proposed_by="one",
        proposed_at=NOW,
    )
    return replace(plain, **changes)


@dataclass
class Home:
    store: PredicateStore
    db: Database

    def add(self, *predicates: RegisteredPredicate) -> None:
        with self.db.begin() as work:
            for one in predicates:
                self.store.add(work, one)

    def decide(self, one: RegisteredPredicate, *, confirmed: bool = True, by: str = "two") -> RegisteredPredicate:
        decided = one.decide(confirmed=confirmed, by=by, at=NOW, reason="" if confirmed else "too narrow")
        with self.db.begin() as work:
            self.store.decide(work, decided)
        return decided

    def get(self, one: RegisteredPredicate) -> RegisteredPredicate | None:
        with self.db.read() as reader:
            return self.store.get(reader, one.id)

    def confirmed(self, *references: str) -> dict[str, RegisteredPredicate]:
        with self.db.read() as reader:
            return dict(self.store.confirmed(reader, references))

    def ids(self, **query: Any) -> list[str]:
        with self.db.read() as reader:
            found = self.store.page(reader, **{"limit": 1_000, **query})
        return ["damaged" if isinstance(one, DamagedRow) else one.id[-2:] for one in found]


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def home(request: pytest.FixtureRequest) -> Home:
    if request.param == "memory":
        return Home(MemoryPredicates(), MemoryDatabase())
    engine: sa.Engine = request.getfixturevalue("engine")
    metadata.create_all(engine)
    return Home(PostgresPredicates(row_tags()), PostgresDatabase(engine))


def test_what_is_proposed_is_named_by_requests_once_it_is_confirmed(home: Home) -> None:
    first, second = predicate(1), predicate(2)
    home.add(first, second)
    assert home.get(first) == first
    assert home.confirmed("alive-80/1", "alive-80/2", "alive-80/3") == {}
    confirmed = home.decide(first)
    rejected = home.decide(second, confirmed=False)
    assert (home.get(first), home.get(second)) == (confirmed, rejected)
    assert home.confirmed("alive-80/1", "alive-80/2", "alive-80/10") == {"alive-80/1": confirmed}
    assert home.confirmed() == {}


def test_what_is_decided_stays_decided(home: Home) -> None:
    home.add(predicate(1))
    confirmed = home.decide(predicate(1))
    with pytest.raises(ConflictError) as refused:
        home.decide(predicate(1), confirmed=False)
    assert refused.value.reason is Reason.TRANSITION_NOT_ALLOWED
    assert home.get(predicate(1)) == confirmed


def test_a_proposal_waits_for_another_one_so_that_no_two_take_the_last_place(home: Home) -> None:
    begun, done = Event(), Event()

    def propose() -> None:
        with home.db.begin() as work:
            begun.set()
            home.store.next_version(work, "alive-90")
            done.set()

    thread = Thread(target=propose)
    with home.db.begin() as work:
        home.store.next_version(work, "alive-80")
        thread.start()
        if isinstance(home.store, PostgresPredicates):  # the twin has one transaction at a time
            assert begun.wait(PATIENCE)
        assert not done.wait(0.3)
    assert done.wait(PATIENCE)
    thread.join()


def test_each_proposal_of_a_name_has_the_next_version_rejected_ones_counted(home: Home) -> None:
    for expected in (1, 2, 3):
        with home.db.begin() as work:
            assert home.store.next_version(work, "alive-80") == expected
            home.store.add(work, predicate(expected))
        home.decide(predicate(expected), confirmed=False)
    with home.db.begin() as work:
        assert home.store.next_version(work, "alive-90") == 1


def test_lists_are_newest_first_and_may_be_restricted(home: Home) -> None:
    home.add(predicate(1), predicate(2), predicate(3, name="valid", library="e-licence"))
    home.decide(predicate(2))
    assert home.ids() == ["03", "02", "01"]
    assert home.ids(limit=2) == ["03", "02"]
    assert home.ids(before=predicate(2).id) == ["01"]
    assert home.ids(name="alive-80") == ["02", "01"]
    assert home.ids(library="e-licence") == ["03"]
    assert home.ids(state=PredicateState.PROPOSED) == ["03", "01"]


def test_what_a_rolled_back_act_stored_is_not_there(home: Home) -> None:
    def stopped(act: Callable[[UnitOfWork], None]) -> None:
        with pytest.raises(KeyError):
            _rolled_back(home, act)

    stopped(lambda work: home.store.add(work, predicate(1)))
    assert home.get(predicate(1)) is None
    home.add(predicate(1))
    stopped(lambda work: home.store.decide(work, predicate(1).decide(confirmed=True, by="two", at=NOW)))
    assert home.get(predicate(1)) == predicate(1)


def _rolled_back(home: Home, act: Callable[[UnitOfWork], None]) -> None:
    with home.db.begin() as work:
        act(work)
        raise KeyError


@pytest.mark.postgres
def test_the_database_refuses_one_person_and_a_version_twice(engine: sa.Engine) -> None:
    metadata.create_all(engine)
    home = Home(PostgresPredicates(row_tags()), PostgresDatabase(engine))
    home.add(predicate(1))
    with pytest.raises(Exception, match="access_predicate_two_persons"):
        home.decide(predicate(1), by="one")
    with pytest.raises(Exception, match="name"):
        home.add(predicate(2, version=1))


@pytest.mark.postgres
@pytest.mark.parametrize(
    "change", ["expression = replace(expression, '80', '79')", "state = 'confirmed', decided_by = 'x'"]
)
def test_a_row_that_the_pool_did_not_write_is_refused_and_named(engine: sa.Engine, change: str) -> None:
    metadata.create_all(engine)
    home = Home(PostgresPredicates(row_tags()), PostgresDatabase(engine))
    home.add(predicate(1), predicate(2))
    home.decide(predicate(2))
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE access_predicate SET {change}"))
    for read in (lambda: home.get(predicate(1)), lambda: home.confirmed("alive-80/2")):
        with pytest.raises(CorruptError) as refused:
            read()
        assert refused.value.reason is Reason.ROW_FORGED
    assert home.ids() == ["damaged", "damaged"]
