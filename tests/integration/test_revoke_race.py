"""A grant is revoked through gateway A while its consumer draws through B: nothing comes after the acknowledgement.

B's link to the database stands still for 3 s in half of the trials, in one direction or the other, around the moment
of the revocation. REVOKE_TRIALS=200 runs the long form. POOL_SEED=n repeats the draws.
"""

import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from exchange.client import PoolClient
from exchange.server.embedded_postgres import EmbeddedPostgres
from schemas.errors import PoolError
from schemas.names import Topic
from tests.kit.faults.slow_link import TO_CLIENT, TO_SERVER, SlowLink
from tests.kit.patience import PATIENCE
from tests.kit.share import count, random_of, seed
from tests.kit.world.publisher import Publisher, framed
from tests.kit.world.world import BIN, World, run
from tests.torture.clerks import SCHEMA
from tests.torture.process import Program

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow]
TOPIC = Topic.parse("permits.v1")
TRIALS = int(os.environ.get("REVOKE_TRIALS") or count(10, 4))
STALL = 3.0  # seconds


class Two(World):
    """Two gateways on one database; B's link to it is slow where it is told to be."""

    def __init__(self, folder: Path, postgres: EmbeddedPostgres, windows: tuple[float, float]) -> None:
        super().__init__(folder)
        url = sa.make_url(postgres.url_file.read_text().strip())
        self.link = SlowLink(folder / "slow", Path(str(url.query["host"])))
        slow = url.update_query_dict({"host": str(self.link.folder)})
        for name, each in (("a", url), ("b", slow)):
            file = folder / f"url-{name}"
            file.touch(mode=0o600)
            file.write_text(each.render_as_string(hide_password=False))
        direct = f"${{file:{folder / 'url-a'}}}"
        run("pool", "init", "--data", str(self.data), "--pool-id", "race", "--database", direct)
        self.gateways = {name: self._gateway(name, window) for name, window in zip("ab", windows, strict=True)}

    def _gateway(self, name: str, window: float) -> Program:
        folder = self.folder / name
        folder.mkdir()
        for shared in ("ca", "secrets", "log"):
            (folder / shared).symlink_to(self.data / shared)
        text = (self.data / "pool.toml").read_text().replace("localhost:7443", "localhost:0")
        text = text.replace("url-a", f"url-{name}")
        listen = "\n".join(f'{listener} = "127.0.0.1:0"' for listener in ("grpc", "enrolment", "http", "registry"))
        text += f"\n[listen]\n{listen}\n"
        (folder / "pool.toml").write_text(text)
        program = (
            [sys.executable, "-m", "tests.kit.faults.release_window", str(window)] if window else [str(BIN / "pool")]
        )
        command = [*program, "serve", "--data", str(folder), "--role", "gateway"]
        return Program(f"gateway-{name}", self.folder, lambda: command)

    def begin(self) -> None:
        for program in self.gateways.values():
            program.start()
        for program in self.gateways.values():
            program.wait_for("ready ")
        self.addresses = self.at("a")
        self.set_up()

    def at(self, name: str) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.folder / name / "ports.json").read_text())
        return found

    def close(self) -> None:
        self.link.stall(TO_SERVER, 0)
        self.link.stall(TO_CLIENT, 0)
        for program in self.gateways.values():
            program.close()
        self.link.close()


@contextmanager
def two(windows: tuple[float, float] = (0, 0)) -> Iterator["Race"]:
    """Start the two gateways; *windows*: another release window of A and of B, in seconds, 0 = the product's."""
    folder = Path(tempfile.mkdtemp(prefix="pool-race-"))
    folder.chmod(0o755)  # PostgreSQL's own user must pass through
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        postgres = EmbeddedPostgres(folder / "database")
        stack.callback(postgres.stop)
        postgres.start()
        world = Two(folder, postgres, windows)
        stack.callback(world.close)
        world.begin()
        race = Race(world)
        stack.callback(race.close)
        yield race


