"""A pool as processes, and the people and departments around it.

    with World.start() as world:
        police = world.department("公安局", "330100")
        ...

`World` runs `pool init` and `pool serve` in a scratch folder, on the embedded PostgreSQL or with a Kafka, and speaks
to it as its users do: the control API with tokens, gRPC with enrolled identities.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import exchange.cli
import registry.cli.main
from exchange.admin_client import AdminClient
from exchange.client import Identity, PoolClient, enrol
from exchange.demo.people import credit_codes
from schemas.errors import Reason, RefusedError
from tests.kit.cases.catalogue import metadata_of
from tests.kit.patience import PATIENCE
from tests.kit.world import in_process, pool_template, postgres
from tests.kit.world.people import People, PeopleOfEarlier

BIN = Path(sys.executable).parent


@dataclass
class Office:
    """A department with its accounts and its connectors' identities."""

    world: "World"
    id: str
    accounts: dict[str, AdminClient] = field(default_factory=dict)

    def account(self, role: str) -> AdminClient:
        """Return the API as an account of this department with that role; made at the first call."""
        if role not in self.accounts:
            if role == "security_officer":
                self.accounts[role] = self.world.people.officer(self.world, self.id)
            else:
                self.accounts[role] = self.world.account(f"{role}-{self.id[-6:]}".replace("_", "-"), role, self.id)
        return self.accounts[role]

    def enrol(self, connector: str) -> Identity:
        """Invite and enrol a connector of this department."""
        token = self.world.people.invite(self.world, self.id, connector)
        return enrol(token, connector, self.world.folder / "identities" / self.id / connector)

    def offer(
        self, topic: str, schema: str, *, level: str = "G4", code: str | None = None, **entry_members: Any
    ) -> None:
        """Catalogue, register and publish a resource of this department; more members of the entry as they are.

        Without *code* it gets one that no other resource of the world has. Three persons take it through its reviews.
        """
        editor = self.account("catalogue_editor")
        entry = {
            "topic": topic,
            "title": topic,
            "code": code or self.world.new_code(),
            "share_type": "conditional",
            "share_scope": "本市各部门",
            "use_purpose": "履职",
            "level": level,
            **entry_members,
        }
        editor.post("/catalogue", entry)
        editor.post(f"/catalogue/{topic}/schemas", {"text": schema})
        self.publish(topic, entry)

    def publish(self, topic: str, entry: dict[str, Any]) -> None:
        """Describe a draft of this department, take it through both reviews and publish it."""
        if self.world.programs.current:  # earlier versions published without full metadata
            editor = self.account("catalogue_editor")
            editor.post(f"/catalogue/{topic}/metadata", metadata_of(entry).to_document())
            editor.post(f"/catalogue/{topic}/submission")
            self.account("sharing_office_head").post(f"/catalogue/{topic}/approval")
        self.world.root.post(f"/catalogue/{topic}/publication")

    def request(self, topic: str, fields: list[str], **terms: Any) -> str:
        """File a share request; give its id."""
        now = datetime.now(UTC)
        body = {
            "topic": topic,
            "fields": fields,
            "purpose": "eligibility",
            "legal_basis": "社会保险法 第七十四条",
            "case": "STANDING-1",
            "not_before": (now - timedelta(minutes=1)).isoformat(),
            "expires": (now + timedelta(days=30)).isoformat(),
            "history": "all",
            **terms,
        }
        return str(self.account("sharing_office_head").post("/requests", body)["id"])

    def approve(self, grant_id: str) -> dict[str, Any]:
        """Approve a request as this department's sharing office; its security officer signs too where that is due."""
        head = self.account("sharing_office_head")
        try:
            answer: dict[str, Any] = head.post(f"/grants/{grant_id}/approval")
            waits = answer["state"] == "countersigned"
        except RefusedError as error:
            if error.reason is not Reason.CONFIRMATION_MISSING:  # an earlier version asks for the officer first
                raise
            waits = True
        if waits:
            self.account("security_officer").post(f"/grants/{grant_id}/confirmation")
            answer = head.post(f"/grants/{grant_id}/approval")
        return answer


