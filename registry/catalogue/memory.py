"""In-memory adapter of catalogue records: the same contract as the PostgreSQL adapter, for tests."""

import threading
from collections.abc import Sequence

from typing_extensions import override

from registry.catalogue.record import CatalogueRecord
from registry.catalogue.store import RecordQuery, RecordStore
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader, UnitOfWork, on_rollback
from registry.directory.store import stale_version
from schemas.names import Topic

__all__ = ["MemoryRecords"]


class MemoryRecords(RecordStore):
    """Store of catalogue records in memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._versions: dict[Topic, tuple[CatalogueRecord, ...]] = {}

    @override
    def save(self, work: UnitOfWork, record: CatalogueRecord) -> None:
        with self._lock:
            before = self._versions.get(record.topic, ())
            if record.version != len(before) + 1:
                raise stale_version("catalogue record", record.version - 1)
            on_rollback(work, lambda: self._versions.__setitem__(record.topic, before))
            self._versions[record.topic] = (*before, record)

    @override
    def lock(self, work: UnitOfWork, topic: Topic) -> CatalogueRecord | None:
        return self.get(work, topic)

    @override
    def lock_codes(self, work: UnitOfWork) -> None:
        """Do nothing: `Catalogue.create` refuses a code that another took meanwhile."""

    @override
    def get(self, reader: Reader, topic: Topic) -> CatalogueRecord | None:
        with self._lock:
            versions = self._versions.get(topic)
        return versions[-1] if versions else None

    @override
    def version(self, reader: Reader, topic: Topic, version: int) -> CatalogueRecord | None:
        with self._lock:
            versions = self._versions.get(topic, ())
        return next((one for one in versions if one.version == version), None)

    @override
    def versions(
        self, reader: Reader, topic: Topic, *, after: int = 0, limit: int = 1_000
    ) -> Sequence[CatalogueRecord | DamagedRow]:
        with self._lock:
            return self._versions.get(topic, ())[after : after + limit]

    @override
    def page(self, reader: Reader, query: RecordQuery) -> Sequence[CatalogueRecord | DamagedRow]:
        with self._lock:
            current = [self._versions[topic][-1] for topic in sorted(self._versions) if self._versions[topic]]
        return [
            one
            for one in current
            if query.provider in {None, one.provider}
            and query.state in {None, one.state}
            and (query.after is None or one.topic > query.after)
        ][: query.limit]
