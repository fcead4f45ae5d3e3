"""`pool broker`: what was acknowledged and is not there is named; generations are raised after a restore."""

import time

import pytest
import sqlalchemy as sa
from confluent_kafka import Producer
from kafka import TopicPartition

from exchange.broker.kafka.settings import admin
from exchange.cli import main
from exchange.server.embedded_postgres import EmbeddedPostgres
from tests.kit.world import in_process
from tests.kit.world.kafka import Node
from tests.kit.world.publisher import Publisher, framed
from tests.kit.world.world import World, run
from tests.torture.clerks import SCHEMA

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow]
TOPIC = "permits.v1"


def publish(world: World, batches: int, topic: str = TOPIC, code: str = "101001/000003", voids: int = 0) -> str:
    office = world.department("许可局")
    office.offer(topic, SCHEMA, level="G2", code=code)
    identity = office.enrol("source")
    publisher = Publisher(identity.pool_id, office.id, "source", topic, identity.signing_key)
    with world.client(identity) as pool:
        schema_id, text = pool.schema(publisher.lane.topic)
        for number in range(batches):
            rows = [{"permit_no": f"p{number}-{n}", "version": 1, "district": "东城", "note": None} for n in range(20)]
            list(pool.publish(publisher.lane.topic, [publisher.batch(framed(schema_id, text, rows))]))
        for number in range(voids):
            list(pool.publish(publisher.lane.topic, [publisher.voids([b"p0-%d" % n for n in range(number + 3)])]))
    return str(publisher.lane)


@pytest.mark.kafka
def test_on_kafka_a_batch_that_is_not_whole_is_named(kafka_world: World) -> None:
    world = kafka_world
    # One lane alone: others have lanes on this Kafka, too, and this pool's sweeper may have found them.
    lane = publish(world, 3)
    done = run("pool", "broker", "check", "--data", str(world.data), "--lane", lane)
    assert done.stdout == "3 of 3 batches in 1 lane are whole\n"
    engine = sa.create_engine(EmbeddedPostgres(world.data).url_file.read_text().strip())
    with engine.begin() as connection:
        # As if its last record had been lost: the receipt tells of one more than a reader sees.
        lost = sa.text("UPDATE audit_receipt SET runs[3] = runs[3] + 1 WHERE sequence = 2 AND lane = :lane")
        connection.execute(lost, {"lane": lane})
    engine.dispose()
    done = in_process.run(main, "broker", "check", "--data", world.data, "--lane", lane)
    assert done.returncode == 1, done.stderr
    assert "batch 2, 21 records at" in done.stdout
    assert "2 of 3 batches in 1 lane are whole" in done.stdout


def test_on_postgresql_there_is_nothing_to_compare(postgres_world: World) -> None:
    done = in_process.run(main, "broker", "check", "--data", postgres_world.data)
    assert done.returncode == 0, done.stderr
    assert "one transaction" in done.stdout


def test_every_stored_batch_is_compared_with_its_entry(world: World) -> None:
    publish(world, 3, "licences.v1", "101001/000013", voids=2)
    done = run("pool", "broker", "verify", "--data", str(world.data), "--topic", "licences.v1")
    assert done.stdout.splitlines()[-2:] == ["67 records read", "5 of 5 batches have the root of their entry"]
    assert "nothing is wrong" in done.stdout


def test_changed_records_on_postgresql_are_named_by_batch(postgres_world: World) -> None:
    world, topic = postgres_world, "permissions.v1"
    publish(world, 3, topic, "101001/000023")
    engine = sa.create_engine(EmbeddedPostgres(world.data).url_file.read_text().strip())
    block = """topic_id = (SELECT id FROM broker_topic WHERE name = 'permissions.v1') AND partition = 0
        AND last = (SELECT max(last) FROM broker_stretch b JOIN broker_topic t ON t.id = b.topic_id
                    WHERE t.name = 'permissions.v1' AND partition = 0)"""
    with engine.begin() as connection:
        changed = f"UPDATE broker_stretch SET data = set_byte(data, 7, 255 - get_byte(data, 7)) WHERE {block}"
        assert connection.exec_driver_sql(changed).rowcount == 1
    done = in_process.run(main, "broker", "verify", "--data", world.data, "--topic", topic)
    assert done.returncode == 1, done.stderr
    assert "records.corrupt: permissions.v1 partition 0 offsets" in done.stdout
    assert "records.missing" in done.stdout
    assert "batch 3 of" in done.stdout
    assert "2 of 3 batches have the root of their entry" in done.stdout
    with engine.begin() as connection:
        connection.exec_driver_sql(changed)
    engine.dispose()
    assert in_process.run(main, "broker", "verify", "--data", world.data, "--topic", topic).returncode == 0


@pytest.mark.kafka
def test_invented_and_removed_records_on_kafka_are_named(kafka_world: World, kafka_node: Node) -> None:
    world, topic = kafka_world, "registers.v1"
    publish(world, 3, topic, "101001/000033")
    settings = kafka_node.settings(kafka_node.operator)
    config = {name: value for name, value in settings.producer("x").items() if not name.startswith("transaction")}
    producer = Producer(config)
    an_hour_ago = int(time.time() * 1000) - 3_600_000
    headers = [("ce_type", b"pool.upsert.first"), ("ce_source", b"x"), ("ce_id", b"1")]
    producer.produce(topic, b"\0\0\0\0\1invented", bytes(28), 0, timestamp=an_hour_ago, headers=headers)
    assert producer.flush(30) == 0
    done = in_process.run(main, "broker", "verify", "--data", world.data, "--topic", topic)
    assert done.returncode == 1, done.stderr
    assert "records.extra: no entry accounts for registers.v1 partition 0" in done.stdout
    assert "3 of 3 batches have the root of their entry" in done.stdout
    client = admin(settings)
    client.delete_records({TopicPartition(topic, 1): 2})
    client.close()
    done = in_process.run(main, "broker", "verify", "--data", world.data, "--topic", topic)
    assert done.returncode == 1, done.stderr
    assert "records.corrupt: registers.v1 partition 1 offsets 0-1" in done.stdout


def test_generations_are_raised_while_the_pool_is_stopped() -> None:
    with World.start() as world:
        publish(world, 1)
        done = in_process.run(main, "broker", "renew-generations", "--data", world.data)
        assert done.returncode != 0
        assert "another process" in done.stderr
        world.stop()
        assert run("pool", "broker", "renew-generations", "--data", str(world.data)).stdout == (
            "1 topic has a new generation\n"
        )
        world.serve()
        engine = sa.create_engine(EmbeddedPostgres(world.data).url_file.read_text().strip())
        with engine.connect() as connection:
            topics = connection.exec_driver_sql("SELECT name, generation FROM broker_topic").all()
        engine.dispose()
        assert topics == [(TOPIC, 2)]
