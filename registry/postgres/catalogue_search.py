"""PostgreSQL adapter of the catalogue's search: a table of `tsvector` columns with GIN indexes, beside the catalogue.

The vectors are written in PostgreSQL's own notation, so neither its text parser nor the locale matters.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from typing_extensions import override

from registry.catalogue.metadata import Metadata
from registry.catalogue.search import (
    FACETS,
    MOST_COUNTED,
    Facets,
    IndexedEntry,
    SearchIndex,
    SearchQuery,
    counted,
    metadata_texts,
    text_vector,
    word_query,
)
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of
from registry.directory.model import PUBLIC_STATES, CatalogueEntry
from registry.postgres.tables import catalogue_search
from schemas.names import ResourceName, Topic

__all__ = ["PostgresSearch"]

_TABLE = catalogue_search


class PostgresSearch(SearchIndex):
    """Search of the catalogue in PostgreSQL."""

    @override
    def index_entry(self, work: UnitOfWork, entry: CatalogueEntry) -> None:
        indexed = IndexedEntry.of(entry)
        values = {**indexed.facets, "words": _vector(text_vector(indexed.texts))}
        key = {"name": str(entry.topic.name), "major": entry.topic.major}
        new = postgresql.insert(_TABLE).values({**key, **values, "theme": "", "metadata_words": _vector("")})
        connection_of(work).execute(new.on_conflict_do_update(index_elements=["name", "major"], set_=values))

    @override
    def index_metadata(self, work: UnitOfWork, topic: Topic, metadata: Metadata) -> None:
        values = {"theme": metadata.theme, "metadata_words": _vector(text_vector(metadata_texts(metadata)))}
        key = (_TABLE.c.name == str(topic.name)) & (_TABLE.c.major == topic.major)
        connection_of(work).execute(sa.update(_TABLE).where(key).values(values))

    @override
    def find(self, reader: Reader, query: SearchQuery) -> Sequence[Topic]:
        statement = sa.select(_TABLE.c.name, _TABLE.c.major).where(*_conditions(query))
        if query.after is not None:
            place = sa.tuple_(sa.literal(str(query.after.name)), sa.literal(query.after.major))
            statement = statement.where(sa.tuple_(_TABLE.c.name, _TABLE.c.major) > place)
        statement = statement.order_by(_TABLE.c.name, _TABLE.c.major).limit(query.limit)
        return [Topic(ResourceName(name), major) for name, major in connection_of(reader).execute(statement)]

    @override
    def facets(self, reader: Reader, query: SearchQuery) -> Facets:
        columns = [_TABLE.c[name] for name in FACETS]
        statement = sa.select(*columns).where(*_conditions(query)).limit(MOST_COUNTED + 1)
        return counted([dict(row._mapping) for row in connection_of(reader).execute(statement)])  # noqa: SLF001 - its API


def _conditions(query: SearchQuery) -> list[sa.ColumnElement[bool]]:
    limits = [_TABLE.c[name] == value for name, value in query.limits.items()]
    if query.viewer is not None:
        limits.append(sa.or_(_TABLE.c.state.in_(sorted(PUBLIC_STATES)), _TABLE.c.provider == query.viewer))
    # Each word in either vector: a title may answer one word and a data item the other.
    words: list[Any] = [
        sa.or_(
            _TABLE.c.words.bool_op("@@")(sa.cast(word_query([word]), postgresql.TSQUERY)),
            _TABLE.c.metadata_words.bool_op("@@")(sa.cast(word_query([word]), postgresql.TSQUERY)),
        )
        for word in query.words
    ]
    return [*limits, *words]


def _vector(text: str) -> sa.ColumnElement[Any]:
    return sa.cast(text, postgresql.TSVECTOR)
