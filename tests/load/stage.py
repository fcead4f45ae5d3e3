"""The stage: a pool on the embedded PostgreSQL with its defaults, departments that work, and one that attacks."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from exchange.client import Identity
from schemas import library
from schemas.names import Topic
from tests.kit.world.publisher import Publisher, chunks, framed
from tests.kit.world.world import World, in_clear
from tests.torture.clerks import SCHEMA as PERMITS

WORKED = "population.v1"
LARGE = "permits.v1"
RECORDS = 20_000  # of the large topic
NOTE = 800  # characters of each
CONNECTORS = 4  # of the attacking department, each with a certificate


class Stage:
    """A running pool; settings of the processes around it are files in its folder."""

    def __init__(self, world: World, records: int = RECORDS) -> None:
        self.world = world
        self.provider, self.consumer = world.department("公安局"), world.department("人社局")
        self.attacker = world.department("城管局")
        self.provider.offer(WORKED, library.text("population"))
        self.provider.offer(LARGE, PERMITS)
        self._fill(records)
        grant = self.consumer.request(WORKED, ["full_name"], **in_clear("full_name"))
        self.provider.approve(grant)
        self.beside = self._beside(grant)
        self.attacks = self._attacks()

    def _fill(self, records: int) -> None:
        """Publish what the attacker's fetches are full of."""
        source = self.provider.enrol("archive")
        lane = Publisher(source.pool_id, source.department, source.connector, LARGE, source.signing_key)
        with self.world.client(source) as client:
            schema = client.schema(Topic.parse(LARGE))
            rows = (
                {"permit_no": f"p{number}", "version": 1, "district": "东城", "note": "n" * NOTE}
                for number in range(records)
            )
            batches = (lane.batch(framed(*schema, chunk)) for chunk in chunks(rows, 2_000))
            list(client.publish(Topic.parse(LARGE), batches))

    def _beside(self, grant: str) -> Path:
        source, sink = self.provider.enrol("source"), self.consumer.enrol("sink")
        head = self.consumer.account("sharing_office_head")
        return self._settings(
            "beside",
            source=self._folder(source),
            sink=self._folder(sink),
            gateway=self.world.addresses["gateway"],
            http=self.world.addresses["http"],
            registry=self.world.addresses["registry"],
            authority=self.world.data / "ca" / "authority.crt",
            token=head._headers["authorization"],
            topic=WORKED,
            grant=grant,
        )

    def _attacks(self) -> Path:
        grant = self.attacker.request(LARGE, ["permit_no", "version", "district", "note"])
        self.provider.approve(grant)
        connectors = [self.attacker.enrol(f"attack-{number}") for number in range(CONNECTORS)]
        revoked = self.attacker.enrol("revoked")
        body = {"department": revoked.department, "connector": "revoked", "reason": "the load's row S3"}
        self.world.root.post("/connectors/revocations", body)
        accounts = {
            role: self.attacker.account(role)._headers["authorization"]
            for role in ("catalogue_editor", "sharing_office_head")
        }
        return self._settings(
            "attacks",
            connectors=[self._folder(one) for one in connectors],
            revoked=self._folder(revoked),
            addresses=self.world.addresses,
            authority=self.world.data / "ca" / "authority.crt",
            accounts=accounts,
            topic=LARGE,
            grant=grant,
        )

    def _folder(self, identity: Identity) -> Path:
        return self.world.folder / "identities" / identity.department / identity.connector

    def _settings(self, name: str, **values: Any) -> Path:
        file = self.world.folder / f"{name}.json"
        file.write_text(json.dumps(values, default=str))
        return file

    def resident(self) -> float:
        """Return the resident memory of the pool's process, MB, or of its processes; without engines and database."""
        assert self.world.process is not None
        first = psutil.Process(self.world.process.pid)
        beside = [one for one in first.children() if "--child" in one.cmdline()]
        return sum(float(one.memory_info().rss) for one in (first, *beside)) / 1e6


@contextmanager
def stage(extra: str = "", records: int = RECORDS, processes: str = "several") -> Iterator[Stage]:
    """Start a pool of one process or several and all that is on the stage; *extra* is added to its configuration."""
    with World.start(extra, processes=processes) as world:
        yield Stage(world, records)
