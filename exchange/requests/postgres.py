"""PostgreSQL adapter of the store of share requests."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
from typing_extensions import override

from exchange.requests.model import ShareRequest
from exchange.requests.request_json import from_text, to_text
from exchange.requests.store import RequestQuery, RequestStore, request_moved
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import collect
from registry.database.row_tags import RowTags, tag_columns, tagged
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of

__all__ = ["PostgresRequests", "metadata"]

_ID = sa.Text(collation="C")

metadata = sa.MetaData()

_request = sa.Table(
    "share_request",
    metadata,
    sa.Column("id", _ID, primary_key=True),  # of the grant, too
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("consumer", _ID, nullable=False),
    sa.Column("provider", _ID, nullable=False),
    sa.Column("resource", _ID, nullable=False),
    sa.Column("state", _ID, nullable=False),
    sa.Column("text", sa.Text, nullable=False),  # canonical JSON: all of it, also what the columns before say
    *tag_columns(),
    sa.Index("share_request_state", "state", "id"),
    sa.Index("share_request_consumer", "consumer", "id"),
    sa.Index("share_request_provider", "provider", "id"),
    info=tagged("access"),
)


class PostgresRequests(RequestStore):
    """The adapter. Every call runs on the connection of its transaction.

    Args:
        tags: makes and checks the tags of rows.
    """

    def __init__(self, tags: RowTags) -> None:
        self._tags = tags

    @override
    def put(self, work: UnitOfWork, request: ShareRequest) -> None:
        values = {
            "version": request.version,
            "consumer": request.consumer,
            "provider": request.provider,
            "resource": request.resource,
            "state": str(request.state),
            "text": to_text(request),
        }
        stored = self._tags.change(work, _request, _request.c.id == request.id, values)
        if not stored:
            self._tags.insert(work, _request, {"id": request.id, **values})
        elif stored[0]["version"] >= request.version:
            raise request_moved()  # the transaction ends here, and nothing of it stays

    @override
    def get(self, reader: Reader, request_id: str) -> ShareRequest | None:
        row = connection_of(reader).execute(sa.select(_request).where(_request.c.id == request_id)).one_or_none()
        return None if row is None else _read(self._tags.checked(_request, row))

    @override
    def some(self, reader: Reader, ids: Collection[str]) -> Mapping[str, ShareRequest | DamagedRow]:
        if not ids:
            return {}
        rows = connection_of(reader).execute(sa.select(_request).where(_request.c.id.in_(sorted(ids)))).all()
        return {_id_of(one): one for one in self._kept(rows)}

    @override
    def page(self, reader: Reader, query: RequestQuery) -> Sequence[ShareRequest | DamagedRow]:
        read = partial(_rows, reader, query)
        return collect(read, self._kept, lambda row: str(row.id), after=query.after, limit=query.limit)

    def _kept(self, rows: Sequence[Any]) -> list[ShareRequest | DamagedRow]:
        return self._tags.listed(_request, rows, _read, lambda row: DamagedRow.of(id=row["id"]))


def _rows(reader: Reader, query: RequestQuery, after: str, most: int) -> Sequence[Any]:
    statement = sa.select(_request).where(_request.c.id > after).order_by(_request.c.id).limit(most)
    if query.consumer is not None:
        statement = statement.where(_request.c.consumer == query.consumer)
    if query.provider is not None:
        statement = statement.where(_request.c.provider == query.provider)
    if query.party is not None:
        statement = statement.where((_request.c.consumer == query.party) | (_request.c.provider == query.party))
    if query.states is not None:
        statement = statement.where(_request.c.state.in_(sorted(query.states)))
    return connection_of(reader).execute(statement).all()


def _read(row: Mapping[str, Any]) -> ShareRequest:
    return from_text(row["text"])


def _id_of(one: ShareRequest | DamagedRow) -> str:
    return one.cursor if isinstance(one, DamagedRow) else one.id
