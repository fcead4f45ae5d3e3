"""A lane that is resumed while an append of the same gateway waits for it."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.broker.kafka.broker import KafkaBroker
from exchange.broker.memory import MemoryBroker
from exchange.broker.port import Broker
from exchange.broker.postgres.broker import PostgresBroker, metadata
from registry.database.unit_of_work import PostgresDatabase
from schemas.errors import ConflictError, Reason
from schemas.names import Lane
from tests.kit.cases.broker import KEY, append, batch, fresh_topic, lane_of
from tests.kit.world.kafka import Node


class Patient:
    """A lock for which whoever comes first waits until it is told to go on."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self._first = threading.Lock()
        self.came, self.go = threading.Event(), threading.Event()

    def acquire(self, *arguments: Any, **named: Any) -> Any:
        if self._first.acquire(blocking=False):
            self.came.set()
            assert self.go.wait(60)
        return self._real.acquire(*arguments, **named)

    def release(self) -> None:
        self._real.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


Hold = Callable[[Lane], Patient]


@pytest.fixture(
    params=[
        "memory",
        pytest.param("postgres", marks=pytest.mark.postgres),
        pytest.param("kafka", marks=pytest.mark.kafka),
    ]
)
def adapter(request: pytest.FixtureRequest) -> Iterator[tuple[Broker, Hold]]:
    """Return a broker, and what puts a patient lock before one of its lanes."""
    if request.param == "memory":
        memory = MemoryBroker()

        def hold_all(_: Lane) -> Patient:
            memory.log.lock = patient = Patient(memory.log.lock)  # type: ignore[assignment]
            return patient

        yield memory, hold_all
    elif request.param == "postgres":
        engine: sa.Engine = request.getfixturevalue("engine")
        metadata.create_all(engine)
        postgres = PostgresBroker(PostgresDatabase(engine), key=KEY)

        def hold_lock(lane: Lane) -> Patient:
            postgres._lane_locks[lane] = patient = Patient(postgres._lane_locks[lane])  # type: ignore[assignment]
            return patient

        yield postgres, hold_lock
        postgres.close()
    else:
        node: Node = request.getfixturevalue("kafka_node")
        kafka = KafkaBroker(node.settings(), key=KEY)

        def hold_writer(lane: Lane) -> Patient:
            writer = kafka._producers._writers[lane]
            writer.lock = patient = Patient(writer.lock)  # type: ignore[assignment]
            return patient

        yield kafka, hold_writer
        kafka.close()


def test_what_waited_while_its_lane_was_resumed_is_not_appended(adapter: tuple[Broker, Hold]) -> None:
    broker, hold = adapter
    topic = fresh_topic("resumed")
    broker.create_topic(topic)
    lane = lane_of(topic)
    append(broker, batch(lane, 1))
    patient = hold(lane)
    with ThreadPoolExecutor(1) as threads:
        older = threads.submit(append, broker, batch(lane, 2))
        assert patient.came.wait(60)
        told = broker.resume(lane)
        patient.go.set()
        with pytest.raises(ConflictError) as raised:
            older.result(60)
    assert raised.value.reason is Reason.LANE_FENCED
    assert told is not None
    assert [one.sequence for one in told.receipts] == [1]
    (newer,) = append(broker, batch(lane, 2))
    assert (newer.sequence, newer.duplicate) == (2, False)
