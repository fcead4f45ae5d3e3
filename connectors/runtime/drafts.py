"""Draft of a schema from a connector's source: its declared types, and a sample that is read and forgotten."""

import tempfile
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from connectors.config.config import ConnectorConfig
from connectors.config.publication_models import PublishConfig
from connectors.drafting.avro_types import type_of_column, type_of_texts
from connectors.drafting.personal_data import guess
from connectors.drafting.schema_draft import ColumnDraft, SchemaDraft, draft_schema
from connectors.runtime import assembly
from connectors.sources.table_portion import TablePortion
from connectors.state.ledger import Ledger
from schemas.errors import InvalidError, Reason

__all__ = ["draft"]

_SAMPLE = 200  # texts of a column


def draft(
    config: ConnectorConfig, section: PublishConfig, *, file: Path | None, clock: Callable[[], datetime]
) -> SchemaDraft:
    """Draft the schema of a publication.

    Args:
        config: of the connector.
        section: the publication.
        file: this one instead of the folder's newest.
        clock: of this machine.

    Raises:
        PoolError: the source cannot be read; NOT_FOUND, a folder has no file.
    """
    # A source needs a ledger for its history of files; it gets an empty one, which is deleted.
    with tempfile.TemporaryDirectory(prefix="pool-connect-") as scratch:
        ledger = Ledger(Path(scratch) / "draft.sqlite3", clock=clock)
        source = assembly.source(config, section, ledger, clock)
        try:
            portion = assembly.first_portion(source, file)
            if portion is None:
                raise InvalidError(Reason.NOT_FOUND, "no file of the folder matches the pattern; name one with --file")
            chunk = next(iter(portion.chunks()), None)
        finally:
            source.close()
            ledger.close()
    declared: Mapping[str, sa.Column[Any]] = portion.declared if isinstance(portion, TablePortion) else {}
    dialect = portion.engine.dialect.name if isinstance(portion, TablePortion) else ""
    excluded = {name for name, each in section.columns.items() if each.exclude}
    columns = []
    for name in portion.columns:
        if name in excluded:
            continue
        cells = [] if chunk is None else chunk.columns[name].to_pylist()
        texts = [text for text in cells if text][:_SAMPLE]
        column = declared.get(name)
        columns.append(
            ColumnDraft(
                name=name,
                type=type_of_texts(texts) if column is None else type_of_column(column.type, dialect),
                nullable=column is None or bool(column.nullable),
                proposal=guess(name, texts),
            )
        )
    key = list(section.key) or [name for name, column in declared.items() if column.primary_key]
    return draft_schema(section.resource, columns, key=[name for name in key if name not in excluded])
