"""Damaged rows of a list: a row that the pool did not write is named by its key, and shows nothing of what it says.

A list that failed at such a row would hide all the others from everybody; one that left it out would look whole. Only
keys in a form that the pool makes are named: another one is a text of the person who invented the row.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["DAMAGED", "DamagedRow"]

DAMAGED: Final = "damaged"
_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedRow:
    """A row of a list that is not one that the pool wrote.

    Attributes:
        names: members of its key, as the list's other items have them.
        cursor: of the list, behind this row.
        about: what a column says that it concerns, by which a department's list has it or not; not proven, not shown.
    """

    names: Mapping[str, str] = field(hash=False)
    cursor: str
    about: str = ""

    @staticmethod
    def of(cursor: str | None = None, /, *, about: str = "", **names: object) -> "DamagedRow | None":
        """Return the row of a key; None for a key that the pool would not make. *cursor*: the last name if None."""
        texts = {name: str(value) for name, value in names.items()}
        behind = [*texts.values()][-1] if cursor is None else cursor
        if not all(map(_KEY.fullmatch, (*texts.values(), *behind.split("/")))):
            return None
        return DamagedRow(names=texts, cursor=behind, about=about)

    def document(self) -> dict[str, str]:
        """Return the item of the list."""
        return {**self.names, "status": DAMAGED}
