"""Inventory of a department: a workbook of 300 rows with 40 planted faults becomes 260 drafts and 40 gaps."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.catalogue.inventory import column_letters
from tests.kit.cases.inventory import COLUMNS, row
from tests.kit.cases.workbooks import write_workbook
from tests.kit.world.world import Office, World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

FAULTS = [  # heading, what stands there, the fault
    ("目录名称", "", "missing"),
    ("信息资源分类", "901001", "unknown"),
    ("信息资源分类", "10", "malformed"),
    ("主题", "娱乐", "unknown"),
    ("数据格式", "纸质", "unknown"),
    ("数据项", "", "missing"),
    ("数据项", "姓名、性别", "malformed"),
    ("共享范围", "", "missing"),
    ("不予共享理由", "不愿意", "not_allowed"),
    ("目录名称", "信息资源1", "duplicate"),
]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World.start() as world:
        yield world


@pytest.fixture(scope="module")
def office(world: World) -> Office:
    office = world.department("公安局")
    office.account("catalogue_editor")
    return office


def inventory(world: World, office: Office, *words: str, code: int) -> str:
    token = world.folder / "token"
    token.write_text(world.people.tokens[f"catalogue-editor-{office.id[-6:]}"])
    options = ("--data", str(world.data), "--token-file", str(token))
    done = world.programs.run("pool", "catalogue", *options, "inventory", *words, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


def rows_with_faults() -> tuple[list[list[str]], dict[tuple[int, str], str]]:
    """Return 300 rows, and of every 7th until 40 have one, where its fault is: row and column → fault."""
    rows, planted = [], {}
    for number in range(1, 301):
        changes: dict[str, str] = {}
        if number % 7 == 0 and len(planted) < 40:
            heading, text, fault = FAULTS[len(planted) % len(FAULTS)]
            changes[heading] = text
            planted[number + 1, column_letters(COLUMNS.index(heading))] = fault
        rows.append(row(number, **changes))
    assert len(planted) == 40
    return rows, planted


def found(gaps: list[dict[str, Any]]) -> dict[tuple[int, str], str]:
    return {(int(gap["row"]), gap["column"]): gap["code"] for gap in gaps}


def test_a_workbook_of_300_rows_with_40_faults_is_260_drafts_and_these_40_gaps(
    world: World, office: Office, tmp_path: Path
) -> None:
    rows, planted = rows_with_faults()
    book = tmp_path / "inventory.xlsx"
    write_workbook(book, [COLUMNS, *rows], sheet="盘点")
    listed = tmp_path / "gaps.csv"
    answer = json.loads(inventory(world, office, str(book), "--json", "--gaps", str(listed), code=1))
    assert (len(answer["drafts"]), len(answer["gaps"])) == (260, 40)
    assert found(answer["gaps"]) == planted
    with listed.open(encoding="utf-8-sig", newline="") as file:
        assert found([*csv.DictReader(file)]) == planted
    records = office.account("catalogue_editor").list("/catalogue/records")
    assert len(records) == 260
    assert {record["state"] for record in records} == {"draft"}
    assert len({record["code"] for record in records}) == 260, "each has a code of its own"
    by_title = {record["metadata"]["title"]: record for record in records}
    assert by_title["信息资源1"]["topic"] == "r-101001-000001.v1"

    # Mended and given again: what stands is left alone, the rest is drafted.
    mended = tmp_path / "mended.csv"
    with mended.open("w", encoding="gb18030", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *(row(number) for number in range(1, 301))])
    assert inventory(world, office, str(mended), code=0).startswith("40 drafts, 260 unchanged, 0 gaps")
    assert len(office.account("catalogue_editor").list("/catalogue/records")) == 300


def test_an_entry_that_is_reviewed_is_not_replaced(world: World, office: Office, tmp_path: Path) -> None:
    editor = office.account("catalogue_editor")
    columns = [*COLUMNS, "资源标识", "英文名称", "英文摘要", "保密风险评估编号", "个人信息保护影响评估编号"]
    whole = [*row(901), "reviewed", "A resource", "What it holds", "BM-1", "PIA-1"]
    table = tmp_path / "one.csv"

    def write(cells: list[str]) -> str:
        with table.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([columns, cells])
        return str(table)

    inventory(world, office, write(whole), code=0)
    draft = [*whole]
    draft[1] = "另一个摘要"
    assert inventory(world, office, write(draft), code=0).startswith("1 drafts")
    editor.post("/catalogue/reviewed.v1/submission")
    answer = json.loads(inventory(world, office, write(whole), "--json", code=1))
    assert found(answer["gaps"]) == {(2, column_letters(columns.index("资源标识"))): "exists"}
    assert editor.get("/catalogue/records/reviewed.v1")["metadata"]["abstract"] == "另一个摘要"


def test_another_department_s_entry_is_not_touched(world: World, office: Office, tmp_path: Path) -> None:
    other = world.department("人社局")
    other.account("catalogue_editor")
    table = tmp_path / "theirs.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([[*COLUMNS, "信息资源代码"], [*row(1), "101001/000001"], [*row(2), ""]])
    answer = json.loads(inventory(world, other, str(table), "--json", code=1))
    assert [(gap["row"], gap["heading"], gap["code"]) for gap in answer["gaps"]] == [(2, "信息资源代码", "duplicate")]
    assert [draft["row"] for draft in answer["drafts"]] == [3], "a title may be another department's too"
    assert office.account("catalogue_editor").get("/catalogue/records/r-101001-000001.v1")["version"] == 1


def test_a_cell_that_no_request_can_hold_is_a_gap_of_its_row_alone(
    world: World, office: Office, tmp_path: Path
) -> None:
    items = "；".join(f"数据项{number}(字符型,50)" for number in range(200))
    table = tmp_path / "long.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([COLUMNS, row(951), row(952, 数据项=items), row(953)])
    answer = json.loads(inventory(world, office, str(table), "--json", code=1))
    assert found(answer["gaps"]) == {(3, column_letters(COLUMNS.index("数据项"))): "too_long"}
    assert [draft["row"] for draft in answer["drafts"]] == [2, 4]
