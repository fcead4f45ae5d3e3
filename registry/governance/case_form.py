"""Case form: the form of the case numbers (业务编号) of a purpose, in a small closed grammar of fixed width. Pure.

    YB-{YYYY}{MM}{DD}-{N6}      YB-20261101-000123

`{YYYY}` is a year from 2000 to 2099, `{MM}` a month, `{DD}` a day, `{N6}` six digits, `{A2}` two letters A to Z; all
else stands for itself. There is no repetition and no choice, so that a text is matched in one pass.

Where a purpose states a form, only the form counts: its case numbers are not searched for personal numbers. So a form
must not let one pass: a run of eleven digits or more begins with the year, and has ten free ones at most.
"""

import re
from dataclasses import dataclass
from typing import Final

from registry.governance.personal_numbers import SEPARATORS
from schemas.errors import InvalidError, Reason

__all__ = ["CaseForm"]

_PARTS: Final = re.compile(r"\{(YYYY|MM|DD|N[1-9][0-9]?|A[1-9][0-9]?)\}|([^{}])", re.DOTALL)
_DIGITS: Final = {"YYYY": "20[0-9]{2}", "MM": "(?:0[1-9]|1[0-2])", "DD": "(?:0[1-9]|[12][0-9]|3[01])"}
_LONGEST: Final = 64  # characters of a case number
_FEWEST: Final = 11  # digits of the shortest personal number


@dataclass(frozen=True, slots=True)
class CaseForm:
    """A form, parsed.

    Attributes:
        text: as it is configured.
        pattern: matches the whole of a case number; of fixed width.
    """

    text: str
    pattern: "re.Pattern[str]"

    @classmethod
    def parse(cls, text: str) -> "CaseForm":
        """Parse a form.

        Raises:
            InvalidError: CONFIG_INVALID, for another grammar, a form that is too long, or one that lets a personal
                number pass.
        """
        parts = list(_PARTS.finditer(text))
        if not parts or "".join(part[0] for part in parts) != text:
            raise _invalid(text, "expected text, {YYYY}, {MM}, {DD}, {N6} for six digits, {A2} for two letters")
        pattern, width = [], 0
        run, free, dated = (
            0,
            0,
            False,
        )  # digits of the run so far, those of them that may be any, whether a year began it
        for part in parts:
            element, literal = part[1], part[2]
            if literal is not None:
                pattern.append(re.escape(literal))
                digits, length, any_digits = int(literal.isdecimal()), 1, int(literal.isdecimal())
                ends = not digits and literal not in SEPARATORS
            elif element in _DIGITS:
                pattern.append(_DIGITS[element])
                digits = length = len(element)
                any_digits, ends = 0, False
            else:
                length = int(element[1:])
                ends = element[0] == "A"
                digits = any_digits = 0 if ends else length
                pattern.append(f"[{'A-Z' if ends else '0-9'}]{{{length}}}")
            width += length
            if ends:
                run = free = 0
            if digits and not run:
                dated = element == "YYYY"
            run, free = run + digits, free + any_digits
            if free >= _FEWEST or (run >= _FEWEST and not dated):
                raise _invalid(text, "its digits could be a personal number; begin them with {YYYY}, 10 more at most")
        if width > _LONGEST:
            raise _invalid(text, f"expected a form of {_LONGEST} characters at most")
        return cls(text, re.compile("".join(pattern), re.ASCII))

    def fits(self, case: str) -> bool:
        """Return whether a case number has this form."""
        return self.pattern.fullmatch(case) is not None


def _invalid(text: str, why: str) -> InvalidError:
    return InvalidError(Reason.CONFIG_INVALID, f"got the form {text[:80]!r} of case numbers: {why}")
