"""PostgreSQL adapter of the store of figures and supervision events. All its tables are derived from the log.

    kpi_progress         how far the log has been read
    kpi_resource         whose a resource is; kpi_grant: what a grant's entries say of it
    kpi_span             the times in which a grant was in force
    kpi_fact             what an entry adds to a measure; kpi_sum: these facts, added by month and department
    supervision_event    the events for an e-supervision system

A figure is read from `kpi_sum`, which has some rows a department and month, whatever the log holds; the entries behind
it by an index range of `kpi_fact`.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from typing_extensions import override

from exchange.kpi.events import EventKind, SupervisionEvent
from exchange.kpi.facts import Fact, GrantTerms, Known, LogFold, Span
from exchange.kpi.store import Counts, Drawn, EventQuery, FactQuery, KpiStore, Progress, standing_of
from registry.database.row_tags import derived
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of
from schemas.supervision.kpi import FIRST_ENTRIES, Count, Standing

__all__ = ["PostgresKpi", "metadata", "select_events", "select_facts"]

_ID = sa.Text(collation="C")
_UUID = sa.Uuid(as_uuid=False)
_WHY = "made from the log, from which `pool report kpi --from-log` makes the same figures; it decides nothing"

_FIGURE = ("month", "department", "measure", "detail")  # what a figure is the sum of

metadata = sa.MetaData()


def _terms_columns() -> list["sa.Column[str]"]:
    """Return the columns of what a grant's entries say of it."""
    return [
        *(sa.Column(name, _ID, nullable=False) for name in ("consumer", "provider", "resource")),
        sa.Column("fields", sa.Text, nullable=False),  # JSON: a list of names
    ]


_progress = sa.Table(
    "kpi_progress",
    metadata,
    sa.Column("name", _ID, primary_key=True),
    sa.Column("entries", sa.BigInteger, nullable=False),
    sa.Column("newest", sa.BigInteger, nullable=False),
    info=derived(_WHY),
)

_resource = sa.Table(
    "kpi_resource",
    metadata,
    sa.Column("resource", _ID, primary_key=True),
    sa.Column("provider", _ID, nullable=False),
    info=derived(_WHY),
)

_grant = sa.Table(
    "kpi_grant",
    metadata,
    sa.Column("grant_id", _ID, primary_key=True),
    *_terms_columns(),
    info=derived(_WHY),
)

_span = sa.Table(
    "kpi_span",
    metadata,
    sa.Column("grant_id", _ID, primary_key=True),
    sa.Column("position", sa.BigInteger, primary_key=True),
    sa.Column("entry", _UUID, nullable=False),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Column("until", sa.BigInteger),
    *_terms_columns(),
    sa.Index("kpi_span_consumer", "consumer", "since"),
    info=derived(_WHY),
)

_fact = sa.Table(
    "kpi_fact",
    metadata,
    sa.Column("position", sa.BigInteger, primary_key=True),
    sa.Column("ordinal", sa.SmallInteger, primary_key=True),
    *(sa.Column(name, _ID, nullable=False) for name in _FIGURE),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("grant_id", _ID, nullable=False),
    sa.Column("entry", _UUID, nullable=False),
    sa.Index("kpi_fact_figure", *_FIGURE, "position", "ordinal"),
    sa.Index("kpi_fact_drawn", "grant_id", "at", postgresql_where=sa.text("measure = 'drawn'")),
    info=derived(_WHY),
)

_sum = sa.Table(
    "kpi_sum",
    metadata,
    *(sa.Column(name, _ID, primary_key=True) for name in _FIGURE),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("entries", sa.BigInteger, nullable=False),
    info=derived(_WHY),
)

