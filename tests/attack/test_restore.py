"""A pool loses its database and is restored: nobody gets what was revoked, ended or erased since the backup."""

import json
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from exchange.admin_client import AdminClient
from exchange.audit.tiles import ENTRIES, WIDTH, TileFiles, decode_bundle, tile_width
from exchange.cli import main
from exchange.client import Identity
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from schemas.errors import PoolError, Reason, RefusedError, UnavailableError
from schemas.record import FRAME_SIZE
from tests.kit.patience import PATIENCE, wait_for
from tests.kit.share import count, random_of
from tests.kit.world import in_process
from tests.kit.world.publisher import Publisher, framed
from tests.kit.world.world import World, kill_postmaster
from tests.torture.clerks import SCHEMA

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow]
TOPIC = "permits.v1"
BEGINNING = b"\x00"
DRAW = {"purpose": "eligibility", "case": "STANDING-1"}


class City:
    """A provider and a consumer with two grants and two connectors, a backup of them, and what happens after it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.provider, self.consumer = world.department("许可局"), world.department("核查局")
        self.provider.offer(TOPIC, SCHEMA, level="G2")
        self.source = self.provider.enrol("source")
        self.lane = Publisher(self.source.pool_id, self.provider.id, "source", TOPIC, self.source.signing_key)
        self.drawer, self.thief = self.consumer.enrol("drawer"), self.consumer.enrol("thief")
        self.kept, self.ended = (self.consumer.request(TOPIC, ["permit_no", "version"]) for _ in range(2))
        for grant in (self.kept, self.ended):
            self.provider.approve(grant)
        self.head = self.provider.account("sharing_office_head")
        self.clerk = world.account("clerk-1", "auditor")
        self.key = world.folder / "backup.key"
        self.backup = world.folder / "backup"

    def head_again(self) -> AdminClient:
        """Return the API as the provider's head, wherever the pool listens now."""
        return self.world.remote(self.world.people.tokens[f"sharing-office-head-{self.provider.id[-6:]}"])

    def reconnect(self) -> None:
        """Let everybody's API go to the pool as it listens now."""
        people = self.world.people
        for office in (self.provider, self.consumer):
            name = f"sharing-office-head-{office.id[-6:]}"
            if name in people.tokens:
                office.accounts["sharing_office_head"] = self.world.remote(people.tokens[name])
            office.accounts.pop("security_officer", None)
        self.head = self.head_again()

    def publish(self, numbers: range, version: int) -> None:
        with self.world.client(self.source) as pool:
            schema_id, text = pool.schema(self.lane.lane.topic)
            rows = [{"permit_no": f"p{n}", "version": version, "district": "东城", "note": None} for n in numbers]
            list(pool.publish(self.lane.lane.topic, [self.lane.batch(framed(schema_id, text, rows))]))

    def draw(self, grant: str, identity: Identity, position: bytes = BEGINNING) -> tuple[dict[str, int], bytes]:
        """Draw everything from a position; return the version of each permit, and the position after it."""
        with self.world.client(identity) as pool:
            schema = parse(pool.describe(grant, **DRAW).schema_text)
            found: list[bytes] = []
            while True:
                got = pool.fetch(grant, position=position, **DRAW)
                found += [value[FRAME_SIZE:] for value in got.values if value]
                if got.caught_up and not got.values:
                    rows = engine_for(schema).decode(found).to_pylist() if found else []
                    return {row["permit_no"]: row["version"] for row in rows}, got.next_position
                position = got.next_position

    def back_up(self) -> None:
        assert cli("backup", "new-key", self.key).returncode == 0
        made = cli("backup", "create", "--data", self.world.data, "--out", self.backup, "--sealed",
                   self.world.folder / "sealed", "--key-file", self.key)  # fmt: skip
        assert made.returncode == 0, made.stderr

    def go_on(self) -> None:
        """Publish, draw, revoke, end, erase; return when all of it is signed."""
        self.publish(range(30, 40), 1)
        self.publish(range(5), 2)
        _, self.position = self.draw(self.kept, self.drawer)
        self.head.post(f"/grants/{self.ended}/suspend", {"reason": "under review"})
        self.head.post(f"/grants/{self.ended}/terminate", {"reason": "the purpose has ended"})
        root = self.world.root
        root.post("/connectors/revocations", {
            "department": self.consumer.id, "connector": "thief", "reason": "stolen",
        })  # fmt: skip
        root.post("/users/clerk-1/revocation", {"reason": "has left"})
        body = {"topic": TOPIC, "key": ["p7"], "reason": "withdrawn consent"}
        erasure = self.head.post("/erasures", body)["id"]
        root.post(f"/erasures/{erasure}/confirmation")
        wait_for(lambda: root.get("/erasures")[0]["state"] == "done", "the erasure is carried out")
        (newest,) = root.get("/audit/entries", {"action": "exchange:erasure:complete", "limit": 1})
        wait_for(lambda: self._is_signed(newest["entry"]["id"]), "everything is in the signed log")
        self.checkpoint = root.get("/audit/checkpoint")

    def _is_signed(self, entry_id: str) -> bool:
        try:
            self.world.root.get(f"/audit/entries/{entry_id}/proof")
        except UnavailableError:
            return False
        return True


