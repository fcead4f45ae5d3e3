"""Field rules: validation of a text beyond its type, by code list, check character, pattern. Pure; each exists twice.

A field names its rules in the attribute `check`, one or a list; the list of rules is closed, and any other name is
refused when the schema is registered:

    not_empty    at least one character
    cn_mobile    a mobile number of the mainland: 1, then 3 to 9, then nine digits
    cn_id18      citizen identity number, GB 11643: 17 digits and a check character (ISO 7064 MOD 11-2), the date of
                 birth in it a real one from 1800 on. Residence permits (81, 82, 83 in front) and permanent residence
                 cards (9 in front, 2023 version) have the same form. The division in front is not looked up: it is
                 that of the first registration and may have been abolished since.
    uscc         unified social credit code, GB 32100: 18 characters of its alphabet, the last a check character.
                 Where only the check character of the organisation code inside (GB 11714) fits, the code is an early
                 lawful one (Fujian and Xiamen issued such): accepted, with a warning.

`codes` lists the only texts allowed. A rule may depend on a condition, since one column often holds numbers of
several kinds: {"rule": "cn_id18", "when": {"id_type": ["ric18", "foreign_pr"]}}. Null passes every rule.

Each rule is implemented for one text (`Rule.check_text`: small batches, reports) and for a column (`Rule.check_column`:
numpy on the Arrow buffers, some 100 µs per 1,000 values); tests require the same results of both.
"""

import re
from calendar import isleap, monthrange
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from registry.avro.type_tree import TypeKind, TypeNode
from schemas.errors import InvalidError, Reason

__all__ = ["RULE_NAMES", "Condition", "Rule", "Verdict", "parse_rules", "text_buffers"]

Verdicts = npt.NDArray[np.uint8]
_Bytes = npt.NDArray[np.uint8]
_Ints = npt.NDArray[np.int64]


class Verdict(IntEnum):
    """Result of a rule for one value."""

    VALID = 0
    SUSPECT = 1  # accepted with a warning
    INVALID = 2


# As plain numbers: to look up an enum's member costs more than to check ten texts.
_VALID: Final = int(Verdict.VALID)
_INVALID: Final = int(Verdict.INVALID)

_ID18 = re.compile(r"[1-9][0-9]{16}[0-9X]")
_MOBILE = re.compile(r"1[3-9][0-9]{9}")
_USCC_ALPHABET: Final = "0123456789ABCDEFGHJKLMNPQRTUWXY"  # GB 32100: without I O S V Z
_USCC = re.compile(f"[{_USCC_ALPHABET}]{{18}}")

_ID18_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)  # 2^(17-i) mod 11
_ID18_CHECKS: Final = "10X98765432"
_USCC_WEIGHTS: Final = tuple(pow(3, i, 31) for i in range(17))
_ORGANISATION_WEIGHTS: Final = (3, 7, 9, 10, 5, 8, 4, 2)  # GB 11714
_ORGANISATION_CHECKS: Final = "0X987654321"  # by the sum modulo 11: 11 - sum, 10 written X, 11 written 0
_FIRST_BIRTH_YEAR: Final = 1800


def _not_empty(text: str) -> Verdict:
    return Verdict.VALID if text else Verdict.INVALID


def _cn_mobile(text: str) -> Verdict:
    return Verdict.VALID if _MOBILE.fullmatch(text) else Verdict.INVALID


def _cn_id18(text: str) -> Verdict:
    if not _ID18.fullmatch(text):
        return Verdict.INVALID
    year, month, day = int(text[6:10]), int(text[10:12]), int(text[12:14])
    if year < _FIRST_BIRTH_YEAR or not 1 <= month <= 12 or not 1 <= day <= monthrange(year, month)[1]:
        return Verdict.INVALID
    total = sum(weight * int(digit) for weight, digit in zip(_ID18_WEIGHTS, text, strict=False))
    return Verdict.VALID if text[17] == _ID18_CHECKS[total % 11] else Verdict.INVALID


def _uscc(text: str) -> Verdict:
    if not _USCC.fullmatch(text):
        return Verdict.INVALID
    total = sum(weight * _USCC_ALPHABET.index(each) for weight, each in zip(_USCC_WEIGHTS, text, strict=False))
    if text[17] == _USCC_ALPHABET[-total % 31]:
        return Verdict.VALID
    inner = sum(weight * int(each, 36) for weight, each in zip(_ORGANISATION_WEIGHTS, text[8:16], strict=True))
    return Verdict.SUSPECT if text[16] == _ORGANISATION_CHECKS[inner % 11] else Verdict.INVALID


def text_buffers(column: pa.Array) -> tuple[_Bytes, _Ints, _Ints]:
    """Return a string or binary column's bytes, the start of each value, and its length. No copy of the bytes."""
    _, offsets, values = column.buffers()
    if offsets is None or not len(column):
        empty = np.zeros(0, np.int64)
        return np.zeros(0, np.uint8), empty, empty
    ends = np.frombuffer(offsets, np.int32, len(column) + 1, column.offset * 4).astype(np.int64)
    data = np.frombuffer(values, np.uint8) if values is not None and values.size else np.zeros(0, np.uint8)
    return data, ends[:-1], np.diff(ends)


