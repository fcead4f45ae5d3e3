"""Department register: departments that take part, with every version of their names and states.

A department is registered once and keeps its internal id through every renaming, move and merger. It is never
removed: what it published and drew must stay attributable.

What ends with a department that is merged or abolished is in `exchange.control.departments`. No program calls
`history` yet.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime

from registry.database.damaged_row import DamagedRow
from registry.database.keyset import MAX_PAGE
from registry.database.unit_of_work import Reader, UnitOfWork
from registry.directory.hierarchy import check_hierarchy
from registry.directory.model import Department, DepartmentKind, DepartmentStatus, GovernmentLevel, Zone
from registry.directory.store import DepartmentStore
from schemas.errors import ConflictError, InvalidError, Reason

__all__ = ["Departments"]


class Departments:
    """Service that registers and changes departments.

    Args:
        store: of departments.
        clock: returns the time of a change, aware.
        new_id: returns a new internal id (UUIDv7 as text).
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
            InvalidError: NAME_INVALID, for a malformed code or name.
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
        """Change a department's name, and its credit code if a new one is given.

        Args:
            work: the transaction.
            department_id: internal id.
            name: new name.
            short_name: new short name.
            uscc: new code; None = unchanged.
            version: the version that the caller saw.

        Raises:
            InvalidError: DEPARTMENT_UNKNOWN or NAME_INVALID.
            ConflictError: VERSION_CONFLICT, when it was changed since; ALREADY_EXISTS, for another's code.
        """
        current = self.get(work, department_id)
        renamed = replace(current, name=name, short_name=short_name, uscc=uscc or current.uscc, version=version)
        return self._save_next(work, renamed)

    def place(
        self,
        work: UnitOfWork,
        department_id: str,
        *,
        parent: str | None,
        kinds: tuple[DepartmentKind, ...],
        level: GovernmentLevel,
        division_code: str,
        contract_ends: datetime | None,
        version: int,
    ) -> Department:
        """Change where a department stands: the one above it, its level and division, and what it does in the pool.

        Args:
            work: the transaction.
            department_id: internal id.
            parent: internal id of the department above it; None = the top of a tree.
            kinds: what it does in the pool.
            level: of government.
            division_code: administrative division.
            contract_ends: end of a contractor's contract, aware; None for others.
            version: the version that the caller saw.

        Raises:
            InvalidError: DEPARTMENT_UNKNOWN, for either id; NAME_INVALID; REQUEST_INVALID, as `check_hierarchy` and
                `Department` say.
            ConflictError: VERSION_CONFLICT.
        """
        self._store.lock_hierarchy(work)
        placed = replace(
            self.get(work, department_id),
            parent=parent,
            kinds=kinds,
            level=level,
            division_code=division_code,
            contract_ends=contract_ends,
            version=version,
        )
        check_hierarchy({one.id: one for one in self.all(work)}, placed)
        return self._save_next(work, placed)

    def move(self, work: UnitOfWork, department_id: str, *, zone: Zone, version: int) -> Department:
        """Move a department to another network zone.

        Raises:
            InvalidError: DEPARTMENT_UNKNOWN.
            ConflictError: VERSION_CONFLICT.
        """
        return self._save_next(work, replace(self.get(work, department_id), zone=zone, version=version))

    def name_officers(
        self,
        work: UnitOfWork,
        department_id: str,
        *,
        office_head: str,
        office_deputy: str,
        security_officer: str,
        version: int,
    ) -> Department:
        """Name the accounts of a department's officers; empty = none. The caller has checked that they are its own.

        Raises:
            InvalidError: DEPARTMENT_UNKNOWN.
            ConflictError: VERSION_CONFLICT.
        """
        current = self.get(work, department_id)
        named = replace(
            current,
            office_head=office_head,
            office_deputy=office_deputy,
            security_officer=security_officer,
            version=version,
        )
        return self._save_next(work, named)

    def merge(self, work: UnitOfWork, department_id: str, *, into: str, version: int) -> Department:
        """Mark a department as merged into another, which has taken over its duties.

        Args:
            work: the transaction.
            department_id: internal id of the one that ends.
            into: internal id of the successor, an active department.
            version: the version that the caller saw.

        Raises:
            InvalidError: DEPARTMENT_UNKNOWN, for either id; REQUEST_INVALID, for a successor that is not active or
                is the department itself.
            ConflictError: VERSION_CONFLICT.
        """
        self._store.lock_hierarchy(work)
        successor = self.get(work, into)
        if successor.id == department_id or successor.status is not DepartmentStatus.ACTIVE:
            raise InvalidError(
                Reason.REQUEST_INVALID, f"got the successor {into}; expected another department that is active"
            )
        merged = replace(self.get(work, department_id), status=DepartmentStatus.MERGED, successor=into, version=version)
        return self._save_next(work, merged)

    def abolish(self, work: UnitOfWork, department_id: str, *, version: int) -> Department:
        """Mark a department without a successor as abolished.

        Raises:
            InvalidError: DEPARTMENT_UNKNOWN.
            ConflictError: VERSION_CONFLICT.
        """
        self._store.lock_hierarchy(work)
        abolished = replace(
            self.get(work, department_id), status=DepartmentStatus.ABOLISHED, successor=None, version=version
        )
        return self._save_next(work, abolished)

    def move_inferiors(self, work: UnitOfWork, department_id: str) -> list[Department]:
        """Move the active departments under one that has just ended: under its successor, else under the one above it.

        The successor itself, where it was under it, goes under the one above.

        Raises:
            InvalidError: REQUEST_INVALID, one of them may not stand there (`check_hierarchy`).
            ConflictError: TRANSITION_NOT_ALLOWED, it leaves a contractor, and no successor that commissions it.
        """
        ended = self.get(work, department_id)
        moved = []
        for below in self.all(work):
            if below.parent != department_id or below.status is not DepartmentStatus.ACTIVE:
                continue
            if below.is_contractor and ended.successor is None:
                raise ConflictError(
                    Reason.TRANSITION_NOT_ALLOWED,
                    f"the department commissioned the contractor {below.short_name} ({below.id}); deactivate that one "
                    "first, or place it under another department",
                )
            above = ended.parent if ended.successor in {None, below.id} else ended.successor
            moved.append(
                self.place(
                    work,
                    below.id,
                    parent=above,
                    kinds=below.kinds,
                    level=below.level,
                    division_code=below.division_code,
                    contract_ends=below.contract_ends,
                    version=below.version,
                )
            )
        return moved

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

    def heir(self, reader: Reader, department_id: str) -> str:
        """Return the id of who is responsible now for what a department was: of a merged one, its last successor's.

        Raises:
            InvalidError: DEPARTMENT_UNKNOWN.
        """
        current = self.get(reader, department_id)
        while current.successor is not None:
            current = self.get(reader, current.successor)
        return current.id

    def taken_over_by(self, reader: Reader, department_id: str) -> frozenset[str]:
        """Return the ids of the departments that have merged into one, directly or by way of others."""
        found: set[str] = set()
        newest = {department_id}
        while newest:
            newest = {one.id for one in self._store.merged_into(reader, newest)} - found - {department_id}
            found |= newest
        return frozenset(found)

    def some(self, reader: Reader, department_ids: Collection[str]) -> list[Department]:
        """Return the current versions of departments, without those that are unknown or not written by the pool."""
        return self._store.some(reader, department_ids)

    def all(self, reader: Reader) -> list[Department]:
        """Return the current version of every department, by short name."""
        return self._store.all(reader)

    def page(self, reader: Reader, *, after: str = "", limit: int = MAX_PAGE) -> list[Department | DamagedRow]:
        """Return departments in the order of their registration; fewer than *limit* only at the end."""
        return self._store.page(reader, after=after, limit=limit)

    def history(self, reader: Reader, department_id: str) -> list[tuple[datetime, Department]]:
        """Return every version and when it was stored, oldest first."""
        return self._store.history(reader, department_id)

    def _save_next(self, work: UnitOfWork, department: Department) -> Department:
        """Save a changed department as the version after its `version`."""
        saved = replace(department, version=department.version + 1)
        self._store.save(work, saved, self._clock())
        return saved
