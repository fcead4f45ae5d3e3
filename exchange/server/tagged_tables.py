"""Tagged tables: which there are, and their rows as the database has them, for verification and first tags."""

from collections.abc import Iterator

import sqlalchemy as sa

from exchange import migrations
from exchange.audit.row_notes import StoredRow
from registry.database.row_tags import RowTags, Tagged, classification, key_text, short_tag

__all__ = ["stored_rows", "tagged_tables"]

_STREAM = 2_000  # rows in memory at a time


def tagged_tables() -> list[sa.Table]:
    """Return the tables whose rows carry a tag."""
    return [
        table
        for metadata in migrations.METADATA
        for table in metadata.sorted_tables
        if isinstance(classification(table), Tagged)
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