_event = sa.Table(
    "supervision_event",
    metadata,
    sa.Column("position", sa.BigInteger, primary_key=True),
    sa.Column("ordinal", sa.SmallInteger, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("kind", _ID, nullable=False),
    sa.Column("department", _ID, nullable=False),
    sa.Column("action", _ID, nullable=False),
    sa.Column("resource", sa.Text, nullable=False),
    sa.Column("grant_id", _ID, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("due", sa.Text, nullable=False),
    sa.Column("clause", sa.Text, nullable=False),
    sa.Column("times", sa.BigInteger, nullable=False),
    sa.Column("entry", _UUID, nullable=False),
    sa.Index("supervision_event_department", "department", "position", "ordinal"),
    sa.Index("supervision_event_kind", "kind", "position", "ordinal"),
    sa.Index("supervision_event_both", "department", "kind", "position", "ordinal"),
    info=derived(_WHY),
)

_LOG = "log"


class PostgresKpi(KpiStore):
    """The adapter. Every call runs on the connection of its transaction."""

    @override
    def progress(self, reader: Reader) -> Progress:
        row = connection_of(reader).execute(sa.select(_progress.c.entries, _progress.c.newest)).one_or_none()
        return Progress() if row is None else Progress(row.entries, row.newest)

    @override
    def known(self, reader: Reader, grants: Collection[str], resources: Collection[str]) -> Known:
        connection = connection_of(reader)
        providers = connection.execute(
            sa.select(_resource).where(_resource.c.resource == sa.any_(_array(resources)))
        ).all()
        terms = connection.execute(sa.select(_grant).where(_grant.c.grant_id == sa.any_(_array(grants)))).all()
        spans = connection.execute(
            sa.select(_span).where(_span.c.grant_id == sa.any_(_array(grants)), _span.c.until.is_(None))
        ).all()
        return Known(
            providers={row.resource: row.provider for row in providers},
            grants={row.grant_id: _terms(row) for row in terms},
            spans={row.grant_id: _read_span(row) for row in spans},
        )

    @override
    def put(self, work: UnitOfWork, before: Progress, after: Progress, fold: LogFold) -> bool:
        connection = connection_of(work)
        first = pg.insert(_progress).values(name=_LOG, entries=0, newest=0).on_conflict_do_nothing()
        connection.execute(first)
        moved = connection.execute(
            sa.update(_progress)
            .where(_progress.c.entries == before.entries)
            .values(entries=after.entries, newest=after.newest)
        )
        if moved.rowcount != 1:
            return False
        _insert(connection, _fact, (_fact_row(one) for one in fold.facts))
        _insert(connection, _event, (_event_row(one) for one in fold.events))
        self._put_sums(connection, fold.facts)
        self._put_names(connection, fold)
        return True

    def _put_sums(self, connection: sa.Connection, facts: Iterable[Fact]) -> None:
        sums: dict[tuple[str, str, str, str], list[int]] = {}
        for one in facts:
            added = sums.setdefault((one.month, one.department, one.measure, one.detail), [0, 0])
            added[0] += one.amount
            added[1] += 1
        rows = [
            dict(zip((*_FIGURE, "amount", "entries"), (*key, *added), strict=True))
            for key, added in sorted(sums.items())
        ]
        if not rows:
            return
        insert = pg.insert(_sum).values(rows)
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=_FIGURE,
                set_={
                    "amount": _sum.c.amount + insert.excluded.amount,
                    "entries": _sum.c.entries + insert.excluded.entries,
                },
            )
        )

    def _put_names(self, connection: sa.Connection, fold: LogFold) -> None:
        _replace(
            connection,
            _resource,
            ({"resource": one, "provider": fold.known.providers[one]} for one in sorted(fold.changed_providers)),
        )
        _replace(
            connection,
            _grant,
            ({"grant_id": one, **_terms_row(fold.known.grants[one])} for one in sorted(fold.changed_grants)),
        )
        _replace(connection, _span, (_span_row(fold.spans[key]) for key in sorted(fold.spans)))

    @override
    def counts(self, reader: Reader, month: str, department: str | None = None) -> Mapping[str, Counts]:
        ids = (
            sa.select(_fact.c.position, _fact.c.entry)
            .where(*(_fact.c[name] == _sum.c[name] for name in _FIGURE))
            .order_by(_fact.c.position, _fact.c.ordinal)
            .limit(FIRST_ENTRIES)
            .lateral("first")
        )
        statement = (
            sa.select(_sum, ids.c.position, ids.c.entry)
            .select_from(_sum.join(ids, sa.true()))
            .where(_sum.c.month == month)
            .order_by(_sum.c.department, _sum.c.measure, _sum.c.detail, ids.c.position)
        )
        if department is not None:
            statement = statement.where(_sum.c.department == department)
        found: dict[str, dict[tuple[str, str], Count]] = {}
        for row in connection_of(reader).execute(statement):
            counts = found.setdefault(row.department, {})
            count = counts.setdefault((row.measure, row.detail), Count(row.amount, row.entries))
            count.first.append((row.position, row.entry))
        return found

    @override
    def standing(
        self, reader: Reader, *, since: int, until: int, department: str | None = None
    ) -> Mapping[str, Standing]:
        drawn = (
            sa.select(sa.literal(1))
            .where(
                _fact.c.grant_id == _span.c.grant_id,
                sa.text("kpi_fact.measure = 'drawn'"),  # as the index states it
                _fact.c.at > since,
                _fact.c.at <= until,
            )
            .exists()
        )
        statement = sa.select(_span, drawn.label("drawn")).where(
            _span.c.since <= since, sa.or_(_span.c.until.is_(None), _span.c.until > until)
        )
        if department is not None:
            statement = statement.where(_span.c.consumer == department)
        rows = connection_of(reader).execute(statement).all()
        return standing_of([(_read_span(row), row.drawn) for row in rows])

    @override
    def drawn(self, reader: Reader, grants: Collection[str]) -> Mapping[str, Drawn]:
        statement = (
            sa.select(
                _fact.c.grant_id,
                sa.func.count().label("releases"),
                sa.cast(sa.func.sum(_fact.c.amount), sa.BigInteger).label("records"),
                sa.func.min(_fact.c.at).label("first"),
                sa.func.max(_fact.c.at).label("last"),
            )
            .where(_fact.c.grant_id == sa.any_(_array(grants)), sa.text("kpi_fact.measure = 'drawn'"))
            .group_by(_fact.c.grant_id)
        )
        return {
            row.grant_id: Drawn(releases=row.releases, records=row.records, first=row.first, last=row.last)
            for row in connection_of(reader).execute(statement)
        }

    @override
    def facts(self, reader: Reader, query: FactQuery) -> Sequence[Fact]:
        rows = connection_of(reader).execute(select_facts(query)).all()
        return [
            Fact(**{("grant" if name == "grant_id" else name): value for name, value in row._mapping.items()})  # noqa: SLF001 - the row's public mapping
            for row in rows
        ]

    @override
    def events(self, reader: Reader, query: EventQuery) -> Sequence[SupervisionEvent]:
        rows = connection_of(reader).execute(select_events(query)).all()
        return [_read_event(row) for row in rows]


