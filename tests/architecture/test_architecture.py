"""The shape of the code: what imports what at run time, how large a room is, what never stands in them."""

import re
import subprocess
import sys
from collections import Counter
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "registry", "exchange", "connectors")
WRITTEN = ("*.py", "*.md", "*.toml", "*.yaml", "*.yml", "*.proto", "*.avsc", "*.sh", "*.txt", "*.properties", "*.xml",
           "*.json", "*.csv", "*.go", "Makefile")  # fmt: skip
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_SERVER = (
    "confluent_kafka", "kafka", "fastapi", "starlette", "uvicorn", "alembic", "prometheus_client", "chinese_calendar",
    "psycopg2",
)  # fmt: skip


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    if not listed:  # a source archive has no history
        listed = [str(file.relative_to(ROOT)) for pattern in patterns for file in ROOT.rglob(pattern)]
    return [ROOT / line for line in listed if not line.startswith(".venv") and (ROOT / line).is_file()]


def loaded_by(statement: str) -> set[str]:
    """Return the modules that stand in memory after a statement, in a fresh interpreter."""
    script = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_importing_the_exchange_imports_nothing_of_it() -> None:
    assert (ROOT / "exchange" / "__init__.py").read_bytes() == b""
    assert {name for name in loaded_by("import exchange") if name.startswith("exchange.")} == set()


def test_a_department_s_machine_never_loads_the_pool_s_code() -> None:
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in (ROOT / "connectors").rglob("*.py")
        if file.stem != "__init__" and "conformance" not in file.parts
    ]
    loaded = loaded_by("import " + ", ".join(modules))
    assert {name for name in loaded if name.startswith("exchange.") and not name.startswith("exchange.client")} == set()
    server_rooms = {
        "registry.rest.app",
        "registry.rest.requests",
        "registry.postgres.subjects",
        "registry.subjects.lookup",
        "registry.directory.catalogue",
        "registry.subjects.store",
    }
    assert not server_rooms & loaded
    assert not {name for name in loaded if name.split(".")[0] in _SERVER}


def test_the_published_language_needs_the_standard_library_alone() -> None:
    modules = [f"schemas.{file.stem}" for file in (ROOT / "schemas").glob("*.py") if file.stem != "__init__"]
    loaded = {name.split(".")[0] for name in loaded_by("import " + ", ".join(modules))}
    at_start = {name.split(".")[0] for name in loaded_by("pass")}  # what the environment itself loads
    assert loaded - at_start - set(sys.stdlib_module_names) == {"schemas"}


def test_the_offline_verifier_needs_neither_database_nor_network() -> None:
    loaded = {name.split(".")[0] for name in loaded_by("import exchange.audit.verify")}
    assert not loaded & {"sqlalchemy", "psycopg2", "grpc", "httpx", "confluent_kafka", "kafka", "pyarrow", "fastapi"}


def test_a_room_has_about_fifteen_modules_at_most() -> None:
    modules = Counter(
        file.parent.relative_to(ROOT)
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        if file.stem != "__init__" and not file.stem.endswith(("_pb2", "_pb2_grpc"))
    )
    del modules[Path("exchange/migrations/versions")]  # no room: the revisions in their order, which are never removed
    assert {str(room): count for room, count in modules.items() if count > 16} == {}


def test_on_top_of_the_exchange_stands_what_belongs_to_no_room() -> None:
    top = {file.stem for file in (ROOT / "exchange").glob("*.py")}
    assert top == {"__init__", "pool", "config", "metrics", "single_flight", "admin_client"}


def test_there_is_no_drawer() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "shared"}
    found = [file for package in PACKAGES for file in (ROOT / package).rglob("*") if file.stem in drawers]
    assert not found


def test_nothing_is_put_off() -> None:
    later = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
    for file in tracked("*.py", "*.proto", "*.avsc", "*.sh", "*.properties"):
        assert not later.search(file.read_text(encoding="utf-8")), file.relative_to(ROOT)


def is_identity_number(text: str) -> bool:
    """Return whether 18 characters are a citizen's identity number (GB 11643) by date and check character."""
    try:
        date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    total = sum(int(digit) * weight for digit, weight in zip(text, _WEIGHTS, strict=False))
    return "10X98765432"[total % 11] == text[17].upper()


def test_the_check_of_identity_numbers_knows_one() -> None:
    body = "11010519491231002"
    assert is_identity_number(body + "X")
    assert not is_identity_number(body + "1")


# Numbers that the standards themselves print, and ones that tests made up: their area code does not exist, their
# sequence is that of an example. Whatever else looks like a person's number has no place in the repository.
_EXAMPLES = frozenset({"11010519491231002X", "440524188001010014"})


def test_no_person_s_number_stands_in_the_repository() -> None:
    numbers = re.compile(r"(?<![0-9A-Za-z])[1-9][0-9]{16}[0-9Xx](?![0-9A-Za-z])")
    found = {
        (str(file.relative_to(ROOT)), text)
        for file in tracked(*WRITTEN)
        for text in numbers.findall(file.read_text(encoding="utf-8", errors="ignore"))
        if is_identity_number(text) and text.upper() not in _EXAMPLES
    }
    assert not {file for file, _ in found}, "write a generator instead (exchange.demo.people)"


def test_no_two_test_modules_have_one_name() -> None:
    """pytest imports modules outside of packages by their file's name alone, and refuses the second of a name."""
    loose = [file for file in tracked("tests/**/test_*.py") if not (file.parent / "__init__.py").exists()]
    assert {name: count for name, count in Counter(file.name for file in loose).items() if count > 1} == {}
