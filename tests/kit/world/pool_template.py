"""A pool as `pool init` leaves it: made once by the test process, and copied for each test that needs a new one.

A copy takes a tenth of a second, `pool init` seconds: a new process, keys, a cluster and every migration. All copies
have the same keys and accounts; a test that compares two pools makes one of them by `pool init`.
"""

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

from tests.kit.world import postgres


def copy_pool(made_by: tuple[str, ...], data: Path) -> None:
    """Copy the pool that a command makes to a folder that does not exist yet.

    Args:
        made_by: the command (`pool init`), without the folder, which is its last argument.
        data: the new pool's folder. Its embedded PostgreSQL gets a socket of its own.
    """
    template = _template(made_by)
    # By cp: it keeps the owner of the cluster, and shares blocks where the file system can.
    subprocess.run(["cp", "--archive", "--reflink=auto", template, data], check=True)
    # The file system's names are all that a copy must not share: two servers would listen on one socket.
    for name, old, new in (
        ("pg/postgresql.auto.conf", str(template), str(data)),
        ("database-url", quote(str(template), safe=""), quote(str(data), safe="")),
    ):
        file = data / name
        text = file.read_text()
        assert old in text, f"{file} does not name the folder {template}: its socket is elsewhere"
        file.write_text(text.replace(old, new))
    postgres.without_fsync(data / "pg")


@functools.cache
def _template(made_by: tuple[str, ...]) -> Path:
    """Make the pool and return its folder."""
    folder = Path(tempfile.mkdtemp(prefix="pool-template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)  # the embedded PostgreSQL's own user must pass through
    data = folder / "pool"
    done = subprocess.run([*made_by, str(data)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (made_by, done.stdout, done.stderr)
    return data
