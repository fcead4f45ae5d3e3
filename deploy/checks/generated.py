"""Check that what is generated is what its source gives: protobuf modules, Prometheus rules, the runbook's alarms.

python deploy/checks/generated.py           compare
python deploy/checks/generated.py --write   write rules and alarms again (`make proto` writes the modules)
"""

import filecmp
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from exchange.monitoring.prometheus_rules import rules, with_table

ROOT = Path(__file__).resolve().parents[2]
PROTO = Path("schemas/proto/pool/v1")
RULES = Path("deploy/prometheus/rules.yml")
RUNBOOK = Path("docs/runbook.md")


def main() -> int:
    """Generate aside and compare; name what differs. 0 when nothing does."""
    found = list(_modules())
    for file, text in ((RULES, rules()), (RUNBOOK, with_table((ROOT / RUNBOOK).read_text(encoding="utf-8")))):
        if "--write" in sys.argv:
            (ROOT / file).write_text(text, encoding="utf-8")
        elif not (ROOT / file).exists() or (ROOT / file).read_text(encoding="utf-8") != text:
            command = "python deploy/checks/generated.py --write"
            found.append(f"{file} is not what exchange/monitoring/alarms.py gives; run `{command}` and commit it")
    for sentence in found:
        print(sentence)
    return 1 if found else 0


def _modules() -> Iterator[str]:
    """Return the protobuf modules that differ from what the .proto files give."""
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / PROTO).glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        outputs = [f"--{kind}={folder}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs, *sources], cwd=ROOT, check=True)
        names = [path.name for path in (Path(folder) / PROTO).iterdir()]
        _, differ, missing = filecmp.cmpfiles(Path(folder) / PROTO, ROOT / PROTO, names, shallow=False)
    for name in (*differ, *missing):
        yield f"{PROTO / name} is not what the .proto gives; run `make proto` and commit it"


if __name__ == "__main__":
    sys.exit(main())
