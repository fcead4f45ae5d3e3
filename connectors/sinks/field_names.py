"""Names of fields as columns of a target: none of ours, none too long, none twice. Pure.

Checked before anything is made.
"""

from collections.abc import Iterable

import pyarrow as pa

from registry.avro.resource_rules import RESERVED_FIELDS
from schemas.errors import ConflictError, Reason

__all__ = ["LONGEST_NAMES", "require_names"]

LONGEST_NAMES = {"postgresql": 63, "mysql": 64, "mariadb": 64, "oracle": 128, "mssql": 128}
"""Bytes of UTF-8 of a column's name, by database (PostgreSQL cuts longer ones). Of others nothing is known."""


def require_names(schema: pa.Schema, *, longest: int = 0, one_case: bool = False, also: Iterable[str] = ()) -> None:
    """Check that each field of a view can be a column of its own.

    Args:
        schema: of the view.
        longest: bytes of a name; 0 = any.
        one_case: names that differ in case alone are the same column.
        also: names beside those of the fields, such as the table's.

    Raises:
        ConflictError: CONTRACT_BROKEN, naming the fields.
    """
    ours = [name for name in schema.names if name.lower() in RESERVED_FIELDS]
    if ours:
        raise _broken(f"the view has fields that are called as columns of the connector's own: {', '.join(ours)}", ours)
    long = [name for name in (*also, *schema.names) if longest and len(name.encode()) > longest]
    if long:
        raise _broken(f"this database has names of {longest} bytes at most; these are longer: {', '.join(long)}", long)
    folded = [name.lower() for name in schema.names]
    twice = [name for name in schema.names if one_case and folded.count(name.lower()) > 1]
    if twice:
        raise _broken(f"to this database these fields are one column: {', '.join(twice)}", twice)


def _broken(message: str, names: list[str]) -> ConflictError:
    return ConflictError(
        Reason.CONTRACT_BROKEN,
        f"{message}. Nothing was made. Ask the provider for other names in a new major version, or fetch without these "
        "fields: a grant names those that it shows",
        details={"fields": ",".join(names)},
    )
