"""The programs of an earlier commit, out of the history: for pools that were made before."""

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.kit.world.world import Programs

ROOT = Path(__file__).resolve().parents[3]
_MAIN = {"pool": "exchange.cli", "pool-connect": "connectors.cli", "pool-schema": "registry.cli"}


class EarlierPrograms(Programs):
    """The programs as they were at a commit, run by this interpreter with the packages that it has.

    Args:
        commit: which.
        folder: empty; gets the source.
        two_persons: whether accounts and invitations took two persons then.
    """

    current = False

    def __init__(self, commit: str, folder: Path, *, two_persons: bool) -> None:
        self.two_persons = two_persons  # type: ignore[misc]
        found = subprocess.run(
            ["git", "archive", commit, "schemas", "registry", "exchange", "connectors"],
            cwd=ROOT,
            capture_output=True,
            check=False,
        )
        if found.returncode != 0:
            pytest.skip(f"the commit {commit} is not in the history of this checkout")
        with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
            archive.extractall(folder, filter="data")
        self._folder = folder
        # Without the safe path an engine process, a program of its own, finds the modules of this checkout first.
        self.environment = {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}  # type: ignore[misc]

    def command(self, program: str, *arguments: str) -> list[str]:
        start = f"import sys; sys.path.insert(0, {str(self._folder)!r}); sys.argv[0] = {program!r}"
        return [sys.executable, "-P", "-c", f"{start}; from {_MAIN[program]} import main; main()", *arguments]

    def serve_command(self, data: Path) -> list[str]:
        return self.command("pool", "serve", "--data", str(data))
