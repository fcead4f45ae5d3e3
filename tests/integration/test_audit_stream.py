"""A stream of entries that is killed goes on where it was: no entry is left out, and few come twice."""

import json
import subprocess
from pathlib import Path

from tests.kit.cases.audit import LogWorld, memory_world
from tests.kit.patience import PATIENCE
from tests.kit.world.world import BIN


def test_a_stream_that_is_killed_leaves_no_entry_out(tmp_path: Path) -> None:
    log = LogWorld(memory_world(), tmp_path / "log")
    log.fill(log.world.ledger(), 1_500)
    log.sequencer().step()
    given = ["--files", str(log.folder), "--key", str(log.signer.key), "--cursor", str(tmp_path / "cursor")]
    command = [str(BIN / "pool"), "audit", "stream", *given, "--format", "jsonl"]
    # The pipe is not emptied: the process stops in the middle of a bundle, with a cursor behind earlier ones.
    with subprocess.Popen([*command, "--follow"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = [json.loads(process.stdout.readline())["index"] for _ in range(300)]
        process.kill()
        first += [json.loads(line)["index"] for line in process.stdout.read().splitlines() if line.endswith(b"}")]
    done = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE)
    second = [json.loads(line)["index"] for line in done.stdout.splitlines()]
    assert first == list(range(len(first)))
    assert second == list(range(second[0], 1_500))
    assert 256 <= second[0] <= len(first)
    assert len(first) - second[0] <= 256, "at most one bundle comes twice"
