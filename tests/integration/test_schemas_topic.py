"""The topic of schemas on a real Kafka, under the shipped access rules, and a registry restored from it."""

import uuid

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from exchange.broker.kafka.settings import KafkaSettings
from exchange.server.schemas_topic import SchemasTopic, read_topic
from registry.client.admin import RegistryAdminClient
from registry.postgres import tables
from registry.postgres.outbox import PostgresOutbox
from registry.postgres.subjects import PostgresSubjects
from registry.rest.app import create
from registry.schemas_topic.records import Record, Snapshot, fold
from registry.schemas_topic.transfer import import_snapshot
from registry.subjects.model import Content
from schemas.errors import Reason, UnavailableError
from tests.integration.test_registry_outbox import TEXTS, play, service, told_is_held
from tests.kit.cases.registry import Subjects, memory_store, postgres_store, with_outbox
from tests.kit.row_tags import row_tags
from tests.kit.world.kafka import Node
from tests.kit.world.registry_served import RecordingAccessControl, identify

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]


class World:
    def __init__(self, engine: sa.Engine, node: Node) -> None:
        tables.metadata.create_all(engine)
        self.store = postgres_store(engine)
        self.outbox = PostgresOutbox(PostgresSubjects(row_tags()))
        self.subjects = service(with_outbox(self.store, self.outbox))
        gateway = node.gateway
        self.settings = KafkaSettings(
            bootstrap=node.bootstrap, ca=gateway.ca, certificate=gateway.certificate, key=gateway.key, replication=1
        )
        self.name = f"_schemas-{uuid.uuid4().hex[:8]}"

    def waiting(self) -> int:
        with self.store.database.read() as reader:
            return len(self.outbox.pending(reader, 100))

    def topic(self) -> SchemasTopic:
        return SchemasTopic(self.settings, self.store.database, self.outbox, name=self.name)

    def told(self) -> Snapshot:
        return fold(read_topic(self.settings, self.name))


@pytest.fixture
def world(engine: sa.Engine, kafka_node: Node) -> World:
    return World(engine, kafka_node)


def test_a_registry_is_restored_from_its_topic_with_every_id(world: World) -> None:
    play(world.subjects, [("put", "before", text) for text in TEXTS])
    topic = world.topic()
    assert topic.step() > 0, "an empty topic is filled with what is there already"
    acts = [("put", "a", text) for text in TEXTS] + [("delete", "a", ""), ("purge", "a", ""), ("view", "", '"bytes"')]
    play(world.subjects, [*acts, ("put", "b", '"float"'), ("drop one", "b", "")])
    while topic.step():
        pass
    told = world.told()
    told_is_held(told, world.store)

    store = memory_store()
    restored = Subjects(store, governed=lambda _: False)
    with TestClient(create(restored.services, RecordingAccessControl(), restored.database, identify=identify)) as http:
        remote = RegistryAdminClient("http://restored")
        remote._http.close()
        remote._http = http
        assert import_snapshot(remote, told).refused == []
    highest = world.store.highest_id()
    for number in range(1, highest + 1):
        assert restored.by_id(number).content.text == world.subjects.by_id(number).content.text
    assert {(one.subject, one.number, one.schema_id, one.deleted) for one in store.all_versions()} == {
        (one.subject, one.number, one.schema_id, one.deleted) for one in world.store.all_versions()
    }
    restored.configuration.configure("", {"compatibility": "NONE"})
    new = restored.register("c", Content(text='{"type": "fixed", "name": "F", "size": 3}'))
    assert new.schema_id > highest


def test_several_processes_take_turns_and_nothing_is_lost(world: World) -> None:
    topics = [world.topic() for _ in range(3)]
    for turn in range(9):
        world.subjects.register(f"s{turn}", Content(text=f'{{"type": "fixed", "name": "F{turn}", "size": 1}}'))
        topics[turn % 3].step()
    while topics[0].step():
        pass
    told_is_held(world.told(), world.store)
    assert world.waiting() == 0


def test_a_process_that_dies_after_sending_leaves_the_batch_to_the_next(world: World) -> None:
    topic = world.topic()
    topic.step()
    world.subjects.register("a", Content(text='"int"'))

    class Dying(PostgresOutbox):
        def remove(self, work: object, numbers: object) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SchemasTopic(world.settings, world.store.database, Dying(PostgresSubjects(row_tags())), name=world.name).step()
    assert world.waiting(), "sent, not deleted"
    while topic.step():
        pass
    told_is_held(world.told(), world.store)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_first_batch_that_fails_loses_nothing_of_the_filling(
    world: World, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Kafka refuses the first batch, or has it when the process dies before the database knows."""
    play(world.subjects, [("put", f"s{number}", text) for number, text in enumerate(TEXTS)])
    real = SchemasTopic._send

    def failing(topic: SchemasTopic, records: list[Record]) -> None:
        if when == "after":
            real(topic, records[:2])
        raise UnavailableError(Reason.BROKER_UNAVAILABLE, "not now")

    with monkeypatch.context() as patched:
        patched.setattr(SchemasTopic, "_send", failing)
        with pytest.raises(UnavailableError):
            world.topic().step()
    topic = world.topic()  # the next process
    while topic.step():
        pass
    told_is_held(world.told(), world.store)
