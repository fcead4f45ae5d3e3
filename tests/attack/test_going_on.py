"""Going on when one should not, and not going on when one could: the database dies, the disk fills, nobody signs."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from exchange.server.embedded_postgres import EmbeddedPostgres
from exchange.server.supervision.postgres_supervisor import GAVE_UP
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from schemas.errors import PoolError, Reason, UnavailableError
from schemas.names import Topic
from schemas.record import FRAME_SIZE
from tests.kit.patience import PATIENCE, wait_for
from tests.kit.share import count, random_of
from tests.kit.world.load import PublishLoad
from tests.kit.world.world import World
from tests.torture.clerks import SCHEMA

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]
TOPIC = Topic.parse("permits.v1")
KILLS = count(20, 2)
BOUND = 5  # seconds that an entry may wait for its signature here; 60 by default
EXTRA = f"[audit]\nunsigned_seconds = {BOUND}\n\n[embedded]\nrestart_seconds = 60\n"
_ROOM = 400 * 1024 * 1024  # bytes of the small disk


class Scene:
    """A pool with a topic, its publisher under load, and a department that draws it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.postgres = EmbeddedPostgres(world.data)  # to look only
        self.provider = world.department("许可局")
        self.provider.offer(str(TOPIC), SCHEMA, level="G2")
        self.load = PublishLoad(world, self.provider, TOPIC)
        self.consumer = world.department("核查局")
        self.drawer = self.consumer.enrol("drawer")
        self.grant = self.consumer.request(str(TOPIC), ["permit_no", "version"])
        self.provider.approve(self.grant)

    def probe(self, name: str) -> tuple[int, dict[str, Any]]:
        """Ask `/livez` or `/readyz`."""
        answer = httpx.get(f"http://{self.world.addresses['metrics']}/{name}", timeout=PATIENCE)
        document = answer.json()
        assert (document["status"] == "ok") is (answer.status_code == 200)
        return answer.status_code, document["checks"]

    def failing(self, name: str) -> dict[str, str]:
        """Return the reasons of the checks that fail now, by their names."""
        return {check: found["reason"] for check, found in self.probe(name)[1].items() if not found["ok"]}

    def draw(self, max_records: int = 10_000, position: bytes = b"\x00") -> tuple[list[int], bytes]:
        """Fetch once; return the numbers of the permits that came, and the position after them."""
        with self.world.client(self.drawer) as pool:
            schema = parse(pool.describe(self.grant, purpose="eligibility", case="STANDING-1").schema_text)
            got = pool.fetch(
                self.grant, position=position, purpose="eligibility", case="STANDING-1", max_records=max_records
            )
        values = [value[FRAME_SIZE:] for value in got.values if value]
        rows = engine_for(schema).decode(values).to_pylist() if values else []
        return [int(row["permit_no"][1:]) for row in rows], got.next_position

    def draw_all(self) -> list[int]:
        """Fetch from the beginning to the end."""
        found: list[int] = []
        position = b"\x00"
        while True:
            numbers, after = self.draw(position=position)
            found += numbers
            if after == position:
                return found
            position = after

    def refusal(self) -> PoolError | None:
        """Return why a fetch is refused; None if it is not."""
        try:
            self.draw(max_records=1)
        except PoolError as error:
            return error
        return None

    def kill_postgres(self) -> int:
        """Kill the embedded server as the kernel does when memory is short; return its process id."""
        pid = self.postgres.pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        return pid

    def metric(self, name: str) -> float:
        """Return a sample of `/metrics`; 0 if it is not there."""
        text = httpx.get(f"http://{self.world.addresses['metrics']}/metrics", timeout=PATIENCE).text
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))

    def nothing_is_lost(self) -> None:
        """Compare what a new consumer would get with what was acknowledged."""
        found = self.draw_all()
        assert len(found) == len(set(found)), "a record was delivered twice"
        assert set(self.load.acknowledged) <= set(found), "something acknowledged is lost"


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small file system at a folder; yield whether the rights allow it."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={_ROOM},mode=0755", "pool-test", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def fill(file: Path) -> None:
    """Write until there is no room."""
    chunk = bytes(64 * 1024)
    with file.open("wb", buffering=0) as out, contextlib.suppress(OSError):
        while True:
            out.write(chunk)