def cli(*arguments: object) -> Any:
    return in_process.run(main, *arguments)


@pytest.fixture(scope="module")
def city() -> Iterator[City]:
    """A city whose database is lost; its old folder is `lost`, where the log survives."""
    with World.start() as world:
        city = City(world)
        city.publish(range(30), 1)
        assert len(city.draw(city.kept, city.drawer)[0]) == 30
        city.back_up()
        city.go_on()
        assert "p7" not in city.draw(city.kept, city.drawer)[0]
        (world.folder / "kept").write_text(city.checkpoint)
        world.stop(signal.SIGKILL)
        kill_postmaster(world.data)
        world.data.rename(world.folder / "lost")
        shutil.rmtree(world.folder / "lost" / "pg")
        yield city


@contextmanager
def restored(city: City, name: str, *arguments: object) -> Iterator[str]:
    """Restore into a folder of this name and serve it; yield what the command said."""
    world = city.world
    data = world.folder / name
    done = cli("backup", "restore", city.backup, "--data", data, "--sealed", world.folder / "sealed", "--key-file",
               city.key, *arguments)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    world.data = data
    world.serve()
    try:
        yield done.stdout
    finally:
        world.stop()


def settle(world: World) -> None:
    proposal = world.root.post("/restore/settlements")["id"]

    def confirmed(by: AdminClient) -> bool:
        try:
            by.post(f"/restore/settlements/{proposal}/confirmation")
        except UnavailableError:
            return False
        return True

    with pytest.raises(RefusedError) as refused:
        wait_for(lambda: confirmed(world.root), "who proposed it confirms it")
    assert refused.value.reason is Reason.SAME_PERSON
    wait_for(lambda: confirmed(world.people.second(world)), "another person confirms it")


def readyz(world: World) -> dict[str, str]:
    """Return the reasons of the checks of `/readyz` that fail, by name."""
    checks = httpx.get(f"http://{world.addresses['metrics']}/readyz", timeout=PATIENCE).json()["checks"]
    return {name: check["reason"] for name, check in checks.items() if not check["ok"]}


def refused_fetch(city: City, grant: str, identity: Identity, position: bytes = BEGINNING) -> Reason:
    with city.world.client(identity) as pool, pytest.raises(PoolError) as refused:
        pool.fetch(grant, position=position, **DRAW)
    return refused.value.reason


def serving(city: City) -> bool:
    with city.world.client(city.drawer) as pool:
        try:
            pool.fetch(city.kept, position=BEGINNING, **DRAW)
        except UnavailableError:
            return False
        return True


def verify(city: City, *arguments: object) -> Any:
    folder = city.world.data
    return cli("audit", "verify", "--files", folder / "log", "--key", folder / "log.pub", *arguments)


