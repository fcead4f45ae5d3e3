"""What is tortured: one Kafka, one PostgreSQL, two gateways and a sequencer; two sources, a sink, a second consumer.

    kafka ─┬─ gateway a ─┬─ source-p, source-q   (each a lane of its own, into one topic)
    pg  ───┼─ gateway b ─┼─ sink                 (a table in PostgreSQL)
           └─ sequencer  └─ second               (appends to a file)

Everything is a real process; each gateway has a folder of its own, as it would have on a machine of its own, with the
pool's keys in it.
"""

import itertools
import json
import random
import shutil
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from exchange.server.embedded_postgres import EmbeddedPostgres
from schemas.names import ConnectorId, Lane, Topic
from tests.e2e.conftest import kafka_section
from tests.kit.world import kafka
from tests.kit.world.world import BIN, World, run
from tests.torture.clerks import FIELDS, GRANTED, SCHEMA, Clerk
from tests.torture.process import Program

TOPIC = Topic.parse("permits.v1")
GATEWAYS = ("gateway-a", "gateway-b")
SOURCES = ("source-p", "source-q")
PUBLISHING = ("after_produce", "after_broker_commit", "after_entry", "before_response")
RELEASING = ("after_release_entry", "before_release")
WRITING = "between_rows_and_position"
LOSE_EVERY = 4  # restarts of a source after which its ledger is gone

Acknowledged = dict[tuple[str, int], tuple[bytes, list[list[int]]]]


