"""Personal numbers in free text: identity, mobile and bank card numbers are found; names are not guessed. Pure.

A case number, a reason or a title stays in the audit log permanently, so a number of a person must not get into it.

    identity number   18 characters (GB 11643): a province, a real date of birth from 1900 on, the check character
                      (ISO 7064 MOD 11-2). Found within longer digits too, since few other numbers pass.
    the older form    15 digits that stand alone: a province and a real date of birth. It has no check character.
    mobile number     11 digits that stand alone, 13 to 19 in front, with or without 86
    bank card number  16 to 19 digits that stand alone, with the first digits of a card scheme and the check digit
                      (ISO/IEC 7812, Luhn)

Full-width, circled and other Unicode digits count as digits; spaces, line ends, hyphens, dots, slashes and parentheses
between digits do not separate, nor does what is not seen (control and zero-width characters, variation selectors,
combining marks). Numerals in words, Chinese ones too, are not read. A unified
social credit code (统一社会信用代码, GB 32100) is an organisation's and no personal number; a UUID and a hexadecimal
digest are none either. A case number of dates and serial numbers rarely looks like any of these; but of those that are
a division code, a date and four more digits, one in eleven passes for an identity number. Where that happens, the
configuration may state the form of a purpose's case numbers (`registry.governance.case_form`).
"""

import re
import unicodedata
from calendar import monthrange
from enum import StrEnum
from typing import Final

from registry.avro.field_rules import Rule, Verdict

__all__ = ["SEPARATORS", "PersonalNumber", "find_personal_number", "without_personal_numbers"]


class PersonalNumber(StrEnum):
    """Kind of a personal number."""

    IDENTITY = "identity number"
    MOBILE = "mobile number"
    CARD = "bank card number"


_LEFT_OUT: Final = "(left out: the text holds a personal number)"
_USCC: Final = Rule("uscc", "uscc", ())
_PROVINCES: Final = frozenset(
    f"{first}{second}"
    for first, last in ((1, "12345"), (2, "123"), (3, "1234567"), (4, "123456"), (5, "01234"), (6, "12345"), (7, "1"))
    for second in last
) | {"81", "82", "83", "91"}
_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECKS: Final = "10X98765432"
SEPARATORS: Final = " -._·'/()"
"""Characters that do not separate the digits of one number, as `_plain` writes them."""
_SPACED_CHECK: Final = re.compile(rf"[{re.escape(SEPARATORS)}]{{1,3}}[xX](?![0-9A-Za-z])")
_DIGITS: Final = frozenset(range(10))
_LINE_ENDS: Final = frozenset("\t\n\r\x0b\x0c\x85")
_DOTS: Final = frozenset("\u2022\u2027\u2219\u22c5\u30fb")  # bullets and middle dots
_CROSSES: Final = frozenset("\u0425\u0445\u03a7\u03c7\u00d7")  # letters and a sign that look like X
# Categories of what is not seen: control, format and unassigned characters, marks on others (variation selectors too).
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cn", "Mn", "Me"})
_FILLERS: Final = frozenset("\u115f\u1160")  # letters without a form (Hangul)
_LONGEST_SEPARATION: Final = 3  # characters between two digits of one number
_OPAQUE: Final = re.compile(
    r"(?<![0-9A-Za-z])(?:[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    r"|(?=[0-9]*[a-f])[0-9a-f]{32,})(?![0-9A-Za-z])"
)
_TOKEN: Final = re.compile(r"(?<![0-9A-Za-z])[0-9A-Z]{18}(?![0-9A-Za-z])")
# Visa, Mastercard, JCB, UnionPay and others, older domestic ones.
_CARD_SCHEMES: Final = re.compile(r"4|5[1-5]|2[2-7]|35|6|9[4568]")
_YEAR: Final = re.compile(r"(?:19|20)[0-9]{2}")


def find_personal_number(text: str) -> PersonalNumber | None:
    """Return the kind of a personal number in a text, None where there is none."""
    plain = text if text.isascii() and text.isprintable() else _plain(text)
    if sum(map(_is_digit, plain)) < 11:  # the shortest has 11 digits
        return None
    plain = _TOKEN.sub(_without_credit_code, _OPAQUE.sub(" / ", plain))
    for groups in _digit_groups(plain):
        joined = "".join(groups)
        if _holds_identity_number(joined):
            return PersonalNumber.IDENTITY
        for digits in {joined, *groups}:
            if len(digits) == 15 and _is_old_identity_number(digits):
                return PersonalNumber.IDENTITY
            if _is_card_number(digits) and (digits != joined or _could_be_spaced_card(groups)):
                return PersonalNumber.CARD
        if any(map(_is_mobile_number, groups)) or (_is_mobile_number(joined) and _could_be_spaced_mobile(groups)):
            return PersonalNumber.MOBILE
    return None