@pytest.fixture(scope="module")
def disk() -> Iterator[tuple[Path, bool]]:
    folder = Path(tempfile.mkdtemp(prefix="pool-world-"))
    folder.chmod(0o755)  # the embedded PostgreSQL's own user must pass through
    try:
        with small_disk(folder) as small:
            yield folder, small
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def scene(disk: tuple[Path, bool]) -> Iterator[Scene]:
    world = World(disk[0], EXTRA, durable=True)  # its disk fills
    try:
        world.initialise()
        world.serve()
        yield Scene(world)
    finally:
        world.close()
        print((disk[0] / "pool.log").read_text()[-4000:])


def test_a_probe_names_every_check(scene: Scene) -> None:
    status, checks = scene.probe("livez")
    assert status == 200
    assert {"event_loop", "sequencer", "log", "broker", "rows", "sweeper", "embedded_postgres"} <= set(checks)
    wait_for(lambda: scene.probe("readyz")[0] == 200, "the pool is ready")
    assert set(scene.probe("readyz")[1]) == {"database", "clock", "keys", "log", "signing", "broker", "restore"}


@pytest.mark.counted
def test_the_embedded_database_is_killed_under_load_and_the_pool_comes_back_by_itself(scene: Scene) -> None:
    draw = random_of("kills of the embedded PostgreSQL")
    failed: dict[str, str] = {}
    with scene.load.running() as load:
        load.wait_for_more("the load has begun")
        for kill in range(KILLS):
            if kill > 1:  # the first two at once: the second outage is then part of the first
                time.sleep(draw.uniform(0, 6))
            killed = scene.kill_postgres()
            if not kill:
                wait_for(lambda: "database" in failed or failed.update(scene.failing("readyz")), "readyz says so")
                assert scene.probe("livez")[0] == 200, "the process itself is alive, and mends it"
            # What was under way when it was killed may be acknowledged still: it counts from the next server on.
            wait_for(lambda old=killed: scene.postgres.pid() not in (old, None), f"a server after kill {kill + 1}")
            load.wait_for_more(f"something is acknowledged after kill {kill + 1}")
    assert failed["database"] == Reason.DATABASE_UNAVAILABLE
    assert scene.metric('pool_embedded_postgres_restarts_total{outcome="started"}') >= KILLS
    wait_for(lambda: scene.probe("readyz")[0] == 200, "the pool is ready again")
    scene.nothing_is_lost()


def test_a_full_disk_that_is_emptied_leaves_a_pool_that_goes_on(scene: Scene, disk: tuple[Path, bool]) -> None:
    folder, small = disk
    if not small:
        pytest.skip("got no right to mount a small file system")
    filler = folder / "filler"
    with scene.load.running() as load:
        load.wait_for_more("the load has begun")
        fill(filler)
        wait_for(lambda: load.refusals, "publications are refused")
        attempts = scene.metric("pool_embedded_postgres_restarts_total{")
        scene.kill_postgres()
        wait_for(lambda: scene.metric("pool_embedded_postgres_restarts_total{") > attempts, "it is started again")
        wait_for(lambda: scene.failing("readyz"), "readyz says that the pool does not work")
        wait_for(lambda: scene.metric("pool_log_lines_lost_total "), "the process log has no room either")
        assert scene.failing("livez") == {}, "no thread has ended for it"
        filler.unlink()
        load.wait_for_more("something is acknowledged with room on the disk")
    wait_for(lambda: scene.probe("readyz")[0] == 200, "the pool is ready again")
    scene.nothing_is_lost()