def select_facts(query: FactQuery) -> "sa.Select[Any]":
    """Return the statement of a page of facts: an index range for each measure, each with the page's limit."""
    parts = []
    for measure, detail in query.measures:
        part = sa.select(_fact).where(
            _fact.c.month == query.month,
            _fact.c.department == query.department,
            _fact.c.measure == measure,
            sa.tuple_(_fact.c.position, _fact.c.ordinal) > sa.tuple_(*query.after),
        )
        if detail:
            part = part.where(_fact.c.detail == detail)
        parts.append(sa.select(part.order_by(_fact.c.position, _fact.c.ordinal).limit(query.limit).subquery()))
    union = sa.union_all(*parts).subquery()
    return sa.select(union).order_by(union.c.position, union.c.ordinal).limit(query.limit)


def select_events(query: EventQuery) -> "sa.Select[Any]":
    """Return the statement of a page of events: one index range."""
    statement = (
        sa.select(_event)
        .where(sa.tuple_(_event.c.position, _event.c.ordinal) > sa.tuple_(*query.after))
        .order_by(_event.c.position, _event.c.ordinal)
        .limit(query.limit)
    )
    if query.department is not None:
        statement = statement.where(_event.c.department == query.department)
    if query.kind is not None:
        statement = statement.where(_event.c.kind == query.kind)
    return statement


def _array(names: Collection[str]) -> "sa.ColumnElement[Any]":
    return sa.cast(sorted(names), pg.ARRAY(sa.Text))


def _insert(connection: sa.Connection, table: sa.Table, rows: Iterable[dict[str, Any]]) -> None:
    values = list(rows)
    if values:
        connection.execute(sa.insert(table).values(values))


def _replace(connection: sa.Connection, table: sa.Table, rows: Iterable[dict[str, Any]]) -> None:
    values = list(rows)
    if not values:
        return
    insert = pg.insert(table).values(values)
    keys = [column.name for column in table.primary_key]
    others = {column.name: insert.excluded[column.name] for column in table.columns if column.name not in keys}
    connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=others))


def _fact_row(fact: Fact) -> dict[str, Any]:
    row = asdict(fact)
    row["grant_id"] = row.pop("grant")
    return row


def _event_row(event: SupervisionEvent) -> dict[str, Any]:
    row = asdict(event)
    row["grant_id"] = row.pop("grant")
    row["kind"] = str(event.kind)
    return row


def _read_event(row: Any) -> SupervisionEvent:
    values = dict(row._mapping)  # noqa: SLF001 - the row's public mapping
    return SupervisionEvent(grant=values.pop("grant_id"), kind=EventKind(values.pop("kind")), **values)


def _terms(row: Any) -> GrantTerms:
    return GrantTerms(
        consumer=row.consumer, provider=row.provider, resource=row.resource, fields=tuple(json.loads(row.fields))
    )


def _terms_row(terms: GrantTerms) -> dict[str, Any]:
    return {
        "consumer": terms.consumer,
        "provider": terms.provider,
        "resource": terms.resource,
        "fields": json.dumps(terms.fields, ensure_ascii=False),
    }


def _span_row(span: Span) -> dict[str, Any]:
    return {
        "grant_id": span.grant,
        "position": span.position,
        "entry": span.entry,
        "since": span.since,
        "until": span.until,
        **_terms_row(span.terms),
    }


def _read_span(row: Any) -> Span:
    return Span(
        grant=row.grant_id, position=row.position, entry=row.entry, since=row.since, until=row.until, terms=_terms(row)
    )
