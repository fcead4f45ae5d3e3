"""Directory store ports: departments and catalogue entries, each with its history.

Both are documents with a version number: `save` names the version that it changes, and fails if that is not the current
one any more (optimistic locking). Every version is kept.
"""

from datetime import datetime
from typing import Protocol

from registry.database.unit_of_work import Reader, UnitOfWork
from registry.directory.model import Department, Entry
from schemas.errors import ConflictError, Reason
from schemas.names import Topic

__all__ = ["CatalogueStore", "DepartmentStore", "stale_version"]


class DepartmentStore(Protocol):
    """Departments, each with its history."""

    def save(self, work: UnitOfWork, department: Department, at: datetime) -> None:
        """Store version 1 of a new department, or the version after the stored one.

        Raises:
            ConflictError: VERSION_CONFLICT, when another has stored that version; ALREADY_EXISTS, when another
                department has its credit code.
        """
        ...

    def get(self, reader: Reader, department_id: str) -> Department | None:
        """Return the current version."""
        ...

    def by_uscc(self, reader: Reader, uscc: str) -> Department | None:
        """Return the department that has this credit code now."""
        ...

    def all(self, reader: Reader) -> list[Department]:
        """Return the current version of every department, by short name."""
        ...

    def history(self, reader: Reader, department_id: str) -> list[tuple[datetime, Department]]:
        """Return every version and when it was stored, oldest first."""
        ...


class CatalogueStore(Protocol):
    """Catalogue entries, each with its history."""

    def save(self, work: UnitOfWork, entry: Entry, at: datetime) -> None:
        """Store version 1 of a new entry, or the version after the stored one.

        Raises:
            ConflictError: VERSION_CONFLICT, when another has stored that version.
        """
        ...

    def get(self, reader: Reader, topic: Topic) -> Entry | None:
        """Return the current version."""
        ...

    def all(self, reader: Reader) -> list[Entry]:
        """Return the current version of every entry, by topic."""
        ...

    def history(self, reader: Reader, topic: Topic) -> list[tuple[datetime, Entry]]:
        """Return every version and when it was stored, oldest first."""
        ...


def stale_version(what: str, version: int) -> ConflictError:
    """Return the error of a change that is based on an old version."""
    return ConflictError(
        Reason.VERSION_CONFLICT, f"the {what} is no longer at version {version}; read it again, then repeat the change"
    )
