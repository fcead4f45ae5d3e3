"""Background work of a process: figures of supervision, the watches of the log and of the rows, their digests.

`exchange.server.background` runs it in loops, those of each role.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from exchange.audit.search.authenticity import SignedHashes
from exchange.kpi.collector import Collector
from exchange.kpi.postgres import PostgresKpi
from exchange.server import clock
from exchange.server.assembly.audit import process_recorder
from exchange.server.assembly.dependencies import Dependencies
from exchange.server.row_digest import RowDigests
from exchange.server.row_watch import RowWatch
from exchange.server.row_watch import report as report_row
from exchange.server.supervision.clock_check import is_independent
from exchange.server.supervision.log_watch import LogWatch

__all__ = ["BackgroundWork", "open_background_work"]


@dataclass(frozen=True, slots=True)
class BackgroundWork:
    """What the loops of a process run."""

    collector: Collector
    log_watch: LogWatch
    row_watch: RowWatch
    row_digests: RowDigests


def open_background_work(core: Dependencies, url: sa.URL) -> BackgroundWork:
    """Connect what the loops run.

    Args:
        core: of the process.
        url: of the database; a PostgreSQL on another machine has another clock to compare with.
    """
    config, storage, audit = core.config, core.storage, core.audit
    return BackgroundWork(
        collector=Collector(
            database=storage.database,
            log=audit.log,
            store=PostgresKpi(),
            signed_hash=SignedHashes(config.path("log")).leaf_hash,
        ),
        log_watch=LogWatch(
            audit.log.signing_state,
            config.path("log"),
            core.serving,
            float(config.audit.unsigned_seconds),
            independent=is_independent(url if config.database_url is not None else None),
            clock=clock.CLOCK,
        ),
        row_watch=RowWatch(storage.engine, core.tags, report_row, families=core.keys.row_families),
        row_digests=RowDigests(storage.database, process_recorder(config, audit.ledger), audit.tags),
    )
