"""Text form of values: what PostgreSQL's output functions write → what `CAST(column AS text)` writes.

A table that is read whole is read by casts (`connectors.sources.sql_table`); the log holds what output functions write.
The two are equal but for a few types, and the mapping has to get one form, or a record would change with the way by
which it came. Pure.
"""

from collections.abc import Callable, Mapping

__all__ = ["TextForm", "text_form"]

TextForm = Callable[[str], str]


def _boolean(text: str) -> str:
    return "true" if text == "t" else "false" if text == "f" else text


def _blank_padded(text: str) -> str:
    return text.rstrip(" ")


def _bytes(text: str) -> str:
    return text if text == "\\x" else text.removeprefix("\\x")  # an empty text would be null


def _money(text: str) -> str:
    return text.replace("$", "").replace(",", "")  # as `lc_monetary = C` writes it


def _address(text: str) -> str:
    return text if "/" in text else f"{text}/{128 if ':' in text else 32}"


_BY_NAME: Mapping[str, TextForm] = {
    "bool": _boolean,
    "bpchar": _blank_padded,
    "bytea": _bytes,
    "inet": _address,
    "money": _money,
}
_BY_OID: Mapping[int, TextForm] = {  # fixed in pg_type.dat
    16: _boolean,
    17: _bytes,
    790: _money,
    869: _address,
    1042: _blank_padded,
}


def text_form(type_oid: int, base_type: str) -> TextForm | None:
    """Return the function that a column's texts go through; None where they stay as they are.

    Args:
        type_oid: of the column.
        base_type: name of the type, or of the domain's base type, where it is not built in; else empty.
    """
    return _BY_OID.get(type_oid) or _BY_NAME.get(base_type)