class Stage(World):
    """Everything, running."""

    def __init__(self, folder: Path, node: kafka.Node, postgres: EmbeddedPostgres, seed: int, control: str) -> None:
        super().__init__(folder)
        self.node = node
        self.postgres = postgres
        self.draw = random.Random(seed)
        self.control = control
        self.armed = True
        self.children: dict[str, Program] = {}
        self.acknowledged: Acknowledged = {}
        self.ledgers_lost = 0
        self.identities: dict[str, Path] = {}
        versions = itertools.count(1)
        self.clerks = {
            name: Clerk(folder / f"{name}.db", name[-1], versions, seed + at, permits=240)
            for at, name in enumerate(SOURCES)
        }
        self.url_file = postgres.url_file
        self.url = sa.make_url(self.url_file.read_text().strip())
        self._ports = {name: _free_ports(4) for name in GATEWAYS}

    # -- setting up --------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Make the pool, start the gateways, register and grant, start the connectors."""
        run(
            "pool", "init", "--data", str(self.data), "--pool-id", "torture", "--database", f"${{file:{self.url_file}}}"
        )
        text = (self.data / "pool.toml").read_text().replace('gateway = "localhost:7443"', 'gateway = "GATEWAY"')
        text += "failpoints = true\n\n" + kafka_section(self.node)
        for name in GATEWAYS:
            self._gateway_folder(name, text)
        (self.data / "pool.toml").write_text(text.replace("GATEWAY", f"localhost:{self._ports[GATEWAYS[0]][0]}"))
        sequence = [str(BIN / "pool"), "serve", "--data", str(self.data), "--role", "sequencer"]
        self._program("sequencer", lambda: sequence)
        for name in GATEWAYS:
            self._program(name, lambda name=name: self._serve(name), lambda name=name: self._failpoint(name))  # type: ignore[misc]
        self.armed = False
        for name in ("sequencer", *GATEWAYS):
            self.children[name].start()
        for name in ("sequencer", *GATEWAYS):
            self.children[name].wait_for("ready ")
        self.armed = True
        enrolment, http = self._ports[GATEWAYS[0]][1:3]
        self.addresses = {"http": f"127.0.0.1:{http}", "enrolment": f"127.0.0.1:{enrolment}"}
        self.set_up()
        self._grant()
        with self.engine(isolation_level="AUTOCOMMIT") as engine, engine.connect() as connection:
            connection.execute(sa.text("CREATE DATABASE sink"))
        for name in (*SOURCES, "sink"):
            self._program(
                name,
                lambda name=name: self._connect(name),  # type: ignore[misc]
                lambda name=name: self._failpoint(name),  # type: ignore[misc]
                self._losing(name) if name in SOURCES else None,
            )
        self._program("second", self._second)

    def _gateway_folder(self, name: str, text: str) -> None:
        folder = self.folder / name
        folder.mkdir()
        for shared in ("ca", "secrets", "log"):
            (folder / shared).symlink_to(self.data / shared)
        ports = self._ports[name]
        listen = "\n".join(
            f'{listener} = "127.0.0.1:{port}"'
            for listener, port in zip(("grpc", "enrolment", "http", "registry"), ports, strict=True)
        )
        text = text.replace("GATEWAY", f"localhost:{ports[0]}")
        (folder / "pool.toml").write_text(f"{text}\n[listen]\n{listen}\n")

    def _grant(self) -> None:
        provider, consumer = self.department("许可局"), self.department("核查局")
        provider.offer(str(TOPIC), SCHEMA, level="G2")
        row_filter = {"op": "eq", "field": "district", "value": GRANTED}
        self.grants = {
            name: consumer.request(str(TOPIC), list(FIELDS), row_filter=row_filter) for name in ("sink", "second")
        }
        for grant in self.grants.values():
            provider.approve(grant)
        for name in (*SOURCES, *self.grants):
            office = provider if name in SOURCES else consumer
            office.enrol(name)
            self.identities[name] = self.folder / "identities" / office.id / name
        self.lanes = {name: Lane(provider.id, ConnectorId(name), TOPIC) for name in SOURCES}

    def _program(self, name: str, command: Any, environment: Any = dict, before: Any = None) -> None:
        self.children[name] = Program(name, self.folder, command, environment, before or (lambda _: None))

    # -- commands ----------------------------------------------------------------------------------------------

    def _serve(self, name: str) -> list[str]:
        rest = ["serve", "--data", str(self.folder / name), "--role", "gateway"]
        if self.control:
            return [sys.executable, "-m", "tests.torture.doubles", self.control, *rest]
        return [str(BIN / "pool"), *rest]

    def _connect(self, name: str) -> list[str]:
        """Write the connector's file again, its gateways in another order, and give the command."""
        content: dict[str, Any] = {
            "version": 1,
            "connector": name,
            "failpoints": True,
            "exchange": {"identity": str(self.identities[name]), "gateway": self._gateways()},
            "state": str(self.folder / "state"),
            "batch": {"rows": 20, "in_flight": 4},
        }
        if name in SOURCES:
            content["source"] = {"kind": "sql", "url": f"sqlite:///{self.clerks[name].path}", "poll": "50ms"}
            content["publish"] = [
                {"resource": str(TOPIC), "table": "permits", "deletes": {"stop_if_more_than": "100%"}}
            ]
        else:
            password = self.folder / "sink-password"
            password.touch(mode=0o600)
            password.write_text(str(self.url.password))
            url = sa.URL.create(self.url.drivername, self.url.username, database="sink", query=self.url.query)
            content["subscribe"] = [
                {
                    "grant": self.grants[name],
                    "purpose": "eligibility",
                    "case": "STANDING-1",
                    "wait": "1s",
                    "into": {
                        "kind": "sql",
                        "url": url.render_as_string(),
                        "password": f"${{file:{password}}}",
                        "table": "permits",
                        "create_table": True,
                    },
                }
            ]
        file = self.folder / f"{name}.yaml"
        file.write_text(json.dumps(content, ensure_ascii=False))
        return [str(BIN / "pool-connect"), "run", str(file)]

    def _second(self) -> list[str]:
        identity, grant = str(self.identities["second"]), self.grants["second"]
        return [sys.executable, "-m", "tests.torture.consumer", identity, grant, str(self.second), self._gateways()]

    @property
    def second(self) -> Path:
        return self.folder / "second.jsonl"

    def _gateways(self) -> str:
        names = self.draw.sample(GATEWAYS, len(GATEWAYS))
        return ",".join(f"localhost:{self._ports[name][0]}" for name in names)

    def _failpoint(self, name: str) -> dict[str, str]:
        if not self.armed or name in SOURCES:
            return {}
        if name == "sink":
            return {"POOL_FAILPOINTS": f"{WRITING}:kill:0.05"}
        if self.draw.random() < 0.85:
            return {"POOL_FAILPOINTS": f"{self.draw.choice(PUBLISHING)}:kill:0.2"}
        return {"POOL_FAILPOINTS": f"{self.draw.choice(RELEASING)}:kill:0.2"}

    # -- ledgers -----------------------------------------------------------------------------------------------

    def ledger(self, name: str) -> Path:
        return self.folder / "state" / name / f"{TOPIC}.sqlite3"

    def _losing(self, name: str) -> Any:
        def before(starts: int) -> None:
            if starts % LOSE_EVERY == 0 and self.armed:
                self.remember(name)
                file = self.ledger(name)
                for each in (file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")):
                    each.unlink(missing_ok=True)
                self.ledgers_lost += 1
                clerk = self.clerks[name]
                clerk.restore(lambda: self._count(name, "keys") >= len(clerk.permits))

        return before

    def remember(self, name: str) -> None:
        """Keep what the pool has acknowledged to this source: its ledger is about to go, or the end has come."""
        lane = str(self.lanes[name])
        for sequence, root, runs in self._ask(name, "SELECT sequence, root, runs FROM receipts"):
            self.acknowledged[lane, sequence] = (root, json.loads(runs))

    def unacknowledged(self, dead: str = "") -> dict[str, int]:
        """Return each source's oldest batch that has no receipt, of those sources that run, and of one just killed."""
        found = {}
        for name in SOURCES:
            if name == dead or self.children[name].alive():
                rows = self._ask(name, "SELECT min(sequence) FROM outbox")
                if rows and rows[0][0] is not None:
                    found[name] = rows[0][0]
        return found

    def _count(self, name: str, table: str) -> int:
        rows = self._ask(name, f"SELECT count(*) FROM {table}")
        return int(rows[0][0]) if rows else 0

    def _ask(self, name: str, query: str) -> list[Any]:
        file = self.ledger(name)
        if not file.exists():
            return []
        try:
            with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5)) as sql:
                return sql.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []  # just made, without its tables yet

    # -- databases ---------------------------------------------------------------------------------------------

    @contextmanager
    def engine(self, database: str = "postgres", **options: Any) -> Iterator[sa.Engine]:
        engine = sa.create_engine(self.url.set(database=database), poolclass=sa.NullPool, **options)
        try:
            yield engine
        finally:
            engine.dispose()

    def restart_postgres(self, how: str) -> None:
        """Stop it (`fast`, or `immediate`, as after a crash) and start it again."""
        self.postgres._run("pg_ctl", "-D", str(self.postgres.data), "-w", "-m", how, "stop")
        self.postgres.release()
        self.postgres.start()

    def restart_kafka(self, how: str) -> None:
        (self.node.kill if how == "kill" else self.node.stop)()
        self.node.start()

    def close(self) -> None:
        for clerk in self.clerks.values():
            clerk.stop()
        for name in reversed(self.children):
            self.children[name].close()


@contextmanager
def stage(seed: int, control: str = "", *, keep: bool = False) -> Iterator[Stage]:
    """Set everything up and run it; end and remove everything, whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix="pool-torture-"))
    folder.chmod(0o755)  # PostgreSQL's own user must pass through
    with ExitStack() as stack:
        if not keep:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        kafka.fetch_jars()
        node = kafka.Node(folder / "kafka")
        stack.callback(lambda: node.running() and node.kill())
        node.start()
        node.apply_acls()
        postgres = EmbeddedPostgres(folder / "database")
        (folder / "database").mkdir()
        postgres.start()
        stack.callback(postgres.stop)
        made = Stage(folder, node, postgres, seed, control)
        stack.callback(made.close)
        made.build()
        yield made


def _free_ports(count: int) -> list[int]:
    with ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
