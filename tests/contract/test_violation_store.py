"""What every store of violation cases keeps true, in memory and on PostgreSQL."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date

import pytest
import sqlalchemy as sa

from exchange.violations.codes import ViolationCode
from exchange.violations.life_cycle import advance, taken_over
from exchange.violations.model import CaseEvent, CaseState, Occurrence, Sign, ViolationCase
from exchange.violations.postgres import PostgresViolations, metadata
from exchange.violations.store import CaseQuery, MemoryViolations, ViolationStore
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import (
    Database,
    MemoryDatabase,
    PostgresDatabase,
    UnitOfWork,
    take_row_changes,
)
from schemas.errors import ConflictError, CorruptError, PoolError, Reason
from tests.kit.cases.violations import CASE, CONSUMER, GRANT, PERSONS, PROVIDER, a_case, an_act, an_occurrence, in_state
from tests.kit.row_tags import row_tags

S, E = CaseState, CaseEvent


@dataclass
class Home:
    store: ViolationStore
    db: Database

    def add(self, *cases: ViolationCase) -> None:
        for case in cases:
            with self.db.begin() as work:
                self.store.add(work, case)
                noted(work)

    def change(self, case: ViolationCase) -> None:
        with self.db.begin() as work:
            self.store.change(work, case)
            noted(work)

    def get(self, case_id: str = CASE) -> ViolationCase | None:
        with self.db.read() as reader:
            return self.store.get(reader, case_id)

    def ids(self, **query: object) -> list[str]:
        with self.db.read() as reader:
            found = self.store.page(reader, CaseQuery(**query))  # type: ignore[arg-type]
        return [one.cursor if isinstance(one, DamagedRow) else one.id for one in found]

    def holding(self, grant: str = GRANT) -> list[str]:
        with self.db.read() as reader:
            return [one.id for one in self.store.holding(reader, grant)]

    def position(self) -> int:
        with self.db.read() as reader:
            return self.store.position(reader)

    def move(self, position: int) -> None:
        with self.db.begin() as work:
            self.store.move(work, position)


def noted(work: UnitOfWork) -> None:
    """Take the notes of changed rows, as the entry of the act does."""
    take_row_changes(work)


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def home(request: pytest.FixtureRequest) -> Iterator[Home]:
    if request.param == "memory":
        yield Home(MemoryViolations(), MemoryDatabase())
        return
    yield on_postgres(request.getfixturevalue("engine"))


def on_postgres(engine: sa.Engine) -> Home:
    metadata.create_all(engine)
    return Home(PostgresViolations(row_tags()), PostgresDatabase(engine))


def numbered(number: int, occurrence: Occurrence | None = None, **changes: object) -> ViolationCase:
    seen = replace(occurrence or an_occurrence(), **{"subject": f"s{number}", **changes})  # type: ignore[arg-type]
    return a_case(seen, case_id=f"{CASE[:-2]}{number:02}")


def test_a_case_is_read_back_as_it_was_written_last(home: Home) -> None:
    assert home.get() is None
    case = a_case()
    home.add(case)
    assert home.get() == case
    for event in (E.CONFIRM, E.ORDER, E.REPLY, E.ACCEPT):
        case = advance(case, an_act(event), persons=PERSONS)
        home.change(case)
        assert home.get() == case
    with home.db.begin() as work:
        assert home.store.lock(work, CASE) == case
        assert home.store.lock(work, "none") is None


def test_a_second_case_of_one_occurrence_is_refused_and_the_first_is_named(home: Home) -> None:
    home.add(a_case())
    other = a_case(an_occurrence(entry="another"), case_id=f"{CASE[:-1]}9")
    with pytest.raises(ConflictError) as caught:
        home.add(other)
    assert caught.value.reason is Reason.ALREADY_EXISTS
    assert caught.value.details == {"case": CASE}
    assert home.ids() == [CASE]
    with home.db.read() as reader:
        keys = [an_occurrence().key, an_occurrence(subject="x").key]
        assert home.store.known(reader, keys) == {keys[0]}
        assert home.store.known(reader, []) == frozenset()


def test_of_two_changes_of_one_version_the_second_is_refused(home: Home) -> None:
    home.add(a_case())
    confirmed = advance(a_case(), an_act(E.CONFIRM), persons=PERSONS)
    dismissed = advance(a_case(), an_act(E.DISMISS), persons=PERSONS)
    home.change(confirmed)
    with pytest.raises(ConflictError) as caught:
        home.change(dismissed)
    assert caught.value.reason is Reason.VERSION_CONFLICT
    assert home.get() == confirmed


def test_a_transaction_that_fails_leaves_nothing(home: Home) -> None:
    class StopError(Exception):
        pass

    home.add(a_case())

    def fail() -> None:
        with home.db.begin() as work:
            home.store.add(work, numbered(2))
            home.store.change(work, advance(a_case(), an_act(E.CONFIRM), persons=PERSONS))
            home.store.move(work, 7)
            raise StopError

    with pytest.raises(StopError):
        fail()
    assert home.ids() == [CASE]
    assert home.get() == a_case()
    assert home.position() == 0


def test_a_list_is_newest_first_its_pages_join_and_each_filter_holds(home: Home) -> None:
    overdue = an_occurrence(respondent=PROVIDER, code=ViolationCode.P4, sign=Sign.OVERDUE_REPLY, grant="")
    one, two, three, four = (
        numbered(1),
        numbered(2, overdue),
        numbered(3, an_occurrence(sign=Sign.REPORT, reporter=PROVIDER)),
        in_state(S.CLOSED, numbered(4, grant="other")),
    )
    home.add(*(replace(case, version=1) for case in (one, two, three, four)))
    every = [case.id for case in (four, three, two, one)]
    assert home.ids() == every
    joined: list[str] = []
    while page := home.ids(before=joined[-1] if joined else "", limit=3):
        joined += page
    assert joined == every
    assert home.ids(respondent=PROVIDER) == [two.id]
    assert home.ids(party=PROVIDER) == [three.id, two.id], "its own cases, and those that it reported"
    assert home.ids(party=CONSUMER) == [four.id, three.id, one.id]
    assert home.ids(party="heir", taken_over=frozenset({PROVIDER})) == [three.id, two.id], "as its predecessor"
    assert home.ids(party="", taken_over=frozenset({""})) == []
    assert home.ids(party="") == [], "no department is no party of anything"
    assert home.ids(code=ViolationCode.P4) == [two.id]
    assert home.ids(grant=GRANT) == [three.id, one.id]
    assert home.ids(states=frozenset({S.CLOSED})) == [four.id]
    assert home.ids(states=frozenset({S.DETECTED, S.CONFIRMED})) == [three.id, two.id, one.id]
    assert home.ids(states=frozenset()) == []


def test_a_grant_is_held_by_the_cases_that_are_being_rectified(home: Home) -> None:
    home.add(*(replace(in_state(state, numbered(at)), version=1) for at, state in enumerate(S, 1)))
    rectifying = numbered([*S].index(S.RECTIFYING) + 1).id
    assert home.holding() == [rectifying]
    assert home.holding("other") == []
    assert home.holding("") == []
    with home.db.read() as reader:
        assert home.store.held(reader, [GRANT, "other", ""]) == {GRANT}
        assert home.store.held(reader, ["other"]) == home.store.held(reader, []) == frozenset()
    case = home.get(rectifying)
    assert case is not None
    home.change(taken_over(case))
    assert home.holding() == [rectifying]


def test_the_position_in_the_log_only_rises(home: Home) -> None:
    assert home.position() == 0
    for position, expected in ((5, 5), (3, 5), (9, 9)):
        home.move(position)
        assert home.position() == expected
    with home.db.begin() as work:
        home.store.restart(work)
    assert home.position() == 0


@pytest.mark.postgres
@pytest.mark.parametrize(
    "change",
    [
        "state = 'closed'",
        "body = replace(body, '\"rectifying\"', '\"closed\"')",
        "occurrence = 'x'",
        "respondent = 'x'",
    ],
)
def test_a_row_that_the_pool_did_not_write_is_refused_and_named(engine: sa.Engine, change: str) -> None:
    home = on_postgres(engine)
    home.add(replace(in_state(S.RECTIFYING), version=1), numbered(2, day=date(2026, 5, 5)))
    with engine.begin() as connection:
        done = connection.execute(sa.text(f"UPDATE violation_case SET {change} WHERE id = :id"), {"id": CASE})
        assert done.rowcount == 1
    attempts = (home.get, home.holding, lambda: home.change(replace(in_state(S.RECTIFYING), version=2)))
    for attempt in attempts:
        with pytest.raises(PoolError) as caught:
            attempt()
        assert isinstance(caught.value, CorruptError)
        assert caught.value.reason is Reason.ROW_FORGED
    with home.db.read() as reader:
        whole, named = home.store.page(reader, CaseQuery(limit=9))
        assert home.store.held(reader, [GRANT]) == {GRANT}, "whatever the row says now"
    assert isinstance(named, DamagedRow)
    assert isinstance(whole, ViolationCase)


@pytest.mark.postgres
def test_an_invented_position_in_the_log_counts_as_none(engine: sa.Engine) -> None:
    home = on_postgres(engine)
    home.move(5)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE violation_log_position SET position = 1000000"))
    assert home.position() == 0, "the log is read again, and no entry is passed over"
    home.move(6)
    assert home.position() == 6


def test_the_open_reports_of_a_department_are_counted_up_to_a_bound(home: Home) -> None:
    days = [date(2026, 5, day) for day in range(1, 5)]
    reported = [an_occurrence(sign=Sign.REPORT, reporter=PROVIDER, day=day) for day in days]
    first, *others = [numbered(number, occurrence) for number, occurrence in enumerate(reported, 1)]
    home.add(first, *others, numbered(8), numbered(9, an_occurrence(sign=Sign.REPORT, reporter=CONSUMER)))
    home.change(in_state(S.CLOSED, first))
    with home.db.read() as reader:
        assert [home.store.count_reported(reader, PROVIDER, most) for most in (1, 2, 3, 4)] == [1, 2, 3, 3]
        assert home.store.count_reported(reader, CONSUMER, 10) == 1
        assert home.store.count_reported(reader, "", 10) == 0
