"""PostgreSQL adapter of data elements: the dictionary, and the sources in force.

Every row carries a tag (`registry.database.row_tags`); a list names a row without its own as damaged, and reports it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from typing_extensions import override

from registry.catalogue.element_store import ElementStore
from registry.catalogue.elements import Claim, DataElement, ElementUse
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import collect
from registry.database.row_tags import RowTags
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of
from registry.directory.store import stale_version
from registry.postgres.tables import data_element, element_source, element_use
from schemas.access import Level, MaskRule
from schemas.names import ResourceName, Topic

__all__ = ["PostgresElements"]


class PostgresElements(ElementStore):
    """Store of data elements in PostgreSQL.

    Args:
        tags: makes and checks the tags of rows.
    """

    def __init__(self, tags: RowTags) -> None:
        self._tags = tags

    @override
    def save(self, work: UnitOfWork, element: DataElement) -> None:
        body = json.dumps(asdict(element) | {"level": element.level.name}, ensure_ascii=False)
        columns = {"version": element.version, "body": body}
        if element.version == 1:
            row = self._tags.new(data_element, {"code": element.code, **columns})
            new = postgresql.insert(data_element).values(row).on_conflict_do_nothing()
            saved = connection_of(work).execute(new.returning(data_element.c.code)).first() is not None
            if saved:
                self._tags.note_new(work, data_element, row)
        else:
            current = (data_element.c.code == element.code) & (data_element.c.version == element.version - 1)
            saved = len(self._tags.change(work, data_element, current, columns)) == 1
        if not saved:
            raise stale_version("data element", element.version - 1)

    @override
    def get(self, reader: Reader, code: str) -> DataElement | None:
        return self._one(reader, sa.select(data_element).where(data_element.c.code == code))

    @override
    def lock(self, work: UnitOfWork, code: str) -> DataElement | None:
        return self._one(work, sa.select(data_element).where(data_element.c.code == code).with_for_update())

    def _one(self, reader: Reader, statement: sa.Select[Any]) -> DataElement | None:
        row = connection_of(reader).execute(statement).one_or_none()
        return None if row is None else _element(self._tags.checked(data_element, row))

    @override
    def page(self, reader: Reader, *, after: str = "", limit: int = 1_000) -> Sequence[DataElement | DamagedRow]:
        def read(key: str, most: int) -> Sequence[Any]:
            behind = data_element.c.code > key
            statement = sa.select(data_element).where(behind).order_by(data_element.c.code).limit(most)
            return connection_of(reader).execute(statement).all()

        def keep(rows: Sequence[Any]) -> list[DataElement | DamagedRow]:
            return self._tags.listed(data_element, rows, _element, lambda row: DamagedRow.of(code=row["code"]))

        return collect(read, keep, lambda row: str(row.code), after=after, limit=limit)

    @override
    def claims(self, reader: Reader, code: str) -> Sequence[Claim]:
        table = element_source
        statement = sa.select(table).where(table.c.element == code).order_by(table.c.name, table.c.major)
        rows = connection_of(reader).execute(statement)
        # A forged row is refused and not left out: nobody publishes past a claim that was damaged.
        return [_claim(self._tags.checked(table, row)) for row in rows]

    @override
    def replace_claims(self, work: UnitOfWork, topic: Topic, provider: str, codes: Sequence[str]) -> None:
        table = element_source
        self._tags.delete(work, table, sa.and_(table.c.name == str(topic.name), table.c.major == topic.major))
        for code in codes:
            row = {"element": code, "name": str(topic.name), "major": topic.major, "provider": provider}
            self._tags.insert(work, table, row)

    @override
    def drop_claims(self, work: UnitOfWork, code: str, *, but: str) -> None:
        table = element_source
        self._tags.delete(work, table, sa.and_(table.c.element == code, table.c.provider != but))

    @override
    def replace_uses(self, work: UnitOfWork, subject: str, version: int, uses: Sequence[tuple[str, str]]) -> None:
        connection = connection_of(work)
        connection.execute(sa.delete(element_use).where(element_use.c.subject == subject))
        rows = [{"element": code, "subject": subject, "path": path, "version": version} for code, path in uses]
        if rows:
            connection.execute(sa.insert(element_use), rows)

    @override
    def uses(
        self, reader: Reader, code: str, *, after: tuple[str, str] = ("", ""), limit: int = 1_000
    ) -> Sequence[ElementUse]:
        table = element_use
        place = sa.tuple_(table.c.subject, table.c.path)
        statement = sa.select(table.c.subject, table.c.path, table.c.version).where(
            table.c.element == code, place > sa.tuple_(*map(sa.literal, after))
        )
        rows = connection_of(reader).execute(statement.order_by(table.c.subject, table.c.path).limit(limit))
        return [ElementUse(subject, path, version) for subject, path, version in rows]


def _element(row: Mapping[str, Any]) -> DataElement:
    values: dict[str, Any] = json.loads(row["body"])
    values["level"] = Level[values["level"]]
    values["mask"] = MaskRule(values["mask"])
    return DataElement(**values)


def _claim(row: Mapping[str, Any]) -> Claim:
    return Claim(row["element"], Topic(ResourceName(row["name"]), row["major"]), row["provider"])
