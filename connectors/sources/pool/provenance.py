"""Provenance of records that are drawn from another pool: which pool, resource, department and grant, which release.

Two places state it:

    the batch     its source position ends with the origin: audit entry and grant at the other pool, and that pool's id.
                  Each receipt signs it (docs/reference/wire.md)
    the record    columns beside those of the view, for the fields of the contract that are to hold them
"""

import uuid
from dataclasses import dataclass
from typing import Self

__all__ = ["MAX_POOL_ID", "OWN_COLUMNS", "Origin", "Provenance"]

OWN_COLUMNS = (
    "_source_pool",
    "_source_department",
    "_source_resource",
    "_source_grant",
    "_source_entry",
    "_record_key",
    "_recorded_at",
)
"""Columns that a record has beside those of the view, where the mapping names them."""

MAX_POOL_ID = 54
"""Bytes of a pool's id that a source position has room for."""

_ID = 16  # bytes of a UUID


@dataclass(frozen=True, slots=True)
class Origin:
    """One release of another pool: its audit entry and grant, both UUIDs, and the pool's id."""

    entry: str
    grant: str
    pool: str

    def __bytes__(self) -> bytes:
        return uuid.UUID(self.entry).bytes + uuid.UUID(self.grant).bytes + self.pool.encode()

    @classmethod
    def parse(cls, origin: bytes) -> Self | None:
        """Parse what a source position ends with; None where something else wrote it."""
        if len(origin) <= 2 * _ID:
            return None
        try:
            pool = origin[2 * _ID :].decode()
        except UnicodeDecodeError:
            return None
        entry, grant = (str(uuid.UUID(bytes=origin[start : start + _ID])) for start in (0, _ID))
        return cls(entry, grant, pool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where the records of a grant come from.

    Attributes:
        pool: id of the other pool.
        department: internal id there of the department that provides the resource; empty where the pool does not say.
        resource: its topic there.
        grant: id.
    """

    pool: str
    department: str
    resource: str
    grant: str

    def columns(self, entry: str) -> dict[str, str]:
        """Return the columns that are the same for all records of a release."""
        return {
            "_source_pool": self.pool,
            "_source_department": self.department,
            "_source_resource": self.resource,
            "_source_grant": self.grant,
            "_source_entry": entry,
        }
