"""A pool of several processes: what `pool serve` starts beside itself, starts again, and takes along when it ends."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest

from exchange.admin_client import AdminClient
from schemas import library
from schemas.errors import PoolError
from schemas.names import Topic
from tests.kit.patience import PATIENCE
from tests.kit.world.world import World

TOPIC = "population.v1"


@pytest.fixture
def ended() -> Iterator[World]:
    """A pool that a test ends."""
    with World.start(processes="several") as world:
        yield world


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World.start(processes="several") as world:
        yield world


def beside(world: World) -> dict[str, psutil.Process]:
    """Return the processes that the first one has started, by name."""
    assert world.process is not None
    found = {}
    for one in psutil.Process(world.process.pid).children():
        with suppress(psutil.Error):  # it has ended
            command = one.cmdline()
            if "--child" in command:
                found[command[command.index("--child") + 1]] = one
    return found


def named(world: World) -> dict[str, Any]:
    return dict(json.loads((world.data / "ports.json").read_text())["processes"])


def until(condition: Any) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_records_people_and_schemas_are_served_by_processes_of_their_own(world: World) -> None:
    provider = world.department("水务局")
    provider.offer(TOPIC, library.text("population"))
    source = provider.enrol("source")
    with world.client(source) as client:
        assert client.schema(Topic.parse(TOPIC))[0] > 0
    found = named(world)
    pids = {name: one["pid"] for name, one in found.items()}
    assert world.process is not None
    assert pids["gateway"] == pids["sequencer"] == world.process.pid
    assert {name: one.pid for name, one in beside(world).items()} == {
        "control": pids["control"],
        "registry": pids["registry"],
    }
    assert {"grpc", "gateway"} <= found["gateway"]["addresses"].keys()
    assert {"http", "enrolment"} <= found["control"]["addresses"].keys()
    assert "http" not in found["gateway"]["addresses"]
    assert source.gateway == world.addresses["gateway"], "enrolment names the gateway, which another process is"


def test_a_process_that_is_killed_is_started_again_and_the_others_serve_meanwhile(world: World) -> None:
    killed = beside(world)["control"]
    identity = world.department("环保局").enrol("drop")
    killed.kill()
    with world.client(identity) as client:
        assert client.hello().pool_id == "test-pool"
    until(lambda: "control" in beside(world) and beside(world)["control"].pid != killed.pid)
    until(lambda: named(world)["control"]["pid"] == beside(world)["control"].pid)
    again = AdminClient(
        f"https://{named(world)['control']['addresses']['http']}",
        world.root._headers["authorization"].removeprefix("Bearer "),
        world.data / "ca" / "authority.crt",
    )
    until(lambda: _answers(again))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_first_one(ended: World, number: signal.Signals) -> None:
    children = list(beside(ended).values())
    assert len(children) == 2
    assert ended.process is not None
    os.kill(ended.process.pid, number)
    ended.process.wait(PATIENCE)
    _, alive = psutil.wait_procs(children, timeout=PATIENCE)
    assert not alive


def _answers(api: AdminClient) -> bool:
    try:
        api.list("/departments")
    except PoolError:
        return False
    return True