class Race:
    """A grant, a consumer that draws under it through B, and an overseer who revokes it through A."""

    def __init__(self, world: Two) -> None:
        self.world = world
        provider, consumer = world.department("许可局"), world.department("核查局")
        provider.offer(str(TOPIC), SCHEMA, level="G2")
        identity = provider.enrol("source")
        with world.client(identity) as pool:
            schema_id, text = pool.schema(TOPIC)
            rows = [{"permit_no": f"p{n}", "version": n, "district": "东城", "note": None} for n in range(40)]
            publisher = Publisher(identity.pool_id, provider.id, "source", str(TOPIC), identity.signing_key)
            list(pool.publish(TOPIC, [publisher.batch(framed(schema_id, text, rows))]))
        self.grant = consumer.request(str(TOPIC), ["permit_no", "version"])
        provider.approve(self.grant)
        self.overseer = provider.account("sharing_office_head")
        drawer = consumer.enrol("drawer")
        self._client = PoolClient(drawer, address=world.at("b")["gateway"])
        self._start = self._client.describe(self.grant, purpose="eligibility", case="STANDING-1").position
        self.arrivals: list[float] = []
        self.refusals = 0
        self._stop = threading.Event()
        # One alone: a second one's transaction, held up as well, would keep the lock, and the revocation waiting.
        self._thread = threading.Thread(target=self._draw, daemon=True)
        self._thread.start()

    def _draw(self) -> None:
        """Draw the same records again and again: each time is a release with an entry of its own."""
        while not self._stop.is_set():
            try:
                got = self._client.fetch(
                    self.grant, position=self._start, purpose="eligibility", case="STANDING-1", max_records=10
                )
            except PoolError:
                self.refusals += 1
                time.sleep(0.01)
                continue
            if len(got.values):
                self.arrivals.append(time.monotonic())

    def trial(self, draw: random.Random, *, stalled: bool) -> float:
        """Revoke once; give by how many seconds the last record came after the acknowledgement (negative: before)."""
        begun = len(self.arrivals)
        self._until(lambda: len(self.arrivals) > begun + 3, "records flow")
        if stalled:
            # Now the commit of a release is held, now its answer: the first holds the grant's lock, the second has
            # let it go, and the gateway does not know it.
            if draw.random() < 0.8:
                hit = self.world.link.aim(draw.choice((TO_SERVER, TO_CLIENT)), STALL)
                assert hit.wait(PATIENCE), "B releases"
            else:
                self.world.link.stall(draw.choice((TO_SERVER, TO_CLIENT)), STALL)
            time.sleep(draw.uniform(0, 0.05))
        self.overseer.post(f"/grants/{self.grant}/suspend", {"reason": "试停"})
        acknowledged = time.monotonic()
        time.sleep(self.world.link.stalled() + 0.5)
        late = self.arrivals[-1] - acknowledged
        refused = self.refusals
        self._until(lambda: self.refusals > refused, "B refuses")
        assert self.arrivals[-1] - acknowledged == late, "a record came after B had caught up"
        self.overseer.post(f"/grants/{self.grant}/rectified", {"reason": "恢复"})
        return late

    def close(self) -> None:
        self._stop.set()
        self._thread.join(60)
        self._client.close()

    def _until(self, condition: object, what: str) -> None:
        assert callable(condition)
        give_up = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < give_up, f"not within {PATIENCE} s: {what}"
            time.sleep(0.005)


@pytest.mark.counted
@pytest.mark.timeout(300 + 20 * TRIALS)
def test_no_record_arrives_after_the_revocation_was_acknowledged() -> None:
    draw = random_of("revoke race")
    with two() as race:
        late = [race.trial(draw, stalled=number % 2 == 0) for number in range(TRIALS)]
        told = f"seed {seed()}, {TRIALS} trials, {len(race.arrivals)} releases; nearest to the end {max(late):.3f} s"
    print(told)
    assert max(late) < 0, told


def test_a_gateway_whose_window_is_longer_than_the_revokers_is_found_out() -> None:
    """The control: with B's window at 5 s and A's at 50 ms, a stalled commit's reply lets records out too late."""
    draw = random.Random(1)
    with two(windows=(0.05, 5.0)) as race:
        for _ in range(12):
            if race.trial(draw, stalled=True) > 0:
                return
    pytest.fail("nothing came late")
