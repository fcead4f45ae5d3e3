"""`pool-schema` as its user meets it: its words, its exit code; some calls as a process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from registry.cli.main import main
from schemas import library
from tests.kit.patience import PATIENCE
from tests.kit.world import in_process

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"COLUMNS": "80", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return in_process.run(main, *arguments)


def process(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from registry.cli.main import main; main()", *map(str, arguments)],
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=PATIENCE,
    )


@pytest.fixture
def population(tmp_path: Path) -> Path:
    path = tmp_path / "population.avsc"
    path.write_text(library.text("population"), encoding="utf-8")
    return path


def changed(path: Path, **fields: dict[str, Any]) -> Path:
    document = json.loads(path.read_text(encoding="utf-8"))
    for field in document["fields"]:
        field.update(fields.pop(field["name"], {}))
    document["fields"] += [{"name": name} | facts for name, facts in fields.items()]
    new = path.with_name("new.avsc")
    new.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return new


def test_lint_of_a_good_schema_says_what_it_holds(population: Path) -> None:
    done = process("lint", population)
    assert done.returncode == 0, done.stderr
    assert f"✓ {population}: pool.base.Population 自然人基础信息, 20 fields, key id_number" in done.stdout
    assert "highest level G4, 5 direct identifiers" in done.stdout
    assert "\x1b" not in done.stdout, "plain where nobody looks"


def test_lint_names_every_field_that_lacks_something(population: Path, tmp_path: Path) -> None:
    new = changed(population, sex_code={"level": "G9"}, height={"type": "int"})
    broken = tmp_path / "broken.avsc"
    broken.write_text('{"type": "record"', encoding="utf-8")
    done = run("lint", population, new, broken)
    assert done.returncode == 1
    assert f"✓ {population}" in done.stdout
    assert f"✗ {new}: 2 findings" in done.stdout
    assert "$.fields[4] sex_code 性别: \"level\" is 'G9'; expected one of G1, G2, G3, G4, IMP" in done.stdout
    assert "$.fields[20] height: missing: zh, level, personal, sensitive, mask" in done.stdout
    assert "A field needs zh, a Chinese label; level, one of G1" in done.stdout
    assert f"✗ {broken}: 1 finding" in done.stdout
    assert run("lint", "--ungoverned", changed(population, height={"type": "int"})).returncode == 0


def test_lint_names_what_the_registry_would_refuse(population: Path) -> None:
    wide = {"type": "bytes", "logicalType": "decimal", "precision": 80, "scale": 2}
    done = run("lint", changed(population, height={"type": wide}))
    assert done.returncode == 1
    assert "height: got a decimal of 80 digits; expected 76 at most" in done.stdout + done.stderr


def test_lint_of_what_cannot_be_read(tmp_path: Path) -> None:
    done = run("lint", tmp_path / "none.avsc")
    assert done.returncode == 2
    assert "none.avsc: No such file or directory" in done.stderr
    odd = tmp_path / "odd.avsc"
    odd.write_bytes('{"zh": "姓名"}'.encode("gb18030"))
    assert "save it as UTF-8" in run("lint", odd).stderr


def test_check_of_a_field_with_a_default(population: Path) -> None:
    new = changed(population, height={"type": ["null", "int"], "default": None})
    done = run("check", population, new)
    assert (done.returncode, done.stdout) == (0, f"✓ {new} may follow {population} under BACKWARD\n")


def test_check_says_where_and_why_not(population: Path) -> None:
    new = changed(
        population,
        sex_code={"type": "int", "codes": None},
        id_number={"mask": "none"},
        height={"type": "int"},
    )
    document = json.loads(new.read_text(encoding="utf-8"))
    del document["fields"][4]["codes"]
    new.write_text(json.dumps(document), encoding="utf-8")
    done = run("check", population, new, "--level", "full")
    assert done.returncode == 1
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines == [
        f"✗ {new} may not follow {population} under FULL: 4 findings",
        (
            "the new schema cannot read records of population.avsc: at $.fields[4].type of the new schema (sex_code "
            "性别): the reader expects int, the writer wrote string"
        ),
        (
            "the new schema cannot read records of population.avsc: at $.fields[20] of the new schema (height): the "
            "reader's field is not in what the writer wrote and has no default; give it one"
        ),
        (
            "population.avsc cannot read records of the new schema: at $.fields[4].type of population.avsc "
            "(sex_code 性别): the reader expects string, the writer wrote int"
        ),
        'classification lowered: $.fields[1] id_number 公民身份号码: "mask" is lifted from keep_3_4 to none',
    ]


def test_check_is_strict_about_meaning_unless_told_otherwise(population: Path) -> None:
    new = changed(population, birth_date={"type": "int"})
    done = run("check", population, new)
    assert done.returncode == 1
    assert "(birth_date 出生日期): the reader takes the bytes for plain int, the writer meant date" in done.stdout
    assert run("check", population, new, "--no-strict").returncode == 0


def test_check_of_an_unknown_level(population: Path) -> None:
    done = process("check", population, population, "--level", "sideward")
    assert done.returncode == 2
    assert "FULL_TRANSITIVE" in done.stderr


def test_show_and_list() -> None:
    listed = run("list")
    assert listed.returncode == 0
    assert "base/population" in listed.stdout
    shown = run("show", "population")
    assert shown.returncode == 0
    row = next(line for line in shown.stdout.splitlines() if line.startswith("household_division_code"))
    assert row.split() == ["household_division_code", "户籍地区划", "string", "G2", "P", "N", "div_city"]
    assert process("show", "population", "--text").stdout == library.text("population")
    assert "view_schema_id" in run("show", "grant").stdout
    unknown = run("show", "nothing")
    assert unknown.returncode == 2
    assert "base/population" in unknown.stderr


def test_what_ships_passes_its_own_lint(tmp_path: Path) -> None:
    files = []
    for name in library.names():
        if name.startswith("base/"):
            files.append(tmp_path / f"{name.replace('/', '_')}.avsc")
            files[-1].write_text(library.text(name), encoding="utf-8")
    done = run("lint", *files)
    assert (done.returncode, done.stdout.count("✓")) == (0, 8)
