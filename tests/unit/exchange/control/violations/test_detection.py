"""The detector: the same log gives the same cases, each once, whatever fails or is read twice."""

from datetime import UTC, date, datetime, timedelta
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from exchange.access.decision.roles import Standing
from exchange.authorization.enforcement import Enforcer
from exchange.control.violations import detection
from exchange.control.violations.detection import ViolationDetector
from exchange.control.violations.overdue import OverdueUpdates
from exchange.deadlines.in_force import ShippedRules
from exchange.violations.model import Sign, ViolationCase
from exchange.violations.store import CaseQuery, MemoryViolations
from registry.catalogue.life_cycle import EntryEvent, ProcedureState
from registry.catalogue.record import CatalogueRecord, EntryAct, LegalChange
from schemas.access import Action
from schemas.audit import AuditEntry, Decision, GrantRef
from schemas.errors import Reason, UnavailableError
from schemas.names import Topic
from tests.kit.cases.audit import memory_world
from tests.kit.cases.catalogue import metadata
from tests.kit.cases.violations import an_occurrence

NOW = datetime(2026, 11, 18, 10, 0, tzinfo=UTC)


class Detecting:
    """A log, and what reads it."""

    def __init__(self) -> None:
        self.world = memory_world()
        self.store = MemoryViolations()
        self.ledger = self.world.ledger()
        self.overdue: list[Any] = []
        self.ids = count(1)
        self.detector = self.another()

    def another(self) -> ViolationDetector:
        """Return the detector of another process."""
        db = self.world.db
        attributes: Any = SimpleNamespace(
            now=lambda _: NOW, standing=lambda _: Standing.ACTIVE, rules=ShippedRules().rules
        )
        return ViolationDetector(
            database=db,
            enforcer=Enforcer(db, self.ledger, pool_id="test-pool", clock=lambda: self.world.make.now),
            attributes=attributes,
            store=self.store,
            entries=self.world.entries,
            provider_of=lambda _, topic: {"population.v1": "d-9"}.get(topic),
            overdue=[SimpleNamespace(overdue=lambda *_: iter(self.overdue))],  # type: ignore[list-item]
            new_id=lambda: f"case-{next(self.ids):04}",
        )

    def log(self, *entries: AuditEntry) -> None:
        self.world.write(self.ledger, *entries)
        while self.world.log.assign_indexes(1_000):
            pass

    def denied(self, reason: Reason = Reason.PURPOSE_MISMATCH, grant: str = "g-1", **fields: Any) -> AuditEntry:
        reference = GrantRef(id=grant, version=1, hash="cc")
        return self.world.make.make(Action.FETCH, decision=Decision.DENY, reason=reason, grant=reference, **fields)

    def cases(self) -> list[tuple[Sign, str]]:
        with self.world.db.read() as reader:
            found = self.store.page(reader, CaseQuery())
        return [(one.occurrence.sign, one.occurrence.subject) for one in found if isinstance(one, ViolationCase)][::-1]

    def position(self) -> int:
        with self.world.db.read() as reader:
            return self.store.position(reader)


def test_a_day_s_refused_reads_of_a_grant_are_one_case_however_many_there_are() -> None:
    pool = Detecting()
    pool.log(pool.world.make.fetch(0, 9), *(pool.denied() for _ in range(5)), pool.denied(grant="g-2"))
    assert pool.detector.read_log() == 2
    pool.log(pool.denied(), pool.denied(Reason.CASE_MISMATCH), pool.denied(Reason.QUOTA_EXHAUSTED))
    assert pool.detector.read_log() == 1
    assert pool.cases() == [(Sign.PURPOSE, "g-1"), (Sign.PURPOSE, "g-2"), (Sign.CASE, "g-1")]


def test_the_case_names_the_first_entry_and_has_one_of_its_own() -> None:
    pool = Detecting()
    first, second = pool.denied(), pool.denied()
    pool.log(first, second)
    pool.detector.read_log()
    with pool.world.db.read() as reader:
        [case] = pool.store.page(reader, CaseQuery())
    assert isinstance(case, ViolationCase)
    assert case.occurrence.entry == first.id
    pool.log()
    with pool.world.log.placed(0) as leaves:
        text = [leaf.leaf for leaf in leaves][-1].decode()
    for word in (str(Action.VIOLATION_DETECT), case.id, first.id, '"id":"timer"'):
        assert word in text


