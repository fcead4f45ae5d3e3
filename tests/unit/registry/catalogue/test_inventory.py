"""Inventory: what a cell may say, and which gap a fault becomes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.catalogue.code_lists import code_lists
from registry.catalogue.inventory import Gap, InventoryHeader, InventoryRow, column_letters
from schemas.errors import InvalidError, Reason
from tests.kit.cases.inventory import COLUMNS, row

LISTS = code_lists()


def read(*columns: str, **changes: Any) -> tuple[InventoryRow | None, list[Gap]]:
    return InventoryHeader(columns or COLUMNS).read(7, row(1, **changes), LISTS)


def test_a_row_without_a_fault_is_metadata() -> None:
    found, gaps = read()
    assert gaps == []
    assert found is not None
    assert (found.row, found.resource, found.metadata.title) == (7, "", "信息资源1")
    assert (found.metadata.theme, found.metadata.share_modes) == ("public-services", ("batch", "api"))
    assert [(item.name, item.type, item.length) for item in found.metadata.items] == [
        ("公民身份号码", "text", 18),
        ("姓名", "text", 50),
        ("出生日期", "date", None),
    ]


@pytest.mark.parametrize(
    ("element", "text", "code"),
    [
        ("目录名称", "", "missing"),
        ("信息资源分类", "999999", "unknown"),
        ("主题", "其他", "unknown"),
        ("数据项", "姓名", "malformed"),
        ("数据项", "姓名(字符型,五十)", "malformed"),
        ("数据项", "姓名(汉字)", "unknown"),
        ("共享范围", "", "missing"),
        ("开放属性", "也许", "unknown"),
        ("更新频率", "偶尔", "unknown"),
        ("分类分级", "", "missing"),
        ("联系电话", "电话", "malformed"),
    ],
)
def test_a_fault_is_said_of_its_column(element: str, text: str, code: str) -> None:
    found, gaps = read(**{element: text})
    assert found is None
    at = COLUMNS.index(element)
    assert [(gap.row, gap.column, gap.heading, str(gap.fault.code)) for gap in gaps] == [
        (7, column_letters(at), element, code)
    ]


def test_an_empty_row_is_nothing() -> None:
    assert InventoryHeader(COLUMNS).read(9, ["", " ", "\u3000"], LISTS) == (None, [])


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ([*COLUMNS, "备注"], "备注"),
        ([*COLUMNS, "Title"], "Title"),
        ([one for one in COLUMNS if one != "数据格式"], "数据格式 (format)"),
        ([], "目录名称 (title)"),
    ],
)
def test_a_header_that_would_lose_or_lack_something_is_refused(columns: list[str], said: str) -> None:
    with pytest.raises(InvalidError) as caught:
        InventoryHeader(columns)
    assert caught.value.reason is Reason.REQUEST_INVALID
    assert said in caught.value.message


def test_english_headings_and_ids_are_read_too() -> None:
    english = {"目录名称": "Title", "摘要": "abstract", "主题": "THEME"}
    assert read(*(english.get(one, one) for one in COLUMNS))[1] == []


@given(st.integers(0, 800))
def test_columns_have_the_letters_of_a_workbook(at: int) -> None:
    letters, number = column_letters(at), 0
    for letter in letters:
        number = number * 26 + ord(letter) - ord("A") + 1
    assert number == at + 1


@given(st.lists(st.text(max_size=40), max_size=len(COLUMNS) + 3))
def test_whatever_a_row_says_it_is_a_row_or_has_gaps(cells: list[str]) -> None:
    found, gaps = InventoryHeader(COLUMNS).read(2, cells, LISTS)
    assert found is None or not gaps
    assert all(gap.row == 2 and gap.heading in COLUMNS for gap in gaps)
