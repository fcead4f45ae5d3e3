"""Notes of changed rows: what the entries of a log say about the rows of tagged tables, and what rows disagree. Pure.

Each change of a tagged row is noted in the entry of the act that made it, as table, key, and the beginnings of its tags
before and after. The last note of a row says which tag it must have now:

    row.forged          a row without a tag that is right for its content
    row.unaccounted     a row that no entry made
    row.old             a row that a later entry has replaced: an old one was put back
    row.gone            a row that an entry made and none deleted is not there
    row.chain           an entry changes a row from another state than the one before left it in: between the two, an
                        old row was put back
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["RowNotes", "StoredRow"]


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row of a tagged table as the database has it.

    Attributes:
        table: its name.
        key: its primary key as text.
        tag: the beginning of its tag in hexadecimal, as entries hold it; empty without one.
        valid: whether the tag is right for the row's content; None where the key is not there to tell.
    """

    table: str
    key: str
    tag: str
    valid: bool | None


class RowNotes:
    """The last tag of each row, as entries noted it, and the ones before. Memory grows with tagged rows."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], str] = {}
        self._earlier: dict[tuple[str, str], set[str]] = {}

    def read(self, data: Mapping[str, Any]) -> list[str]:
        """Take the notes of one entry's data; return a sentence for each that does not continue the one before."""
        broken = []
        for table, key, before, after in data.get("rows", ()):
            row = (table, key)
            last = self._last.get(row, "")
            if before != last:
                broken.append(
                    f"the row {key} of {table} was changed from the tag {before or 'of no row'}; the entry before left "
                    f"{last or 'no row'}"
                )
            if last:
                self._earlier.setdefault(row, set()).add(last)
            self._last[row] = after
        return broken

    def compare(self, rows: Iterable[StoredRow]) -> list[tuple[str, str]]:
        """Return what is wrong with all rows of all tagged tables: the finding's kind, and a sentence."""
        found: list[tuple[str, str]] = []
        missing = {row for row, tag in self._last.items() if tag}
        for row in rows:
            key = (row.table, row.key)
            missing.discard(key)
            name = f"the row {row.key} of {row.table}"
            if row.valid is False or not row.tag:
                found.append(("row.forged", f"{name}: the pool did not write it as it is"))
            elif key not in self._last:
                found.append(("row.unaccounted", f"{name}: no entry made it"))
            elif self._last[key] != row.tag:
                if row.tag in self._earlier.get(key, ()):
                    what = "replaced" if self._last[key] else "deleted"
                    found.append(("row.old", f"{name} is an old one: a later entry has {what} it"))
                else:
                    found.append(("row.unaccounted", f"{name}: no entry made it as it is"))
        found += [
            ("row.gone", f"the row {key} of {table}, which an entry made, is not there") for table, key in missing
        ]
        return found
