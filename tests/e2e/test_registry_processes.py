"""Three registry processes over one database, eight clients at once, one registry killed in the middle."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.kit.faults.registry_storm import CONTENTS, SUBJECTS
from tests.kit.patience import PATIENCE
from tests.kit.share import count

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

BIN = Path(sys.executable).parent
CLIENTS, EACH = 8, count(200, 60)


@contextmanager
def pool(folder: Path, *roles: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    command = [str(BIN / "pool"), "serve", "--dev", "--data", str(folder / "pool")]
    command += [part for role in roles for part in ("--role", role)]
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("ready "), (folder / "log").read_text()[-2000:]
        yield process, json.loads(line.removeprefix("ready "))
    finally:
        process.terminate()
        process.wait(PATIENCE)
        process.stdout.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="pool-registries-"))
    made.chmod(0o755)  # the embedded PostgreSQL's own user must pass through
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.counted
def test_one_id_a_content_and_versions_without_a_gap_while_a_registry_is_killed(folder: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(pool(folder, "gateway", "sequencer"))
        registries = [stack.enter_context(pool(folder, "registry")) for _ in range(3)]
        urls = [f"http://{addresses['registry']}" for _, addresses in registries]
        httpx.put(f"{urls[0]}/config", json={"compatibility": "NONE"}, timeout=PATIENCE).raise_for_status()
        outs = [folder / f"out{number}" for number in range(CLIENTS)]
        clients = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.kit.faults.registry_storm",
                    str(number),
                    str(EACH),
                    str(outs[number]),
                    *urls,
                ]
            )
            for number in range(CLIENTS)
        ]
        # In the middle: when a third of what can become versions is there.
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if len(httpx.get(f"{urls[1]}/schemas", timeout=PATIENCE).json()) >= SUBJECTS * CONTENTS // 3:
                break
            time.sleep(0.05)
        registries[0][0].send_signal(signal.SIGKILL)
        assert [client.wait(2 * PATIENCE) for client in clients] == [0] * CLIENTS

        done = [row for out in outs for row in json.loads(out.read_text())]
        assert len(done) == CLIENTS * EACH, "each was told an id in the end"
        assert {status for row in done for status in row[4]} == {200}
        ids, versions = defaultdict(set), defaultdict(set)
        for subject, content, schema_id, version, _ in done:
            ids[content].add(schema_id)
            versions[subject, content].add(version)
        assert all(len(found) == 1 for found in ids.values())
        assert len(set.union(*ids.values())) == len(ids), "no id for two contents"
        assert all(len(found) == 1 for found in versions.values())
        for number in range(SUBJECTS):
            told = sorted(next(iter(found)) for (name, _), found in versions.items() if name == f"storm{number}")
            held = httpx.get(f"{urls[2]}/subjects/storm{number}/versions", timeout=PATIENCE).json()
            # What the killed one did and could not tell was asked for again, so nothing stands there unasked.
            assert held == told == list(range(1, len(held) + 1))
    assert "deadlock" not in (folder / "log").read_text()
