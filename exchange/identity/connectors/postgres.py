"""PostgreSQL adapter of the connector store.

Certificates and invitations are tagged rows (`registry.database.row_tags`), and are checked as everywhere. A page of
connectors is one walk of an index in its order, and one step for the newest certificate of each.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from typing_extensions import override

from exchange.identity.connectors.store import (
    ConnectorKey,
    ConnectorStore,
    EnrolledName,
    InvitationPlace,
    StoredReport,
    invitation_cursor,
    invitation_id,
)
from exchange.identity.postgres import metadata, read_certificate, read_invitation
from exchange.identity.store import Certificate, OneTimeToken
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import collect
from registry.database.row_tags import RowTags
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of
from schemas.connector_report import ConnectorReport
from schemas.errors import InvalidError

__all__ = ["PostgresConnectorStore", "metadata"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_certificate = metadata.tables["identity_certificate"]
_invitation = metadata.tables["identity_invitation"]
_report = metadata.tables["identity_report"]


class PostgresConnectorStore(ConnectorStore):
    """The adapter. Every call runs on the connection of its transaction.

    Args:
        tags: checks the tags of rows.
    """

    def __init__(self, tags: RowTags) -> None:
        self._tags = tags

    @override
    def connectors_page(
        self, reader: Reader, *, department: str | None, after: ConnectorKey, limit: int
    ) -> Sequence[EnrolledName | DamagedRow]:
        def read(key: ConnectorKey, most: int) -> Sequence[Any]:
            return connection_of(reader).execute(_connectors(department, key, most)).all()

        def keep(rows: Sequence[Any]) -> list[EnrolledName | DamagedRow]:
            # One by one, so that each item stands beside the number of its certificates.
            found: list[EnrolledName | DamagedRow] = []
            for row in rows:
                values = {name: value for name, value in row._asdict().items() if name != "certificates"}
                for one in self._tags.listed(_certificate, [values], read_certificate, _damaged_connector):
                    item = one if isinstance(one, DamagedRow) else _enrolled(one, row.certificates)
                    found.append(item)
            return found

        return collect(read, keep, lambda row: (row.department, row.connector), after=after, limit=limit)

    @override
    def invitations_page(
        self, reader: Reader, *, department: str | None, before: InvitationPlace | None, limit: int
    ) -> Sequence[OneTimeToken | DamagedRow]:
        def read(place: InvitationPlace | None, most: int) -> Sequence[Any]:
            return connection_of(reader).execute(_invitations(department, place, most)).all()

        def keep(rows: Sequence[Any]) -> list[OneTimeToken | DamagedRow]:
            return self._tags.listed(_invitation, rows, read_invitation, _damaged_invitation)

        return collect(read, keep, lambda row: (row.created_at, bytes(row.digest)), after=before, limit=limit)

    @override
    def put_report(self, work: UnitOfWork, connector: ConnectorKey, at: datetime, report: ConnectorReport) -> None:
        values = {
            "received_at": at,
            "program": report.program,
            "started": _EPOCH + timedelta(microseconds=report.started),
            "body": report.document(),
        }
        statement = pg.insert(_report).values(department=connector[0], connector=connector[1], **values)
        newest = statement.on_conflict_do_update(
            index_elements=[_report.c.department, _report.c.connector], set_=values
        )
        connection_of(work).execute(newest)

    @override
    def reports(self, reader: Reader, connectors: Collection[ConnectorKey]) -> Mapping[ConnectorKey, StoredReport]:
        rows = connection_of(reader).execute(_reports(connectors))
        return {
            (row.department, row.connector): StoredReport(received_at=row.received_at, report=_read_report(row.body))
            for row in rows
        }

    @override
    def unheard(self, reader: Reader, *, since: datetime, now: datetime) -> Mapping[str, int]:
        in_force = sa.exists().where(
            _certificate.c.department == _report.c.department,
            _certificate.c.connector == _report.c.connector,
            _certificate.c.not_after > now,
            _certificate.c.revoked_at.is_(None),
        )
        ended = sa.func.coalesce(_report.c.body["ended"] == sa.cast(True, pg.JSONB), False)
        statement = (
            sa.select(_report.c.department, sa.func.count())
            .where(_report.c.received_at < since, sa.not_(ended), in_force)
            .group_by(_report.c.department)
        )
        return {row[0]: int(row[1]) for row in connection_of(reader).execute(statement)}


def _connectors(department: str | None, after: ConnectorKey, most: int) -> sa.Select[Any]:
    """Return the query of a page of connectors: names in the order of an index, each with its newest certificate."""
    names = (_certificate.c.department, _certificate.c.connector)
    statement = sa.select(*names, sa.func.count().label("certificates")).where(sa.tuple_(*names) > sa.tuple_(*after))
    if department is not None:
        statement = statement.where(_certificate.c.department == department)
    page = statement.group_by(*names).order_by(*names).limit(most).subquery("page")
    newest = (
        sa.select(_certificate)
        .where(_certificate.c.department == page.c.department, _certificate.c.connector == page.c.connector)
        .order_by(_certificate.c.not_after.desc(), _certificate.c.serial.desc())
        .limit(1)
        .lateral("newest")
    )
    return (
        sa.select(*newest.c, page.c.certificates)
        .select_from(page.join(newest, sa.true()))
        .order_by(page.c.department, page.c.connector)
    )


def _invitations(department: str | None, before: InvitationPlace | None, most: int) -> sa.Select[Any]:
    place = (_invitation.c.created_at, _invitation.c.digest)
    statement = sa.select(_invitation).order_by(*(column.desc() for column in place)).limit(most)
    if before is not None:
        statement = statement.where(sa.tuple_(*place) < sa.tuple_(*before))
    if department is not None:
        statement = statement.where(_invitation.c.department == department)
    return statement


def _reports(connectors: Collection[ConnectorKey]) -> sa.Select[Any]:
    departments = sa.cast([one[0] for one in connectors], pg.ARRAY(sa.Text))
    names = sa.cast([one[1] for one in connectors], pg.ARRAY(sa.Text))
    asked = sa.func.unnest(departments, names).table_valued("department", "connector").render_derived()
    which = (_report.c.department == asked.c.department) & (_report.c.connector == asked.c.connector)
    found = sa.select(_report).where(which).limit(1).lateral("found")  # one look-up each, never a walk through all
    return sa.select(*found.c).select_from(asked.join(found, sa.true()))


def _enrolled(certificate: Certificate, certificates: int) -> EnrolledName:
    return EnrolledName(certificate=certificate, certificates=certificates)


def _damaged_connector(row: Mapping[str, Any]) -> DamagedRow | None:
    return DamagedRow.of(
        f"{row['department']}/{row['connector']}", department=row["department"], connector=row["connector"]
    )


def _damaged_invitation(row: Mapping[str, Any]) -> DamagedRow | None:
    digest = bytes(row["digest"])
    return DamagedRow.of(invitation_cursor(row["created_at"], digest), id=invitation_id(digest))


def _read_report(body: Any) -> ConnectorReport | None:
    try:
        return ConnectorReport.of_document(body)
    except InvalidError:
        return None
