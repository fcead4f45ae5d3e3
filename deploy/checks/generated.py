"""Check that the generated protobuf modules are those that the .proto files give."""

import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROTO = Path("schemas/proto/pool/v1")


def main() -> int:
    """Generate aside and compare; name what differs. 0 when nothing does."""
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / PROTO).glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        outputs = [f"--{kind}={folder}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs, *sources], cwd=ROOT, check=True)
        names = [path.name for path in (Path(folder) / PROTO).iterdir()]
        _, differ, missing = filecmp.cmpfiles(Path(folder) / PROTO, ROOT / PROTO, names, shallow=False)
    for name in (*differ, *missing):
        print(f"{PROTO / name} is not what the .proto gives; run `make proto` and commit it")
    return 1 if differ or missing else 0


if __name__ == "__main__":
    sys.exit(main())
