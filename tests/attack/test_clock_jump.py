"""A clock that jumps ahead is found before a time of the future is stored; when it is back, everything goes on."""

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from schemas.errors import PoolError, Reason, UnavailableError
from tests.kit.patience import PATIENCE, wait_for
from tests.kit.world.publisher import Publisher, framed
from tests.kit.world.world import Programs, World
from tests.torture.clerks import SCHEMA

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow]
TOPIC = "permits.v1"
DRAW = {"purpose": "eligibility", "case": "STANDING-1"}
DAYS = 20 * 86_400
ROOT = Path(__file__).resolve().parents[2]


class JumpingClocks(Programs):
    """The programs, of which `pool serve` has clocks that a file moves."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.set()

    def set(self, machine: float = 0, database: float = 0) -> None:
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps({"machine": machine, "database": database}))
        part.rename(self.file)

    def serve_command(self, data: Path) -> list[str]:
        return [sys.executable, "-m", "tests.kit.faults.jumping_clock", str(self.file), "serve", "--data", str(data)]


class Scene:
    """A pool with a topic, its publisher, and a department that draws it."""

    def __init__(self, world: World, clocks: JumpingClocks) -> None:
        self.world, self.clocks = world, clocks
        self.provider, self.consumer = world.department("许可局"), world.department("核查局")
        self.provider.offer(TOPIC, SCHEMA, level="G2")
        self.source, self.drawer = self.provider.enrol("source"), self.consumer.enrol("drawer")
        self.lane = Publisher(self.source.pool_id, self.provider.id, "source", TOPIC, self.source.signing_key)
        self.grant = self.consumer.request(TOPIC, ["permit_no", "version"])
        self.provider.approve(self.grant)
        self.publish()

    def publish(self) -> None:
        with self.world.client(self.source) as pool:
            schema_id, text = pool.schema(self.lane.lane.topic)
            rows = [{"permit_no": f"p{self.lane.sequence}", "version": 1, "district": "东城", "note": None}]
            before = self.lane.sequence, self.lane.root
            try:
                list(pool.publish(self.lane.lane.topic, [self.lane.batch(framed(schema_id, text, rows))]))
            except PoolError:
                self.lane.sequence, self.lane.root = before
                raise

    def refusal(self) -> PoolError | None:
        """Return why a fetch is refused; None if it is not."""
        with self.world.client(self.drawer) as pool:
            try:
                pool.fetch(self.grant, position=b"\x00", **DRAW)
            except PoolError as error:
                return error
        return None

    def failing(self) -> dict[str, str]:
        """Return the reasons of the checks of `/readyz` that fail, by name."""
        checks = httpx.get(f"http://{self.world.addresses['metrics']}/readyz", timeout=PATIENCE).json()["checks"]
        return {name: check["reason"] for name, check in checks.items() if not check["ok"]}

    def act(self) -> dict[str, Any]:
        """Do an act of control; return its entry."""
        self.world.department("新局")
        (found,) = self.world.root.get("/audit/entries", {"action": "registry:department:register", "limit": 1})
        entry: dict[str, Any] = found["entry"]
        return entry

    @contextmanager
    def jumped(self, **ahead: float) -> Iterator[None]:
        """Let clocks jump; wait until the pool has found it, and afterwards until it goes on by itself."""
        assert self.failing() == {}
        self.clocks.set(**ahead)
        try:
            wait_for(lambda: self.failing() == {"clock": Reason.CLOCK_JUMPED}, "readyz names the clock")
            yield
        finally:
            self.clocks.set()
        wait_for(lambda: self.failing() == {}, "everything goes on by itself")
        wait_for(lambda: self.refusal() is None, "releases go on by themselves")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = Path(tempfile.mkdtemp(prefix="pool-world-"))
    folder.chmod(0o755)
    clocks = JumpingClocks(folder / "clocks.json")
    world = World(folder, programs=clocks)
    try:
        world.initialise()
        world.serve()
        yield Scene(world, clocks)
    finally:
        world.close()
        print((folder / "pool.log").read_text()[-4000:])


def is_now(entry: dict[str, Any]) -> bool:
    """Return whether an entry's time is of the hours about now, by the clock that did not jump."""
    at = entry["at"]
    moment = datetime.fromisoformat(at) if isinstance(at, str) else datetime.fromtimestamp(at / 1e6, UTC)
    return abs((moment - datetime.now(UTC)).total_seconds()) < 3 * 3_600


def signed(scene: Scene) -> int:
    return int((scene.world.data / "log" / "checkpoint").read_text().split("\n")[1])


@pytest.mark.parametrize(
    "ahead",
    [{"machine": DAYS}, {"database": DAYS}, {"machine": DAYS, "database": DAYS}],
    ids=["the machine's", "the database's", "both, on one machine"],
)
def test_a_jump_stops_signing_and_serving_and_leaves_no_time_of_the_future(
    scene: Scene, ahead: dict[str, float]
) -> None:
    with scene.jumped(**ahead):
        refusal = scene.refusal()
        assert isinstance(refusal, UnavailableError), refusal
        assert (refusal.reason, refusal.details) == (Reason.LOG_BEHIND, {"cause": Reason.CLOCK_JUMPED})
        before = signed(scene)
        entry = scene.act()  # a revocation must never wait: acts of control go on
        assert is_now(entry), "an entry carries the time of the jump"
        assert signed(scene) == before, "something is signed with this clock"
        with pytest.raises(UnavailableError):
            scene.publish()
    wait_for(lambda: signed(scene) > before, "signing goes on")
    shown = scene.world.root.get("/clock")
    assert shown["ahead_seconds"] == 0, "a time of the future is stored, and would have to be settled"
    scene.publish()
