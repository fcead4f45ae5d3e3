"""A department around the in-memory pool: a drop folder, a key, a ledger, and its connector's configuration."""

import csv
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connectors.mapping.mapping import Column
from connectors.port import Pool, Reject, Replaces, SnapshotSource
from connectors.publishing.publication import Limits, Publication
from connectors.publishing.publisher import Publisher
from connectors.sources.drop_folder import AfterSuccess, DropFolder, ReadyWhen
from connectors.sources.file_portion import FileFormat
from connectors.state.ledger import Ledger, RunReport
from connectors.state.quarantine import Quarantine, QuarantineEntry, read_entries
from schemas.names import Topic
from tests.kit.twins.pool_twin import PoolTwin, Record

TOPIC = "household.v1"
SCHEMA: Record = {
    "type": "record",
    "name": "Household",
    "key": ["id"],
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "since", "type": ["null", {"type": "int", "logicalType": "date"}], "default": None},
        {"name": "note", "type": ["null", "string"], "default": None},
    ],
}
HEADER = ("id", "amount", "since", "note")


def now() -> datetime:
    return datetime.now(UTC)


def row(number: int, amount: str = "1.50", since: str = "2026-01-31", note: str = "") -> tuple[str, ...]:
    return (f"{number:04d}", amount, since, note)


def rows(count: int, **same: str) -> list[tuple[str, ...]]:
    return [row(number, **same) for number in range(count)]


@dataclass
class Department:
    """One department with one connector."""

    folder: Path
    twin: PoolTwin = field(default_factory=PoolTwin)
    limits: Limits = field(default_factory=lambda: Limits(batch_rows=40, give_up_after=5, backoff=0.001))
    columns: dict[str, Column] = field(default_factory=dict)
    topic: str = TOPIC
    schema: Record = field(default_factory=lambda: SCHEMA)
    on_duplicate: str = "quarantine"
    on_delete: str = ""
    replaces: Replaces = Replaces.EVERYTHING
    patterns: tuple[str, ...] = ("*.csv",)
    file_format: FileFormat = field(default_factory=FileFormat)
    after_success: AfterSuccess = field(default_factory=AfterSuccess)
    after_reject: AfterSuccess = field(default_factory=AfterSuccess)
    ready_when: ReadyWhen = field(default_factory=lambda: ReadyWhen(unchanged=0))
    null_values: tuple[str, ...] = ()
    stop: threading.Event = field(default_factory=threading.Event)
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    said: list[str] = field(default_factory=list)
    progress: Callable[[RunReport], None] = lambda _: None
    pool: Pool | None = None  # another client of the in-memory pool

    def __post_init__(self) -> None:
        self.drop = self.folder / "drop"
        self.drop.mkdir(exist_ok=True)
        self.ledger_file = self.folder / "state" / "ledger.sqlite3"
        if self.topic not in self.twin.latest:
            self.twin.publish_schema(self.topic, self.schema)

    def put(
        self,
        content: Sequence[Sequence[str]],
        *,
        name: str = "rows.csv",
        header: Sequence[str] = HEADER,
        encoding: str = "utf-8",
    ) -> Path:
        """Drop a file."""
        path = self.drop / name
        with path.with_suffix(".tmp").open("w", encoding=encoding, newline="") as file:
            csv.writer(file).writerows([header, *content])
        path.with_suffix(".tmp").rename(path)
        return path

    def source(self, ledger: Ledger) -> SnapshotSource:
        def quarantine(name: str, reject: Reject) -> None:
            Quarantine(ledger).add(name, 0, [reject])

        return DropFolder(
            self.drop,
            self.patterns,
            file_format=self.file_format,
            replaces=self.replaces,
            ready_when=self.ready_when,
            after_success=self.after_success,
            after_reject=self.after_reject,
            history=ledger,
            quarantine=quarantine,
            clock=now,
        )

    def publish(self, source: Callable[[Ledger], SnapshotSource] | None = None) -> list[RunReport]:
        """Run the connector once, as a process of its own would."""
        ledger = Ledger(self.ledger_file, clock=now)
        try:
            publisher = Publisher(
                Publication(
                    topic=Topic.parse(self.topic),
                    columns=self.columns,
                    null_values=self.null_values,
                    on_duplicate=self.on_duplicate,
                    on_delete=self.on_delete,
                ),
                (source or self.source)(ledger),
                self.pool or self.twin.client("d-1", "drop", self.key),
                ledger,
                sign=self.key.sign,
                limits=self.limits,
                stop=self.stop,
                progress=self.progress,
                notify=self.said.append,
                clock=now,
            )
            return publisher.run()
        finally:
            ledger.close()

    def quarantined(self, *, everything: bool = False) -> list[QuarantineEntry]:
        """Return what is in quarantine."""
        ledger = Ledger(self.ledger_file, clock=now)
        try:
            return list(read_entries(ledger.sql, everything=everything))
        finally:
            ledger.close()

    def lose_ledger(self) -> None:
        for each in self.ledger_file.parent.iterdir():
            each.unlink()

    def state(self) -> dict[str, Any]:
        """Fold the topic: id → record."""
        return {key.decode(): value for key, value in self.twin.state(self.topic).items()}


def only(runs: Sequence[RunReport]) -> RunReport:
    assert len(runs) == 1, runs
    run = runs[0]
    assert run.read == run.published + run.quarantined + run.unchanged, "every row ends in one of three ways"
    return run
