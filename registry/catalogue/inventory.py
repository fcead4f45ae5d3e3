"""Inventory of resources (盘点): rows of a table become metadata; what is wrong, a gap by row and column. Pure.

The header names the elements in Chinese or English, or by id, in any order; `resource` (资源标识) may name it.
A column that names no element is refused, as it would be lost; so is a header without an element that every row needs.

    数据项        公民身份号码(字符型,18)；姓名(字符型,50)；出生日期(日期型)
                  name (type, length), separated by ；
    共享方式      批量交换、服务接口
                  terms, separated by 、 or ,
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from registry.catalogue.code_lists import CodeLists
from registry.catalogue.metadata import DataItem, Metadata
from registry.catalogue.metadata_rules import Fault, FaultCode, element_names, fault_of, faults_of
from schemas.errors import InvalidError, Reason
from schemas.names import ResourceName
from schemas.reason_texts import Language

__all__ = [
    "LONGEST_CELL",
    "RESOURCE",
    "Gap",
    "InventoryHeader",
    "InventoryRow",
    "column_letters",
    "oversized_cells",
    "repeated_rows",
]

RESOURCE: Final = "resource"
"""Column that names the resource; without it the pool makes a name of the code."""
LONGEST_CELL: Final = 2_000
"""Characters of a cell; as of each text of a request."""
_RESOURCE_NAMES: Final = (RESOURCE, "资源标识", "Resource")
_NEEDED: Final = ("title", "abstract", "class_code", "theme", "format", "items", "share_type", "open_type",
                  "update_cycle", "contact_name", "level")  # fmt: skip
_ITEM: Final = re.compile(
    r"(?P<name>[^()（）]+?)\s*[(（]\s*(?P<type>[^,，()（）]+?)\s*(?:[,，]\s*(?P<length>\d{1,9})\s*)?[)）]"
)
_LISTED: Final = re.compile(r"[、,，;；\n]")
_ITEMS: Final = re.compile(r"[；;\n]")
_BLANKS: Final = " \t\r\n\u00a0\u3000\ufeff"


@dataclass(frozen=True, slots=True)
class Gap:
    """What is wrong in one cell.

    Attributes:
        row: of the table, from 1, as its file counts. column: letters, A is the first. heading: as the header has it.
        fault: what is wrong.
    """

    row: int
    column: str
    heading: str
    fault: Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryRow:
    """A row that has no fault of its own.

    Attributes:
        row: of the table.
        resource: name of the resource; empty = the pool makes one.
        metadata: normalized.
    """

    row: int
    resource: str
    metadata: Metadata


class InventoryHeader:
    """Which column holds which element.

    Args:
        columns: the header's cells; empty ones hold nothing.

    Raises:
        InvalidError: REQUEST_INVALID, with every column that names no element, or one twice, and every element that
            is needed and not there.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._headings = [column.strip(_BLANKS) for column in columns]
        self._column: dict[str, int] = {}
        known = _elements()
        wrong = []
        for at, heading in enumerate(self._headings):
            element = known.get(heading.casefold())
            if not heading:
                continue
            if element is None or element in self._column:
                wrong.append(f"{column_letters(at)} ({heading[:40]})")
                continue
            self._column[element] = at
        missing = [element for element in _NEEDED if element not in self._column]
        if wrong or missing:
            names = ", ".join(f"{element_names()[name]['zh']} ({name})" for name in missing)
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got a header with {len(wrong)} columns that name no element, or one twice"
                f"{': ' if wrong else ''}{', '.join(wrong[:20])}; "
                f"{f'the header lacks {names}' if missing else 'expected the names of elements of the metadata'}",
            )

    @property
    def elements(self) -> Sequence[str]:
        """The elements that have a column."""
        return tuple(self._column)

    def gap(self, row: int, element: str, code: FaultCode) -> Gap:
        """Return the gap of an element in a row; an element without a column is said of the column of the title."""
        base = element.partition("[")[0]
        at = self._column.get(base, self._column["title"])
        fault = fault_of("title" if base == RESOURCE else element, code)
        return Gap(row, column_letters(at), self._headings[at], fault)

    def text(self, cells: Sequence[str], element: str) -> str:
        """Return what a row says of an element; empty = nothing."""
        at = self._column.get(element)
        return "" if at is None or at >= len(cells) else cells[at].strip(_BLANKS)

    def read(self, row: int, cells: Sequence[str], lists: CodeLists) -> tuple[InventoryRow | None, list[Gap]]:
        """Return a row's metadata, or every gap of it; None and none for an empty row.

        Args:
            row: its number in the file.
            cells: its texts, in the order of the header.
            lists: the code lists.
        """
        texts = {name: self.text(cells, name) for name in self._column}
        if not any(texts.values()):
            return None, []
        resource = texts.pop(RESOURCE, "")
        gaps = []
        if resource and not _is_name(resource):
            gaps.append(self.gap(row, RESOURCE, FaultCode.MALFORMED))
        values: dict[str, Any] = dict(texts)
        items = _items(values.pop("items", ""))
        for name in ("share_modes", "related_codes"):
            values[name] = tuple(part.strip() for part in _LISTED.split(values.get(name, "")) if part.strip())
        values["secrecy"] = values.get("secrecy") or "none"
        metadata = Metadata(**values, items=items or ()).normalized(lists)
        faults = faults_of(metadata, lists)
        if items is None:
            faults = [fault for fault in faults if fault.element != "items"]
            gaps.append(self.gap(row, "items", FaultCode.MALFORMED))
        gaps += [self.gap(row, fault.element, fault.code) for fault in faults]
        if gaps:
            return None, gaps
        return InventoryRow(row=row, resource=resource, metadata=metadata), []


