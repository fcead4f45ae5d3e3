"""What every store of rule changes keeps true, in memory and on PostgreSQL."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from exchange.deadlines.changes import ChangeState, MemoryRuleChanges, RuleChange, RuleChangeStore, RuleKind
from exchange.deadlines.postgres_changes import PostgresRuleChanges
from exchange.deadlines.tables import metadata
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Database, MemoryDatabase, PostgresDatabase
from schemas.errors import ConflictError, CorruptError, Reason
from tests.kit.row_tags import row_tags

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def change(number: int, kind: RuleKind = RuleKind.CALENDAR, subject: str = "2027", content: str = "x") -> RuleChange:
    return RuleChange(
        id=f"0198c0de-0000-7000-8000-{number:012}",
        kind=kind,
        subject=subject,
        content=content,
        proposed_by="one",
        proposed_at=NOW,
    )


@dataclass
class Home:
    store: RuleChangeStore
    db: Database

    def add(self, *changes: RuleChange) -> None:
        with self.db.begin() as work:
            for one in changes:
                self.store.add(work, one)

    def confirm(self, one: RuleChange, by: str = "two") -> RuleChange:
        decided = one.decide(confirmed=True, by=by, at=NOW)
        with self.db.begin() as work:
            self.store.decide(work, decided)
        return decided

    def get(self, one: RuleChange) -> RuleChange | None:
        with self.db.read() as reader:
            return self.store.get(reader, one.id)

    def in_force(self) -> list[RuleChange]:
        with self.db.read() as reader:
            return [*self.store.in_force(reader)]

    def ids(self, **query: object) -> list[str]:
        with self.db.read() as reader:
            found = self.store.page(reader, **{"limit": 1000, **query})  # type: ignore[arg-type]
        return ["damaged" if isinstance(one, DamagedRow) else one.id[-2:] for one in found]


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def home(request: pytest.FixtureRequest) -> Home:
    if request.param == "memory":
        return Home(MemoryRuleChanges(), MemoryDatabase())
    engine: sa.Engine = request.getfixturevalue("engine")
    metadata.create_all(engine)
    return Home(PostgresRuleChanges(row_tags()), PostgresDatabase(engine))


def test_what_is_proposed_is_in_force_when_it_is_confirmed_and_until_the_next_one(home: Home) -> None:
    first, second, other = change(1, content="公休日\n"), change(2), change(3, RuleKind.PROFILE, "island")
    home.add(first, second, other)
    assert home.get(first) == first
    assert home.in_force() == []
    confirmed = home.confirm(first)
    assert home.in_force() == [confirmed]
    assert home.get(first) == confirmed
    also = home.confirm(other)
    later = home.confirm(second)
    assert home.in_force() == [later, also]
    assert home.get(first) == replace(confirmed, state=ChangeState.SUPERSEDED)
    assert home.get(change(9)) is None


def test_a_decision_is_made_once(home: Home) -> None:
    one = change(1)
    home.add(one)
    with home.db.begin() as work:
        home.store.decide(work, one.decide(confirmed=False, by="one", at=NOW, reason="a wrong year"))
    with pytest.raises(ConflictError) as caught:
        home.confirm(one)
    assert caught.value.reason is Reason.TRANSITION_NOT_ALLOWED
    assert "is rejected already" in caught.value.message
    assert home.in_force() == []
    stored = home.get(one)
    assert stored is not None
    assert (stored.state, stored.reason) == (ChangeState.REJECTED, "a wrong year")
    with pytest.raises(ConflictError, match="is rejected already"):
        stored.decide(confirmed=True, by="two", at=NOW)


def test_what_is_rolled_back_has_not_happened(home: Home) -> None:
    first, second = change(1), change(2)
    home.add(first, second)
    confirmed = home.confirm(first)

    def fail() -> None:
        with home.db.begin() as work:
            home.store.decide(work, second.decide(confirmed=True, by="two", at=NOW))
            home.store.add(work, change(3))
            raise ConflictError(Reason.VERSION_CONFLICT, "the transaction fails")

    with pytest.raises(ConflictError, match="the transaction fails"):
        fail()
    assert home.in_force() == [confirmed]
    assert home.ids() == ["02", "01"]


def test_lists_are_newest_first_by_kind_and_state_and_by_page(home: Home) -> None:
    home.add(*(change(n, RuleKind.PROFILE if n % 2 else RuleKind.CALENDAR, str(n)) for n in range(1, 8)))
    home.confirm(change(4, subject="4"))
    assert home.ids() == ["07", "06", "05", "04", "03", "02", "01"]
    assert home.ids(kind=RuleKind.CALENDAR) == ["06", "04", "02"]
    assert home.ids(kind=RuleKind.CALENDAR, state=ChangeState.PROPOSED) == ["06", "02"]
    assert home.ids(limit=3) == ["07", "06", "05"]
    assert home.ids(limit=3, before=change(5).id) == ["04", "03", "02"]


@pytest.mark.postgres
def test_the_database_refuses_a_confirmation_of_the_proposer_and_two_in_force(engine: sa.Engine) -> None:
    metadata.create_all(engine)
    home = Home(PostgresRuleChanges(row_tags()), PostgresDatabase(engine))
    home.add(change(1), change(2))
    with pytest.raises(Exception, match="deadline_rule_change_two_persons"):
        home.confirm(change(1), by="one")
    home.confirm(change(1))
    with pytest.raises(Exception, match="deadline_rule_change_in_force"), engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE deadline_rule_change SET state = 'in_force', decided_by = 'x' WHERE state = 'proposed'")
        )


@pytest.mark.postgres
@pytest.mark.parametrize("statement", ["content = 'y'", "subject = '2028'", "state = 'proposed'", "tag = NULL"])
def test_a_row_that_the_pool_did_not_write_is_refused_and_named_in_lists(engine: sa.Engine, statement: str) -> None:
    metadata.create_all(engine)
    home = Home(PostgresRuleChanges(row_tags()), PostgresDatabase(engine))
    home.add(change(1), change(2, subject="2029"))
    home.confirm(change(1))
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE deadline_rule_change SET {statement} WHERE subject = '2027'"))
    with pytest.raises(CorruptError) as caught:
        home.get(change(1))
    assert caught.value.reason is Reason.ROW_FORGED
    if statement != "state = 'proposed'":
        with pytest.raises(CorruptError):
            home.in_force()
    assert home.ids() == ["02", "damaged"]
