"""A pool on Kafka tells its schemas on a topic, whatever API they were registered by."""

import uuid
from collections.abc import Iterator

import pytest

from exchange.broker.kafka.settings import KafkaSettings
from exchange.cli import main
from exchange.server.schemas_topic import read_topic
from registry.client.admin import RegistryAdminClient
from registry.schemas_topic.records import Snapshot, fold, read_lines
from schemas import library
from schemas.errors import UnavailableError
from tests.e2e.conftest import kafka_section
from tests.kit.patience import wait_for
from tests.kit.world import in_process
from tests.kit.world.kafka import Node
from tests.kit.world.world import World, run

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.postgres]
NAME = f"_schemas-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def pool(kafka_node: Node) -> Iterator[World]:
    with World.start(f'{kafka_section(kafka_node)}\n[registry]\ntopic = "{NAME}"\n') as world:
        yield world


def test_every_registration_is_on_the_topic(pool: World, kafka_node: Node) -> None:
    office = pool.department("公安局")
    office.offer("population.v1", library.text("population"))
    registry = RegistryAdminClient(
        f"https://{pool.addresses['registry']}",
        token=pool.root._headers["authorization"].removeprefix("Bearer "),
        authority=pool.data / "ca" / "authority.crt",
    )
    registry.call("PUT", "/config", {"compatibility": "FULL"})
    found = Snapshot()

    def complete() -> bool:
        nonlocal found
        found = told(kafka_node)
        return ("population.v1-value", 1) in found.versions and bool(found.configs)

    wait_for(complete, "both registrations are on the topic", every=0.2)
    version = found.versions["population.v1-value", 1]
    assert version.schema == library.text("population")
    assert version.schema_id == registry.version("population.v1-value")["id"]
    assert found.configs == {"": {"compatibilityLevel": "FULL"}}
    lines = pool.data.parent / "schemas.jsonl"
    pool.stop()  # and with it the embedded database: only Kafka is asked
    done = run("pool", "broker", "schemas", "--data", str(pool.data), "--out", str(lines))
    assert done.stderr.endswith(" records\n")
    assert fold(read_lines(lines.read_text().split("\n"))) == found
    assert run("pool", "broker", "schemas", "--data", str(pool.data)).stdout == lines.read_text()
    for wrong in (".", "/dev/null", "/etc/passwd/x", f"{lines.parent}/{'x' * 300}"):
        done = in_process.run(main, "broker", "schemas", "--data", pool.data, "--out", wrong)
        assert (done.returncode, done.stderr.partition(":")[0]) == (1, "request_invalid"), wrong

    config = pool.data / "pool.toml"
    whole = config.read_text()
    config.write_text(whole.replace(str(kafka_node.gateway.ca), "gone.pem"))
    assert config.read_text() != whole
    done = in_process.run(main, "broker", "schemas", "--data", pool.data, "--out", lines)
    assert (done.returncode, done.stderr.partition(":")[0]) == (1, "config_invalid")
    config.write_text(whole)
    config.write_text(config.read_text().replace(f'topic = "{NAME}"', ""))
    lines.unlink()
    done = in_process.run(main, "broker", "schemas", "--data", pool.data, "--out", lines)
    assert done.returncode == 1
    assert "config_invalid: got a pool without a topic of schemas" in done.stderr
    assert not [*lines.parent.glob("*schemas.jsonl*")]


def told(node: Node) -> Snapshot:
    gateway = node.gateway
    settings = KafkaSettings(
        bootstrap=node.bootstrap, ca=gateway.ca, certificate=gateway.certificate, key=gateway.key, replication=1
    )
    try:
        return fold(read_topic(settings, NAME))
    except UnavailableError:
        return Snapshot()  # the topic is not made yet