def in_clear(*fields: str) -> dict[str, Any]:
    """Return the terms of a request that writes out that fields are shown as they are, whatever the schema masks."""
    return {"masks": dict.fromkeys(fields, "none"), "unmasked_reason": "a test compares what was published"}


def disclosing(*fields: str) -> dict[str, Any]:
    """Return the terms of a request that names what its filter tells."""
    return {"filter_discloses": list(fields), "disclosure_reason": "a test chooses rows"}


class Programs:
    """The project's programs, as they are installed."""

    environment: ClassVar[dict[str, str]] = {}
    current: ClassVar[bool] = True  # the version under test
    two_persons: ClassVar[bool] = True  # accounts and invitations take two persons

    def command(self, program: str, *arguments: str) -> list[str]:
        """Return the command that runs one of them."""
        return [str(BIN / program), *arguments]

    def serve_command(self, data: Path) -> list[str]:
        """Return the command that serves a pool; under pytest its background loops turn more often than a user's."""
        if postgres.syncs():
            return self.command("pool", "serve", "--data", str(data))
        return [sys.executable, "-m", "tests.kit.world.short_periods", "serve", "--data", str(data)]

    def run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one of them to its end: a command that calls the pool in this process, any other in one of its own."""
        main = _CALLING.get(program) if self.current and arguments[:1] not in _PROCESSES else None
        if main is None:
            return self.run_process(program, *arguments, check=check)
        return _checked(in_process.run(main, *arguments), check=check)

    def run_process(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one of them to its end, in a process of its own."""
        command, environment = self.command(program, *arguments), {**os.environ, **self.environment}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE, env=environment)
        return _checked(done, check=check)


_CALLING: Final = {"pool": exchange.cli.main, "pool-schema": registry.cli.main.main}
_PROCESSES: Final = frozenset({("init",), ("serve",), ("demo",)})  # commands of `pool` that are about processes