def without_personal_numbers(text: str) -> str:
    """Return a text for a log or an error message: itself, or a note in its place if it holds a personal number."""
    return _LEFT_OUT if find_personal_number(text) else text


def _plain(text: str) -> str:
    """Return a text with plain digits, separators and letters: NFKC, digits of all scripts, without unseen ones."""
    folded = []
    for each in unicodedata.normalize("NFKC", text):
        category = unicodedata.category(each)
        if category in {"Nd", "No", "Nl"}:
            value = unicodedata.numeric(each)
            folded.append(str(int(value)) if value in _DIGITS else each)
        elif category == "Pd" or each in "\u2212\u30fc":  # minus; the long vowel mark is a full-width dash in use
            folded.append("-")
        elif category in {"Zs", "Zl", "Zp"} or each in _LINE_ENDS or each == "\u2800":  # an empty Braille pattern
            folded.append(" ")
        elif each in _DOTS:
            folded.append("·")
        elif category not in _UNSEEN and each not in _FILLERS:
            folded.append("x" if each in _CROSSES else each)
    return "".join(folded)


def _digit_groups(text: str) -> list[list[str]]:
    """Return the runs of digits of a text; runs with only separators between them are together in one list.

    A check character X counts as a digit where it follows one and no letter or digit follows it.
    """
    found: list[list[str]] = []
    separated = _LONGEST_SEPARATION + 1
    at, end = 0, len(text)
    while at < end:
        if not _is_digit(text[at]):
            separated = separated + 1 if text[at] in SEPARATORS else _LONGEST_SEPARATION + 1
            at += 1
            continue
        start = at
        while at < end and _is_digit(text[at]):
            at += 1
        run = text[start:at]
        if at < end and text[at] in "xX" and not (at + 1 < end and text[at + 1].isalnum() and text[at + 1].isascii()):
            run += "X"
            at += 1
        if found and separated <= _LONGEST_SEPARATION:
            found[-1].append(run)
        else:
            found.append([run])
        separated = 0
        if at < end and text[at] in "xX" and run[-1] != "X":
            continue
        if run.endswith("X"):
            separated = _LONGEST_SEPARATION + 1
        # "17 digits, a separator, X": the check character stands alone
        elif (spaced := _SPACED_CHECK.match(text, at)) is not None:
            found[-1].append("X")
            at = spaced.end()
            separated = _LONGEST_SEPARATION + 1
    return found


def _is_digit(each: str) -> bool:
    return "0" <= each <= "9"


def _holds_identity_number(digits: str) -> bool:
    return any(_is_identity_number(digits[at : at + 18]) for at in range(len(digits) - 17))


def _is_identity_number(text: str) -> bool:
    if not text[:17].isdecimal() or text[:2] not in _PROVINCES or not _is_date(text[6:14]):
        return False
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, text, strict=False))
    return text[17] == _CHECKS[total % 11]


def _is_old_identity_number(digits: str) -> bool:
    return digits.isdecimal() and digits[:2] in _PROVINCES and _is_date(f"19{digits[6:12]}")


def _is_date(digits: str) -> bool:
    year, month, day = int(digits[:4]), int(digits[4:6]), int(digits[6:8])
    return 1900 <= year < 2100 and 1 <= month <= 12 and 1 <= day <= monthrange(year, month)[1]


def _is_mobile_number(digits: str) -> bool:
    if len(digits) in (13, 15) and digits.startswith(("86", "0086")):
        digits = digits[-11:]
    return len(digits) == 11 and digits.isdecimal() and digits[0] == "1" and digits[1] in "3456789"


def _could_be_spaced_mobile(groups: list[str]) -> bool:
    """Return whether digits in groups are written as a mobile number, and not as a number with a year in it."""
    sizes = [len(group) for group in groups]
    return sizes[-3:] == [3, 4, 4] or not any(map(_YEAR.fullmatch, groups))


def _could_be_spaced_card(groups: list[str]) -> bool:
    """Return whether digits in groups are written as a card number: in fours, six and the rest, or one by one."""
    sizes = [len(group) for group in groups]
    return len(sizes) == 1 or (len(sizes) > 3 and {*sizes[:-1]} == {4}) or sizes[:-1] == [6] or {*sizes} == {1}


def _is_card_number(digits: str) -> bool:
    if not 16 <= len(digits) <= 19 or not digits.isdecimal() or not _CARD_SCHEMES.match(digits):
        return False
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _without_credit_code(token: "re.Match[str]") -> str:
    code = token[0]
    is_organisation = _USCC.check_text(code) is Verdict.VALID and not _is_identity_number(code)
    return " / " if is_organisation else code
