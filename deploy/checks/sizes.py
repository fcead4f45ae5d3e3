"""Check that no hand-written file has grown beyond 450 lines: past that it has two subjects."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 450
FOLDERS = ("schemas", "registry", "exchange", "connectors", "deploy", "tests")


def main() -> int:
    """Name the files that are too long. 0 when none is."""
    found = 0
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "_pb2" in path.name:
                continue
            lines = len(path.read_text().splitlines())
            if lines > LIMIT:
                print(f"{path.relative_to(ROOT)} has {lines} lines; expected {LIMIT} at most: split it by subject")
                found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
