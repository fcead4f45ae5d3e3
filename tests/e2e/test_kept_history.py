"""What a resource keeps is part of its catalogue entry; its topic follows, at once or, on Kafka, by the operator."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.broker.kafka.broker import KafkaBroker
from exchange.broker.port import Retention
from exchange.cli import main
from exchange.server.embedded_postgres import EmbeddedPostgres
from schemas.errors import InvalidError, Reason, RefusedError
from schemas.names import Topic
from tests.kit.cases.broker import KEY
from tests.kit.world import in_process
from tests.kit.world.kafka import Node
from tests.kit.world.world import Office, World
from tests.torture.clerks import SCHEMA

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow]
_numbers = count(70)


def draft(office: Office, history: object = None) -> dict[str, Any]:
    """Draft an entry with a schema; return its document."""
    number = next(_numbers)
    topic = f"kept-{number}.v1"
    entry: dict[str, Any] = {
        "topic": topic,
        "title": "许可",
        "code": office.world.new_code(),
        "share_type": "conditional",
        "share_scope": "本市各部门",
        "use_purpose": "履职",
        "level": "G4",
    }
    editor = office.account("catalogue_editor")
    editor.post("/catalogue", entry if history is None else {**entry, "history": history})
    editor.post(f"/catalogue/{topic}/schemas", {"text": SCHEMA})
    return entry


def published(office: Office, history: object = None) -> str:
    """Draft and publish an entry; return its topic."""
    entry = draft(office, history)
    office.publish(entry["topic"], entry)
    return str(entry["topic"])


def stored(world: World, topic: str) -> tuple[str, int | None]:
    """Return what the PostgreSQL broker keeps of a topic, and for how many microseconds."""
    engine = sa.create_engine(EmbeddedPostgres(world.data).url_file.read_text().strip(), poolclass=sa.NullPool)
    with engine.connect() as connection:
        found = connection.execute(sa.text("SELECT keep, retention FROM broker_topic WHERE name = :n"), {"n": topic})
        row = found.one()
    return row.keep, row.retention


@pytest.fixture
def office(postgres_world: World) -> Iterator[Office]:
    return postgres_world.department(f"许可局{next(_numbers)}")


DAY = 86_400_000_000


@pytest.mark.parametrize(
    ("history", "expected"),
    [(None, ("all", None)), ("all", ("all", None)), ("latest", ("latest", None)), ({"days": 30}, ("all", 30 * DAY))],
)
def test_a_published_entry_s_topic_keeps_what_the_entry_states(
    office: Office, history: object, expected: tuple[str, int | None]
) -> None:
    topic = published(office, history)
    assert stored(office.world, topic) == expected
    (entry,) = (one for one in office.world.root.get("/catalogue") if one["topic"] == topic)
    assert entry["history"] == (history or "all")


def test_a_change_holds_at_once_and_has_an_entry_and_a_restart_keeps_it(office: Office) -> None:
    world, topic = office.world, published(office)
    changed = world.root.post(f"/catalogue/{topic}/history", {"history": {"days": 90}})
    assert changed["applied"] is True
    assert stored(world, topic) == ("all", 90 * DAY)
    (entry,) = world.root.get("/audit/entries", {"resource": topic, "action": "registry:catalogue:retain"})
    assert (entry["entry"]["data"]["history"], entry["entry"]["data"]["before"]) == ("90 days", "all")
    world.root.post(f"/catalogue/{topic}/history", {"history": "latest"})
    assert stored(world, topic) == ("latest", None)


def test_a_combination_that_makes_no_sense_is_refused_with_a_reason(office: Office) -> None:
    world = office.world
    for history in ({"days": 0}, {"days": 40_000}, {"days": 30, "latest": True}, "sometimes", 30):
        with pytest.raises(InvalidError) as refused:
            draft(office, history)
        assert refused.value.reason is Reason.REQUEST_INVALID
    topic = published(office)
    for account in (office.account("catalogue_editor"), office.account("sharing_office_head")):
        with pytest.raises(RefusedError):
            account.post(f"/catalogue/{topic}/history", {"history": {"days": 1}})
    assert stored(world, topic) == ("all", None)


@pytest.mark.kafka
def test_on_kafka_a_new_topic_follows_and_a_change_waits_for_the_operator(kafka_world: World, kafka_node: Node) -> None:
    world = kafka_world
    topic = published(world.department(f"许可局{next(_numbers)}"), {"days": 30})
    broker = KafkaBroker(kafka_node.settings(), key=KEY)
    try:
        assert broker.topic(Topic.parse(topic)).retention == timedelta(days=30)
        changed = world.root.post(f"/catalogue/{topic}/history", {"history": {"days": 7}})
        assert changed["applied"] is False
        operator = kafka_node.operator
        arguments = ("--certificate", operator.certificate, "--key", operator.key)
        done = in_process.run(main, "broker", "apply", "--data", world.data, *arguments)
        assert done.returncode == 0, done.stderr + done.stdout
        info = KafkaBroker(kafka_node.settings(), key=KEY).topic(Topic.parse(topic))
        assert (info.keep, info.retention) == (Retention.ALL, timedelta(days=7))
    finally:
        broker.close()
