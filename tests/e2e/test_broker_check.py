"""`pool broker`: what was acknowledged and is not there is named; generations are raised after a restore."""

import pytest
import sqlalchemy as sa

from exchange.cli import main
from exchange.server.embedded_postgres import EmbeddedPostgres
from tests.kit.world import in_process
from tests.kit.world.publisher import Publisher, framed
from tests.kit.world.world import World, run
from tests.torture.clerks import SCHEMA

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow]
TOPIC = "permits.v1"


def publish(world: World, batches: int) -> str:
    office = world.department("许可局")
    office.offer(TOPIC, SCHEMA, level="G2", code="101001/000003")
    identity = office.enrol("source")
    publisher = Publisher(identity.pool_id, office.id, "source", TOPIC, identity.signing_key)
    with world.client(identity) as pool:
        schema_id, text = pool.schema(publisher.lane.topic)
        for number in range(batches):
            rows = [{"permit_no": f"p{number}-{n}", "version": 1, "district": "东城", "note": None} for n in range(20)]
            list(pool.publish(publisher.lane.topic, [publisher.batch(framed(schema_id, text, rows))]))
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
