"""Port of catalogue records: the current version of each, and every version before it, with optimistic locking."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from registry.catalogue.life_cycle import ProcedureState
from registry.catalogue.record import CatalogueRecord
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader, UnitOfWork
from schemas.names import Topic

__all__ = ["RecordQuery", "RecordStore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordQuery:
    """Which records to list; None does not limit.

    Attributes:
        provider: id of the department.
        state: in the procedure.
        after: topic behind which the page begins.
        limit: at most so many.
    """

    provider: str | None = None
    state: ProcedureState | None = None
    after: Topic | None = None
    limit: int = 1_000


class RecordStore(Protocol):
    """Port: stores catalogue records, every version of each."""

    def save(self, work: UnitOfWork, record: CatalogueRecord) -> None:
        """Store version 1 of a new record, or the version after the stored one.

        Raises:
            ConflictError: VERSION_CONFLICT, when that version is stored already.
        """
        ...

    def lock(self, work: UnitOfWork, topic: Topic) -> CatalogueRecord | None:
        """Return the current version, and let no other transaction change it until this one has ended.

        Raises:
            CorruptError: ROW_FORGED.
        """
        ...

    def lock_codes(self, work: UnitOfWork) -> None:
        """Let no other transaction assign a resource code until this one has ended."""
        ...

    def get(self, reader: Reader, topic: Topic) -> CatalogueRecord | None:
        """Return the current version.

        Raises:
            CorruptError: ROW_FORGED.
        """
        ...

    def version(self, reader: Reader, topic: Topic, version: int) -> CatalogueRecord | None:
        """Return one version.

        Raises:
            CorruptError: ROW_FORGED.
        """
        ...

    def versions(
        self, reader: Reader, topic: Topic, *, after: int = 0, limit: int = 1_000
    ) -> Sequence[CatalogueRecord | DamagedRow]:
        """Return versions after a number, oldest first; fewer than *limit* only at the end."""
        ...

    def page(self, reader: Reader, query: RecordQuery) -> Sequence[CatalogueRecord | DamagedRow]:
        """Return the current version of records in the order of their topics; fewer than the limit only at the end."""
        ...
