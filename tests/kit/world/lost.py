"""A pool that is backed up, goes on, and loses its database: who is in it, what they do, and how it is restored."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from exchange.admin_client import AdminClient
from exchange.cli import main
from exchange.client import Identity
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from schemas.errors import PoolError, Reason, RefusedError, UnavailableError
from schemas.record import FRAME_SIZE
from tests.kit.patience import PATIENCE, wait_for
from tests.kit.world import in_process
from tests.kit.world.publisher import Publisher, framed
from tests.kit.world.world import World
from tests.torture.clerks import SCHEMA

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
                    versions = [(row["permit_no"], row["version"]) for row in rows]
                    assert len(versions) == len(set(versions)), "each version of a permit comes once"
                    return dict(versions), got.next_position
                position = got.next_position

    def back_up(self) -> None:
        assert cli("backup", "new-key", self.key).returncode == 0
        made = cli("backup", "create", "--data", self.world.data, "--out", self.backup, "--sealed",
                   self.world.folder / "sealed", "--key-file", self.key)  # fmt: skip
        assert made.returncode == 0, made.stderr

    def void(self, number: int) -> None:
        """Publish the void of a permit; return when it is acknowledged."""
        with self.world.client(self.source) as pool:
            list(pool.publish(self.lane.lane.topic, [self.lane.voids([b"p%d" % number])]))

    def go_on(self, *, erased: str = "done") -> None:
        """Publish, draw, revoke, end, erase; return when all of it is signed.

        *erased* is the state in which the erasure is left: on Kafka, an operator has to carry it out.
        """
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
        wait_for(lambda: root.get("/erasures")[0]["state"] == erased, "the erasure is decided, or carried out")
        self.wait_until_signed(f"exchange:erasure:{'complete' if erased == 'done' else 'confirm'}")

    def wait_until_signed(self, action: str) -> None:
        """Wait until the newest entry of an action is signed, and keep the checkpoint of then."""
        (newest,) = self.world.root.get("/audit/entries", {"action": action, "limit": 1})
        wait_for(lambda: self._is_signed(newest["entry"]["id"]), "everything is in the signed log")
        self.checkpoint = self.world.root.get("/audit/checkpoint")

    def _is_signed(self, entry_id: str) -> bool:
        try:
            self.world.root.get(f"/audit/entries/{entry_id}/proof")
        except UnavailableError:
            return False
        return True


def cli(*arguments: object) -> Any:
    return in_process.run(main, *arguments)


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
