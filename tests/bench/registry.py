"""The registry's figures: one registry process on PostgreSQL with every check, beside the naive way in the same run.

One client process with 8 keep-alive connections drives it (`tests.bench.registry_client`). The baseline of the calls
is a bare FastAPI endpoint that returns a constant under the same server; of the growing ones, the same call on a
subject with one version; of the compatibility check, Avro's own checker on texts parsed anew each time, which is
what a registry without a cache does.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import avro.compatibility
import avro.schema
import httpx
import sqlalchemy as sa

from registry.postgres import PostgresSubjects
from registry.settings import Configuration
from registry.store import Content
from registry.subjects import Subjects
from tests.bench.report import Row

BIN = Path(sys.executable).parent
CONNECTIONS = 8
MANY = 150  # versions of one subject
LOOKUPS, OTHERS, NEW = 8_000, 1_200, 800  # requests of a run

CONSTANT = "baseline: a bare FastAPI endpoint that returns a constant"

Request = tuple[str, str, str | None]


def record(name: str, fields: int = 5, doc: str = "") -> str:
    """Give a record schema with labelled fields."""
    listed = [
        {"name": f"f{number}", "type": ["null", "string"], "default": None, "zh": "字段"} for number in range(fields)
    ]
    schema = {"type": "record", "name": name, "namespace": "bench", "doc": doc, "fields": listed}
    return json.dumps(schema, ensure_ascii=False)


def version(number: int) -> str:
    """Give one of many versions of 20 fields."""
    return record("Many", 20, f"version {number}")


@contextmanager
def served(folder: Path) -> Iterator[tuple[int, sa.URL]]:
    """Serve a registry alone in its process; give its port and its database."""
    with ExitStack() as stack:
        stack.enter_context(_pool(folder, "gateway", "sequencer"))
        addresses = stack.enter_context(_pool(folder, "registry"))
        url = sa.make_url((folder / "database-url").read_text().strip())
        yield int(addresses["registry"].rpartition(":")[2]), url


@contextmanager
def _pool(folder: Path, *roles: str) -> Iterator[dict[str, str]]:
    command = [str(BIN / "pool"), "serve", "--dev", "--data", str(folder)]
    command += [part for role in roles for part in ("--role", role)]
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


@contextmanager
def bare() -> Iterator[int]:
    """Serve the baseline; give its port."""
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.registry_bare"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/schemas/ids/1")
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(30)


class Driver:
    """Runs the client process."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "requests.json"

    def drive(self, port: int, requests: list[Request], warm: int = 100) -> dict[str, float]:
        """Send requests; give how many, and the seconds."""
        given = {"port": port, "connections": CONNECTIONS, "warm": warm, "requests": requests}
        self.file.write_text(json.dumps(given))
        command = [sys.executable, "-m", "tests.bench.registry_client", str(self.file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr[-2000:])
        found: dict[str, float] = json.loads(done.stdout)
        return found

    def speed(self, port: int, requests: list[Request]) -> float:
        """Give requests per second."""
        found = self.drive(port, requests)
        return found["requests"] / found["seconds"]


def measure(runs: int, subjects: int) -> list[Row]:
    """Measure everything; *subjects* stand in the database before anything is measured."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pool-bench-")))
        folder.chmod(0o755)  # the embedded PostgreSQL's own user must pass through
        port, url = stack.enter_context(served(folder / "pool"))
        plain = stack.enter_context(bare())
        ids = _fill(url, subjects)
        driver = Driver(folder)
        constant = _pairs_of(driver, plain, runs)
        turn = iter(range(1_000_000))

        def register() -> list[Request]:
            first = next(turn) * 10_000
            return [_posted(f"new{first + n}-value", record(f"New{first + n}"), "/versions") for n in range(NEW)]

        subject = [f"s{number % subjects}-value" for number in range(OTHERS)]
        by_id = [_got(f"/schemas/ids/{ids[number % len(ids)]}") for number in range(LOOKUPS)]
        latest = [_got(f"/subjects/{one}/versions/latest") for one in subject]
        content = [_posted(one, record(f"S{number % subjects}"), "") for number, one in enumerate(subject)]
        driver.drive(port, by_id)  # once, so that the answers are kept
        rows = [
            constant("registry: look-up by id", port, lambda: by_id),
            constant("registry: registration of a new subject", port, register),
            constant("registry: look-up of the latest", port, lambda: latest),
            constant("registry: look-up by content", port, lambda: content),
        ]
        rows += _growing(driver, port, runs)
        rows.append(_compatibility(port, runs))
        return [_noted(row, subjects) for row in rows]


def _pairs_of(driver: Driver, plain: int, runs: int) -> Callable[[str, int, Callable[[], list[Request]]], Row]:
    def paired(name: str, port: int, requests: Callable[[], list[Request]]) -> Row:
        pairs = []
        for _ in range(runs):
            base = driver.speed(plain, [_got(f"/schemas/ids/{n}") for n in range(4_000)])
            pairs.append((driver.speed(port, requests()), base))
        return Row.paired(
            name, pairs, unit="calls/s", notes="baseline: a bare FastAPI endpoint that returns a constant"
        )

    return paired


def _growing(driver: Driver, port: int, runs: int) -> list[Row]:
    """Compare a subject of many versions with a subject of one."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
        http.put("/config/many-value", json={"compatibility": "NONE"})
        for number in range(1, MANY + 1):
            http.post("/subjects/many-value/versions", json={"schema": version(number)}).raise_for_status()
        http.post("/subjects/one-value/versions", json={"schema": version(MANY)}).raise_for_status()
    notes = f"a subject of {MANY} versions; baseline: the same call on a subject of one"
    rows = []
    for name, request in (
        ("latest", lambda one: _got(f"/subjects/{one}/versions/latest")),
        ("by content", lambda one: _posted(one, version(MANY), "")),
    ):
        pairs = [
            (
                driver.speed(port, [request("many-value")] * OTHERS),
                driver.speed(port, [request("one-value")] * OTHERS),
            )
            for _ in range(runs)
        ]
        rows.append(Row.paired(f"registry: {name}, {MANY} versions", pairs, unit="calls/s", notes=notes))
    return rows


def _compatibility(port: int, runs: int) -> Row:
    """Check one schema against many versions, both ways."""
    texts = [version(number) for number in range(1, MANY + 1)]
    new = version(MANY + 1)
    pairs = []
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        http.put("/config/many-value", json={"compatibility": "FULL_TRANSITIVE"})
        for run in range(runs):
            started = time.perf_counter()
            answer = http.post("/compatibility/subjects/many-value/versions", json={"schema": version(MANY + 1 + run)})
            ours = time.perf_counter() - started
            if answer.json() != {"is_compatible": True, "messages": []}:
                raise RuntimeError(answer.text[:500])
            started = time.perf_counter()
            checker = avro.compatibility.ReaderWriterCompatibilityChecker
            for text in texts:
                left, right = avro.schema.parse(new), avro.schema.parse(text)
                checker().get_compatibility(left, right)
                checker().get_compatibility(right, left)
            pairs.append((1 / ours, 1 / (time.perf_counter() - started)))
    notes = f"FULL_TRANSITIVE against {MANY} versions of 20 fields; baseline: Avro's checker, parsing each anew"
    return Row.paired("registry: compatibility check", pairs, unit="checks/s", notes=notes)


def _fill(url: sa.URL, subjects: int) -> list[int]:
    engine = sa.create_engine(url)
    store = PostgresSubjects(engine)
    service = Subjects(store, Configuration(store), governed=lambda _: False)
    ids = [
        service.register(f"s{number}-value", Content(text=record(f"S{number}"))).schema_id for number in range(subjects)
    ]
    engine.dispose()
    return ids[:5_000]


def _got(path: str) -> Request:
    return ("GET", path, None)


def _posted(subject: str, schema: str, rest: str) -> Request:
    return ("POST", f"/subjects/{subject}{rest}", json.dumps({"schema": schema}))


def _noted(row: Row, subjects: int) -> Row:
    load = os.getloadavg()[0]
    kept = {name: getattr(row, name) for name in ("name", "ours", "baseline", "ratio", "unit", "spread")}
    notes = f"{row.notes}; {subjects:,} subjects; every write audited; load of the machine {load:.1f}"
    return Row(**kept, notes=notes)
