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
    Hit,
    IndexedEntry,
    SearchIndex,
    SearchQuery,
    Tier,
    counted,
    metadata_names,
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
        values = {**indexed.facets, "words": _vector(text_vector(indexed.texts)), "names": [*indexed.names]}
        key = {"name": str(entry.topic.name), "major": entry.topic.major}
        metadata = {"theme": "", "metadata_words": _vector(""), "metadata_names": []}
        new = postgresql.insert(_TABLE).values({**key, **values, **metadata})
        connection_of(work).execute(new.on_conflict_do_update(index_elements=["name", "major"], set_=values))

    @override
    def index_metadata(self, work: UnitOfWork, topic: Topic, metadata: Metadata) -> None:
        values = {
            "theme": metadata.theme,
            "metadata_words": _vector(text_vector(metadata_texts(metadata))),
            "metadata_names": metadata_names(metadata),
        }
        key = (_TABLE.c.name == str(topic.name)) & (_TABLE.c.major == topic.major)
        connection_of(work).execute(sa.update(_TABLE).where(key).values(values))

    @override
    def find(self, reader: Reader, query: SearchQuery) -> Sequence[Hit]:
        tier = _tier(query)
        statement = sa.select(tier, _TABLE.c.name, _TABLE.c.major).where(*_conditions(query))
        # Without words there is one tier, and the primary key has the order.
        order: list[sa.ColumnElement[Any]] = [*([tier] if query.words else ()), _TABLE.c.name, _TABLE.c.major]
        if query.after is not None:
            place = (int(query.after.tier), str(query.after.topic.name), query.after.topic.major)[-len(order) :]
            statement = statement.where(sa.tuple_(*order) > sa.tuple_(*map(sa.literal, place)))
        rows = connection_of(reader).execute(statement.order_by(*order).limit(query.limit))
        return [Hit(Tier(number), Topic(ResourceName(name), major)) for number, name, major in rows]

    @override
    def facets(self, reader: Reader, query: SearchQuery) -> Facets:
        columns = [_TABLE.c[name] for name in FACETS]
        statement = sa.select(*columns).where(*_conditions(query)).limit(MOST_COUNTED + 1)
        return counted([dict(row._mapping) for row in connection_of(reader).execute(statement)])  # noqa: SLF001 - its API


def _conditions(query: SearchQuery) -> list[sa.ColumnElement[bool]]:
    limits = [_TABLE.c[name] == value for name, value in query.limits.items()]
    if query.viewer is not None:
        limits.append(sa.or_(_TABLE.c.state.in_(sorted(PUBLIC_STATES)), _TABLE.c.provider == query.viewer))
    return [*limits, *_having(query)]


def _tier(query: SearchQuery) -> sa.ColumnElement[int]:
    if not query.words:
        return sa.literal(int(Tier.TEXT))
    named = sa.or_(*(sa.literal(query.exact) == sa.any_(names) for names in (_TABLE.c.names, _TABLE.c.metadata_names)))
    return sa.case((named, int(Tier.EXACT)), (sa.and_(*_having(query, "A")), int(Tier.TITLE)), else_=int(Tier.TEXT))


def _having(query: SearchQuery, weight: str = "") -> list[sa.ColumnElement[bool]]:
    """Return that each word is in either vector: a title may answer one word and a data item the other."""
    wanted = [sa.cast(word_query([word], weight), postgresql.TSQUERY) for word in query.words]
    vectors = (_TABLE.c.words, _TABLE.c.metadata_words)
    return [sa.or_(*(vector.bool_op("@@")(word) for vector in vectors)) for word in wanted]


def _vector(text: str) -> sa.ColumnElement[Any]:
    return sa.cast(text, postgresql.TSVECTOR)
