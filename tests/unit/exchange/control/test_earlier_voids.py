"""Voids that an earlier version stored: they become retractions before the pool serves."""

import struct
from dataclasses import replace
from typing import Any

from exchange.broker.memory import MemoryBroker
from exchange.control.erasures import ErasureService
from exchange.corrections.store import MemoryCorrections
from exchange.erasure.retractions import NO_RETRACTIONS, MemoryRetractions
from registry.database.unit_of_work import MemoryDatabase
from schemas.names import Topic
from tests.kit.cases.broker import VOID, append, batch, fresh_topic, key_of, lane_of

FROM = struct.pack("<qq", 1_800_000_000_000_000, 0)


def service(broker: MemoryBroker, store: MemoryRetractions, db: MemoryDatabase) -> ErasureService:
    unused: Any = None
    return ErasureService(
        database=db,
        enforcer=unused,
        attributes=unused,
        broker=broker,
        store=unused,
        listed=unused,
        retractions=store,
        corrections=MemoryCorrections(),
        pseudonyms=unused,
        now=unused,
        new_id=unused,
    )


def test_each_void_without_a_valid_time_of_a_topic_from_before_is_a_retraction_once() -> None:
    broker, store, db = MemoryBroker(), MemoryRetractions(), MemoryDatabase()
    topic, new, unpublished = fresh_topic(), fresh_topic(), fresh_topic()
    for one in (topic, new):
        broker.create_topic(one)
        append(broker, batch(lane_of(one), 1, range(10)))
    append(broker, batch(lane_of(topic), 2, [3, 4], marks=bytes([VOID, VOID])))
    ended = replace(batch(lane_of(topic), 3, [5], marks=bytes([VOID])), valid=FROM)
    append(broker, ended)
    append(broker, batch(lane_of(new), 2, [3], marks=bytes([VOID])))
    store.earlier = {topic, unpublished}
    made = service(broker, store, db)
    assert made.retract_earlier() == 2
    with db.read() as reader:
        assert {one.key for one in store.newer(reader, topic, NO_RETRACTIONS, 100)[0]} == {key_of(3), key_of(4)}
        assert store.newer(reader, new, NO_RETRACTIONS, 100)[0] == [], "its voids were stored when they were published"
        assert store.incomplete(reader) == []
    assert made.retract_earlier() == 0


def test_a_topic_of_many_reads_is_read_to_its_end() -> None:
    broker, store, db = MemoryBroker(), MemoryRetractions(), MemoryDatabase()
    topic: Topic = fresh_topic()
    broker.create_topic(topic)
    for sequence in range(1, 6):
        append(broker, batch(lane_of(topic), sequence, range(9_000)))
    append(broker, batch(lane_of(topic), 6, range(8_000), marks=bytes([VOID]) * 8_000))
    store.earlier = {topic}
    service(broker, store, db).retract_earlier()
    with db.read() as reader:
        assert len(store.newer(reader, topic, NO_RETRACTIONS, 10_000)[0]) == 8_000
