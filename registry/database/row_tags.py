"""Row tags: message authentication codes (MAC) of rows that carry authority; a row that the pool did not write fails.

An administrator of the database can insert an account, an invitation or a certificate, or change a department, and
the database accepts it. So each row of a *tagged* table has a tag, HMAC-SHA-256 over the table's name and every column,
its key and its version among them, made with a key that the database does not hold. A row without its tag, or with
another one, is refused when it is read, and reported.

How to add a table (a test fails for one that is not classified):

    account = sa.Table(
        "identity_account",
        metadata,
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("role", sa.Text, nullable=False),
        *tag_columns(),                             two columns, `row_version` and `tag`; add them in the migration too
        info=tagged("identity"),                    or proven("by what"), or derived("why nobody is harmed")
    )

    tags.insert(work, account, {"name": "a", "role": "auditor"})            insert a row with its tag
    tags.change(work, account, account.c.name == "a", {"role": "operator"}) check, then change with the next tag
    tags.delete(work, account, account.c.name == "a")
    tags.checked(account, row)                      return the row, or raise; *row* has every column of the table
    tags.valid(account, rows)                       leave out, and report, what is forged; for decisions
    tags.listed(account, rows, read, name)          name what is forged as damaged, and report it; for lists

Never write to a tagged table in another way. A later column must be nullable, or say with `info={"absent": value}`
which value the rows have that were there before it: NULL, and that value, do not change a tag. A column that the
database fills in itself, and that nobody decides by, is marked `info=untagged("why")`.

An old row that is put back has a tag that was right once. So `row_version` rises with every change (a new row begins
at the clock's microseconds, above any row of this key that was deleted), and each change is noted in its unit of work:
the entry of the act that made it holds the tags before and after it (`exchange.audit.ledger`).
"""

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from typing import Any, Final, TypeAlias, TypeVar

import sqlalchemy as sa

from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import RowChange, UnitOfWork, connection_of, note_row_change
from schemas.errors import CorruptError, Reason

__all__ = [
    "Classification",
    "Derived",
    "Proven",
    "RowTags",
    "Tagged",
    "classification",
    "columns_of",
    "derived",
    "hashed",
    "key_text",
    "noted",
    "proven",
    "short_tag",
    "tag_columns",
    "tagged",
    "untagged",
]

_INFO = "storage"
_TAG, _VERSION, _SHA256 = "tag", "row_version", "_sha256"
_MIN_KEY = 32  # bytes
_Item = TypeVar("_Item")
_SHORT = 16  # bytes of a tag that an entry holds


@dataclass(frozen=True, slots=True)
class Tagged:
    """Rows carry a tag. `family`: tables of one family share a key, which is that of `row-tags/<family>`."""

    family: str


@dataclass(frozen=True, slots=True)
class Proven:
    """Rows prove themselves without a tag of this module. `by`: a MAC of their own, a signature, the signed log."""

    by: str


@dataclass(frozen=True, slots=True)
class Derived:
    """Rows carry no authority. `because`: why a change of one harms nobody, or what finds it."""

    because: str


Classification: TypeAlias = Tagged | Proven | Derived


def tagged(family: str) -> dict[str, Classification]:
    """Return the `info` of a table whose rows carry a tag."""
    return {_INFO: Tagged(family)}


def proven(by: str) -> dict[str, Classification]:
    """Return the `info` of a table whose rows prove themselves in another way."""
    return {_INFO: Proven(by)}


def derived(because: str) -> dict[str, Classification]:
    """Return the `info` of a table whose rows carry no authority."""
    return {_INFO: Derived(because)}


def untagged(because: str) -> dict[str, str]:
    """Return the `info` of a column that the tag does not cover."""
    return {"untagged": because}


def hashed() -> dict[str, bool]:
    """Return the `info` of a column of long text, of which the tag covers the SHA-256.

    A statement that does not need the text may then return its hash alone, which `columns_of` renders.
    """
    return {"hashed": True}


def classification(table: sa.Table) -> Classification | None:
    """Return how a table's rows are protected; None for a table that says nothing, which a test refuses."""
    found: Classification | None = table.info.get(_INFO)
    return found