def test_nothing_is_released_and_nothing_accepted_while_nobody_signs(scene: Scene) -> None:
    log = scene.world.data / "log"
    away = scene.world.folder / "log-away"
    assert scene.refusal() is None
    log.rename(away)
    log.write_text("a file where the folder of the log should be")
    try:
        with scene.load.running() as load:  # its entries wait
            wait_for(lambda: Reason.LOG_BEHIND in load.refusals, "publications are refused")
        refusal = scene.refusal()
        assert isinstance(refusal, UnavailableError), refusal
        assert (refusal.reason, refusal.retry_after) == (Reason.LOG_BEHIND, 5.0)
        assert scene.failing("readyz") == {"signing": Reason.LOG_BEHIND}
        assert scene.probe("livez")[0] == 200
        assert scene.metric("pool_serving ") == 0
    finally:
        log.unlink()
        away.rename(log)
    wait_for(lambda: scene.refusal() is None, "releases go on by themselves")
    wait_for(lambda: scene.probe("readyz")[0] == 200, "the pool is ready again")
    with scene.load.running() as load:
        load.wait_for_more("publications go on by themselves")


def test_an_older_database_that_is_put_back_releases_nothing(scene: Scene) -> None:
    world, data = scene.world, scene.world.data
    world.stop()
    shutil.copytree(data / "pg", world.folder / "pg-older")
    world.serve()
    head = world.remote(world.people.tokens[f"sharing-office-head-{scene.provider.id[-6:]}"])
    head.post(f"/grants/{scene.grant}/suspend", {"reason": "over"})
    refusal = scene.refusal()
    assert refusal is not None
    assert refusal.reason is Reason.GRANT_SUSPENDED
    wait_for(lambda: scene.metric("pool_unsequenced_entries ") == 0, "the suspension is signed")
    world.stop()
    (data / "pg").rename(world.folder / "pg-newer")
    (world.folder / "pg-older").rename(data / "pg")
    _to_postgres(data / "pg")
    world.serve(set_up=False)
    try:
        refusal = scene.refusal()
        assert refusal is not None, "a suspended grant delivers"
        assert refusal.reason is Reason.LOG_BEHIND
        assert refusal.details == {"cause": Reason.LOG_CORRUPT}
        assert scene.failing("readyz") == {"log": Reason.LOG_CORRUPT}
    finally:
        world.stop()
        shutil.rmtree(data / "pg")
        (world.folder / "pg-newer").rename(data / "pg")
    world.serve()
    wait_for(lambda: scene.probe("readyz")[0] == 200, "the right database serves by itself")
    refusal = scene.refusal()
    assert refusal is not None
    assert refusal.reason is Reason.GRANT_SUSPENDED


def test_a_database_that_cannot_be_started_any_more_is_given_up_aloud(scene: Scene) -> None:
    world = scene.world
    world.stop()
    config = world.data / "pool.toml"
    config.write_text(config.read_text().replace("restart_seconds = 60", "restart_seconds = 1"))
    world.serve()
    assert world.process is not None
    (world.data / "pg" / "global").rename(world.folder / "global-away")
    scene.kill_postgres()
    assert _last_livez(scene) == {"embedded_postgres": Reason.DATABASE_UNAVAILABLE}
    world.process.wait(PATIENCE)
    assert world.stop() == GAVE_UP
    assert "embedded_postgres_given_up" in (world.folder / "pool.log").read_text()
    (world.folder / "global-away").rename(world.data / "pg" / "global")
    world.serve()
    wait_for(lambda: scene.probe("readyz")[0] == 200, "the next start serves")


def _last_livez(scene: Scene) -> dict[str, str]:
    """Ask until `/livez` fails, which it does before the process ends."""
    found: dict[str, str] = {}
    wait_for(lambda: found.update(scene.failing("livez")) or found, "livez fails")
    return found


def _to_postgres(folder: Path) -> None:
    """Give a copied folder of the cluster back to the user of its original."""
    owner = (folder.parent / "socket").stat()
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
