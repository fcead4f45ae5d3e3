"""The timer ends every grant whose time is over, whatever stands in the way of one of them."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from exchange.access.decision.roles import Standing
from exchange.access.grants.memory import MemoryAccessStore
from exchange.access.grants.row_mac import RowMac
from exchange.authorization.enforcement import Enforcer
from exchange.control.grants.service import GrantService
from exchange.control.requests.stored import StoredRequests
from exchange.deadlines.in_force import ShippedRules
from exchange.duties.store import MemoryDuties
from exchange.requests.store import MemoryRequests
from exchange.violations.store import MemoryViolations
from registry.database.unit_of_work import UnitOfWork
from schemas.access import Grant, GrantState
from schemas.errors import PoolError, Reason, RefusedError, UnavailableError
from tests.kit.cases.audit import START, memory_world
from tests.kit.cases.grants import NOW, a_grant

OVER = NOW - timedelta(hours=1)


class Store(MemoryAccessStore):
    """Fails for some grants."""

    def __init__(self) -> None:
        super().__init__(RowMac(b"k" * 32))
        self.failing: dict[str, PoolError] = {}

    def lock_for_update(self, work: UnitOfWork, grant_id: str) -> Grant:
        if grant_id in self.failing:
            raise self.failing[grant_id]
        return super().lock_for_update(work, grant_id)


class Timed:
    """Grants of one pool, the time, and how long the timer slept."""

    def __init__(self) -> None:
        self.world = memory_world()
        self.now = START
        self.store = Store()
        self.slept: list[float] = []
        attributes: Any = SimpleNamespace(
            now=lambda _: NOW,
            standing=lambda _: Standing.ACTIVE,
            resource_of=lambda *_: None,
            level_of=lambda *_: None,
            rules=ShippedRules().rules,
        )
        views: Any = None
        db = self.world.db
        self.granting = GrantService(
            pool_id="test-pool",
            database=db,
            enforcer=Enforcer(db, self.world.ledger(), pool_id="test-pool", clock=lambda: self.now),
            access=self.store,
            attributes=attributes,
            views=views,
            requests=StoredRequests(MemoryRequests(), attributes),
            duties=MemoryDuties(),
            violations=MemoryViolations(),
            window=5.0,
            clock=lambda: self.now,
            sleep=self.slept.append,
        )

    def add(self, *ids: str) -> None:
        with self.world.db.begin() as work:
            for grant_id in ids:
                self.store.put(work, a_grant(id=grant_id, expires=OVER), entry_id="e", at=OVER)

    def forge(self, grant_id: str) -> None:
        [(row, entry, at)] = self.store._tables.versions[grant_id]
        self.store._tables.versions[grant_id] = [(replace(row, mac=bytes(32)), entry, at)]

    def expired(self, *ids: str) -> bool:
        with self.world.db.begin() as work:
            return all(self.store.get(work, grant_id).state is GrantState.EXPIRED for grant_id in ids)


@contextmanager
def warnings() -> Iterator[list[tuple[Any, ...]]]:
    told: list[tuple[Any, ...]] = []
    with structlog.testing.capture_logs() as logs:
        yield told
    told += [(line["event"], line["grant"], line["reason"]) for line in logs]


def test_the_timer_waits_once_for_all_it_ends() -> None:
    timed = Timed()
    timed.add(*"abcde")
    assert timed.granting.expire() == 5
    assert timed.expired(*"abcde")
    assert timed.slept == [5.0]
    assert timed.granting.expire() == 0
    assert timed.slept == [5.0]


@pytest.mark.parametrize("count", [5, 1_003])
def test_a_forged_grant_keeps_no_other_alive(count: int) -> None:
    timed = Timed()
    ids = [f"{number:04}" for number in range(count)]
    timed.add(*ids)
    timed.forge("0001")
    with warnings() as told:
        assert timed.granting.expire() == count - 1
    assert told == [("expiry_failed", "0001", Reason.GRANT_FORGED)]
    assert timed.expired(*(each for each in ids if each != "0001"))


@pytest.mark.parametrize(
    ("error", "again"),
    [(RefusedError(Reason.ROLE_FORBIDDEN, "no"), 600), (UnavailableError(Reason.DATABASE_UNAVAILABLE, "away"), 0)],
)
def test_a_grant_that_cannot_be_ended_is_tried_again_and_does_not_fill_the_log(error: PoolError, again: int) -> None:
    timed = Timed()
    timed.add(*"abc")
    timed.store.failing["a"] = error
    with warnings() as told:
        assert timed.granting.expire() == 2
    assert told == [("expiry_failed", "a", error.reason)]
    assert timed.expired("b", "c")
    timed.store.failing.clear()
    turns = itertools.count(0, 10)
    waited = next(second for second in turns if _a_turn_at(timed, second))
    assert waited == again


def _a_turn_at(timed: Timed, second: int) -> int:
    timed.now = START + second * 1_000_000
    return timed.granting.expire()