def test_where_the_log_survives_what_was_revoked_ended_and_erased_stays_so(city: City) -> None:
    world = city.world
    sequence, root = city.lane.sequence, city.lane.root
    with restored(city, "restored", "--log", world.folder / "lost" / "log", "--since", world.folder / "kept") as said:
        assert f"terminated      {city.ended}" in said
        assert "clerk-1" in said
        # Nothing is released before two persons have settled it, and nobody else may.
        assert refused_fetch(city, city.kept, city.drawer) is Reason.RESTORE_UNSETTLED
        with pytest.raises(RefusedError):
            city.head_again().post("/restore/settlements")
        status = world.root.get("/restore")
        assert not status["settled"]
        assert readyz(world) == {"restore": Reason.RESTORE_UNSETTLED}
        assert status["lanes"] == [{"lane": str(city.lane.lane), "restored": 1, "before": 3, "now": 1}]
        # Its connector publishes the rest again meanwhile.
        with world.client(city.source) as pool:
            head = pool.resume(city.lane.lane.topic)
        assert head.sequence == 1
        city.lane.sequence, city.lane.root = head.sequence, head.root
        city.publish(range(30, 40), 1)
        city.publish(range(5), 2)
        assert world.root.get("/restore")["lanes"][0]["now"] == 3
        settle(world)
        wait_for(lambda: serving(city), "records are released again")
        assert world.root.get("/restore")["settled"]
        wait_for(lambda: readyz(world) == {}, "the pool is ready")
        # The revoked, the ended and the erased.
        with pytest.raises(PoolError) as refused:
            city.draw(city.kept, city.thief)
        assert refused.value.reason is Reason.CERTIFICATE_REVOKED
        assert refused_fetch(city, city.ended, city.drawer) is Reason.GRANT_NOT_ACTIVE
        with pytest.raises(RefusedError) as refused_clerk:
            world.remote(world.people.tokens["clerk-1"]).get("/audit/entries")
        assert refused_clerk.value.reason is Reason.CERTIFICATE_REVOKED
        # The grant that changed nothing goes on, but for the catalogue's doubt; its consumer starts again.
        assert refused_fetch(city, city.kept, city.drawer, city.position) is Reason.TOPIC_GENERATION_CHANGED
        drawn, _ = city.draw(city.kept, city.drawer)
        assert drawn == {f"p{n}": 2 if n < 5 else 1 for n in range(40) if n != 7}
    city.lane.sequence, city.lane.root = sequence, root
    done = verify(city, "--since", world.folder / "kept")
    assert done.returncode == 0, done.stdout
    assert "the pool was restored from the backup of" in done.stdout


def test_where_the_log_is_lost_too_everything_is_suspended_and_another_log_begins(city: City) -> None:
    world = city.world
    with restored(city, "from-backup-alone", "--since", world.folder / "kept") as said:
        assert "entries more" in said
        assert "/g" in (world.data / "pool.toml").read_text()
        assert refused_fetch(city, city.kept, city.drawer) is Reason.RESTORE_UNSETTLED
        city.lane.sequence, city.lane.root = 1, bytes(32)
        with pytest.raises(UnavailableError) as refused:
            city.publish(range(1), 3)
        assert refused.value.reason is Reason.RESTORE_UNSETTLED
        settle(world)
        wait_for(lambda: world.root.get("/restore")["settled"], "it is settled")
        for grant in (city.kept, city.ended):
            wait_for(
                lambda grant=grant: refused_fetch(city, grant, city.drawer) is Reason.GRANT_SUSPENDED,
                "every grant is suspended",
            )
        city.head_again().post(f"/grants/{city.kept}/rectified", {"reason": "looked at it"})
        assert len(city.draw(city.kept, city.drawer)[0]) == 30
    assert verify(city).returncode == 0
    old = verify(city, "--since", world.folder / "kept")
    assert old.returncode == 1, "the log of before was lost, and the checkpoint shows it"


def test_a_restore_never_goes_over_an_old_folder(city: City) -> None:
    done = cli("backup", "restore", city.backup, "--data", city.world.folder / "lost", "--sealed",
               city.world.folder / "sealed", "--key-file", city.key)  # fmt: skip
    assert done.returncode == 1
    assert "already_exists" in done.stderr


