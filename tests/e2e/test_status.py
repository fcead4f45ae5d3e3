"""`pool status` and the metrics by resource and grant of a running pool, as its operator reads them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from exchange.monitoring.alarms import ALARMS
from schemas.errors import PoolError, RefusedError
from tests.kit.patience import PATIENCE, wait_for
from tests.kit.world.publisher import Publisher, framed
from tests.kit.world.world import World, run
from tests.torture.clerks import SCHEMA

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow]
TOPIC = "wells.v1"
DRAW = {"purpose": "eligibility", "case": "STANDING-1"}
_OPENED = """
import json, sys
opened = set()
def note(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        opened.add(arguments[0])
sys.addaudithook(note)
from exchange.cli import main
try:
    main()
finally:
    print("opened " + json.dumps(sorted(opened)), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def postgres_world() -> Iterator[World]:
    """A pool of its own: rows that other modules forge leave alarms in the one that they share."""
    with World.start() as world:
        yield world


def status(world: World) -> tuple[int, dict[str, Any]]:
    done = run("pool", "status", "--data", str(world.data), "--json", check=False)
    return done.returncode, json.loads(done.stdout)


def metrics(world: World) -> str:
    return httpx.get(f"http://{world.addresses['metrics']}/metrics", timeout=PATIENCE).text


def sample(world: World, series: str) -> float | None:
    """Return the value of a series as it is written; None where it is not there."""
    found = [line.rpartition(" ")[2] for line in metrics(world).splitlines() if line.rpartition(" ")[0] == series]
    return float(found[0]) if found else None


@contextmanager
def without(world: World, name: str) -> Iterator[None]:
    """Take a file out of the pool's folder for a while."""
    file, away = world.data / name, world.folder / "away"
    file.rename(away)
    try:
        yield
    finally:
        away.rename(file)


def test_every_metric_of_an_alarm_is_exported_by_a_running_pool(postgres_world: World) -> None:
    exported = {line.split()[2] for line in metrics(postgres_world).splitlines() if line.startswith("# TYPE ")}
    assert {alarm.condition.metric for alarm in ALARMS} <= exported


def test_a_pool_that_works_and_one_whose_check_fails(postgres_world: World) -> None:
    world = postgres_world
    code, found = status(world)
    assert (code, found["health"]) == (0, "healthy"), found
    (process,) = found["processes"]
    assert process["roles"] == ["gateway", "registry", "sequencer"]
    assert process["version"]
    assert found["database"]["size"] > 0
    assert found["counts"]["departments"] == len(world.root.list("/departments"))
    assert found["signing"]["last_signature"]
    assert found["lanes_stopped"] == 0
    with without(world, "secrets/topic.master"):
        code, found = status(world)
        assert (code, found["health"]) == (1, "degraded")
        assert found["processes"][0]["checks"]["keys"] == {
            "ok": False,
            "reason": "config_invalid",
            "detail": "missing: topic.master",
        }
        assert [one["name"] for one in found["alarms"] if one["severity"] == "critical"] == ["PoolNotReady"]
        text = run("pool", "status", "--data", str(world.data), check=False).stdout
        assert "FAILS keys: config_invalid: missing: topic.master" in text
    assert status(world)[0] == 0


def test_the_status_reads_no_key(postgres_world: World) -> None:
    command = [sys.executable, "-c", _OPENED, "status", "--data", str(postgres_world.data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    opened = json.loads(done.stderr.rpartition("opened ")[2])
    ours = {
        name.removeprefix(f"{postgres_world.data}/") for name in opened if name.startswith(str(postgres_world.data))
    }
    assert {"pool.toml", "ports.json", "database-url"} <= ours
    assert not [name for name in ours if name.startswith("secrets") or name.endswith((".key", ".master"))]


def test_metrics_by_resource_and_grant(postgres_world: World) -> None:
    world = postgres_world
    provider, consumer = world.department("水务局"), world.department("住建局")
    provider.offer(TOPIC, SCHEMA, level="G2")
    source, drawer = provider.enrol("source"), consumer.enrol("drawer")
    grant = consumer.request(TOPIC, ["permit_no", "version"])
    provider.approve(grant)
    lane = Publisher(source.pool_id, provider.id, "source", TOPIC, source.signing_key)

    def publish(numbers: range) -> None:
        with world.client(source) as pool:
            schema_id, text = pool.schema(lane.lane.topic)
            rows = [{"permit_no": f"w{n}", "version": 1, "district": "东城", "note": None} for n in numbers]
            list(pool.publish(lane.lane.topic, [lane.batch(framed(schema_id, text, rows))]))

    publish(range(7))
    with world.client(drawer) as pool:
        drawn = pool.fetch(grant, position=b"\x00", **DRAW)
    assert len(drawn.values) == 7
    assert sample(world, f'pool_resource_records_total{{resource="{TOPIC}",what="published"}}') == 7
    assert sample(world, f'pool_resource_records_total{{resource="{TOPIC}",what="released"}}') == 7
    assert sample(world, f'pool_grant_records_total{{grant="{grant}",what="released"}}') == 7
    lag = f'pool_grant_lag_records{{grant="{grant}"}}'
    wait_for(lambda: sample(world, lag) == 0, "nothing is behind the fetch")
    publish(range(7, 12))
    wait_for(lambda: sample(world, lag) == 5, "the lag rises while the consumer is away")
    lane.sequence += 1
    with world.client(source) as pool, pytest.raises(PoolError):
        list(pool.publish(lane.lane.topic, [lane.batch(framed(*pool.schema(lane.lane.topic), []))]))
    assert "pool_resource_refused_total{reason=" in metrics(world).replace(f'resource="{TOPIC}",', "")
    provider.account("sharing_office_head").post(f"/grants/{grant}/suspend", {"reason": "under review"})
    with world.client(drawer) as pool, pytest.raises(RefusedError):
        pool.fetch(grant, position=b"\x00", **DRAW)
    assert sample(world, f'pool_grant_refused_total{{grant="{grant}",reason="grant_suspended"}}') == 1
