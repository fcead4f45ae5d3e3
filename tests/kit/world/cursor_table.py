"""A department whose table is published by its cursor: `item`, with the columns id, name and at."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from connectors.mapping.mapping import Column
from connectors.publishing.publication import Limits
from connectors.sources.incremental import CursorSettings, IncrementalSource
from connectors.sources.sql_table import SqlSource
from connectors.state.ledger import Ledger, RunReport
from tests.kit.world.changing_tables import query
from tests.kit.world.department import Department, now

SCHEMA = {
    "type": "record",
    "name": "Item",
    "key": ["id"],
    "fields": [{"name": "id", "type": "long"}, {"name": "name", "type": ["null", "string"], "default": None}],
}


def every_day(last: datetime | None, moment: datetime) -> bool:
    """Return whether the table is due to be read whole."""
    return last is None or moment - last >= timedelta(days=1)


@dataclass
class CursorTable:
    """A department whose table `item` is published by its cursor `at`."""

    folder: Path
    url: sa.URL
    settings: CursorSettings = field(default_factory=lambda: CursorSettings(column="at", whole=every_day))
    table: dict[str, Any] = field(default_factory=lambda: {"table": "item", "page": 7})
    ahead: timedelta = timedelta()
    fresh: bool = False

    def __post_init__(self) -> None:
        self.department = Department(self.folder, topic="item.v1", schema=SCHEMA, columns={"at": Column(exclude=True)})
        self.department.limits = Limits(batch_rows=5, give_up_after=5, backoff=0.001)

    def publish(self) -> list[RunReport]:
        """Poll once, as a process of its own would."""
        found = self.department.publish(self.source)
        assert all(each.read == each.published + each.quarantined + each.unchanged for each in found)
        return found

    def source(self, ledger: Ledger) -> IncrementalSource:
        return IncrementalSource(
            SqlSource(self.url, **self.table),
            self.settings,
            ledger,
            clock=lambda: now() + self.ahead,
            notify=self.department.said.append,
            fresh=self.fresh,
        )

    def state(self) -> dict[str, Any]:
        return {key: record["name"] for key, record in self.department.state().items()}

    def rows(self) -> dict[str, Any]:
        return {str(row[0]): row[1] for row in query(self.url, "SELECT id, name FROM item")}

    def meta(self, name: str) -> str:
        ledger = Ledger(self.department.ledger_file, clock=now)
        try:
            return ledger.meta(name)
        finally:
            ledger.close()

    def reconcile(self) -> list[RunReport]:
        """Poll a day later, when the table is read whole."""
        self.ahead += timedelta(days=1, minutes=1)
        return self.publish()
