"""A department whose tables change: a database with a log, and the connector that publishes its changes."""

import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connectors.mapping.mapping import Column
from connectors.port import ChangeSource, Pool
from connectors.publishing.change_table import ChangePublication
from connectors.publishing.changes import ChangePublisher
from connectors.publishing.publication import Limits, Publication
from connectors.sources.postgres.change_assembly import AssemblyLimits
from connectors.sources.postgres.change_source import LogSettings, PostgresChangeSource
from connectors.state.ledger import Ledger, RunReport
from connectors.state.quarantine import QuarantineEntry, read_entries
from schemas.names import Topic
from tests.kit.twins.pool_twin import PoolTwin, Record
from tests.kit.world.department import now

ITEM: Record = {
    "type": "record",
    "name": "Item",
    "key": ["id"],
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "name", "type": ["null", "string"], "default": None},
        {"name": "amount", "type": ["null", "long"], "default": None},
    ],
}
SLOT = "pool_test"


@dataclass
class ChangingTables:
    """One department, whose tables are published by one connector."""

    folder: Path
    url: sa.URL
    tables: dict[str, str] = field(default_factory=lambda: {"public.item": "item.v1"})
    schemas: dict[str, Record] = field(default_factory=dict)
    columns: dict[str, dict[str, Column]] = field(default_factory=dict)
    on_delete: str = "retract"
    twin: PoolTwin = field(default_factory=PoolTwin)
    limits: Limits = field(default_factory=lambda: Limits(batch_rows=40, give_up_after=20, backoff=0.001))
    settings: LogSettings = field(
        default_factory=lambda: LogSettings(slot=SLOT, publication="pool", limits=AssemblyLimits(batch_rows=40))
    )
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    pool: Pool | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    said: list[str] = field(default_factory=list)
    wrap: Callable[[ChangeSource], ChangeSource] = lambda source: source

    def __post_init__(self) -> None:
        for topic in self.tables.values():
            if topic not in self.twin.latest:
                self.twin.publish_schema(topic, self.schemas.get(topic, ITEM))

    def ledger_file(self, topic: str) -> Path:
        return self.folder / "state" / f"{topic}.sqlite3"

    def publish(self, *, once: bool = True, resnapshot: Collection[str] = ()) -> list[RunReport]:
        """Run the connector, as a process of its own would."""
        with ExitStack() as opened:
            notes = Ledger(self.ledger_file("slot"), clock=now)
            opened.callback(notes.close)
            publications = []
            for table, topic in self.tables.items():
                ledger = Ledger(self.ledger_file(topic), clock=now)
                opened.callback(ledger.close)
                publication = Publication(
                    topic=Topic.parse(topic), columns=self.columns.get(topic, {}), on_delete=self.on_delete
                )
                publications.append(
                    ChangePublication(table=table, publication=publication, ledger=ledger, limits=self.limits)
                )
            source = self.wrap(PostgresChangeSource(self.url, self.settings, notes, self.said.append))
            opened.callback(source.close)
            publisher = ChangePublisher(
                publications,
                source,
                self.pool or self.twin.client("d-1", "changes", self.key),
                sign=self.key.sign,
                stop=self.stop,
                notify=self.said.append,
                clock=now,
            )
            return publisher.run(once=once, resnapshot=resnapshot)

    def state(self, topic: str = "item.v1") -> dict[str, Any]:
        """Fold the topic: key → record."""
        return {key.decode(): value for key, value in self.twin.state(topic).items()}

    def quarantined(self, topic: str = "item.v1") -> list[QuarantineEntry]:
        """Return what is in quarantine."""
        ledger = Ledger(self.ledger_file(topic), clock=now)
        try:
            return list(read_entries(ledger.sql))
        finally:
            ledger.close()

    def lose(self, *names: str) -> None:
        """Delete ledgers: `slot`, or topics."""
        for name in names:
            for each in self.ledger_file(name).parent.glob(f"{name}.*"):
                each.unlink()


def execute(url: sa.URL, *statements: str) -> None:
    """Execute statements, each its own transaction unless it is several."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def query(url: sa.URL, statement: str) -> list[tuple[Any, ...]]:
    """Return the rows of a statement."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.exec_driver_sql(statement)]
    engine.dispose()
    return rows


def slots(url: sa.URL) -> list[str]:
    """Return the names of the slots of the cluster that are permanent."""
    return [row[0] for row in query(url, "SELECT slot_name FROM pg_replication_slots WHERE NOT temporary")]


def only(reports: Sequence[RunReport]) -> RunReport:
    """Return the one report, balanced."""
    (report,) = reports
    assert report.read == report.published + report.quarantined + report.unchanged + report.voided
    return report


def with_limits(settings: LogSettings, **limits: int) -> LogSettings:
    """Return settings with other limits of a batch."""
    return replace(settings, limits=AssemblyLimits(**limits))
