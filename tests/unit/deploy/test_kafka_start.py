"""The script that starts a Kafka node: the parts of it that need no Kafka."""

import os
import shutil
import subprocess
from pathlib import Path

START = Path(__file__).parents[3] / "deploy" / "kafka" / "start.sh"


def test_a_random_cluster_id_is_never_read_as_an_option(tmp_path: Path) -> None:
    # One id in 64 of base64url starts with "-", which the storage tool, like every Kafka tool, takes for an option.
    shutil.copy(START, tmp_path)
    (tmp_path / "lib").mkdir()
    tls = tmp_path / "home" / "tls"
    tls.mkdir(parents=True)
    (tls / "broker.pem").touch()
    (tls / "ca.pem").touch()
    programs = tmp_path / "programs"
    programs.mkdir()
    # 16 bytes whose first six bits are 62, the letter that becomes "-".
    _program(programs / "head", "for _ in 1 2 3 4 5; do printf '\\373\\377\\277'; done; printf '\\373'")
    _program(programs / "java", 'echo "$@" >"$POOL_KAFKA_HOME/called"; exit 1')

    subprocess.run(
        [tmp_path / "start.sh"],
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "POOL_KAFKA_HOME": str(tmp_path / "home")},
        capture_output=True,
        check=False,
    )

    words = (tmp_path / "home" / "called").read_text().split()
    cluster = words[words.index("-t") + 1]
    assert cluster == "A_-_-_-_-_-_-_-_-_-_-w"


def _program(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
