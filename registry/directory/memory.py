"""In-memory adapters of the directory: the same promises as the PostgreSQL adapters, for tests and for trying."""

import threading
from datetime import datetime

from registry.directory.model import Department, Entry
from registry.directory.store import stale_version
from schemas.errors import ConflictError, Reason
from schemas.names import Topic

__all__ = ["MemoryCatalogue", "MemoryDepartments"]


class MemoryDepartments:
    """See `registry.subjects.store.DepartmentStore`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._history: dict[str, list[tuple[datetime, Department]]] = {}

    def save(self, department: Department, at: datetime) -> None:
        """See `DepartmentStore.save`."""
        with self._lock:
            held = self._history.get(department.id, [])
            if department.version != len(held) + 1:
                raise stale_version("department", department.version - 1)
            for other in self._history.values():
                if other[-1][1].uscc == department.uscc and other[-1][1].id != department.id:
                    raise ConflictError(
                        Reason.ALREADY_EXISTS, "a department with this credit code is registered already"
                    )
            self._history[department.id] = [*held, (at, department)]

    def get(self, department_id: str) -> Department | None:
        """See `DepartmentStore.get`."""
        with self._lock:
            held = self._history.get(department_id)
            return held[-1][1] if held else None

    def by_uscc(self, uscc: str) -> Department | None:
        """See `DepartmentStore.by_uscc`."""
        return next((department for department in self.all() if department.uscc == uscc), None)

    def all(self) -> list[Department]:
        """See `DepartmentStore.all`."""
        with self._lock:
            current = [held[-1][1] for held in self._history.values()]
        return sorted(current, key=lambda department: (department.short_name, department.id))

    def history(self, department_id: str) -> list[tuple[datetime, Department]]:
        """See `DepartmentStore.history`."""
        with self._lock:
            return list(self._history.get(department_id, []))


class MemoryCatalogue:
    """See `registry.subjects.store.CatalogueStore`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._history: dict[Topic, list[tuple[datetime, Entry]]] = {}

    def save(self, entry: Entry, at: datetime) -> None:
        """See `CatalogueStore.save`."""
        with self._lock:
            held = self._history.get(entry.topic, [])
            if entry.version != len(held) + 1:
                raise stale_version("entry", entry.version - 1)
            self._history[entry.topic] = [*held, (at, entry)]

    def get(self, topic: Topic) -> Entry | None:
        """See `CatalogueStore.get`."""
        with self._lock:
            held = self._history.get(topic)
            return held[-1][1] if held else None

    def all(self) -> list[Entry]:
        """See `CatalogueStore.all`."""
        with self._lock:
            return [self._history[topic][-1][1] for topic in sorted(self._history)]

    def history(self, topic: Topic) -> list[tuple[datetime, Entry]]:
        """See `CatalogueStore.history`."""
        with self._lock:
            return list(self._history.get(topic, []))
