"""Where the registry's figures are taken: a registry alone in its process, its database, a bare endpoint, a client.

Under --dev the registry is plain HTTP on loopback and asks nobody who he is. Beside it stands a real pool, with TLS
and tokens, since what an answer costs there is what users will see.
"""

import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from exchange.identity.secrets import FileSecrets
from exchange.server.row_tags import open_row_tags
from registry.postgres.tables import schema, subject, version
from registry.subjects.fingerprint import canonical_schema_text, content_key, fingerprint_of
from registry.subjects.model import Content
from tests.kit.world.world import World

BIN = Path(sys.executable).parent
CONNECTIONS = 8

Request = tuple[str, str, str | None]


@dataclass(frozen=True, kw_only=True)
class Server:
    """Something that is measured: where it listens, and what a client needs to be let in."""

    port: int
    authority: Path | None = None  # of its certificate; None = plain HTTP
    token: str = ""


@contextmanager
def open_registry(folder: Path) -> Iterator[tuple[Server, sa.URL]]:
    """Serve a registry under --dev; give it and its database."""
    with _in_processes(folder, "--dev") as addresses:
        yield Server(port=_port(addresses)), _database(folder)


@contextmanager
def closed_registry(folder: Path, bound: str) -> Iterator[tuple[Server, sa.URL]]:
    """Serve a real pool's registry, whose calls need a token; *bound* is its section of the configuration."""
    world = World(folder, bound)
    world.initialise()
    with _in_processes(world.data) as addresses:
        world.addresses = json.loads((world.data / "ports.json").read_text())
        world.set_up()
        token = world.people.tokens["authority-1"]
        yield Server(port=_port(addresses), authority=authority_of(world.data), token=token), _database(world.data)


def authority_of(data: Path) -> Path:
    """Return the file of a pool's certificate authority."""
    return data / "ca" / "authority.crt"


@contextmanager
def _in_processes(data: Path, *options: str) -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        stack.enter_context(_pool(data, *options, "--role", "gateway", "--role", "sequencer"))
        yield stack.enter_context(_pool(data, *options, "--role", "registry"))


@contextmanager
def _pool(data: Path, *options: str) -> Iterator[dict[str, str]]:
    command = [str(BIN / "pool"), "serve", "--data", str(data), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("ready "):
            raise RuntimeError("the pool did not start")
        yield json.loads(line.removeprefix("ready "))
    finally:
        process.terminate()
        process.wait(30)


def _port(addresses: dict[str, str]) -> int:
    return int(addresses["registry"].rpartition(":")[2])


def _database(data: Path) -> sa.URL:
    return sa.make_url((data / "database-url").read_text().strip())


@contextmanager
def bare(data: Path | None = None) -> Iterator[Server]:
    """Serve the baseline, with a pool's own certificate if its folder is given."""
    files = [] if data is None else [str(data / "ca" / "server.key"), str(data / "ca" / "server.crt")]
    authority = None if data is None else authority_of(data)
    trusted = True if authority is None else ssl.create_default_context(cafile=str(authority))
    command = [sys.executable, "-m", "tests.bench.registry_bare", *files]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        while True:
            try:
                httpx.get(f"{'https' if files else 'http'}://localhost:{port}/schemas/ids/1", verify=trusted)
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield Server(port=port, authority=authority)
    finally:
        process.terminate()
        process.wait(30)


class Driver:
    """Runs the client process."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "requests.json"

    def drive(self, server: Server, requests: Sequence[Request], warm: int = 100) -> dict[str, float]:
        """Send requests; give how many, and the seconds."""
        given: dict[str, Any] = {
            "port": server.port,
            "connections": CONNECTIONS,
            "warm": warm,
            "requests": requests,
            "authority": str(server.authority or ""),
            "token": server.token,
        }
        self.file.write_text(json.dumps(given))
        command = [sys.executable, "-m", "tests.bench.registry_client", str(self.file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr[-2000:])
        found: dict[str, float] = json.loads(done.stdout)
        return found

    def speed(self, server: Server, requests: Sequence[Request]) -> float:
        """Return requests per second."""
        found = self.drive(server, requests)
        return found["requests"] / found["seconds"]


def got(path: str) -> Request:
    """Make a GET."""
    return ("GET", path, None)


def posted(name: str, text: str, rest: str = "") -> Request:
    """Make a POST that submits a schema under a subject."""
    return ("POST", f"/subjects/{name}{rest}", json.dumps({"schema": text}))


def fill(data: Path, url: sa.URL, texts: dict[str, str]) -> list[int]:
    """Put the first version of subjects into the database, as registrations would; give the ids.

    The rows get the tags that the pool of the folder *data* would give them: it refuses a row without one.
    """
    tags = open_row_tags(FileSecrets.open(data / "secrets"))
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.insert(subject), [tags.new(subject, {"name": name, "hidden": False}) for name in texts])
        rows = [tags.new(schema, _row(name, text)) for name, text in texts.items()]
        new = sa.insert(schema).returning(schema.c.id, sort_by_parameter_order=True)
        ids = list(connection.execute(new, rows).scalars())
        rows = [{**row, "id": schema_id} for row, schema_id in zip(rows, ids, strict=True)]
        connection.execute(_SET_TAGS, {"ids": ids, "tags": [tags.tag(schema, row) for row in rows]})
        versions = [
            {
                "subject": row["origin"],
                "number": 1,
                "schema_id": row["id"],
                "text": row["text"],
                "deleted": False,
                "key": row["key"],
                "shape": row["shape"],
            }
            for row in rows
        ]
        connection.execute(sa.insert(version), [tags.new(version, row) for row in versions])
        connection.execute(sa.text("ANALYZE"))
    engine.dispose()
    return ids


# Tags cover the id, which the database gives.
_SET_TAGS = sa.text("""
UPDATE registry_schema SET tag = given.tag
FROM unnest(CAST(:ids AS integer[]), CAST(:tags AS bytea[])) AS given (id, tag) WHERE registry_schema.id = given.id
""")


def _row(name: str, text: str) -> dict[str, Any]:
    content = Content(text=text)
    parsed = json.loads(text)
    return {
        "key": content_key(content, parsed),
        "shape": fingerprint_of(canonical_schema_text(content, parsed)),
        "kind": content.schema_type,
        "text": text,
        "reference_list": "[]",
        "metadata": None,
        "rule_set": None,
        "origin": name,
    }
