"""PostgreSQL adapter of the identity store: invitations, certificates, signing keys, accounts.

Every row carries a tag (`registry.database.row_tags`): what an administrator of the database inserts or changes is
refused when it is read. Lists name such a row as damaged, and report it.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from typing_extensions import override

from exchange.identity.store import (
    Account,
    Certificate,
    IdentityStore,
    OneTimeToken,
    SigningKey,
    account_exists,
    token_exists,
)
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import collect
from registry.database.prepared_statement import PreparedStatement
from registry.database.row_tags import RowTags, columns_of, derived, tag_columns, tagged
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of
from schemas.access import Role
from schemas.errors import CorruptError

__all__ = ["PostgresIdentityStore", "metadata", "read_certificate", "read_invitation"]

metadata = sa.MetaData()
_ID = sa.Text(collation="C")  # ordered by code point, as everywhere else
_MOMENT = sa.DateTime(timezone=True)
_DIGEST = sa.LargeBinary(32)
_MOST_REVOKED = 100_000  # serials in memory

_invitation = sa.Table(
    "identity_invitation",
    metadata,
    sa.Column("digest", _DIGEST, primary_key=True),
    sa.Column("department", _ID, nullable=False),
    sa.Column("connector", _ID),
    sa.Column("invited_by", sa.Text, nullable=False),
    sa.Column("created_at", _MOMENT, nullable=False),
    sa.Column("expires_at", _MOMENT, nullable=False),
    sa.Column("used_at", _MOMENT),
    *tag_columns(),
    sa.Index("identity_invitation_made", "created_at", "digest"),
    sa.Index("identity_invitation_department", "department", "created_at", "digest"),
    info=tagged("identity"),
)
_certificate = sa.Table(
    "identity_certificate",
    metadata,
    sa.Column("serial", _ID, primary_key=True),
    sa.Column("department", _ID, nullable=False),
    sa.Column("connector", _ID, nullable=False),
    sa.Column("not_before", _MOMENT, nullable=False),
    sa.Column("not_after", _MOMENT, nullable=False),
    sa.Column("revoked_at", _MOMENT),
    sa.Column("revoked_by", sa.Text, nullable=False),
    sa.Column("revoked_because", sa.Text, nullable=False),
    *tag_columns(),
    sa.Index("identity_certificate_newest", "department", "connector", "not_after", "serial"),
    info=tagged("identity"),
)
_signing_key = sa.Table(
    "identity_signing_key",
    metadata,
    sa.Column("department", _ID, primary_key=True),
    sa.Column("connector", _ID, primary_key=True),
    sa.Column("since", _MOMENT, primary_key=True),
    sa.Column("until", _MOMENT),
    sa.Column("public_key", _DIGEST, nullable=False),
    *tag_columns(),
    sa.Index(
        "identity_signing_key_current",
        "department",
        "connector",
        unique=True,
        postgresql_where=sa.text("until IS NULL"),
    ),
    info=tagged("identity"),
)
_account = sa.Table(
    "identity_account",
    metadata,
    sa.Column("name", _ID, primary_key=True),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("department", _ID, nullable=False),
    sa.Column("digest", _DIGEST, nullable=False, unique=True),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("created_at", _MOMENT, nullable=False),
    sa.Column("revoked_at", _MOMENT),
    *tag_columns(),
    sa.Column("person", sa.Text, nullable=False),
    sa.Column("expires_at", _MOMENT, nullable=False),
    info=tagged("identity"),
)
# Beside the account, whose row changes by an act of two persons alone: this one changes with every minute of use.
_account_use = sa.Table(
    "identity_account_use",
    metadata,
    sa.Column("name", _ID, primary_key=True),
    sa.Column("used_at", _MOMENT, nullable=False),
    info=derived("shown in lists alone: when an account was last used decides nothing"),
)
# The last report of each connector; `exchange.identity.connectors.postgres` reads and writes it.
_report = sa.Table(
    "identity_report",
    metadata,
    sa.Column("department", _ID, primary_key=True),
    sa.Column("connector", _ID, primary_key=True),
    sa.Column("received_at", _MOMENT, nullable=False),
    sa.Column("program", sa.Text, nullable=False),
    sa.Column("started", _MOMENT, nullable=False),
    sa.Column("body", pg.JSONB, nullable=False),
    info=derived("a department's statement about its own program: shown in lists alone, it decides nothing"),
)

# An advisory lock, as there need not be a row yet that could be locked.
_LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")

# Run with each call that has a token, so it is prepared.
_BY_DIGEST = PreparedStatement(
    "identity_by_digest",
    f"SELECT {columns_of(_account)} FROM identity_account WHERE digest = :digest",  # noqa: S608 - names of columns
    digest="bytea",
)


class PostgresIdentityStore(IdentityStore):
    """The adapter. Every call runs on the connection of its transaction.

    Args:
        tags: makes and checks the tags of rows.
    """

    def __init__(self, tags: RowTags) -> None:
        self._tags = tags
        self._revoked: set[str] = set()  # serials that this process has read as revoked: no row revives one of them

    @override
    def add_invitation(self, work: UnitOfWork, token: OneTimeToken) -> None:
        values = {
            "digest": token.digest,
            "department": token.department,
            "connector": token.connector,
            "invited_by": token.invited_by,
            "created_at": token.created_at,
            "expires_at": token.expires_at,
            "used_at": token.used_at,
        }
        self._tags.insert(work, _invitation, values)

    @override
    def invitation(self, reader: Reader, digest: bytes) -> OneTimeToken | None:
        statement = sa.select(_invitation).where(_invitation.c.digest == digest)
        found = connection_of(reader).execute(statement).one_or_none()
        if found is None:
            return None
        return read_invitation(self._tags.checked(_invitation, found))

    @override
    def use_invitation(self, work: UnitOfWork, digest: bytes, at: datetime) -> bool:
        # On the locked row: a withdrawal that came between the look-up and this wins.
        which = (_invitation.c.digest == digest) & _invitation.c.used_at.is_(None)
        return bool(self._tags.change(work, _invitation, which, {"used_at": at}))

    @override
    def withdraw_invitations(self, work: UnitOfWork, *, department: str, connector: str | None, at: datetime) -> None:
        which = (_invitation.c.department == department) & _invitation.c.used_at.is_(None)
        if connector is not None:
            which &= _invitation.c.connector == connector
        self._tags.change(work, _invitation, which, {"used_at": at}, restricts=True)

    @override
    def withdraw_invitations_of(self, work: UnitOfWork, account: str, at: datetime) -> int:
        invited_by = sa.func.string_to_array(_invitation.c.invited_by, "+")
        which = (sa.literal(account) == sa.func.any(invited_by)) & _invitation.c.used_at.is_(None)
        return len(self._tags.change(work, _invitation, which, {"used_at": at}, restricts=True))

    @override
    def lock_person(self, work: UnitOfWork, person: str) -> None:
        connection_of(work).execute(_LOCK, {"name": f"identity-person:{person}"})

    @override
    def lock_department(self, work: UnitOfWork, department: str) -> None:
        connection_of(work).execute(_LOCK, {"name": f"identity:{department}"})

    @override
    def add_certificate(self, work: UnitOfWork, certificate: Certificate) -> None:
        values = {
            "serial": certificate.serial,
            "department": certificate.department,
            "connector": certificate.connector,
            "not_before": certificate.not_before,
            "not_after": certificate.not_after,
            "revoked_at": certificate.revoked_at,
            "revoked_by": certificate.revoked_by,
            "revoked_because": certificate.revoked_because,
        }
        self._tags.insert(work, _certificate, values)

    @override
    def certificate(self, reader: Reader, serial: str) -> Certificate | None:
        row = connection_of(reader).execute(_certificate_of(serial)).one_or_none()
        return None if row is None else self._certificate(row)

    @override
    def certificates_by_serial(self, reader: Reader, serials: Collection[str]) -> Mapping[str, Certificate]:
        rows = connection_of(reader).execute(sa.select(_certificate).where(_certificate.c.serial.in_(list(serials))))
        found = {}
        for row in rows:
            with suppress(CorruptError):
                certificate = self._certificate(row)
                found[certificate.serial] = certificate
        return found

    @override
    def lock_certificate(self, work: UnitOfWork, serial: str) -> Certificate | None:
        row = connection_of(work).execute(_certificate_of(serial).with_for_update(read=True)).one_or_none()
        return None if row is None else self._certificate(row)

    def _certificate(self, row: Any) -> Certificate:
        found = read_certificate(self._tags.checked(_certificate, row))
        if found.revoked_at is not None:
            if len(self._revoked) < _MOST_REVOKED:
                self._revoked.add(found.serial)
        elif found.serial in self._revoked:
            raise self._tags.put_back(_certificate, row)
        return found

    @override
    def certificates(self, reader: Reader, department: str, connector: str | None = None) -> Sequence[Certificate]:
        statement = sa.select(_certificate).where(_certificate.c.department == department)
        if connector is not None:
            statement = statement.where(_certificate.c.connector == connector)
        rows = connection_of(reader).execute(statement.order_by(_certificate.c.not_before, _certificate.c.serial))
        return [read_certificate(row) for row in self._tags.valid(_certificate, rows)]

    @override
    def certificates_page(
        self, reader: Reader, *, department: str | None, after: tuple[str, str, str], limit: int
    ) -> Sequence[Certificate | DamagedRow]:
        columns = (_certificate.c.department, _certificate.c.connector, _certificate.c.serial)

        def read(key: tuple[str, str, str], most: int) -> Sequence[Any]:
            statement = sa.select(_certificate).where(sa.tuple_(*columns) > sa.tuple_(*key))
            if department is not None:
                statement = statement.where(_certificate.c.department == department)
            return connection_of(reader).execute(statement.order_by(*columns).limit(most)).all()

        def keep(rows: Sequence[Any]) -> list[Certificate | DamagedRow]:
            return self._tags.listed(_certificate, rows, read_certificate, _damaged_certificate)

        return collect(read, keep, lambda row: (row.department, row.connector, row.serial), after=after, limit=limit)

    @override
    def revoke_certificates(
        self,
        work: UnitOfWork,
        *,
        department: str,
        connector: str | None = None,
        serial: str | None = None,
        at: datetime,
        by: str,
        because: str,
    ) -> Sequence[str]:
        which = (_certificate.c.department == department) & _certificate.c.revoked_at.is_(None)
        if connector is not None:
            which &= _certificate.c.connector == connector
        if serial is not None:
            which &= _certificate.c.serial == serial
        values = {"revoked_at": at, "revoked_by": by, "revoked_because": because}
        return [row["serial"] for row in self._tags.change(work, _certificate, which, values, restricts=True)]

    @override
    def set_signing_key(self, work: UnitOfWork, key: SigningKey) -> None:
        current = (
            (_signing_key.c.department == key.department)
            & (_signing_key.c.connector == key.connector)
            & _signing_key.c.until.is_(None)
        )
        self._tags.change(work, _signing_key, current, {"until": key.since}, restricts=True)
        values = {
            "department": key.department,
            "connector": key.connector,
            "since": key.since,
            "until": key.until,
            "public_key": key.public_key,
        }
        self._tags.insert(work, _signing_key, values)

    @override
    def signing_keys(self, reader: Reader, department: str, connector: str) -> Sequence[SigningKey]:
        rows = connection_of(reader).execute(
            sa.select(_signing_key)
            .where(_signing_key.c.department == department, _signing_key.c.connector == connector)
            .order_by(_signing_key.c.since)
        )
        return [
            SigningKey(
                department=row["department"],
                connector=row["connector"],
                public_key=bytes(row["public_key"]),
                since=row["since"],
                until=row["until"],
            )
            for row in self._tags.valid(_signing_key, rows)
        ]

    @override
    def add_account(self, work: UnitOfWork, account: Account) -> None:
        row = self._tags.new(_account, {"name": account.name, **_changeable(account), **_fixed(account)})
        statement = pg.insert(_account).values(row).on_conflict_do_nothing()
        if connection_of(work).execute(statement).rowcount != 1:
            taken = sa.select(_account.c.name).where(_account.c.name == account.name)
            raise token_exists() if connection_of(work).execute(taken).first() is None else account_exists(account.name)
        self._tags.note_new(work, _account, row)

    @override
    def account(self, reader: Reader, name: str) -> Account | None:
        row = connection_of(reader).execute(sa.select(_account).where(_account.c.name == name)).one_or_none()
        return None if row is None else _read_account(self._tags.checked(_account, row))

    @override
    def accounts_by_name(self, reader: Reader, names: Collection[str]) -> Mapping[str, Account]:
        rows = connection_of(reader).execute(sa.select(_account).where(_account.c.name.in_(sorted({*names}))))
        return {row.name: _read_account(self._tags.checked(_account, row)) for row in rows}

    @override
    def revocable(self, reader: Reader, name: str) -> Account | None:
        row = connection_of(reader).execute(sa.select(_account).where(_account.c.name == name)).one_or_none()
        if row is None:
            return None
        values = row._asdict()
        if self._tags.holds(_account, values):
            return _read_account(values)
        self._tags.put_back(_account, values)  # reports it
        known = {role.value for role in Role}
        role = values["role"] if values["role"] in known else Role.AUDITOR.value  # decides nothing: it has ended
        return _read_account({**values, "role": role, "revoked_at": None})

    @override
    def revoke_account(self, work: UnitOfWork, name: str, at: datetime) -> None:
        self._tags.change(work, _account, _account.c.name == name, {"revoked_at": at}, restricts=True)

    @override
    def account_of(self, reader: Reader, digest: bytes) -> Account | None:
        row = _BY_DIGEST.one_or_none(connection_of(reader), {"digest": digest})
        return None if row is None else _read_account(self._tags.checked(_account, row))

    @override
    def accounts(self, reader: Reader) -> Sequence[Account]:
        rows = connection_of(reader).execute(sa.select(_account).order_by(_account.c.name))
        return [_read_account(row) for row in self._tags.valid(_account, rows)]

    @override
    def accounts_page(
        self, reader: Reader, *, department: str | None, after: str, limit: int
    ) -> Sequence[Account | DamagedRow]:
        def read(key: str, most: int) -> Sequence[Any]:
            statement = sa.select(_account).where(_account.c.name > key)
            if department is not None:
                statement = statement.where(_account.c.department == department)
            return connection_of(reader).execute(statement.order_by(_account.c.name).limit(most)).all()

        def keep(rows: Sequence[Any]) -> list[Account | DamagedRow]:
            return self._tags.listed(_account, rows, _read_account, lambda row: DamagedRow.of(name=row["name"]))

        return collect(read, keep, lambda row: str(row.name), after=after, limit=limit)

    @override
    def change_account(self, work: UnitOfWork, account: Account) -> None:
        same_token = sa.select(_account.c.name).where(
            _account.c.digest == account.digest, _account.c.name != account.name
        )
        if connection_of(work).execute(same_token).first() is not None:
            raise token_exists()
        self._tags.change(work, _account, _account.c.name == account.name, _changeable(account))

    @override
    def record_use(self, work: UnitOfWork, name: str, at: datetime) -> None:
        statement = pg.insert(_account_use).values(name=name, used_at=at)
        newest = statement.on_conflict_do_update(
            index_elements=[_account_use.c.name],
            set_={"used_at": statement.excluded.used_at},
            where=_account_use.c.used_at < statement.excluded.used_at,
        )
        connection_of(work).execute(newest)

    @override
    def last_uses(self, reader: Reader) -> Mapping[str, datetime]:
        return {row.name: row.used_at for row in connection_of(reader).execute(sa.select(_account_use))}


def _read_account(row: Mapping[str, Any]) -> Account:
    return Account(
        name=row["name"],
        role=Role(row["role"]),
        department=row["department"],
        digest=bytes(row["digest"]),
        created_by=row["created_by"],
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
        person=row["person"],
        expires_at=row["expires_at"],
    )


def _fixed(account: Account) -> dict[str, Any]:
    return {
        "role": account.role.value,
        "department": account.department,
        "created_by": account.created_by,
        "created_at": account.created_at,
    }


def _changeable(account: Account) -> dict[str, Any]:
    return {
        "digest": account.digest,
        "revoked_at": account.revoked_at,
        "person": account.person,
        "expires_at": account.expires_at,
    }


def read_invitation(row: Mapping[str, Any]) -> OneTimeToken:
    """Return an invitation from its checked row."""
    return OneTimeToken(
        digest=bytes(row["digest"]),
        department=row["department"],
        connector=row["connector"],
        invited_by=row["invited_by"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        used_at=row["used_at"],
    )


def read_certificate(row: Mapping[str, Any]) -> Certificate:
    """Return a certificate from its checked row."""
    return Certificate(
        serial=row["serial"],
        department=row["department"],
        connector=row["connector"],
        not_before=row["not_before"],
        not_after=row["not_after"],
        revoked_at=row["revoked_at"],
        revoked_by=row["revoked_by"],
        revoked_because=row["revoked_because"],
    )


def _damaged_certificate(row: Mapping[str, Any]) -> DamagedRow | None:
    return DamagedRow.of(f"{row['department']}/{row['connector']}/{row['serial']}", serial=row["serial"])


def _certificate_of(serial: str) -> sa.Select[Any]:
    return sa.select(_certificate).where(_certificate.c.serial == serial)
