"""Ports of the directory: stores of departments and catalogue entries, with optimistic locking.

Both are documents with a version number: `save` states the version that the change was made from, and fails if another
change was faster. Every version is kept.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Protocol

from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader, UnitOfWork
from registry.directory.model import CatalogueEntry, Department
from schemas.errors import ConflictError, Reason
from schemas.names import Topic

__all__ = ["CatalogueStore", "DepartmentStore", "stale_version"]


class DepartmentStore(Protocol):
    """Port: stores departments, every version of each."""

    def save(self, work: UnitOfWork, department: Department, at: datetime) -> None:
        """Store version 1 of a new department, or the version after the stored one.

        Raises:
            ConflictError: VERSION_CONFLICT, when that version is stored already; ALREADY_EXISTS, when another
                department has its credit code.
        """
        ...

    def lock_hierarchy(self, work: UnitOfWork) -> None:
        """Let one transaction at a time decide on who is above whom; the others wait until it ends."""
        ...

    def get(self, reader: Reader, department_id: str) -> Department | None:
        """Return the current version."""
        ...

    def some(self, reader: Reader, department_ids: Collection[str]) -> list[Department]:
        """Return the current versions of departments, in any order, without those that are unknown or damaged."""
        ...

    def merged_into(self, reader: Reader, department_ids: Collection[str]) -> list[Department]:
        """Return the current versions of departments that one of these has taken over, in any order, as `some`."""
        ...

    def all(self, reader: Reader) -> list[Department]:
        """Return the current version of every department, by short name."""
        ...

    def page(self, reader: Reader, *, after: str, limit: int) -> list[Department | DamagedRow]:
        """Return the current version of departments in the order of their ids; fewer than *limit* only at the end."""
        ...

    def history(self, reader: Reader, department_id: str) -> list[tuple[datetime, Department]]:
        """Return every version and when it was stored, oldest first."""
        ...


class CatalogueStore(Protocol):
    """Port: stores catalogue entries, every version of each."""

    def save(self, work: UnitOfWork, entry: CatalogueEntry, at: datetime) -> None:
        """Store version 1 of a new entry, or the version after the stored one.

        Raises:
            ConflictError: VERSION_CONFLICT, when that version is stored already.
        """
        ...

    def get(self, reader: Reader, topic: Topic) -> CatalogueEntry | None:
        """Return the current version."""
        ...

    def all(self, reader: Reader) -> list[CatalogueEntry]:
        """Return the current version of every entry, by topic."""
        ...

    def page(
        self, reader: Reader, *, after: Topic | None, limit: int, viewer: str | None = None
    ) -> list[CatalogueEntry | DamagedRow]:
        """Return the current version of entries that a department sees (`CatalogueEntry.is_visible_to`), by topic.

        Fewer than *limit* only at the end.
        """
        ...

    def provided_by(self, reader: Reader, department_id: str) -> list[Topic]:
        """Return the topics of a department's entries, drafts and archived ones too, sorted."""
        ...

    def history(self, reader: Reader, topic: Topic) -> list[tuple[datetime, CatalogueEntry]]:
        """Return every version and when it was stored, oldest first."""
        ...


def stale_version(what: str, version: int) -> ConflictError:
    """Return the error for a change that was made from an outdated version."""
    return ConflictError(
        Reason.VERSION_CONFLICT, f"the {what} is no longer at version {version}; read it again, then repeat the change"
    )
