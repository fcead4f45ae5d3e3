"""Departments: registration, renaming, merger and abolition, with history.

A department is registered once and keeps its internal id through every renaming, move and merger. It is never
removed: its publications and fetches must stay attributable.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from registry.database.unit_of_work import Reader, UnitOfWork
from registry.directory.model import Department, DepartmentStatus, GovernmentLevel
from registry.directory.store import DepartmentStore
from schemas.errors import InvalidError, Reason

__all__ = ["Departments"]


class Departments:
    """Registers departments and stores their history.

    Args:
        store: of the departments.
        clock: gives the time of a change, aware.
        new_id: gives a fresh internal id (UUIDv7 as text).
    """

    def __init__(self, store: DepartmentStore, *, clock: Callable[[], datetime], new_id: Callable[[], str]) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id

    def register(
        self, work: UnitOfWork, *, uscc: str, name: str, short_name: str, level: GovernmentLevel, division_code: str
    ) -> Department:
        """Register a new department.

        Raises:
            InvalidError: NAME_INVALID, for a code or name of another form.
            ConflictError: ALREADY_EXISTS, when a department has this credit code.
        """
        department = Department(
            id=self._new_id(), uscc=uscc, name=name, short_name=short_name, level=level, division_code=division_code
        )
        self._store.save(work, department, self._clock())
        return department

    def rename(
        self, work: UnitOfWork, department_id: str, *, name: str, short_name: str, uscc: str | None = None, version: int
    ) -> Department:
        """Rename a department, and change its credit code if it has a new one.

        Args:
            work: the transaction.
            department_id: internal id.
            name: new name.
            short_name: new short name.
            uscc: new code, None = as before.
            version: the version that the caller read.

        Raises:
            InvalidError: DEPARTMENT_UNKNOWN or NAME_INVALID.
            ConflictError: VERSION_CONFLICT, when it was changed since; ALREADY_EXISTS, for another's code.
        """
        return self._change(
            work,
            replace(
                self.get(work, department_id),
                name=name,
                short_name=short_name,
                uscc=uscc or self.get(work, department_id).uscc,
                version=version,
            ),
        )

    def merge(self, work: UnitOfWork, department_id: str, *, into: str, version: int) -> Department:
        """End a department whose duties another has taken over.

        Args:
            work: the transaction.
            department_id: internal id of the one that ends.
            into: id of the successor, an active one.
            version: the version that the caller read.

        Raises:
            InvalidError: DEPARTMENT_UNKNOWN, for either id; REQUEST_INVALID, for a successor that is not active or
                is the department itself.
            ConflictError: VERSION_CONFLICT.
        """
        successor = self.get(work, into)
        if successor.id == department_id or successor.status is not DepartmentStatus.ACTIVE:
            raise InvalidError(
                Reason.REQUEST_INVALID, f"got the successor {into}; expected another department that is active"
            )
        return self._change(
            work,
            replace(self.get(work, department_id), status=DepartmentStatus.MERGED, successor=into, version=version),
        )

    def abolish(self, work: UnitOfWork, department_id: str, *, version: int) -> Department:
        """End a department that has no successor.

        Raises:
            InvalidError: DEPARTMENT_UNKNOWN.
            ConflictError: VERSION_CONFLICT.
        """
        return self._change(
            work,
            replace(self.get(work, department_id), status=DepartmentStatus.ABOLISHED, successor=None, version=version),
        )

    def get(self, reader: Reader, department_id: str) -> Department:
        """Return the current version.

        Raises:
            InvalidError: DEPARTMENT_UNKNOWN.
        """
        department = self._store.get(reader, department_id)
        if department is None:
            raise InvalidError(
                Reason.DEPARTMENT_UNKNOWN, f"got the department {department_id[:40]}; no department has this id"
            )
        return department

    def by_uscc(self, reader: Reader, uscc: str) -> Department:
        """Return the department that has this credit code now.

        Raises:
            InvalidError: DEPARTMENT_UNKNOWN.
        """
        department = self._store.by_uscc(reader, uscc)
        if department is None:
            raise InvalidError(Reason.DEPARTMENT_UNKNOWN, "no department has this credit code; register it first")
        return department

    def all(self, reader: Reader) -> list[Department]:
        """Return the current version of every department, by short name."""
        return self._store.all(reader)

    def history(self, reader: Reader, department_id: str) -> list[tuple[datetime, Department]]:
        """Return every version and when it was stored, oldest first."""
        return self._store.history(reader, department_id)

    def _change(self, work: UnitOfWork, department: Department) -> Department:
        changed = replace(department, version=department.version + 1)
        self._store.save(work, changed, self._clock())
        return changed