def test_a_log_that_was_cut_back_is_no_surviving_log(city: City, tmp_path: Path) -> None:
    """Somebody who can write to the folder puts the backup's log there, which does not know of the revocation."""
    done = cli("backup", "restore", city.backup, "--data", tmp_path / "d", "--sealed", city.world.folder / "sealed",
               "--key-file", city.key, "--log", city.backup / "log", "--since", city.world.folder / "kept")  # fmt: skip
    assert done.returncode == 1
    assert "log.shorter" in done.stderr
    assert not (tmp_path / "d").exists()


def surviving(log: Path) -> list[dict[str, Any]]:
    """Return the entries that a log's folder holds under its checkpoint."""
    size = int((log / "checkpoint").read_text().split("\n")[1])
    files = TileFiles(log)
    leaves: list[bytes] = []
    for number in range((size + WIDTH - 1) // WIDTH):
        leaves += decode_bundle(files.tile(ENTRIES, number, tile_width(0, number, size)) or b"")
    return [json.loads(leaf) for leaf in leaves]


@pytest.mark.counted
@pytest.mark.timeout(3600)
def test_at_any_moment_of_the_loss_what_the_log_knows_holds(tmp_path: Path) -> None:
    """Each point: back up, go on at random, lose the database at a random moment, restore; and on from there."""
    points, random = count(20, 0), random_of("restore")
    if not points:
        pytest.skip("make torture loses the database at 20 random moments")
    with World.start() as world:
        city = City(world)
        city.publish(range(30), 1)
        for point in range(points):
            city.reconnect()
            name = f"thief-{point}"
            thief, ended = city.consumer.enrol(name), city.consumer.request(TOPIC, ["permit_no", "version"])
            city.provider.approve(ended)
            city.key, city.backup = world.folder / f"key-{point}", world.folder / f"backup-{point}"
            sealed = world.folder / f"sealed-{point}"
            assert cli("backup", "new-key", city.key).returncode == 0
            assert cli("backup", "create", "--data", world.data, "--out", city.backup, "--sealed", sealed,
                       "--key-file", city.key).returncode == 0  # fmt: skip
            acts = [
                lambda point=point: city.publish(range(30), point + 2),
                lambda ended=ended: city.head.post(f"/grants/{ended}/suspend", {"reason": "under review"}),
                lambda name=name: world.root.post("/connectors/revocations", {
                    "department": city.consumer.id, "connector": name, "reason": "stolen",
                }),
            ]  # fmt: skip
            for act in random.sample(acts, random.randint(1, len(acts))):
                act()
                time.sleep(random.random())
            head = city.lane.sequence
            world.stop(signal.SIGKILL)
            kill_postmaster(world.data)
            log = world.data / "log"
            known = surviving(log)
            done = cli("backup", "restore", city.backup, "--data", world.folder / f"r{point}", "--sealed", sealed,
                       "--key-file", city.key, "--log", log)  # fmt: skip
            assert done.returncode == 0, (point, done.stdout, done.stderr)
            world.data = world.folder / f"r{point}"
            world.serve()
            settle(world)
            wait_for(lambda: serving(city), "records are released again")
            revoked = any(e["action"] == "identity:connector:revoke" and e["resource"] == name for e in known)
            suspended = any(e.get("grant", {}).get("id") == ended and e["action"].endswith(":suspend") for e in known)
            if revoked:
                assert refused_fetch(city, city.kept, thief) is Reason.CERTIFICATE_REVOKED
            if suspended:
                assert refused_fetch(city, ended, city.drawer) is Reason.GRANT_SUSPENDED
            with world.client(city.source) as pool:
                at = pool.resume(city.lane.lane.topic)
            assert at.sequence <= head
            city.lane.sequence, city.lane.root = at.sequence, at.root
            city.publish(range(30), 1_000 + point)
            assert city.draw(city.kept, city.drawer)[0] == {f"p{n}": 1_000 + point for n in range(30)}
            assert verify(city).returncode == 0
