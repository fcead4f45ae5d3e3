"""An erasure that cannot be completed at once is completed by a later attempt, and counts what both have destroyed."""

from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from exchange.broker.memory import MemoryBroker
from exchange.control.erasures import ErasureService
from exchange.corrections.store import MemoryCorrections
from exchange.erasure.erasures import Erasure, ErasureState, MemoryErasures
from exchange.erasure.retractions import MemoryRetractions
from registry.database.unit_of_work import MemoryDatabase
from schemas.errors import ConflictError, Reason, UnavailableError
from tests.kit.cases.broker import append, batch, fresh_topic, key_of, lane_of, partition_of

NOW = datetime(2026, 5, 4, tzinfo=UTC)
NAMES = ("0198c0de-0000-7000-8000-0000000000a1", "0198c0de-0000-7000-8000-0000000000a2")


class Pool:
    def __init__(self) -> None:
        self.broker, self.store, self.db = MemoryBroker(), MemoryErasures(), MemoryDatabase()
        self.topic = fresh_topic()
        self.broker.create_topic(self.topic)
        append(self.broker, batch(lane_of(self.topic), 1, range(10)))
        append(self.broker, batch(lane_of(self.topic), 2, range(10)))
        self.noted: list[dict[str, Any]] = []
        self.listed: list[Erasure] = []
        made: Any = SimpleNamespace
        self.service = ErasureService(
            database=self.db,
            enforcer=made(act=self.act),
            attributes=made(standing=lambda _: None),
            broker=self.broker,
            store=self.store,
            listed=made(all=lambda: self.listed, add=self.listed.append),
            retractions=MemoryRetractions(),
            corrections=MemoryCorrections(),
            pseudonyms=made(),
            now=lambda: NOW,
            new_id=lambda: "",
        )

    @contextmanager
    def act(self, *_: object) -> Any:
        with self.db.begin() as work:
            yield work, SimpleNamespace(note=lambda **data: self.noted.append(data))

    def confirmed(self, name: str, person: int) -> None:
        """Store a confirmed erasure that is not in the list yet, as after a crash."""
        erasure = Erasure(
            id=name,
            topic=self.topic,
            key=key_of(person),
            partition=partition_of(key_of(person)),
            reason="撤回同意",
            state=ErasureState.CONFIRMED,
            proposed_by="one",
            proposed_at=NOW,
            decided_by="two",
            decided_at=NOW,
            before=1 << 40,
        )
        with self.db.begin() as work:
            self.store.add(work, erasure)

    def state(self, name: str) -> tuple[ErasureState, int | None]:
        with self.db.read() as reader:
            found = self.store.get(reader, name)
        assert found is not None
        return found.state, found.destroyed


def test_what_could_not_be_completed_is_completed_later_with_its_count(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool()
    pool.confirmed(NAMES[0], 7)

    def busy(_: object) -> bool:
        raise UnavailableError(Reason.OVERLOADED, "an older transaction runs", retry_after=1.0)

    with monkeypatch.context() as patched:
        patched.setattr(pool.broker, "destroy_erased", busy)
        with pytest.raises(UnavailableError):
            pool.service.carry_out()
    assert pool.state(NAMES[0]) == (ErasureState.CONFIRMED, None)
    assert [one.id for one in pool.listed] == [NAMES[0]], "it is in the list before anything is destroyed"
    assert pool.service.carry_out() == 1
    assert pool.state(NAMES[0]) == (ErasureState.DONE, 2)
    assert pool.noted[-1]["destroyed"] == 2
    assert pool.service.carry_out() == 0


def test_one_that_fails_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool()
    for name, person in zip(NAMES, (7, 8), strict=True):
        pool.confirmed(name, person)
    erase = pool.broker.erase

    def refuse_one(topic: Any, partition: int, key: bytes, before: int) -> int:
        if key == key_of(7):
            raise ConflictError(Reason.TRANSITION_NOT_ALLOWED, "this process may not")
        return erase(topic, partition, key, before)

    with monkeypatch.context() as patched:
        patched.setattr(pool.broker, "erase", refuse_one)
        assert pool.service.carry_out() == 1
    assert pool.state(NAMES[0])[0] is ErasureState.CONFIRMED
    assert pool.state(NAMES[1]) == (ErasureState.DONE, 2)
    assert pool.service.carry_out() == 0, "what this process may not do it does not try again"
    assert pool.service.carry_out(pool.broker) == 1, "an operator's broker does it"
    assert pool.state(NAMES[0]) == (ErasureState.DONE, 2)
