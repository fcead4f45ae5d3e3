"""Row watch: each process remembers the newest versions of tagged rows, and refuses an older one that is put back.

A row that is put back whole has a tag that was right once, so that a look at the row alone does not show it. A process
looks at the versions of all rows every `PERIOD` seconds, in one snapshot. A row whose version is lower than one that it
has seen is refused from then on (`RowTags.distrust`), logged and counted, until a newer version of it is there. So a
roll-back works for `PERIOD` seconds at most in a process that has seen the newer row. What was put back while no
process ran is found by the sequencer at its start (`exchange.server.row_digest`) and by `pool audit verify --database`.

A process watches the tables whose keys its roles may read. A sequencer alone has none of them: it decides by no row,
watches none, and compares them all with the digest.

Rows that are gone are logged and counted as well, except where the pool itself deletes rows (versions of subjects).
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy import exc as sa_exc

from exchange import metrics
from exchange.server.row_tags import tagged_tables
from registry.database.errors import unavailable
from registry.database.row_tags import RowTags, key_text, short_tag
from schemas.errors import PoolError

__all__ = ["PERIOD", "RowWatch", "read_versions", "watch"]

PERIOD = 30.0  # seconds
_log = structlog.get_logger()
_STREAM = 2_000  # rows in memory at a time
_DELETED_FROM = frozenset({"registry_version"})  # tables from which the pool deletes rows
Versions = dict[tuple[str, str], tuple[int, str]]
"""By table and key: a row's version, and the beginning of its tag."""


def read_versions(
    connection: sa.Connection,
    tags: RowTags | None = None,
    known: Versions | None = None,
    families: frozenset[str] | None = None,
) -> Versions:
    """Return the versions of all rows of tagged tables.

    Args:
        connection: within one snapshot.
        tags: leave out rows whose tag is wrong; their columns are read only where *known* has another version.
        known: versions that have been checked before.
        families: of tables to read; None = all.
    """
    found: Versions = {}
    for table in tagged_tables(families):
        for row in _rows(connection, table, with_content=tags is not None and known is None):
            key = table.name, key_text(table, row)
            now = row["row_version"], short_tag(row["tag"])
            if (
                tags is not None
                and (known is None or known.get(key) != now)
                and not _holds(connection, tags, table, row)
            ):
                continue
            found[key] = now
    return found


def _rows(connection: sa.Connection, table: sa.Table, *, with_content: bool) -> Iterator[dict[str, Any]]:
    columns = [*table.columns] if with_content else [*table.primary_key.columns, table.c.row_version, table.c.tag]
    with connection.execution_options(yield_per=_STREAM).execute(sa.select(*columns)) as rows:
        for row in rows:
            yield row._asdict()


def _holds(connection: sa.Connection, tags: RowTags, table: sa.Table, row: dict[str, Any]) -> bool:
    if len(row) < len(table.columns):
        key = (column == row[column.name] for column in table.primary_key.columns)
        whole = connection.execute(sa.select(table).where(*key)).one_or_none()
        if whole is None:
            return False
        row = whole._asdict()
    return tags.proves(table, row)


class RowWatch:
    """What one process has seen of tagged rows.

    Args:
        engine: of the database.
        tags: of the process's stores; rows that are put back are distrusted in them.
        report: called once for each row with what is wrong (`old` or `gone`), its table and its key.
        families: of the tables whose keys the process has; None = all.
    """

    def __init__(
        self,
        engine: sa.Engine,
        tags: RowTags,
        report: Callable[[str, str, str], None],
        *,
        families: frozenset[str] | None = None,
    ) -> None:
        self._engine = engine
        self._tags = tags
        self._report = report
        self._families = families
        self._seen: Versions | None = None
        self._reported: set[tuple[str, str, str]] = set()

    def step(self) -> None:
        """Look at all rows once.

        Raises:
            UnavailableError: the database does not answer.
        """
        try:
            with self._engine.connect() as connection:
                connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
                found = read_versions(connection, self._tags, self._seen, self._families)
        except sa_exc.SQLAlchemyError as error:
            raise unavailable(error) from error
        seen = self._seen or {}
        wrong: set[tuple[str, str, str]] = set()
        for (table, key), newest in seen.items():
            now = found.get((table, key))
            if now is None:
                if table not in _DELETED_FROM:
                    wrong.add(("gone", table, key))
            elif now[0] < newest[0] or (now[0] == newest[0] and now[1] != newest[1]):
                wrong.add(("old", table, key))
        self._tags.distrust((table, key) for what, table, key in wrong if what == "old")
        for what, table, key in sorted(wrong - self._reported):
            self._report(what, table, key)
        self._reported = wrong
        self._seen = seen | {key: now for key, now in found.items() if now[0] > seen.get(key, (-1, ""))[0]}


def watch(rows: RowWatch, stop: threading.Event) -> None:
    """Look at all rows every `PERIOD` seconds."""
    while not stop.is_set():
        try:
            rows.step()
        except PoolError as error:
            _log.warning("upkeep_failed", task="rows", reason=error.reason)
        except Exception as error:  # noqa: BLE001 - see exchange.server.background
            _log.error("upkeep_failed", task="rows", error=type(error).__name__)
        stop.wait(PERIOD)


def report(what: str, table: str, key: str) -> None:
    """Log and count a row that was put back or removed."""
    metrics.ROWS_PUT_BACK.labels(table, what).inc()
    _log.error("row_put_back" if what == "old" else "row_gone", table=table, key=key)