def tag_columns() -> tuple[sa.Column[int], sa.Column[bytes]]:
    """Return the two columns of a tagged table. The tag is nullable: a row that has none is refused when it is read."""
    return (
        sa.Column(_VERSION, sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column(_TAG, sa.LargeBinary(32)),
    )


def columns_of(table: sa.Table, prefix: str = "", *, without_text: bool = False) -> str:
    """Return the columns that a tag needs, for a statement in SQL whose rows `checked` gets.

    Args:
        table: tagged.
        prefix: before each name, such as `v.`.
        without_text: of `hashed` columns return the hash alone.
    """
    return ", ".join(
        f"sha256(convert_to({prefix}{column.name}, 'UTF8')) AS {column.name}{_SHA256}"
        if without_text and "hashed" in column.info
        else f"{prefix}{column.name}"
        for column in table.columns
        if "untagged" not in column.info
    )


def key_text(table: sa.Table, row: Mapping[str, Any]) -> str:
    """Return a row's primary key as text, JSON, as entries and findings name it."""
    return json.dumps([_plain(row[column.name]) for column in table.primary_key.columns], ensure_ascii=False)


def noted(change: RowChange) -> list[str]:
    """Return a change as entries hold it: table, key, and the tags before and after, empty where there is no row."""
    return [change.table, change.key, short_tag(change.before), short_tag(change.after)]


def short_tag(tag: bytes | None) -> str:
    """Return the part of a tag that an entry holds: 16 bytes in hexadecimal, empty for no row."""
    return "" if tag is None else bytes(tag)[:_SHORT].hex()


class RowTags:
    """Makes and checks the tags of rows. Thread-safe.

    Args:
        key: returns a family's key, at least 32 bytes, kept outside the database.
        report: called with the table's name and the key of a row that is refused.
        clock: nanoseconds; new rows get their version from it.
    """

    def __init__(
        self,
        key: Callable[[str], bytes],
        *,
        report: Callable[[str, str], None] = lambda _table, _key: None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._key = cache(key)
        self._report = report
        self._clock = clock
        self._distrusted: frozenset[tuple[str, str]] = frozenset()

    def tag(self, table: sa.Table, row: Mapping[str, Any]) -> bytes:
        """Return the tag of a row, 32 bytes; columns that are missing in *row* count as NULL."""
        return self.mac(table.info[_INFO].family, _message(table, row))

    def mac(self, family: str, message: bytes) -> bytes:
        """Return the MAC of a message with a family's key, 32 bytes, for tables that prove themselves otherwise."""
        key = self._key(family)
        if len(key) < _MIN_KEY:
            raise ValueError(f"got a key of {len(key)} bytes; expected at least {_MIN_KEY}")
        return hmac.digest(key, message, "sha256")

    def proves(self, table: sa.Table, row: Mapping[str, Any]) -> bool:
        """Return whether a row, with every column of its table, is one that the pool wrote, be it old."""
        tag = row[_TAG]
        return tag is not None and hmac.compare_digest(self.tag(table, row), bytes(tag))

    def holds(self, table: sa.Table, row: Mapping[str, Any]) -> bool:
        """Return whether a row, with every column of its table, is one that the pool wrote and still trusts."""
        if not self.proves(table, row):
            return False
        return not self._distrusted or (table.name, key_text(table, row)) not in self._distrusted

    def checked(self, table: sa.Table, row: Any) -> Mapping[str, Any]:
        """Return a row by the names of its columns.

        Raises:
            CorruptError: ROW_FORGED, the pool did not write it.
        """
        values = _mapping(row)
        if not self.holds(table, values):
            raise self._refused(table, values)
        return values

    def valid(self, table: sa.Table, rows: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
        """Return the rows that the pool wrote; report the others and leave them out."""
        for row in rows:
            values = _mapping(row)
            if self.holds(table, values):
                yield values
            else:
                self._refused(table, values)

    def listed(
        self,
        table: sa.Table,
        rows: Iterable[Any],
        read: Callable[[Mapping[str, Any]], _Item],
        name: Callable[[Mapping[str, Any]], DamagedRow | None],
    ) -> list[_Item | DamagedRow]:
        """Return the items of a list: what the pool wrote as *read* does, the others named by *name*, and reported."""
        found: list[_Item | DamagedRow] = []
        for row in rows:
            values = _mapping(row)
            if self.holds(table, values):
                found.append(read(values))
                continue
            self._refused(table, values)
            damaged = name(values)
            if damaged is not None:
                found.append(damaged)
        return found

    def new(self, table: sa.Table, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of a new row, its version and tag among them, for an INSERT that `note_new` follows."""
        row = {**values, _VERSION: self._clock() // 1_000}
        return {**row, _TAG: self.tag(table, row)}

    def note_new(self, work: UnitOfWork, table: sa.Table, row: Mapping[str, Any]) -> None:
        """Note that a row of `new` was inserted."""
        note_row_change(work, RowChange(table.name, key_text(table, row), None, row[_TAG]))

    def insert(self, work: UnitOfWork, table: sa.Table, values: Mapping[str, Any]) -> None:
        """Insert a row with its tag.

        Raises:
            sqlalchemy.exc.IntegrityError: there is one with this key.
        """
        row = self.new(table, values)
        connection_of(work).execute(sa.insert(table).values(row))
        self.note_new(work, table, row)

    def next(self, table: sa.Table, row: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns to set in a stored row: *values*, and its next version and tag."""
        changed = {**row, **values, _VERSION: row[_VERSION] + 1}
        return {**values, _VERSION: changed[_VERSION], _TAG: self.tag(table, changed)}

    def note_change(
        self, work: UnitOfWork, table: sa.Table, row: Mapping[str, Any], changed: Mapping[str, Any]
    ) -> None:
        """Note that a stored row got the values of `next`."""
        note_row_change(work, RowChange(table.name, key_text(table, row), row[_TAG], changed[_TAG]))

    def change(
        self,
        work: UnitOfWork,
        table: sa.Table,
        where: sa.ColumnElement[bool],
        values: Mapping[str, Any],
        *,
        restricts: bool = False,
    ) -> list[Mapping[str, Any]]:
        """Lock the rows that match, check them, and give each the values with its next tag; return them as they were.

        Args:
            work: the open transaction.
            table: tagged.
            where: which rows.
            values: for all of them, no column of the key.
            restricts: the change takes authority away, so that a forged row is reported and gets it too: nobody may
                escape a revocation by a row that is damaged for the moment of it.

        Raises:
            CorruptError: ROW_FORGED, one of them is not a row that the pool wrote; unless *restricts*.
        """
        connection = connection_of(work)
        key = [*table.primary_key.columns]
        found = connection.execute(sa.select(table).where(where).order_by(*key).with_for_update()).all()
        rows: list[Mapping[str, Any]] = []
        for one in found:
            row = _mapping(one)
            if not self.holds(table, row):
                error = self._refused(table, row)
                if not restricts:
                    raise error
            rows.append(row)
        if not rows:
            return []
        changed = [self.next(table, row, values) for row in rows]
        statement = (
            sa.update(table)
            .where(*(column == sa.bindparam(f"key_{column.name}") for column in key))
            .values({name: sa.bindparam(f"new_{name}") for name in changed[0]})
        )
        connection.execute(
            statement,
            [
                {f"key_{column.name}": row[column.name] for column in key}
                | {f"new_{name}": value for name, value in new.items()}
                for row, new in zip(rows, changed, strict=True)
            ],
        )
        for row, new in zip(rows, changed, strict=True):
            self.note_change(work, table, row, new)
        return rows

    def delete(self, work: UnitOfWork, table: sa.Table, where: sa.ColumnElement[bool]) -> int:
        """Delete the rows that match, forged ones too; return their number."""
        gone = connection_of(work).execute(sa.delete(table).where(where).returning(*table.columns)).all()
        for row in gone:
            values = _mapping(row)
            note_row_change(work, RowChange(table.name, key_text(table, values), values[_TAG], None))
        return len(gone)

    def distrust(self, rows: Iterable[tuple[str, str]]) -> None:
        """Refuse rows from now on, by table and key, whatever their tags: they were put back."""
        self._distrusted = frozenset(rows)

    def report_refused(self, table: sa.Table, row: Mapping[str, Any]) -> None:
        """Report a row that a list names as damaged, of a table that proves itself otherwise; *row* has its key."""
        self._report(table.name, key_text(table, row))

    def put_back(self, table: sa.Table, row: Any) -> CorruptError:
        """Report a row that is known to be an old one, and return the error with which it is refused."""
        return self._refused(table, _mapping(row))

    def _refused(self, table: sa.Table, row: Mapping[str, Any]) -> CorruptError:
        key = key_text(table, row)
        self._report(table.name, key)
        return CorruptError(
            Reason.ROW_FORGED,
            f"the row {key} of {table.name} is not one that the pool wrote; it is not used until an auditor has looked "
            "(`pool audit verify --database`)",
        )


def _mapping(row: Any) -> Mapping[str, Any]:
    """Return a row of SQLAlchemy, or a named tuple, by the names of its columns."""
    if isinstance(row, Mapping):
        return row
    values: dict[str, Any] = row._asdict()
    return values


@cache
def _plan(table: sa.Table) -> tuple[bytes, tuple[tuple[str, bytes, Any, bool], ...]]:
    covered = sorted(
        (column for column in table.columns if column.name != _TAG and "untagged" not in column.info),
        key=lambda column: column.name,
    )
    return _framed(table.name.encode()), tuple(
        (column.name, _framed(column.name.encode()), column.info.get("absent"), "hashed" in column.info)
        for column in covered
    )


def _message(table: sa.Table, row: Mapping[str, Any]) -> bytes:
    """Return the bytes that a tag covers: the table's name, then each column that is not NULL, by name.

    Name and value are framed by their lengths, and a value begins with a letter for its type: no two rows have the
    same message.
    """
    start, columns = _plan(table)
    parts = [start]
    for name, framed, absent, is_hashed in columns:
        value = row.get(name)
        if is_hashed:
            value = row.get(f"{name}{_SHA256}") if value is None else _sha256(value)
        if value is None or (absent is not None and value == absent):
            continue
        parts += (framed, _framed(_value(value)))
    return b"".join(parts)


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _framed(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def _value(value: Any) -> bytes:  # noqa: PLR0911 - one line for each type
    if isinstance(value, str):
        return b"s" + value.encode()
    if isinstance(value, bool):
        return b"b1" if value else b"b0"
    if isinstance(value, int):
        return b"i%d" % value
    if isinstance(value, bytes | bytearray | memoryview):
        return b"y" + bytes(value)
    if isinstance(value, datetime):
        since = value - _EPOCH  # raises for a time without a zone
        return b"t%d" % ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)
    if isinstance(value, date):
        return b"d" + value.isoformat().encode()
    if isinstance(value, Sequence):
        return b"l" + b"".join(_framed(_value(one)) for one in value)
    raise TypeError(f"got a value of the type {type(value).__name__}; a tag does not cover it")


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, datetime | date):
        return value.isoformat() if not isinstance(value, datetime) else _value(value)[1:].decode()
    return value
