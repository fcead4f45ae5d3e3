"""The versions of a topic are read again for a schema unknown, at most once a second, and never told wrongly."""

import json
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from exchange.engines.process_pool import ProcessPool
from exchange.records.writer_schemas import WriterSchemas
from registry.avro.parser import ParsedSchema
from registry.database.unit_of_work import Reader
from registry.subjects.lookup import SchemaLookup
from registry.subjects.model import Content
from schemas.errors import InvalidError, PoolError, Reason, UnavailableError
from schemas.record import frame
from tests.kit.cases.grants import POPULATION
from tests.kit.cases.registry import Subjects, memory_store
from tests.kit.world.publisher import checkable

SUBJECT = POPULATION.subject
UNKNOWN = 9_999


def text(*fields: str) -> str:
    described = [{"name": name, "type": "int", "default": 0} for name in fields]
    return json.dumps({"type": "record", "name": "person", "fields": described})


class Counted(SchemaLookup):
    """Counts how often all versions of a subject were asked for."""

    reads = 0

    def version_numbers(
        self, reader: Reader, subject: str, *, deleted: bool = False, deleted_only: bool = False
    ) -> list[int]:
        if subject == SUBJECT:
            self.reads += 1
        return super().version_numbers(reader, subject, deleted=deleted, deleted_only=deleted_only)


class Room:
    """Schemas over a registry in memory, with a clock that stands still until it is moved."""

    def __init__(self, workers: ProcessPool) -> None:
        store = memory_store()
        self.subjects = Subjects(store)
        self.lookup = Counted(store.part)
        self.now = 100.0
        self.schemas = WriterSchemas(store.database, self.lookup, workers, clock=lambda: self.now)

    def register(self, *fields: str) -> int:
        return self.subjects.register(SUBJECT, Content(text=text(*fields))).schema_id

    def publish(self, schema_id: int, fields: int) -> tuple[int, ...]:
        return self.schemas.check(POPULATION, *checkable([frame(schema_id, bytes(fields))])).schema_ids

    def refusal(self, schema_id: int) -> PoolError:
        with pytest.raises(PoolError) as caught:
            self.publish(schema_id, 1)
        return caught.value


@pytest.fixture
def room() -> Iterator[Room]:
    with ProcessPool(0) as workers:
        yield Room(workers)


def test_a_schema_that_was_registered_a_moment_ago_is_found_at_once(room: Room) -> None:
    first = room.register("a")
    assert room.publish(first, 1) == (first,)
    second = room.register("a", "b")
    assert room.publish(second, 2) == (second,)
    assert room.lookup.reads == 2


def test_unknown_schemas_make_the_versions_be_read_once_a_second(room: Room) -> None:
    first = room.register("a")
    room.publish(first, 1)
    room.lookup.reads = 0
    for second in range(1, 4):
        for number in range(50):
            room.now = 100 + second + number / 100
            room.refusal(UNKNOWN + number)
        assert room.lookup.reads == second
    assert room.publish(first, 1) == (first,)


def test_nobody_is_told_wrongly_that_a_schema_is_unknown(room: Room) -> None:
    room.publish(room.register("a"), 1)
    room.now += 10
    refused = room.refusal(UNKNOWN)
    assert isinstance(refused, InvalidError)
    assert refused.reason is Reason.SCHEMA_UNKNOWN
    second = room.register("a", "b")
    room.now += 0.5
    early = room.refusal(second)
    assert isinstance(early, UnavailableError)
    assert early.reason is Reason.OVERLOADED
    assert early.retry_after
    room.now += early.retry_after
    assert room.publish(second, 2) == (second,)


def test_batches_that_meet_a_new_schema_together_read_once(room: Room) -> None:
    room.publish(room.register("a"), 1)
    second = room.register("a", "b")
    room.lookup.reads = 0
    together = threading.Barrier(4)

    def use(writers: Mapping[int, ParsedSchema]) -> bool:
        if second in writers:
            return True
        together.wait(10)
        raise InvalidError(Reason.SCHEMA_UNKNOWN, "unknown")

    with ThreadPoolExecutor(4) as threads:
        batches = [threads.submit(room.schemas.with_writers, POPULATION, use) for _ in range(4)]
        assert [batch.result(10) for batch in batches] == [True] * 4
    assert room.lookup.reads == 1
