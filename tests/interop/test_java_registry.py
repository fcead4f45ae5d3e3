"""A Java client from Maven Central, unchanged, against `pool serve --dev`: Spring's client of Confluent's REST API."""

import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.test_registry_processes import pool

SOURCE = Path(__file__).parent / "java-registry"
JAVA, MAVEN = shutil.which("java"), shutil.which("mvn")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.postgres,
    pytest.mark.needs_package("openjdk-17-jdk-headless", program="java"),
    pytest.mark.needs_package("maven", program="mvn"),
]


@pytest.fixture(scope="module")
def jars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jars")
    assert MAVEN is not None
    command = [MAVEN, "-q", "-B", "-f", str(SOURCE / "pom.xml"), "dependency:copy-dependencies"]
    fetched = subprocess.run(
        [*command, f"-DoutputDirectory={folder}"], capture_output=True, text=True, check=False, timeout=200
    )
    if fetched.returncode != 0:
        pytest.skip(f"the jars cannot be fetched: {fetched.stdout.strip()[-300:]}")
    return folder


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="pool-java-"))
    folder.chmod(0o755)  # the embedded PostgreSQL's own user must pass through
    with pool(folder, "gateway", "registry", "sequencer") as (_, addresses):
        yield f"http://{addresses['registry']}"
    shutil.rmtree(folder, ignore_errors=True)


def test_spring_s_client_and_avro_in_java_read_what_they_registered(jars: Path, url: str) -> None:
    assert JAVA is not None
    subject = f"java{uuid.uuid4().hex}"
    command = [JAVA, "-Dfile.encoding=UTF-8", "-cp", f"{jars}/*", str(SOURCE / "Client.java"), url, subject]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    ids = [int(word) for word in done.stdout.split()[1:]]
    assert [httpx.get(f"{url}/subjects/{subject}/versions/{n}").json()["id"] for n in (1, 2)] == ids
