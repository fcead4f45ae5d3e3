"""PostgreSQL adapter of the store of violation cases; every row carries a tag, as decisions stand in it.

How far the log was read is no decision, and changes every few seconds without an act. So its row has a MAC of its own
and no note in the log: who invents a later position is found out, and who puts an old one back, or removes it, has the
log read again, which makes no case twice.
"""

import hmac
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc
from sqlalchemy.dialects import postgresql as pg
from typing_extensions import override

from exchange.violations.case_json import from_document, to_document
from exchange.violations.model import CaseState, ViolationCase
from exchange.violations.store import CaseQuery, ViolationStore, already_open, case_changed
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import collect
from registry.database.row_tags import RowTags, proven, tag_columns, tagged
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of
from schemas.errors import CorruptError

__all__ = ["PostgresViolations", "metadata"]

_ID = sa.Text(collation="C")
_FAMILY = "access"

metadata = sa.MetaData()

_case = sa.Table(
    "violation_case",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("occurrence", _ID, nullable=False, unique=True),
    sa.Column("respondent", _ID, nullable=False),
    sa.Column("reporter", _ID, nullable=False),
    sa.Column("code", sa.Text, nullable=False),
    sa.Column("grant_id", _ID, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),  # JSON: the whole case
    *tag_columns(),
    sa.Index("violation_case_respondent", "respondent", "id"),
    sa.Index("violation_case_reporter", "reporter", "id", postgresql_where=sa.text("reporter <> ''")),
    sa.Index("violation_case_open", "id", postgresql_where=sa.text("state <> 'closed'")),
    sa.Index("violation_case_grant", "grant_id", "id", postgresql_where=sa.text("grant_id <> ''")),
    info=tagged(_FAMILY),
)

_position = sa.Table(
    "violation_log_position",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("mac", sa.LargeBinary(32), nullable=False),
    info=proven("a MAC over it; an older one has the log read again, which makes no case twice"),
)

_NAME = "violations"


