"""Code lists of the catalogue: classes, themes, formats, cycles … Data, in `code_lists.json`.

The ordinals of classes and items are inferred from the order of the compilation guide of 2017
(《政务信息资源目录编制指南（试行）》), so they are data: another ordinal is another file, and no code.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

__all__ = ["CLASS_CODE", "RESOURCE_CODE", "CodeLists", "Term", "code_lists"]

CLASS_CODE: Final = r"[1-9]\d{2}\d{3}\d*"
"""Class code of the guide: class 1 digit, item 2, sub-item 3, detail as many as wanted."""
RESOURCE_CODE: Final = rf"{CLASS_CODE}/\d+"
"""Resource code of the guide: class code, slash, serial number."""


@dataclass(frozen=True, slots=True)
class Term:
    """A term of a list: `id` is stored; `code` is the guide's digit, where it has one."""

    id: str
    code: str
    zh: str
    en: str

    @property
    def names(self) -> tuple[str, ...]:
        """What may be written for it."""
        return (self.id, self.code, self.zh, self.en) if self.code else (self.id, self.zh, self.en)


class CodeLists:
    """Code lists by name.

    Args:
        document: as in `code_lists.json`.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._terms: dict[str, tuple[Term, ...]] = {}
        self._known: dict[str, dict[str, Term]] = {}
        self._items: dict[str, dict[str, Term]] = {}
        for name, rows in document.items():
            terms = tuple(_term(row) for row in rows)
            self._terms[name] = terms
            self._known[name] = {known.casefold(): term for term in terms for known in term.names}
            for row in rows:
                if "items" in row:
                    self._items[str(row["id"])] = {str(item["id"]): _term(item) for item in row["items"]}

    def terms(self, name: str) -> Sequence[Term]:
        """Return the terms of a list."""
        return self._terms[name]

    def find(self, name: str, text: str) -> Term | None:
        """Return the term that a text names by its id, code, Chinese or English name; None for none."""
        return self._known[name].get(text.strip().casefold())

    def term(self, name: str, term_id: str) -> Term | None:
        """Return the term with an id."""
        return next((one for one in self._terms[name] if one.id == term_id), None)

    def class_terms(self, class_code: str) -> tuple[Term, Term | None] | None:
        """Return class and item of a class code; the item is None in a class whose items are free; None for unknown."""
        top = self.term("classes", class_code[:1])
        if top is None:
            return None
        items = self._items.get(top.id, {})
        if not items:
            return top, None
        item = items.get(class_code[1:3])
        return None if item is None else (top, item)


@cache
def code_lists() -> CodeLists:
    """Return the lists that come with the pool."""
    return CodeLists(json.loads(files("registry.catalogue").joinpath("code_lists.json").read_text(encoding="utf-8")))


def _term(row: Mapping[str, Any]) -> Term:
    return Term(id=str(row["id"]), code=str(row.get("code", "")), zh=str(row["zh"]), en=str(row["en"]))
