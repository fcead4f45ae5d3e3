"""The archive of `make bundle`: connectors where no network is, and nothing that was exchanged on the way."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]
# A program that asks another machine meets a closed port.
OFFLINE = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "HTTPS_PROXY": "http://127.0.0.1:9", "PIP_RETRIES": "0"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked archive."""
    folder = tmp_path_factory.mktemp("bundle")
    command = [sys.executable, str(ROOT / "deploy" / "bundle" / "build.py"), "--output", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    archive = next(folder.glob("*.tar.gz"))
    assert hashlib.sha256(archive.read_bytes()).hexdigest() in done.stdout
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return next(one for one in folder.iterdir() if one.is_dir())


def install(bundle: Path, into: Path) -> subprocess.CompletedProcess[str]:
    subprocess.run([sys.executable, "-m", "venv", str(into)], check=True)
    command = [str(into / "bin" / "pip"), "install", "--no-index", "--find-links", "wheels", "--require-hashes"]
    return subprocess.run(
        [*command, "--requirement", "requirements.txt"],
        cwd=bundle,
        env=os.environ | OFFLINE,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_connectors_are_installed_without_a_network_and_without_the_server(bundle: Path, tmp_path: Path) -> None:
    done = install(bundle, tmp_path / "venv")
    assert done.returncode == 0, done.stderr
    program = tmp_path / "venv" / "bin" / "pool-connect"
    shown = subprocess.run([str(program), "--help"], capture_output=True, text=True, check=False, env={"PATH": ""})
    assert shown.returncode == 0, shown.stderr
    assert "enrol" in shown.stdout
    python = tmp_path / "venv" / "bin" / "python"
    for module, there in (("psycopg2", True), ("fastapi", False), ("kafka", False)):
        done = subprocess.run([str(python), "-c", f"import {module}"], capture_output=True, check=False)
        assert (done.returncode == 0) is there, module


def test_a_wheel_that_was_exchanged_is_not_installed(bundle: Path, tmp_path: Path) -> None:
    carried = tmp_path / "carried"
    shutil.copytree(bundle, carried)
    wheel = next((carried / "wheels").glob("exchange_pool-*.whl"))
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    done = install(carried, tmp_path / "venv")
    assert done.returncode != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr


def test_it_names_no_address(bundle: Path) -> None:
    for name in ("requirements.txt", "INSTALL.txt", "pool-connect@.service"):
        assert "://" not in (bundle / name).read_text(encoding="utf-8")