def _checked(done: subprocess.CompletedProcess[str], *, check: bool) -> subprocess.CompletedProcess[str]:
    if check and done.returncode != 0:
        raise AssertionError(f"{done.args} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


class World:
    """A running pool; see the module."""

    def __init__(
        self,
        folder: Path,
        extra: str = "",
        programs: "Programs | None" = None,
        *,
        durable: bool = False,
        database: str | None = None,
        pool_id: str = "test-pool",
        processes: str = "one",
    ) -> None:
        """Prepare a world; nothing is made yet.

        Args:
            folder: gets the pool and its log.
            extra: is added to its pool.toml.
            programs: of an earlier version, say.
            durable: make the pool by a `pool init` of its own, with a PostgreSQL that waits for the disk. Pools on
                Kafka are made by one too: with the keys of a copy, a pool would take the lanes that another has on
                the same Kafka for its own.
            database: reference to the address of an external one, as `pool init --database` takes it.
            pool_id: of the pool.
            processes: that serve it: "one" or "several".
        """
        self.folder = folder
        self._processes = processes
        self._pool_id = pool_id
        self._durable = durable
        self._own_keys = durable or "kafka" in extra
        self._database = database
        self.programs = programs or Programs()
        self._resource_codes = count(900_001)
        self.data = folder / "pool"
        self._extra = extra
        self._codes = credit_codes()
        self.process: subprocess.Popen[str] | None = None
        self.addresses: dict[str, str] = {}
        self.people = People() if self.programs.two_persons else PeopleOfEarlier()

    @classmethod
    @contextmanager
    def start(
        cls, extra: str = "", database: str | None = None, pool_id: str = "test-pool", processes: str = "one"
    ) -> Iterator[Self]:
        """Make a pool and serve it; *extra* is added to its pool.toml (a broker section, say).

        *database* refers to the address of an external one, as `pool init --database` takes it.
        """
        with cls.served_without_set_up(extra, database, pool_id, processes) as world:
            world.set_up()
            yield world

    @classmethod
    @contextmanager
    def served_without_set_up(
        cls, extra: str = "", database: str | None = None, pool_id: str = "test-pool", processes: str = "one"
    ) -> Iterator[Self]:
        """Make a pool and serve it, as `pool init` leaves it: without an account."""
        folder = Path(tempfile.mkdtemp(prefix="pool-world-"))
        folder.chmod(0o755)  # the embedded PostgreSQL's own user must pass through
        world = cls(folder, extra, database=database, pool_id=pool_id, processes=processes)
        try:
            world.initialise()
            world.serve(set_up=False)
            yield world
        finally:
            world.close()
            print((folder / "pool.log").read_text()[-4000:] if (folder / "pool.log").exists() else "")
            shutil.rmtree(folder, ignore_errors=True)

    def initialise(self) -> None:
        """Make the pool as `pool init` does, on ports that the system chooses."""
        command = ("init", "--pool-id", self._pool_id, "--data")
        if self._database is not None:
            self.programs.run("pool", *command, str(self.data), "--database", self._database)
        elif self._own_keys or postgres.syncs() or not self.programs.current:
            self.programs.run("pool", *command, str(self.data))
            if not self._durable and not postgres.syncs() and self.programs.current:
                postgres.without_fsync(self.data / "pg")
        else:
            pool_template.copy_pool(tuple(self.programs.command("pool", *command)), self.data)
        config = self.data / "pool.toml"
        listen = "\n".join(f'{name} = "127.0.0.1:0"' for name in ("grpc", "enrolment", "http", "registry", "metrics"))
        text = config.read_text().replace('gateway = "localhost:7443"', 'gateway = "localhost:0"')
        if self._processes != "one":
            text = f'processes = "{self._processes}"\n{text}'
        config.write_text(f"{text}\n[listen]\n{listen}\n\n{self._extra}\n")

    def serve(self, *, environment: dict[str, str] | None = None, set_up: bool = True) -> None:
        """Run `pool serve` and wait until it is ready."""
        log = (self.folder / "pool.log").open("a")
        self.process = subprocess.Popen(
            self.programs.serve_command(self.data),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **self.programs.environment, **(environment or {})},
        )
        log.close()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready "), (line, (self.folder / "pool.log").read_text()[-2000:])
        self.addresses = json.loads(line.removeprefix("ready "))
        if set_up:
            self.set_up()

    def set_up(self) -> None:
        """Add the first two data authorities, where there are none yet; `root` is the API as one of them."""
        self.root = self.people.set_up(self)

    def remote(self, token: str) -> AdminClient:
        """Return the control API under a token."""
        return AdminClient(f"https://{self.addresses['http']}", token, self.data / "ca" / "authority.crt")

    def account(self, name: str, role: str, department: str = "") -> AdminClient:
        """Add an account, by two persons, and return the API as it."""
        return self.people.account(self, name, role, department)

    def new_code(self) -> str:
        """Return a national code for a resource; tests that share a world ask for one and do not collide."""
        return f"101001/{next(self._resource_codes):06}"

    def department(self, name: str, division: str = "330100") -> Office:
        """Register a department."""
        body = {
            "uscc": next(self._codes),
            "name": f"某市{name}",
            "short_name": name,
            "level": "city",
            "division_code": division,
        }
        return Office(self, self.root.post("/departments", body)["id"])

    def client(self, identity: Identity) -> PoolClient:
        """Connect as a connector, wherever the gateway listens now."""
        return PoolClient(identity, address=self.addresses["gateway"])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the pool and wait for its end."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        if self.process.stdout:
            self.process.stdout.close()
        self.process = None
        return code

    def close(self) -> None:
        """End the pool and its embedded PostgreSQL at once: what it has is thrown away. `stop` is the orderly end."""
        if self.process is not None:
            self.stop(signal.SIGKILL)
        kill_postmaster(self.data, signal.SIGQUIT)


def kill_postmaster(data: Path, number: int = signal.SIGINT) -> None:
    """Stop an embedded PostgreSQL that lost its owner."""
    try:
        pid = int((data / "pg" / "postmaster.pid").read_text().split("\n", 1)[0])
        os.kill(pid, number)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)


def run(program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one of the project's programs to its end, in a process of its own."""
    return Programs().run_process(program, *arguments, check=check)
