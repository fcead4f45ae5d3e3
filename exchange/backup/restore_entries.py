"""Entries of a restore: its own acts, and the batches of connectors that Kafka alone has."""

from collections.abc import Mapping
from dataclasses import replace

from exchange.audit.ledger import AuditLedger
from exchange.backup.replay import RESTORER
from exchange.broker.port import Appended
from exchange.server.clock import microseconds
from registry.database.unit_of_work import UnitOfWork
from schemas.access import Action, Actor, ActorKind, Role
from schemas.audit import AuditEntry, GrantRef, publish_data
from schemas.canonical import Json
from schemas.identifiers import random_id, uuid7

__all__ = ["RestoreEntries"]


class RestoreEntries:
    """Writes entries within the restore's transaction."""

    def __init__(self, ledger: AuditLedger, pool_id: str) -> None:
        self._ledger = ledger
        self._pool_id = pool_id

    def record(
        self,
        work: UnitOfWork,
        action: Action | str,
        resource: str,
        data: Mapping[str, Json],
        grant: GrantRef | None = None,
        entry_id: str = "",
    ) -> str:
        """Write the entry of an act of the restore; return its id, a new one unless it is given."""
        entry = replace(self._entry(RESTORER, action, resource, data), grant=grant)
        if entry_id:
            entry = replace(entry, id=entry_id)
        self._ledger.write(work, [entry])
        return entry.id

    def publication(self, work: UnitOfWork, appended: Appended) -> tuple[str, bytes]:
        """Write the entry of a batch that Kafka alone has, as its connector's act; return its id and its leaf hash."""
        lane = appended.lane
        connector = Actor(kind=ActorKind.MACHINE, id=lane.connector, department=lane.department, role=Role.CONNECTOR)
        data = publish_data(
            lane=str(lane),
            sequence=appended.sequence,
            count=appended.count,
            schema_ids=(),
            root=appended.digest,
            runs=appended.runs,
            recovered=True,
        )
        entry = self._entry(connector, Action.PUBLISH, str(lane.topic), data)
        (leaf_hash,) = self._ledger.write(work, [entry])
        return entry.id, leaf_hash

    def _entry(self, actor: Actor, action: Action | str, resource: str, data: Mapping[str, Json]) -> AuditEntry:
        now = microseconds()
        return AuditEntry(
            pool=self._pool_id,
            id=uuid7(now),
            at=now,
            gateway="",
            salt=random_id(),
            actor=actor,
            action=action,
            resource=resource,
            data=data,
        )
