"""Row tags and entry tags of a process: their keys, the tagged tables and their rows, the report of refused rows."""

from collections.abc import Iterator

import sqlalchemy as sa
import structlog

from exchange import metrics, migrations
from exchange.audit.entry_tags import ENTRY_ROLES, EntryTags
from exchange.audit.row_notes import StoredRow
from exchange.identity.secrets import Secrets
from exchange.server.roles import Role
from registry.database.row_tags import RowTags, Tagged, classification, key_text, short_tag

__all__ = ["open_entry_tags", "open_row_tags", "stored_rows", "tagged_tables"]

_log = structlog.get_logger()
_STREAM = 2_000  # rows in memory at a time


def open_row_tags(secrets: Secrets) -> RowTags:
    """Return the tags of a process's stores; each row that is refused is logged and counted."""
    return RowTags(lambda family: secrets.named_key(f"row-tags/{family}"), report=_report)


def open_entry_tags(secrets: Secrets, roles: frozenset[Role]) -> EntryTags:
    """Return the tags of the entries that a process writes, and checks if it is a sequencer.

    Args:
        secrets: the keys.
        roles: of the process; of several, the first writes. Without any it is a command of the operator.
    """
    own = next((str(role) for role in Role if role in roles), "operator")
    needed = ENTRY_ROLES if Role.SEQUENCER in roles else (own,)
    return EntryTags({role: secrets.named_key(f"entries/{role}") for role in needed}, own)


def _report(table: str, key: str) -> None:
    metrics.ROWS_REFUSED.labels(table).inc()
    _log.error("row_refused", table=table, key=key)


def tagged_tables(families: frozenset[str] | None = None) -> list[sa.Table]:
    """Return the tables whose rows carry a tag, of all families or of some."""
    return [
        table
        for metadata in migrations.METADATA
        for table in metadata.sorted_tables
        if isinstance(found := classification(table), Tagged) and (families is None or found.family in families)
    ]


def stored_rows(connection: sa.Connection, tags: RowTags | None) -> Iterator[StoredRow]:
    """Yield every row of every tagged table.

    Args:
        connection: to read with.
        tags: checks them; None = without the keys, so that only their tags can be compared with the log.
    """
    streaming = connection.execution_options(yield_per=_STREAM)
    for table in tagged_tables():
        columns = [*table.primary_key.columns, table.c.tag] if tags is None else [*table.columns]
        with streaming.execute(sa.select(*columns)) as rows:
            for row in (one._asdict() for one in rows):
                valid = None if tags is None else tags.holds(table, row)
                yield StoredRow(table.name, key_text(table, row), short_tag(row["tag"]), valid)
