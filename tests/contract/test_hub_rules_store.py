"""What every store of a library's rules keeps true, in memory and on PostgreSQL."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from exchange.hub.fold.rules import parse
from exchange.hub.services.rule_changes import Agreement, RulesState, RulesVersion
from exchange.hub.store.postgres_rules import PostgresRules
from exchange.hub.store.rules_store import MemoryRules, RulesStore
from exchange.hub.store.tables import metadata
from registry.database.unit_of_work import Database, MemoryDatabase, PostgresDatabase, take_row_changes
from schemas.errors import ConflictError, CorruptError, Reason
from tests.kit.cases.hub_claims import document
from tests.kit.row_tags import row_tags

AT = datetime(2026, 5, 4, 9, tzinfo=UTC)
S = RulesState


@dataclass
class Home:
    store: RulesStore
    db: Database

    def add(self, *versions: RulesVersion) -> None:
        with self.db.begin() as work:
            for one in versions:
                self.store.lock(work, one.rules.library)
                self.store.lock(work, one.rules.library, shared=True)
                self.store.add(work, one)
            take_row_changes(work)

    def change(self, version: RulesVersion, before: RulesState) -> None:
        with self.db.begin() as work:
            self.store.change(work, version, before)
            take_row_changes(work)

    def versions(self, library: str = "population") -> list[RulesVersion]:
        with self.db.read() as reader:
            return [*self.store.versions(reader, library)]

    def active(self) -> RulesVersion | None:
        with self.db.read() as reader:
            return self.store.active(reader, "population")


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def home(request: pytest.FixtureRequest) -> Iterator[Home]:
    if request.param == "memory":
        yield Home(MemoryRules(), MemoryDatabase())
        return
    yield on_postgres(request.getfixturevalue("engine"))


def on_postgres(engine: sa.Engine) -> Home:
    metadata.create_all(engine)
    return Home(PostgresRules(row_tags()), PostgresDatabase(engine))


def a_version(number: int = 1, state: RulesState = S.PROPOSED, library: str = "population") -> RulesVersion:
    return RulesVersion(
        rules=parse(document(number) | {"library": library}),
        state=state,
        based_on=number - 1,
        departments=("d1", "d2"),
        proposed_by="editor",
        proposed_at=AT,
    )


def test_a_version_is_read_back_with_its_signatures(home: Home) -> None:
    home.add(a_version(), a_version(2), a_version(library="credit"))
    signed = replace(a_version(), agreements=(Agreement(department="d1", by="head", at=AT),))
    home.change(signed, S.PROPOSED)
    assert home.versions() == [signed, a_version(2)]
    assert home.active() is None
    whole = replace(
        signed, state=S.ACTIVE, decided_by="officer", decided_at=AT, reason="", active_from=tuple(range(256))
    )
    home.change(whole, S.PROPOSED)
    assert home.active() == whole
    assert home.versions("address") == []


def test_a_number_is_taken_once_and_of_two_changes_the_second_is_refused(home: Home) -> None:
    home.add(a_version())
    with pytest.raises(ConflictError) as caught:
        home.add(a_version())
    assert caught.value.reason is Reason.ALREADY_EXISTS
    home.change(a_version(state=S.AGREED), S.PROPOSED)
    with pytest.raises(ConflictError) as caught:
        home.change(a_version(state=S.REJECTED), S.PROPOSED)
    assert caught.value.reason is Reason.VERSION_CONFLICT
    assert [one.state for one in home.versions()] == [S.AGREED]


def test_a_transaction_that_fails_leaves_nothing(home: Home) -> None:
    class StopError(Exception):
        pass

    home.add(a_version())

    def fail() -> None:
        with home.db.begin() as work:
            home.store.add(work, a_version(2))
            home.store.change(work, a_version(state=S.AGREED), S.PROPOSED)
            raise StopError

    with pytest.raises(StopError):
        fail()
    assert home.versions() == [a_version()]


@pytest.mark.postgres
@pytest.mark.parametrize(
    "change",
    [
        "state = 'active'",
        "document = replace(document, 'marriages.v1', 'insured.v2')",
        "procedure = replace(procedure, 'editor', 'other')",
        "version = 9",
    ],
)
def test_rules_that_the_pool_did_not_write_are_refused(engine: sa.Engine, change: str) -> None:
    home = on_postgres(engine)
    home.add(a_version(), a_version(2, library="credit"))
    with engine.begin() as connection:
        done = connection.execute(sa.text(f"UPDATE hub_rules SET {change} WHERE library = 'population'"))
        assert done.rowcount == 1
    attempts = [home.versions]
    if change.startswith("state"):
        attempts.append(home.active)  # type: ignore[arg-type]
    for attempt in attempts:
        with pytest.raises(CorruptError) as caught:
            attempt()
        assert caught.value.reason is Reason.ROW_FORGED
