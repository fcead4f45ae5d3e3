"""In-memory adapters of the directory: the same contract as the PostgreSQL adapters, for tests."""

import threading
from collections.abc import Collection
from datetime import datetime

from typing_extensions import override

from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader, UnitOfWork, on_rollback
from registry.directory.model import CatalogueEntry, Department
from registry.directory.store import CatalogueStore, DepartmentStore, stale_version
from schemas.errors import ConflictError, Reason
from schemas.names import Topic

__all__ = ["MemoryCatalogue", "MemoryDepartments"]


class MemoryDepartments(DepartmentStore):
    """Department store in memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._history: dict[str, list[tuple[datetime, Department]]] = {}

    @override
    def save(self, work: UnitOfWork, department: Department, at: datetime) -> None:
        with self._lock:
            versions = self._history.get(department.id, [])
            if department.version != len(versions) + 1:
                raise stale_version("department", department.version - 1)
            for other in self._history.values():
                if other and other[-1][1].uscc == department.uscc and other[-1][1].id != department.id:
                    raise ConflictError(
                        Reason.ALREADY_EXISTS, "a department with this credit code is registered already"
                    )
            on_rollback(work, lambda: self._history.__setitem__(department.id, versions))
            self._history[department.id] = [*versions, (at, department)]

    @override
    def lock_hierarchy(self, work: UnitOfWork) -> None:
        """Do nothing: the twin's units of work follow each other."""

    @override
    def get(self, reader: Reader, department_id: str) -> Department | None:
        with self._lock:
            versions = self._history.get(department_id)
            return versions[-1][1] if versions else None

    @override
    def some(self, reader: Reader, department_ids: Collection[str]) -> list[Department]:
        return [found for one in dict.fromkeys(department_ids) if (found := self.get(reader, one)) is not None]

    @override
    def merged_into(self, reader: Reader, department_ids: Collection[str]) -> list[Department]:
        return [one for one in self.all(reader) if one.successor in department_ids]

    @override
    def all(self, reader: Reader) -> list[Department]:
        with self._lock:
            current = [versions[-1][1] for versions in self._history.values() if versions]
        return sorted(current, key=lambda department: (department.short_name, department.id))

    @override
    def page(self, reader: Reader, *, after: str, limit: int) -> list[Department | DamagedRow]:
        found = sorted(self.all(reader), key=lambda department: department.id)
        return [*[one for one in found if one.id > after][:limit]]

    @override
    def history(self, reader: Reader, department_id: str) -> list[tuple[datetime, Department]]:
        with self._lock:
            return list(self._history.get(department_id, []))


class MemoryCatalogue(CatalogueStore):
    """Catalogue store in memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._history: dict[Topic, list[tuple[datetime, CatalogueEntry]]] = {}

    @override
    def save(self, work: UnitOfWork, entry: CatalogueEntry, at: datetime) -> None:
        with self._lock:
            versions = self._history.get(entry.topic, [])
            if entry.version != len(versions) + 1:
                raise stale_version("entry", entry.version - 1)
            on_rollback(work, lambda: self._history.__setitem__(entry.topic, versions))
            self._history[entry.topic] = [*versions, (at, entry)]

    @override
    def get(self, reader: Reader, topic: Topic) -> CatalogueEntry | None:
        with self._lock:
            versions = self._history.get(topic)
            return versions[-1][1] if versions else None

    @override
    def all(self, reader: Reader) -> list[CatalogueEntry]:
        with self._lock:
            return [self._history[topic][-1][1] for topic in sorted(self._history) if self._history[topic]]

    @override
    def page(
        self, reader: Reader, *, after: Topic | None, limit: int, viewer: str | None = None
    ) -> list[CatalogueEntry | DamagedRow]:
        found = [one for one in self.all(reader) if one.is_visible_to(viewer) and (after is None or one.topic > after)]
        return [*found[:limit]]

    @override
    def provided_by(self, reader: Reader, department_id: str) -> list[Topic]:
        return [entry.topic for entry in self.all(reader) if entry.provider == department_id]

    @override
    def history(self, reader: Reader, topic: Topic) -> list[tuple[datetime, CatalogueEntry]]:
        with self._lock:
            return list(self._history.get(topic, []))
