"""Each contract of imports bites: one wrong import, in a copy of the packages, breaks that contract and is named."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "registry", "exchange", "connectors")

WRONG = {
    "packages": ("registry/avro/defaults.py", "exchange.client.errors"),
    "rooms-of-registry": ("registry/avro/defaults.py", "registry.subjects.model"),
    "rooms-of-exchange": ("exchange/audit/note.py", "exchange.records.publish"),
    "rooms-of-connectors": ("connectors/mapping/conversion.py", "connectors.publishing.publisher"),
    "rooms-of-access": ("exchange/access/view/mask.py", "exchange.access.grants.store"),
    "lookups": ("exchange/lookups/subjects.py", "exchange.records.fetch"),
    "rooms-of-hub": ("exchange/hub/fold/claim.py", "exchange.hub.store.tables"),
    "hub-fold": ("exchange/hub/fold/claim.py", "registry.database.unit_of_work"),
    "hub": ("exchange/hub/fold/claim.py", "exchange.broker.port"),
    "independent-rooms": ("exchange/audit/note.py", "exchange.identity.tokens"),
    "brokers": ("exchange/broker/kafka/topics.py", "exchange.broker.postgres.blocks"),
    "composition-root": ("exchange/api/problems.py", "exchange.server.composition"),
    "assembly": ("exchange/server/listeners.py", "exchange.server.assembly.storage"),
    "department-machine": ("connectors/retry.py", "registry.subjects.model"),
    "client-alone": ("exchange/client/errors.py", "registry.avro.defaults"),
    "replay-of-figures": ("exchange/kpi/replay.py", "exchange.kpi.facts"),
    "pure-rooms": ("registry/governance/classification.py", "socket"),
}


def contracts() -> dict[str, str]:
    """Return the name of each contract, by its id."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    return {each["id"]: each["name"] for each in listed}


def test_every_contract_has_its_wrong_import() -> None:
    assert set(WRONG) == set(contracts())


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the four packages and their contracts, without caches."""
    folder = tmp_path_factory.mktemp("packages")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.mark.parametrize("contract", sorted(WRONG))
def test_a_wrong_import_breaks_the_contract(copy: Path, contract: str) -> None:
    place, module = WRONG[contract]
    file = copy / place
    text = file.read_text(encoding="utf-8")
    try:
        file.write_text(f"{text}\nimport {module}\n", encoding="utf-8")
        found = subprocess.run(
            [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()",
             "--contract", contract, "--no-cache"],
            cwd=copy, env={"PYTHONPATH": str(copy), "PATH": "", "COLUMNS": "200"}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
    finally:
        file.write_text(text, encoding="utf-8")
    assert found.returncode == 1, found.stdout + found.stderr
    assert "1 broken" in found.stdout
    assert module in found.stdout


def test_make_check_checks_them() -> None:
    assert "lint-imports" in (ROOT / "Makefile").read_text(encoding="utf-8")