def _table(alphabet: str, values: Callable[[str], int]) -> _Bytes:
    table = np.full(256, 255, np.uint8)
    for character in alphabet:
        table[ord(character)] = values(character)
    return table


_USCC_VALUES: Final = _table(_USCC_ALPHABET, _USCC_ALPHABET.index)
_BASE36: Final = _table("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", lambda each: int(each, 36))
_ID18_CHECK_BYTES: Final = np.frombuffer(_ID18_CHECKS.encode(), np.uint8)
_ORGANISATION_CHECK_BYTES: Final = np.frombuffer(_ORGANISATION_CHECKS.encode(), np.uint8)
_ID18_PRODUCT: Final = np.zeros((17, 4), np.float32)
_ID18_PRODUCT[:, 0] = _ID18_WEIGHTS
_ID18_PRODUCT[6:10, 1] = (1_000, 100, 10, 1)
_ID18_PRODUCT[10:12, 2] = _ID18_PRODUCT[12:14, 3] = (10, 1)
_MONTH_DAYS: Final = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0], np.int64)
_LEAP: Final = np.array([isleap(year) for year in range(10_000)])


def _matrix(column: pa.Array, width: int) -> tuple[_Ints, _Bytes]:
    """Return the rows whose text has `width` bytes, and those texts as a matrix."""
    data, starts, lengths = text_buffers(column)
    rows = np.flatnonzero(lengths == width)
    if len(rows) == len(column) and len(rows):
        first = int(starts[0])
        return rows, data[first : first + width * len(rows)].reshape(-1, width)
    return rows, data[starts[rows][:, None] + np.arange(width)]


def _column(width: int, check_text: Callable[[_Bytes], Verdicts]) -> Callable[[pa.Array], Verdicts]:
    def check_column(column: pa.Array) -> Verdicts:
        verdicts = np.full(len(column), _INVALID, np.uint8)
        rows, matrix = _matrix(column, width)
        verdicts[rows] = check_text(matrix)
        return verdicts

    return check_column


def _not_empty_column(column: pa.Array) -> Verdicts:
    return _bad_unless(text_buffers(column)[2] > 0)


def _bad_unless(good: npt.NDArray[np.bool_]) -> Verdicts:
    verdicts = np.full(len(good), _VALID, np.uint8)
    verdicts[~good] = _INVALID
    return verdicts


def _flags(column: pa.BooleanArray) -> npt.NDArray[np.bool_]:
    """Return a column of booleans without a null."""
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.bool_)


@lru_cache(maxsize=1024)  # building one costs four times as much as a batch of look-ups in it
def _set_of(texts: frozenset[str]) -> pa.StringArray:
    return pa.array(sorted(texts), pa.string())


def _cn_mobile_matrix(matrix: _Bytes) -> Verdicts:
    digits = matrix - np.uint8(ord("0"))
    good: npt.NDArray[np.bool_] = (digits[:, 0] == 1) & (digits[:, 1] >= 3)
    if (digits > 9).any():
        good &= (digits <= 9).all(axis=1)
    return _bad_unless(good)


def _cn_id18_matrix(matrix: _Bytes) -> Verdicts:
    digits = matrix[:, :17] - np.uint8(ord("0"))  # any other character becomes 10 or more
    # One product gives the sum of the check, year, month and day; its numbers are small enough to be exact.
    product = (digits.astype(np.float32) @ _ID18_PRODUCT).T
    sums, years, months, days = np.ascontiguousarray(product, dtype=np.int64)
    last = _MONTH_DAYS[np.minimum(months, 13)] + (_LEAP[np.minimum(years, 9_999)] & (months == 2))
    good = (days >= 1) & (days <= last) & (years >= _FIRST_BIRTH_YEAR) & (digits[:, 0] > 0)
    good &= _ID18_CHECK_BYTES[sums % 11] == matrix[:, 17]
    if (digits > 9).any():
        good &= (digits <= 9).all(axis=1)
    return _bad_unless(good)


def _uscc_matrix(matrix: _Bytes) -> Verdicts:
    values = _USCC_VALUES[matrix].astype(np.int64)
    formed = (values <= 30).all(axis=1)
    outer = -(values[:, :17] @ np.array(_USCC_WEIGHTS)) % 31 == values[:, 17]
    inner = _BASE36[matrix[:, 8:16]].astype(np.int64) @ np.array(_ORGANISATION_WEIGHTS) % 11
    early = _ORGANISATION_CHECK_BYTES[inner] == matrix[:, 16]
    verdicts = np.where(outer, Verdict.VALID, np.where(early, Verdict.SUSPECT, Verdict.INVALID))
    return np.where(formed, verdicts, Verdict.INVALID).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class _Check:
    check_text: Callable[[str], Verdict]
    check_column: Callable[[pa.Array], Verdicts]
    expected: str


