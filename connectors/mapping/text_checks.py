"""Text checks that a configuration may name for a column: `check: cn_id18`.

The contract's own rules are applied by the codec (`registry.avro.field_rules`), here and in the pool. These checks are
for columns of which the contract says nothing, and for one fault that only shows in the text: a spreadsheet that
stored an 18-digit number as a floating-point one has lost its last digits permanently.
"""

import re
from collections.abc import Callable, Mapping
from datetime import date

from connectors.mapping.conversion import Fault
from connectors.port import RejectCode

__all__ = ["CHECKS", "IDENTITY_RULES", "ROUNDED_NUMBER", "rounded_number"]

IDENTITY_RULES = frozenset({"cn_id18", "uscc", "cn_mobile"})
"""Rules for identity numbers, which a spreadsheet may have stored as floating-point numbers."""

ROUNDED_NUMBER = r"[0-9](\.[0-9]+)?[eE]\+?[0-9]{2}|[0-9]{15,}\.0+"
"""Form of a number that a spreadsheet has rounded."""

_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)  # GB 11643-1999, ISO 7064 MOD 11-2
_CHECK_CHARACTERS = "10X98765432"
_ID18 = re.compile(r"[1-9][0-9]{16}[0-9X]")
_MOBILE = re.compile(r"1[3-9][0-9]{9}")
_ROUNDED = re.compile(ROUNDED_NUMBER)


def rounded_number(text: str) -> Fault | None:
    """Return a fault for a number that a spreadsheet has rounded; anything else is for the other rules."""
    if _ROUNDED.fullmatch(text):
        return Fault(
            RejectCode.NUMBER_TOO_LONG_FOR_ID,
            "an identity number; the spreadsheet stored a floating-point number and has already lost digits: format "
            "the column as text and export again",
        )
    return None


def _cn_id18(text: str) -> Fault | None:
    if not _ID18.fullmatch(text):
        return rounded_number(text) or Fault(RejectCode.TYPE, "an identity number of 17 digits and a check character")
    try:
        date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return Fault(RejectCode.RANGE, "an identity number whose digits 7 to 14 are a date")
    total = sum(int(digit) * weight for digit, weight in zip(text, _WEIGHTS, strict=False))
    if _CHECK_CHARACTERS[total % 11] != text[17]:
        return Fault(RejectCode.ID_CHECKSUM, "an identity number whose check character fits (GB 11643)")
    return None


def _cn_mobile(text: str) -> Fault | None:
    return (
        None
        if _MOBILE.fullmatch(text)
        else rounded_number(text) or Fault(RejectCode.TYPE, "11 digits of a mobile phone")
    )


def _not_empty(text: str) -> Fault | None:
    return None if text.strip() else Fault(RejectCode.NULL_NOT_ALLOWED, "text that is not blank")


CHECKS: Mapping[str, Callable[[str], Fault | None]] = {
    "cn_id18": _cn_id18,
    "cn_mobile": _cn_mobile,
    "not_empty": _not_empty,
}
