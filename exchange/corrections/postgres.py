"""PostgreSQL adapter of the store of correction tickets; every row carries a tag, as decisions stand in it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from typing_extensions import override

from exchange.corrections.model import OPEN, CorrectionNotice, CorrectionTicket, RecordPlace, TicketState
from exchange.corrections.store import (
    CorrectionStore,
    DisputedRecords,
    NoticeQuery,
    TicketQuery,
    acknowledged_before,
    already_open,
    moved_meanwhile,
    unknown_notice,
)
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import collect
from registry.database.row_tags import RowTags, tag_columns, tagged
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of
from schemas.names import Topic

__all__ = ["PostgresCorrections", "metadata"]

_ID = sa.Text(collation="C")
_OPEN = tuple(sorted(state.value for state in OPEN))
_IS_OPEN = sa.text(f"state IN ({', '.join(repr(state) for state in _OPEN)})")
# A grant need not have a ticket yet that could be locked.
_LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtextextended('correction/' || :grant, 0))")

metadata = sa.MetaData()

_ticket = sa.Table(
    "correction_ticket",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("topic", _ID, nullable=False),
    sa.Column("field", sa.Text, nullable=False),
    sa.Column("record", sa.LargeBinary, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("partition", sa.Integer, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("grant_id", _ID, nullable=False),
    sa.Column("raiser", _ID, nullable=False),
    sa.Column("raised_by", sa.Text, nullable=False),
    sa.Column("record_key", sa.LargeBinary, nullable=False),
    sa.Column("claim", sa.LargeBinary, nullable=False),  # sealed
    sa.Column("provider", _ID, nullable=False),
    sa.Column("source", _ID, nullable=False),
    sa.Column("state", _ID, nullable=False),
    sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("overdue_at", sa.DateTime(timezone=True)),
    sa.Column("transfers", sa.Integer, nullable=False),
    sa.Column("reported_by", sa.Text, nullable=False),
    sa.Column("reported_at", sa.DateTime(timezone=True)),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("correct_generation", sa.Integer),
    sa.Column("correct_position", sa.BigInteger),
    sa.Column("correction_entry", sa.Text, nullable=False),
    sa.Column("told", sa.Integer),
    *tag_columns(),
    sa.Index("correction_ticket_once", "grant_id", "record", "field", unique=True, postgresql_where=_IS_OPEN),
    sa.Index("correction_ticket_record", "topic", "record"),
    sa.Index("correction_ticket_raiser", "raiser", "id"),
    sa.Index("correction_ticket_source", "source", "id"),
    sa.Index("correction_ticket_provider", "provider", "id"),
    sa.Index("correction_ticket_open", "id", postgresql_where=_IS_OPEN),
    info=tagged("access"),
)

_notice = sa.Table(
    "correction_notice",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("ticket", _ID, nullable=False),
    sa.Column("topic", _ID, nullable=False),
    sa.Column("field", sa.Text, nullable=False),
    sa.Column("grant_id", _ID, nullable=False),
    sa.Column("consumer", _ID, nullable=False),
    sa.Column("record_key", sa.LargeBinary, nullable=False),
    sa.Column("release", sa.Text, nullable=False),  # id of an entry
    sa.Column("told_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("acknowledged_by", sa.Text, nullable=False),
    sa.Column("acknowledged_at", sa.DateTime(timezone=True)),
    *tag_columns(),
    sa.Index("correction_notice_ticket", "ticket", "grant_id", unique=True),
    sa.Index("correction_notice_consumer", "consumer", "id"),
    info=tagged("access"),
)


class PostgresCorrections(CorrectionStore):
    """The adapter. Every call runs on the connection of its transaction.

    Args:
        tags: makes and checks the tags of rows.
    """

    def __init__(self, tags: RowTags) -> None:
        self._tags = tags

    @override
    def add(self, work: UnitOfWork, ticket: CorrectionTicket) -> None:
        connection = connection_of(work)
        connection.execute(_LOCK, {"grant": ticket.grant})
        same = (
            (_ticket.c.grant_id == ticket.grant)
            & (_ticket.c.record == ticket.record)
            & (_ticket.c.field == ticket.field)
            & _ticket.c.state.in_(_OPEN)
        )
        if connection.execute(sa.select(sa.exists().where(same))).scalar_one():
            raise already_open()
        self._tags.insert(work, _ticket, {"id": ticket.id, **_columns(ticket)})

    @override
    def replace(self, work: UnitOfWork, ticket: CorrectionTicket, before: CorrectionTicket) -> None:
        same = (
            (_ticket.c.id == before.id)
            & (_ticket.c.state == before.state.value)
            & (_ticket.c.record == before.record)
            & (_ticket.c.transfers == before.transfers)
            & _ticket.c.overdue_at.is_not_distinct_from(before.overdue_at)
        )
        if len(self._tags.change(work, _ticket, same, _columns(ticket))) != 1:
            raise moved_meanwhile()

    @override
    def get(self, reader: Reader, ticket_id: str) -> CorrectionTicket | None:
        row = connection_of(reader).execute(sa.select(_ticket).where(_ticket.c.id == ticket_id)).one_or_none()
        return None if row is None else _read(self._tags.checked(_ticket, row))

    @override
    def page(self, reader: Reader, query: TicketQuery) -> Sequence[CorrectionTicket | DamagedRow]:
        wanted = _conditions(query)

        def read(after: str, most: int) -> Sequence[Any]:
            statement = sa.select(_ticket).where(_ticket.c.id > after, *wanted).order_by(_ticket.c.id).limit(most)
            return connection_of(reader).execute(statement).all()

        def keep(rows: Sequence[Any]) -> Sequence[CorrectionTicket | DamagedRow]:
            return self._tags.listed(_ticket, rows, _read, lambda row: DamagedRow.of(id=row["id"]))

        return collect(read, keep, lambda row: str(row.id), after=query.after, limit=query.limit)

    @override
    def count_open(self, reader: Reader, raiser: str, most: int) -> int:
        first = (
            sa.select(_ticket.c.id).where(_ticket.c.raiser == raiser, _ticket.c.state.in_(_OPEN)).limit(most).subquery()
        )
        return connection_of(reader).execute(sa.select(sa.func.count()).select_from(first)).scalar_one()

    @override
    def disputed(self, reader: Reader) -> DisputedRecords:
        rows = connection_of(reader).execute(sa.select(_ticket).where(_ticket.c.state.in_(_OPEN)))
        found: dict[Topic, dict[bytes, frozenset[str]]] = {}
        for row in self._tags.valid(_ticket, rows):
            records = found.setdefault(Topic.parse(row["topic"]), {})
            record = bytes(row["record"])
            records[record] = records.get(record, frozenset()) | {row["field"]}
        return found

    @override
    def erase(self, work: UnitOfWork, topic: Topic, record: bytes) -> int:
        named = (_ticket.c.topic == str(topic)) & (_ticket.c.record == record)
        nothing = {"record": b"", "record_key": b"", "claim": b""}
        open_ones = named & _ticket.c.state.in_(_OPEN)
        # A row that is damaged for the moment of it must not keep what it holds.
        ids = [str(row["id"]) for row in self._tags.change(work, _ticket, open_ones, _CLOSED, restricts=True)]
        ids += [str(row["id"]) for row in self._tags.change(work, _ticket, named, nothing, restricts=True)]
        tickets = {*ids}
        if tickets:
            of_them = _notice.c.ticket.in_(sorted(tickets))
            self._tags.change(work, _notice, of_them, {"record_key": b""}, restricts=True)
        return len(tickets)

    @override
    def add_notices(self, work: UnitOfWork, notices: Sequence[CorrectionNotice]) -> None:
        for one in notices:
            values = {
                "id": one.id,
                "ticket": one.ticket,
                "topic": str(one.topic),
                "field": one.field,
                "grant_id": one.grant,
                "consumer": one.consumer,
                "record_key": one.record_key,
                "release": one.release,
                "told_at": one.told_at,
                "acknowledged_by": one.acknowledged_by,
                "acknowledged_at": one.acknowledged_at,
            }
            self._tags.insert(work, _notice, values)

    @override
    def get_notice(self, reader: Reader, notice_id: str) -> CorrectionNotice | None:
        row = connection_of(reader).execute(sa.select(_notice).where(_notice.c.id == notice_id)).one_or_none()
        return None if row is None else _read_notice(self._tags.checked(_notice, row))

    @override
    def acknowledge(self, work: UnitOfWork, notice_id: str, *, by: str, at: datetime) -> CorrectionNotice:
        return self._change_waiting(work, notice_id, {"acknowledged_by": by, "acknowledged_at": at})

    @override
    def hand_over(self, work: UnitOfWork, notice_id: str, *, consumer: str) -> CorrectionNotice:
        return self._change_waiting(work, notice_id, {"consumer": consumer})

    def _change_waiting(self, work: UnitOfWork, notice_id: str, values: Mapping[str, Any]) -> CorrectionNotice:
        waits = (_notice.c.id == notice_id) & _notice.c.acknowledged_at.is_(None)
        if not self._tags.change(work, _notice, waits, values):
            raise unknown_notice() if self.get_notice(work, notice_id) is None else acknowledged_before()
        found = self.get_notice(work, notice_id)
        if found is None:
            raise unknown_notice()
        return found

    @override
    def notices(self, reader: Reader, query: NoticeQuery) -> Sequence[CorrectionNotice | DamagedRow]:
        wanted: list[sa.ColumnElement[bool]] = []
        if query.consumer is not None:
            wanted.append(_notice.c.consumer == query.consumer)
        if query.ticket is not None:
            wanted.append(_notice.c.ticket == query.ticket)
        if query.acknowledged is not None:
            given = _notice.c.acknowledged_at.is_not(None)
            wanted.append(given if query.acknowledged else ~given)

        def read(after: str, most: int) -> Sequence[Any]:
            statement = sa.select(_notice).where(_notice.c.id > after, *wanted).order_by(_notice.c.id).limit(most)
            return connection_of(reader).execute(statement).all()

        def keep(rows: Sequence[Any]) -> Sequence[CorrectionNotice | DamagedRow]:
            return self._tags.listed(_notice, rows, _read_notice, lambda row: DamagedRow.of(id=row["id"]))

        return collect(read, keep, lambda row: str(row.id), after=query.after, limit=query.limit)


_CLOSED = {"state": TicketState.CLOSED_REJECTED.value, "record": b"", "record_key": b"", "claim": b""}


def _conditions(query: TicketQuery) -> list[sa.ColumnElement[bool]]:
    columns = _ticket.c
    wanted: list[sa.ColumnElement[bool]] = []
    if query.party is not None:
        wanted.append(
            (columns.raiser == query.party) | (columns.provider == query.party) | (columns.source == query.party)
        )
    equal: tuple[tuple[sa.Column[Any], Any], ...] = (
        (columns.source, query.source),
        (columns.raiser, query.raiser),
        (columns.topic, None if query.topic is None else str(query.topic)),
        (columns.record, query.record),
        (columns.grant_id, query.grant),
    )
    wanted += [column == value for column, value in equal if value is not None]
    if query.states is not None:
        wanted.append(columns.state.in_(sorted(state.value for state in query.states)))
    if query.overdue is not None:
        late = columns.overdue_at.is_not(None)
        wanted.append(late if query.overdue else ~late)
    return wanted


def _columns(ticket: CorrectionTicket) -> dict[str, Any]:
    correction = ticket.correction
    return {
        "topic": str(ticket.topic),
        "field": ticket.field,
        "record": ticket.record,
        "generation": ticket.place.generation,
        "partition": ticket.place.partition,
        "position": ticket.place.position,
        "grant_id": ticket.grant,
        "raiser": ticket.raiser,
        "raised_by": ticket.raised_by,
        "record_key": ticket.record_key,
        "claim": ticket.claim,
        "provider": ticket.provider,
        "source": ticket.source,
        "state": ticket.state.value,
        "received_at": ticket.received_at,
        "overdue_at": ticket.overdue_at,
        "transfers": ticket.transfers,
        "reported_by": ticket.reported_by,
        "reported_at": ticket.reported_at,
        "reason": ticket.reason,
        "correct_generation": None if correction is None else correction.generation,
        "correct_position": None if correction is None else correction.position,
        "correction_entry": ticket.correction_entry,
        "told": ticket.told,
    }


def _read(row: Mapping[str, Any]) -> CorrectionTicket:
    generation, partition = row["correct_generation"], row["partition"]
    return CorrectionTicket(
        id=row["id"],
        topic=Topic.parse(row["topic"]),
        field=row["field"],
        record=bytes(row["record"]),
        place=RecordPlace(row["generation"], partition, row["position"]),
        grant=row["grant_id"],
        raiser=row["raiser"],
        raised_by=row["raised_by"],
        record_key=bytes(row["record_key"]),
        claim=bytes(row["claim"]),
        provider=row["provider"],
        source=row["source"],
        state=TicketState(row["state"]),
        received_at=row["received_at"],
        overdue_at=row["overdue_at"],
        transfers=row["transfers"],
        reported_by=row["reported_by"],
        reported_at=row["reported_at"],
        reason=row["reason"],
        correction=None if generation is None else RecordPlace(generation, partition, row["correct_position"]),
        correction_entry=row["correction_entry"],
        told=row["told"],
    )


def _read_notice(row: Mapping[str, Any]) -> CorrectionNotice:
    return CorrectionNotice(
        id=row["id"],
        ticket=row["ticket"],
        topic=Topic.parse(row["topic"]),
        field=row["field"],
        grant=row["grant_id"],
        consumer=row["consumer"],
        record_key=bytes(row["record_key"]),
        release=row["release"],
        told_at=row["told_at"],
        acknowledged_by=row["acknowledged_by"],
        acknowledged_at=row["acknowledged_at"],
    )