def repeated_rows(header: InventoryHeader, rows: Iterable[tuple[int, Sequence[str]]]) -> list[Gap]:
    """Return the gaps of rows that name the same entry as an earlier one: by resource, else by code, else by title.

    For a table that is sent in parts, of which a later one would replace the drafts of an earlier one.
    """
    seen: set[tuple[str, str]] = set()
    gaps = []
    for number, cells in rows:
        names = [(name, text) for name in (RESOURCE, "code", "title") if (text := header.text(cells, name))]
        if names and names[0] in seen:
            gaps.append(header.gap(number, names[0][0], FaultCode.DUPLICATE))
        seen.update(names)
    return gaps


def oversized_cells(header: InventoryHeader, rows: Iterable[tuple[int, Sequence[str]]]) -> list[Gap]:
    """Return the gaps of cells that are longer than a request's text may be; one of them would refuse a whole part."""
    return [
        header.gap(number, element, FaultCode.TOO_LONG)
        for number, cells in rows
        for element in header.elements
        if len(header.text(cells, element)) > LONGEST_CELL
    ]


def column_letters(at: int) -> str:
    """Return the letters of a column, from 0, as a workbook has them."""
    text = ""
    while at >= 0:
        at, letter = divmod(at, 26)
        text, at = chr(ord("A") + letter) + text, at - 1
    return text


def _elements() -> Mapping[str, str]:
    """Return what a header may say → the element."""
    known = {name.casefold(): RESOURCE for name in _RESOURCE_NAMES}
    elements = {one.name for one in fields(Metadata)}
    for element, row in element_names().items():
        names: Iterable[str] = (element, row[Language.CHINESE], row[Language.ENGLISH])
        known |= {name.casefold(): element for name in names if element in elements}
    return known


def _items(text: str) -> tuple[DataItem, ...] | None:
    """Return the data items of a cell; None where it has another form."""
    items = []
    for part in _ITEMS.split(text):
        if not part.strip():
            continue
        match = _ITEM.fullmatch(part.strip())
        if match is None:
            return None
        length = match["length"]
        items.append(DataItem(name=match["name"], type=match["type"], length=int(length) if length else None))
    return tuple(items)


def _is_name(text: str) -> bool:
    try:
        ResourceName(text)
    except InvalidError:
        return False
    return True
