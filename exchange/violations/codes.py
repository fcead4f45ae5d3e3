"""Violation codes (违规情形) of State Council decree 809, Art. 39 to 41, as data with their clauses.

    P1 … P9    Art. 39: by a department that provides data
    C1 … C7    Art. 40: by a department that uses data
    A1 … A3    Art. 41: by the data authority

A code is the item of its article, so a case cites its clause by its code. `codes.json` has text and clause of each in
both languages; its `basis` tells whether its text was read, as that of a rule profile does.
"""

import json
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources

__all__ = ["CodeText", "Side", "ViolationCode", "text_of"]


class Side(StrEnum):
    """Whose violation it is."""

    PROVIDER = "provider"
    CONSUMER = "consumer"
    AUTHORITY = "authority"


class ViolationCode(StrEnum):
    """A violation by its clause. Append only: what entries of the log name keeps its meaning."""

    P1 = "P1"
    P2 = "P2"
    P3 = "P3"
    P4 = "P4"
    P5 = "P5"
    P6 = "P6"
    P7 = "P7"
    P8 = "P8"
    P9 = "P9"
    C1 = "C1"
    C2 = "C2"
    C3 = "C3"
    C4 = "C4"
    C5 = "C5"
    C6 = "C6"
    C7 = "C7"
    A1 = "A1"
    A2 = "A2"
    A3 = "A3"

    @property
    def side(self) -> Side:
        """Whose violation it is."""
        return {"P": Side.PROVIDER, "C": Side.CONSUMER, "A": Side.AUTHORITY}[self.value[0]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeText:
    """What a code says, in both languages.

    Attributes:
        article, item: of the decree.
        basis: `text` = the clause's own text was read, `assumed` = its wording was not.
        en, zh: the violation, in words.
        clause_en, clause_zh: where the decree says so.
    """

    article: int
    item: int
    basis: str
    en: str
    zh: str
    clause_en: str
    clause_zh: str


def text_of(code: ViolationCode) -> CodeText:
    """Return what a code says."""
    return _texts()[code]


@cache
def _texts() -> dict[ViolationCode, CodeText]:
    document = json.loads(resources.files("exchange.violations").joinpath("codes.json").read_bytes())
    return {
        ViolationCode(code): CodeText(
            article=one["article"],
            item=one["item"],
            basis=one["basis"],
            en=one["text"]["en"],
            zh=one["text"]["zh"],
            clause_en=one["clause"]["en"],
            clause_zh=one["clause"]["zh"],
        )
        for code, one in document.items()
    }
