"""The log's files, read by software that is not ours: Go's checksum-database packages."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kit.cases.audit import LogWorld, memory_world

SOURCE = Path(__file__).parent / "go-tlog"
GO = shutil.which("go")

pytestmark = pytest.mark.skipif(GO is None, reason="needs the Go tool chain")


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("go") / "go-tlog"
    assert GO is not None
    fetched = subprocess.run([GO, "mod", "download"], cwd=SOURCE, capture_output=True, text=True, check=False)
    if fetched.returncode != 0:
        pytest.skip(f"the Go modules cannot be fetched: {fetched.stderr.strip()[-200:]}")
    subprocess.run([GO, "build", "-o", str(program), "."], cwd=SOURCE, check=True)
    return program


def run(verifier: Path, log: LogWorld, *more: str) -> subprocess.CompletedProcess[str]:
    given = [str(verifier), str(log.folder), str(log.signer.key), *more]
    return subprocess.run(given, capture_output=True, text=True, check=False)


@pytest.fixture
def log(tmp_path: Path) -> LogWorld:
    log = LogWorld(memory_world(), tmp_path / "log")
    ledger, sequencer = log.world.ledger(), log.sequencer()
    log.fill(ledger, 300)
    sequencer.step()
    (tmp_path / "older").write_text(log.note())
    log.fill(ledger, 413)
    sequencer.step()
    return log


def test_signature_tiles_entries_and_prefix_hold_for_another_program(verifier: Path, log: LogWorld) -> None:
    done = run(verifier, log, str(log.folder.parent / "older"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "713 entries\n", "")


@pytest.mark.parametrize("size", [1, 255, 256, 257, 512])
def test_every_edge_of_a_tile_holds(verifier: Path, tmp_path: Path, size: int) -> None:
    log = LogWorld(memory_world(), tmp_path / "log")
    log.fill(log.world.ledger(), size)
    log.sequencer().step()
    assert run(verifier, log).stdout == f"{size} entries\n"


def test_the_other_program_refuses_a_touched_log(verifier: Path, log: LogWorld) -> None:
    for path in ("tile/entries/001", "tile/0/001", "tile/1/000.p/2", "checkpoint"):
        file = log.folder / path
        content = file.read_bytes()
        file.write_bytes(content[:20] + bytes([content[20] ^ 1]) + content[21:])
        assert run(verifier, log).returncode == 1, path
        file.write_bytes(content)
    older = log.folder.parent / "older"
    older.write_text(older.read_text().replace("\n300\n", "\n301\n"))
    assert run(verifier, log, str(older)).returncode == 1
    assert run(verifier, log).returncode == 0
