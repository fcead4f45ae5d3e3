"""Store of duty lists: the port, and its adapter in memory. The stores never begin or commit."""

from collections.abc import Sequence
from typing import Protocol

from typing_extensions import override

from exchange.duties.model import DutyItem, split_cursor
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader, UnitOfWork

__all__ = ["DutyStore", "MemoryDuties"]


class DutyStore(Protocol):
    """Store of duty items. A row that the pool did not write is refused, never taken for absent."""

    def put(self, work: UnitOfWork, item: DutyItem) -> None:
        """Store an item in place of the one of its department and code, if there is one.

        Raises:
            CorruptError: ROW_FORGED, the pool did not write the one that is there.
        """
        ...

    def get(self, reader: Reader, department: str, code: str) -> DutyItem | None:
        """Return an item; None where there is none.

        Raises:
            CorruptError: ROW_FORGED.
        """
        ...

    def count(self, reader: Reader, department: str, most: int) -> int:
        """Return how many items a department has, counted up to *most*; retired and forged ones count."""
        ...

    def page(
        self, reader: Reader, *, department: str | None = None, after: str = "", limit: int
    ) -> Sequence[DutyItem | DamagedRow]:
        """Return items after a cursor (`cursor_of`), in its order; a row that the pool did not write is named."""
        ...


class MemoryDuties(DutyStore):
    """The adapter in memory."""

    def __init__(self) -> None:
        self._items: dict[tuple[str, str], DutyItem] = {}

    @override
    def put(self, work: UnitOfWork, item: DutyItem) -> None:
        del work
        self._items[item.department, item.code] = item

    @override
    def get(self, reader: Reader, department: str, code: str) -> DutyItem | None:
        del reader
        return self._items.get((department, code))

    @override
    def count(self, reader: Reader, department: str, most: int) -> int:
        del reader
        return min(sum(one == department for one, _ in self._items), most)

    @override
    def page(
        self, reader: Reader, *, department: str | None = None, after: str = "", limit: int
    ) -> Sequence[DutyItem | DamagedRow]:
        del reader
        keys = sorted(key for key in self._items if key > split_cursor(after) and department in {None, key[0]})
        return [self._items[key] for key in keys[:limit]]
