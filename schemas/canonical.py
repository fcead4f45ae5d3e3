"""Canonical JSON by RFC 8785 (JCS), and its SHA-256 digest.

Everything that is hashed or signed as a structure (audit entries, grants, row filters) goes through here, so
that two machines that agree on a value agree on its bytes. Numbers beyond 2^53 and NaN have no form: they are
refused, and such values travel as strings.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import TypeAlias

from schemas.errors import InvalidError, Reason

__all__ = ["Json", "canonical", "digest"]

Json: TypeAlias = "bool | int | str | list[Json] | dict[str, Json] | None"

_MAX_SAFE = 2**53 - 1  # RFC 8785, 3.2.2.3: IEEE 754 doubles are exact up to here
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_encode_sorted = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, sort_keys=True).encode


def canonical(value: Json) -> bytes:
    """Return the RFC 8785 bytes of *value*.

    The subset has no floats: the pool's structures hold none, and without them JCS is sorted keys (by UTF-16
    code units, RFC 8785, 3.2.3), minimal escapes and no white space.

    Raises:
        InvalidError: REQUEST_INVALID, for a float, an integer beyond 2^53 - 1, a lone surrogate or another type.
    """
    try:
        if _is_plain(value):
            return _encode_sorted(value).encode()
        return _encode(_ordered(value)).encode()
    except UnicodeEncodeError as error:
        raise InvalidError(
            Reason.REQUEST_INVALID, "got a string with a lone surrogate; expected Unicode text"
        ) from error


def digest(value: Json) -> bytes:
    """Return the SHA-256 of the canonical bytes: 32 bytes."""
    return hashlib.sha256(canonical(value)).digest()


def _ordered(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value, key=_utf16)}
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    if value is None or isinstance(value, (bool, str)):
        return value
    if type(value) is int and -_MAX_SAFE <= value <= _MAX_SAFE:
        return value
    raise InvalidError(
        Reason.REQUEST_INVALID,
        f"got a {type(value).__name__} that has no canonical form; expected null, a boolean, an integer up to "
        "2^53 - 1, a string, a list or an object: send other numbers as strings",
    )


def _is_plain(value: Json) -> bool:
    """Return whether the encoder alone gives canonical bytes: allowed types, and ASCII keys."""
    if isinstance(value, dict):
        for key in value:
            # For ASCII keys the order of code points is the order of UTF-16 code units.
            if type(key) is not str or not key.isascii():
                return False
        inner: Iterable[Json] = value.values()
    elif isinstance(value, list):
        inner = value
    else:
        inner = (value,)
    for item in inner:
        kind = type(item)
        if kind is dict or kind is list:
            if not _is_plain(item):
                return False
        elif not (kind is str or kind is bool or item is None or (type(item) is int and abs(item) <= _MAX_SAFE)):
            return False
    return True


def _utf16(key: object) -> bytes:
    if not isinstance(key, str):
        raise InvalidError(Reason.REQUEST_INVALID, f"got an object key of type {type(key).__name__}; expected a string")
    return key.encode("utf-16-be", "surrogatepass")