_CHECKS: Mapping[str, _Check] = {
    "not_empty": _Check(_not_empty, _not_empty_column, "expected at least one character"),
    "cn_mobile": _Check(_cn_mobile, _column(11, _cn_mobile_matrix), "expected a mobile number of 11 digits"),
    "cn_id18": _Check(
        _cn_id18,
        _column(18, _cn_id18_matrix),
        "expected an identity number by GB 11643 (its date, its check character)",
    ),
    "uscc": _Check(_uscc, _column(18, _uscc_matrix), "expected a unified social credit code by GB 32100"),
}

RULE_NAMES = tuple(_CHECKS)
"""The closed list of rules that `check` may name."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Condition of a rule: the rule applies only where the text of `field` is one of `texts`."""

    field: str
    texts: frozenset[str]

    def column(self, column: pa.Array) -> npt.NDArray[np.bool_]:
        """Return the rows of a string or enum column that meet it; null does not."""
        texts = _set_of(self.texts)
        if pa.types.is_dictionary(column.type):
            # One look-up per row in a table with the result of each symbol; nulls index its last entry, False.
            matches = np.append(_flags(pc.is_in(column.dictionary, texts)), False)
            indexes = column.indices
            if indexes.null_count:
                indexes = pc.fill_null(indexes, len(matches) - 1)
            found: npt.NDArray[np.bool_] = matches[indexes.to_numpy(zero_copy_only=False)]
            return found
        return _flags(pc.is_in(column, texts))


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of one field.

    Attributes:
        name: `codes`, or one of RULE_NAMES.
        field: of the record.
        conditions: all must hold for the rule to apply.
        codes: the texts allowed, of a rule named `codes`.
    """

    name: str
    field: str
    conditions: tuple[Condition, ...] = ()
    codes: frozenset[str] = frozenset()

    @property
    def expected(self) -> str:
        """What the rule expects, as part of a message."""
        return "expected a code of the field's list" if self.name == "codes" else _CHECKS[self.name].expected

    def check_text(self, text: str) -> Verdict:
        """Check one text."""
        if self.name == "codes":
            return Verdict.VALID if text in self.codes else Verdict.INVALID
        return _CHECKS[self.name].check_text(text)

    def check_column(self, column: pa.Array) -> Verdicts:
        """Check a string column; null is VALID."""
        if self.name == "codes":
            verdicts = _bad_unless(_flags(pc.is_in(column, _set_of(self.codes))))
        else:
            verdicts = _CHECKS[self.name].check_column(column)
        if column.null_count:
            verdicts[_flags(column.is_null())] = _VALID
        return verdicts


def parse_rules(fields: Mapping[str, tuple[TypeNode, Mapping[str, Any]]]) -> tuple[Rule, ...]:
    """Parse the rules of a record's fields.

    Args:
        fields: type tree and attributes by field name.

    Raises:
        InvalidError: SCHEMA_INVALID, naming the field, for a rule that does not exist or does not fit the field.
    """
    rules = []
    for name, (node, attributes) in fields.items():
        stated = attributes.get("check", [])
        for check in stated if isinstance(stated, list) else [stated]:
            rule, when = (check.get("rule"), check.get("when", {})) if isinstance(check, dict) else (check, {})
            if rule not in RULE_NAMES or (isinstance(check, dict) and not {"rule", "when"}.issuperset(check)):
                raise _invalid(name, f"the check {str(rule)[:100]!r}", f"one of {', '.join(RULE_NAMES)}")
            rules.append(Rule(rule, name, _conditions(name, when, fields)))
        if "codes" in attributes:
            codes = attributes["codes"]
            if not isinstance(codes, list) or not codes or not all(isinstance(code, str) for code in codes):
                raise _invalid(name, 'a "codes" that is no list of texts', "at least one text")
            rules.append(Rule("codes", name, (), frozenset(codes)))
        if rules and rules[-1].field == name and not _is_text(node):
            raise _invalid(name, "a check of a field that is no string", "a string, or null and a string")
    return tuple(rules)


def _conditions(
    name: str, when: Any, fields: Mapping[str, tuple[TypeNode, Mapping[str, Any]]]
) -> tuple[Condition, ...]:
    if not isinstance(when, dict):
        raise _invalid(name, 'a "when" that is no object', '{"id_type": ["ric18"]}, for example')
    conditions = []
    for other, texts in when.items():
        fits = isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)
        if other not in fields or not _is_text(fields[other][0], TypeKind.ENUM) or not fits:
            raise _invalid(
                name, 'a "when" that names no string or enum field, or no texts', "a field and a list of texts"
            )
        conditions.append(Condition(other, frozenset(texts)))
    return tuple(conditions)


def _is_text(node: TypeNode, *more: TypeKind) -> bool:
    inner = node.parts[0] if node.kind is TypeKind.OPTIONAL else node
    return inner.kind in {TypeKind.STRING, *more}


def _invalid(field: str, got: str, expected: str) -> InvalidError:
    return InvalidError(
        Reason.SCHEMA_INVALID, f"got {got} at the field {field}; expected {expected}", details={"field": field}
    )
