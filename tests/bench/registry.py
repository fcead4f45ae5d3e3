"""The registry's figures: one registry process on PostgreSQL with every check, beside the naive way in the same run.

One client process with 8 keep-alive connections drives it (`tests.bench.registry_client`). The baseline of the calls
is a bare FastAPI endpoint that returns a constant under the same server; of the growing ones, the same call on a
subject with one version; of the compatibility check, Avro's own checker on texts parsed again each time, which is
what a registry without a cache does.

Under --dev no caller is identified. What that costs is a row of its own: a real pool, over TLS, a bearer token with
each call. Look-ups by id are answered from the response cache in either case.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import avro.compatibility
import avro.schema
import httpx

from tests.bench.registry_stage import Driver, Request, Server, bare, closed_registry, fill, got, open_registry, posted
from tests.bench.report import Row

_T = TypeVar("_T")
MANY = 150  # versions of one subject
CACHED, ASKED, NEW = 8_000, 1_500, 2_400  # requests of a run: from the cache, from the database, registrations
BARE = 4_000
IDS = '[registry]\nprofile = "ids"\n'

CONSTANT = "baseline: a bare FastAPI endpoint that returns a constant"


def record(name: str, fields: int = 5, doc: str = "") -> str:
    """Return a record schema with labelled fields."""
    listed = [
        {"name": f"f{number}", "type": ["null", "string"], "default": None, "zh": "字段"} for number in range(fields)
    ]
    schema = {"type": "record", "name": name, "namespace": "bench", "doc": doc, "fields": listed}
    return json.dumps(schema, ensure_ascii=False)


def version(number: int) -> str:
    """Return one of many versions of 20 fields."""
    return record("Many", 20, f"version {number}")


def measure(runs: int, subjects: int) -> list[Row]:
    """Measure everything; *subjects* stand in the database before anything is measured."""
    texts = {f"s{number}-value": record(f"S{number}") for number in range(subjects)}
    with tempfile.TemporaryDirectory(prefix="pool-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the embedded PostgreSQL's own user must pass through
        rows = [*_open(folder, texts, runs), *_closed(folder, texts, runs)]
    return [_noted(row, subjects) for row in rows]


def _open(folder: Path, texts: dict[str, str], runs: int) -> list[Row]:
    """Measure a registry under --dev."""
    driver = Driver(folder)
    with ExitStack() as stack:
        server, url = stack.enter_context(open_registry(folder / "open"))
        plain = stack.enter_context(bare())
        ids = _spread(fill(folder / "open", url, texts), CACHED)
        names = _spread(list(texts), ASKED)
        by_id = [got(f"/schemas/ids/{one}") for one in ids]
        latest = [got(f"/subjects/{one}/versions/latest") for one in names]
        content = [posted(one, texts[one]) for one in names]
        turn = iter(range(1_000_000))

        def register() -> list[Request]:
            first = next(turn) * 10_000
            return [posted(f"new{first + n}-value", record(f"New{first + n}"), "/versions") for n in range(NEW)]

        def row(name: str, requests: Callable[[], Sequence[Request]], notes: str) -> Row:
            return _beside_bare(driver, (server, plain), runs, name, requests, notes)

        driver.drive(server, by_id, warm=0)  # once, so that the responses are cached
        return [
            row("look-up by id, --dev", lambda: by_id, "from the response cache; --dev identifies no caller"),
            row("registration of a new subject", register, "--dev; each with its audit entry, durable"),
            row("look-up of the latest", lambda: latest, "--dev"),
            row("look-up by content", lambda: content, "--dev; each text was looked up before or not, as it comes"),
            *_growing(driver, server, runs),
            _compatibility(server, runs),
        ]


def _closed(folder: Path, texts: dict[str, str], runs: int) -> list[Row]:
    """Measure look-ups by id where every caller is identified."""
    driver = Driver(folder)
    with ExitStack() as stack:
        server, url = stack.enter_context(closed_registry(folder, IDS))
        plain = stack.enter_context(bare(folder / "pool"))
        by_id = [got(f"/schemas/ids/{one}") for one in _spread(fill(folder / "pool", url, texts), CACHED)]
        driver.drive(server, by_id, warm=0)
        notes = 'a pool with accounts: TLS, a bearer token with each call, profile "ids"; the baseline over TLS too'
        return [_beside_bare(driver, (server, plain), runs, "look-up by id, with a token", lambda: by_id, notes)]


def _spread(all_: Sequence[_T], count: int) -> list[_T]:
    """Choose items that lie as far apart as they can, so that more than a few are asked for."""
    step = max(1, len(all_) // count)
    return [all_[number * step % len(all_)] for number in range(count)]


def _beside_bare(
    driver: Driver,
    servers: tuple[Server, Server],
    runs: int,
    name: str,
    requests: Callable[[], Sequence[Request]],
    notes: str,
) -> Row:
    ours, plain = servers
    pairs = []
    for _ in range(runs):
        base = driver.speed(plain, [got(f"/schemas/ids/{n}") for n in range(BARE)])
        pairs.append((driver.speed(ours, requests()), base))
    return Row.paired(f"registry: {name}", pairs, unit="calls/s", notes=f"{notes}; {CONSTANT}")


def _growing(driver: Driver, server: Server, runs: int) -> list[Row]:
    """Compare a subject of many versions with a subject of one."""
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as http:
        http.put("/config/many-value", json={"compatibility": "NONE"})
        for number in range(1, MANY + 1):
            http.post("/subjects/many-value/versions", json={"schema": version(number)}).raise_for_status()
        http.post("/subjects/one-value/versions", json={"schema": version(MANY)}).raise_for_status()
    notes = f"a subject of {MANY} versions; baseline: the same call on a subject of one"
    rows = []
    for name, request in (
        ("latest", lambda one: got(f"/subjects/{one}/versions/latest")),
        ("by content", lambda one: posted(one, version(MANY))),
    ):
        pairs = [
            (
                driver.speed(server, [request("many-value")] * ASKED),
                driver.speed(server, [request("one-value")] * ASKED),
            )
            for _ in range(runs)
        ]
        rows.append(Row.paired(f"registry: {name}, {MANY} versions", pairs, unit="calls/s", notes=notes))
    return rows


def _compatibility(server: Server, runs: int) -> Row:
    """Check one schema against many versions, both ways."""
    texts = [version(number) for number in range(1, MANY + 1)]
    new = version(MANY + 1)
    pairs = []
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as http:
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
    notes = f"FULL_TRANSITIVE against {MANY} versions of 20 fields; baseline: Avro's checker, parsing each again"
    return Row.paired("registry: compatibility check", pairs, unit="checks/s", notes=notes)


def _noted(row: Row, subjects: int) -> Row:
    return replace(row, notes=f"{row.notes}; {subjects:,} subjects; load of the machine {os.getloadavg()[0]:.1f}")