def test_a_log_that_is_read_from_its_beginning_gives_the_same_cases_and_none_twice() -> None:
    pool = Detecting()
    pool.log(*(pool.denied(grant=f"g-{number}") for number in range(7)))
    pool.detector.read_log()
    before = pool.cases()
    with pool.world.db.begin() as work:
        pool.store.restart(work)
    assert pool.another().read_log() == 0
    assert pool.cases() == before
    again = Detecting()
    again.world.entries = pool.world.entries
    again.world.db, again.ledger = pool.world.db, pool.world.ledger()
    again.detector = again.another()
    assert again.detector.read_log() == 7
    assert again.cases() == before


def test_a_turn_reads_a_bounded_part_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "_SPAN", 3)
    pool = Detecting()
    pool.log(*(pool.denied(grant=f"g-{number}") for number in range(7)))
    found = [pool.another().read_log() for _ in range(3)]
    assert found == [3, 3, 1]
    assert pool.position() >= 7


def test_what_fails_is_found_in_the_next_turn() -> None:
    pool = Detecting()
    pool.log(*(pool.denied(grant=f"g-{number}") for number in range(4)))
    calls = count(1)
    add = pool.store.add

    def failing(work: Any, case: ViolationCase) -> None:
        if next(calls) == 3:
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "away")
        add(work, case)

    pool.store.add = failing  # type: ignore[method-assign]
    with pytest.raises(UnavailableError):
        pool.detector.read_log()
    assert len(pool.cases()) == 2
    assert pool.position() == 0, "nothing is passed over"
    assert pool.detector.read_log() == 2
    assert len(pool.cases()) == 4


def test_of_two_processes_each_case_is_made_by_one() -> None:
    pool = Detecting()
    pool.log(*(pool.denied(grant=f"g-{number}") for number in range(3)))
    known = pool.store.known
    pool.store.known = lambda *_: frozenset()  # type: ignore[method-assign,assignment]
    assert pool.detector.read_log() == 3
    with pool.world.db.begin() as work:
        pool.store.restart(work)
    assert pool.another().read_log() == 0
    pool.store.known = known  # type: ignore[method-assign]
    assert len(pool.cases()) == 3


def test_another_log_is_read_from_its_beginning() -> None:
    pool = Detecting()
    with pool.world.db.begin() as work:
        pool.store.move(work, 500)
    pool.log(pool.denied())
    assert pool.detector.read_log() == 0
    assert pool.detector.read_log() == 1


def test_entries_without_an_index_wait_for_it() -> None:
    pool = Detecting()
    pool.world.write(pool.ledger, pool.denied())
    assert pool.detector.read_log() == 0
    pool.log()
    assert pool.detector.read_log() == 1


def test_deadlines_are_looked_at_every_few_minutes_and_each_is_one_case() -> None:
    pool = Detecting()
    pool.overdue = [an_occurrence(sign=Sign.OVERDUE_UPDATE, subject="population.v1")]
    assert pool.detector.step() == 1
    pool.overdue += [an_occurrence(sign=Sign.OVERDUE_UPDATE, subject="other.v1")]
    assert sum(pool.detector.step() for _ in range(29)) == 0
    assert pool.detector.step() == 1
    assert pool.cases() == [(Sign.OVERDUE_UPDATE, "population.v1"), (Sign.OVERDUE_UPDATE, "other.v1")]


@pytest.mark.parametrize(
    ("on", "late", "found"),
    [
        (date(2026, 5, 6), timedelta(), True),  # ten working days, 9 May among them
        (date(2026, 5, 6), timedelta(microseconds=-1), False),
        (date(2026, 12, 24), timedelta(days=60), False),  # provisional: the year is not known
    ],
)
def test_an_update_of_the_catalogue_is_late_by_the_rules_in_force(on: date, late: timedelta, found: bool) -> None:
    due = datetime(2026, 5, 19, 16, 0, tzinfo=UTC) if on.month == 5 else datetime(2027, 1, 8, 16, 0, tzinfo=UTC)
    record = CatalogueRecord(
        topic=Topic.parse("residents.v1"),
        provider="d-9",
        code="307001/000001",
        state=ProcedureState.UPDATING,
        metadata=metadata(),
        change=LegalChange(on=on),
        act=EntryAct(event=EntryEvent.CHANGE, by="editor", at=NOW, entry="e"),
    )
    records: Any = SimpleNamespace(page=lambda _reader, _query: [record])
    rules = ShippedRules().rules(SimpleNamespace())  # type: ignore[arg-type]
    occurrences = [*OverdueUpdates(records).overdue(SimpleNamespace(), rules, due + late)]  # type: ignore[arg-type]
    assert bool(occurrences) is found
    if found:
        assert (occurrences[0].respondent, occurrences[0].day) == (record.provider, on)