class PostgresViolations(ViolationStore):
    """The adapter. Every call runs on the connection of its transaction.

    Args:
        tags: makes and checks the tags of rows.
    """

    def __init__(self, tags: RowTags) -> None:
        self._tags = tags

    @override
    def add(self, work: UnitOfWork, case: ViolationCase) -> None:
        connection = connection_of(work)
        values = {
            "id": case.id,
            "occurrence": case.occurrence.key,
            "respondent": case.occurrence.respondent,
            "reporter": case.occurrence.reporter,
            "code": str(case.occurrence.code),
            "grant_id": case.occurrence.grant,
            **_changing(case),
        }
        try:
            with connection.begin_nested():
                self._tags.insert(work, _case, values)
        except sa_exc.IntegrityError as error:
            same = sa.select(_case.c.id).where(_case.c.occurrence == case.occurrence.key)
            raise already_open(connection.execute(same).scalar_one_or_none() or case.id) from error

    @override
    def change(self, work: UnitOfWork, case: ViolationCase) -> None:
        before = (_case.c.id == case.id) & (_case.c.version == case.version - 1)
        if len(self._tags.change(work, _case, before, _changing(case))) != 1:
            raise case_changed(case.id)

    @override
    def get(self, reader: Reader, case_id: str) -> ViolationCase | None:
        return self._one(reader, sa.select(_case).where(_case.c.id == case_id))

    @override
    def lock(self, work: UnitOfWork, case_id: str) -> ViolationCase | None:
        return self._one(work, sa.select(_case).where(_case.c.id == case_id).with_for_update())

    @override
    def known(self, reader: Reader, keys: Sequence[str]) -> frozenset[str]:
        wanted = sa.any_(sa.cast(list(keys), pg.ARRAY(sa.Text)))
        statement = sa.select(_case.c.occurrence).where(_case.c.occurrence == wanted)
        return frozenset(connection_of(reader).execute(statement).scalars())

    @override
    def holding(self, reader: Reader, grant_id: str) -> Sequence[ViolationCase]:
        # Of every state: what the column says of it is not proven before the tag is checked.
        statement = sa.select(_case).where(_case.c.grant_id == grant_id, _case.c.grant_id != "").order_by(_case.c.id)
        cases = [_read(self._tags.checked(_case, row)) for row in connection_of(reader).execute(statement)]
        return [one for one in cases if one.holds_grant]

    @override
    def held(self, reader: Reader, grants: Collection[str]) -> frozenset[str]:
        if not grants:
            return frozenset()
        statement = sa.select(_case).where(_case.c.grant_id.in_(sorted(grants)), _case.c.grant_id != "")
        found = set()
        for row in connection_of(reader).execute(statement):
            try:
                holds = _read(self._tags.checked(_case, row)).holds_grant
            except CorruptError:
                holds = True
            if holds:
                found.add(str(row.grant_id))
        return frozenset(found)

    @override
    def page(self, reader: Reader, query: CaseQuery) -> Sequence[ViolationCase | DamagedRow]:
        def read(key: str, most: int) -> Sequence[Any]:
            statement = _selected(query).order_by(_case.c.id.desc()).limit(most)
            if key:
                statement = statement.where(_case.c.id < key)
            return connection_of(reader).execute(statement).all()

        def keep(rows: Sequence[Any]) -> list[ViolationCase | DamagedRow]:
            return self._tags.listed(_case, rows, _read, lambda row: DamagedRow.of(id=row["id"]))

        return collect(read, keep, lambda row: str(row.id), after=query.before, limit=query.limit)

    @override
    def count_reported(self, reader: Reader, reporter: str, most: int) -> int:
        own = (_case.c.reporter == reporter) & (_case.c.reporter != "") & (_case.c.state != CaseState.CLOSED.value)
        first = sa.select(_case.c.id).where(own).limit(most).subquery()
        return connection_of(reader).execute(sa.select(sa.func.count()).select_from(first)).scalar_one()

    @override
    def position(self, reader: Reader) -> int:
        row = connection_of(reader).execute(sa.select(_position).where(_position.c.name == _NAME)).one_or_none()
        if row is None or not hmac.compare_digest(bytes(row.mac), self._mac(row.position)):
            return 0
        found: int = row.position
        return found

    @override
    def move(self, work: UnitOfWork, position: int) -> None:
        connection = connection_of(work)
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended('violation-log-position', 0))"))
        if position <= self.position(work):
            return
        values = {"position": position, "mac": self._mac(position)}
        statement = pg.insert(_position).values(name=_NAME, **values)
        connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))

    @override
    def restart(self, work: UnitOfWork) -> None:
        connection_of(work).execute(sa.delete(_position).where(_position.c.name == _NAME))

    def _one(self, reader: Reader, statement: "sa.Select[Any]") -> ViolationCase | None:
        row = connection_of(reader).execute(statement).one_or_none()
        return None if row is None else _read(self._tags.checked(_case, row))

    def _mac(self, position: int) -> bytes:
        return self._tags.mac(_FAMILY, f"violation-log-position {position}".encode())


def _selected(query: CaseQuery) -> "sa.Select[Any]":
    statement = sa.select(_case)
    if query.party is not None:
        parties = sorted({query.party, *query.taken_over} - {""})
        statement = statement.where(_case.c.respondent.in_(parties) | _case.c.reporter.in_(parties))
    if query.respondent is not None:
        statement = statement.where(_case.c.respondent == query.respondent)
    if query.states is not None:
        statement = statement.where(_case.c.state.in_(sorted(query.states)))
        if "closed" not in query.states:  # stated as the index states it
            statement = statement.where(sa.text("violation_case.state <> 'closed'"))
    if query.code is not None:
        statement = statement.where(_case.c.code == str(query.code))
    if query.grant is not None:
        statement = statement.where(_case.c.grant_id == query.grant)
    return statement


def _changing(case: ViolationCase) -> dict[str, Any]:
    body = json.dumps(to_document(case), ensure_ascii=False, sort_keys=True)
    return {"state": str(case.state), "version": case.version, "body": body}


def _read(row: Mapping[str, Any]) -> ViolationCase:
    return from_document(json.loads(row["body"]))
