"""PostgreSQL adapter of the store of duty lists."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
from typing_extensions import override

from exchange.duties.model import DutyItem, cursor_of, split_cursor
from exchange.duties.store import DutyStore
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import collect
from registry.database.row_tags import RowTags, tag_columns, tagged
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of

__all__ = ["PostgresDuties", "metadata"]

_ID = sa.Text(collation="C")

metadata = sa.MetaData()

_duty = sa.Table(
    "duty_item",
    metadata,
    sa.Column("department", _ID, primary_key=True),
    sa.Column("code", _ID, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("legal_basis", sa.Text, nullable=False),
    sa.Column("purposes", sa.Text, nullable=False),  # JSON: a list of ids
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("changed_by", sa.Text, nullable=False),
    sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
    *tag_columns(),
    info=tagged("access"),
)


class PostgresDuties(DutyStore):
    """The adapter. Every call runs on the connection of its transaction.

    Args:
        tags: makes and checks the tags of rows.
    """

    def __init__(self, tags: RowTags) -> None:
        self._tags = tags

    @override
    def put(self, work: UnitOfWork, item: DutyItem) -> None:
        values = {
            "name": item.name,
            "legal_basis": item.legal_basis,
            "purposes": json.dumps(item.purposes),
            "active": item.active,
            "changed_by": item.changed_by,
            "changed_at": item.changed_at,
        }
        same = (_duty.c.department == item.department) & (_duty.c.code == item.code)
        if not self._tags.change(work, _duty, same, values):
            self._tags.insert(work, _duty, {"department": item.department, "code": item.code, **values})

    @override
    def get(self, reader: Reader, department: str, code: str) -> DutyItem | None:
        statement = sa.select(_duty).where((_duty.c.department == department) & (_duty.c.code == code))
        row = connection_of(reader).execute(statement).one_or_none()
        return None if row is None else _read(self._tags.checked(_duty, row))

    @override
    def count(self, reader: Reader, department: str, most: int) -> int:
        first = sa.select(_duty.c.code).where(_duty.c.department == department).limit(most).subquery()
        return connection_of(reader).execute(sa.select(sa.func.count()).select_from(first)).scalar_one()

    @override
    def page(
        self, reader: Reader, *, department: str | None = None, after: str = "", limit: int
    ) -> Sequence[DutyItem | DamagedRow]:
        def keep(rows: Sequence[Any]) -> list[DutyItem | DamagedRow]:
            return self._tags.listed(
                _duty, rows, _read, lambda row: DamagedRow.of(id=cursor_of(row["department"], row["code"]))
            )

        read = partial(_rows, reader, department)
        return collect(read, keep, lambda row: cursor_of(row.department, row.code), after=after, limit=limit)


def _rows(reader: Reader, department: str | None, after: str, most: int) -> Sequence[Any]:
    statement = sa.select(_duty).order_by(_duty.c.department, _duty.c.code).limit(most)
    if after:
        statement = statement.where(sa.tuple_(_duty.c.department, _duty.c.code) > sa.tuple_(*split_cursor(after)))
    if department is not None:
        statement = statement.where(_duty.c.department == department)
    return connection_of(reader).execute(statement).all()


def _read(row: Mapping[str, Any]) -> DutyItem:
    return DutyItem(
        department=row["department"],
        code=row["code"],
        name=row["name"],
        legal_basis=row["legal_basis"],
        purposes=tuple(json.loads(row["purposes"])),
        active=row["active"],
        changed_by=row["changed_by"],
        changed_at=row["changed_at"],
    )
