"""Build one archive that installs the connectors on a machine without a network: `make bundle`.

    python deploy/bundle/build.py [--extra postgresql] [--output build/bundle]

The archive has the wheels of the connector's dependencies, pinned and hashed as in requirements.lock, the wheel of
this package, a requirements.txt with their SHA-256, and the three commands. It fits machines with the Python and the
platform of the one that builds it; both stand in its name. The server's dependencies are left out.
"""

import argparse
import gzip
import hashlib
import io
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "exchange-pool"
UNIT = ROOT / "deploy" / "systemd" / "pool-connect@.service"
INSTALL = """Connectors of the Data Exchange Pool, for {python} on {platform}.

On the department's machine, in this folder:

    python3 -m venv /opt/exchange-pool
    /opt/exchange-pool/bin/pip install --no-index --find-links wheels --require-hashes --requirement requirements.txt
    /opt/exchange-pool/bin/pool-connect --help

pip compares each wheel with its SHA-256 in requirements.txt and asks no other machine. Compare the archive's own
SHA-256 with the one that was printed where it was built, over another channel than the one that carried the archive.
"""


def closure(package: str, extras: Iterable[str]) -> set[str]:
    """Return the names of all packages that a package needs, with these extras, on this machine.

    Raises:
        SystemExit: one is not installed here.
    """
    found: set[str] = set()
    waiting = [(package, frozenset(extras))]
    while waiting:
        name, wanted = waiting.pop()
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            sys.exit(f"got an environment without {name}; expected that of `make setup`")
        for requirement in map(Requirement, lines):
            marker = requirement.marker
            if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                continue
            needed = canonicalize_name(requirement.name)
            if needed not in found:
                found.add(needed)
                waiting.append((needed, frozenset(requirement.extras)))
    return found


def pinned(lock: str) -> Iterator[tuple[str, str]]:
    """Return name and lines of each package of a lock file."""
    for block in re.split(r"\n(?=\S)", lock.strip()):
        name = re.match(r"[A-Za-z0-9._-]+", block)
        if name is not None:
            yield canonicalize_name(name[0]), block


def fetch(lines: Sequence[str], wheels: Path) -> None:
    """Fetch the wheels of a lock's lines, whose hashes pip compares, and make this package's."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(lines))
        file.flush()
        options = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--dest", str(wheels), "-r", file.name]
        subprocess.run([*pip, "download", *options], check=True)
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(ROOT)]
    subprocess.run([*pip, "wheel", *options], check=True)


def requirements(wheels: Iterable[Path]) -> str:
    """Return the requirements file of these wheels: one line each, with its hash."""
    lines = []
    for wheel in wheels:
        name, version, _, _ = parse_wheel_filename(wheel.name)
        lines.append(f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    return "".join(lines)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file that is the same on every machine and at every time."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, io.BytesIO(content))


def build(extras: Sequence[str], output: Path) -> Path:
    """Build the archive and return it.

    Args:
        extras: of this package, as `postgresql`.
        output: the folder of the archive; made where it is missing.

    Raises:
        SystemExit: the lock file lacks a package.
    """
    needed = closure(PACKAGE, extras)
    lock = dict(pinned((ROOT / "requirements.lock").read_text(encoding="utf-8")))
    if missing := sorted(needed - lock.keys()):
        sys.exit(f"got a lock file without {', '.join(missing)}; run `make lock`")
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    with tempfile.TemporaryDirectory() as folder:
        fetch([lock[name] for name in sorted(needed)], Path(folder))
        wheels = sorted(Path(folder).iterdir())
        own = next(wheel for wheel in wheels if wheel.name.startswith("exchange_pool-"))
        name = f"{PACKAGE}-connectors-{parse_wheel_filename(own.name)[1]}-{python}-{platform}"
        output.mkdir(parents=True, exist_ok=True)
        made = output / f"{name}.tar.gz"
        with (
            made.open("wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive,
        ):
            _add(archive, f"{name}/INSTALL.txt", INSTALL.format(python=python, platform=platform).encode())
            _add(archive, f"{name}/requirements.txt", requirements(wheels).encode())
            _add(archive, f"{name}/{UNIT.name}", UNIT.read_bytes())
            for wheel in wheels:
                _add(archive, f"{name}/wheels/{wheel.name}", wheel.read_bytes())
    return made


def main() -> None:
    """Build it, and print its name, size and SHA-256."""
    parser = argparse.ArgumentParser(prog="deploy/bundle/build.py", description="Build the connectors' archive.")
    parser.add_argument("--extra", action="append", default=[], help="of this package; postgresql where none is named")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bundle")
    given = parser.parse_args()
    made = build(given.extra or ["postgresql"], given.output)
    content = made.read_bytes()
    print(f"{made}\n{len(content) / 1e6:.0f} MB, SHA-256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
