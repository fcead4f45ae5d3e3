"""Ports of the connectors: a source of rows, a sink of records, and the pool as a department calls it.

There are two kinds of sources. A **snapshot source** (`SnapshotSource`) states a department's data in *portions*. A
portion is one file of a drop folder, or one reading of a table. Its rows come in chunks of text columns (`RowChunk`),
because everything a department writes is text until the contract says otherwise: a reader that guesses makes a number
of an 18-digit identity number.

    source.portions() ─▶ Portion ─▶ chunks() ─▶ RowChunk …   the columns, and for each row its line and original bytes
                            │
                            └─ confirm()                     everything of it is published, unchanged or quarantined

A portion that is `replaces=EVERYTHING` states the resource whole: a key that it lacks is no longer valid and goes
out as a void. Its rows are read twice, first for the keys alone (duplicates, missing keys, number of rows), then for
the records, so that the delete guard can stop the portion before anything leaves.

A **change source** (`ChangeSource`) has a log: what was inserted, changed and deleted, in the order of commit. A
portion can be read twice and says what *is*; a log is read once, forwards, from a position, and is kept by its database
until the position is confirmed.

    source.snapshot(tables) ─▶ portions of one moment, for tables without a position; then the log is kept from there
    source.read(requests)   ─▶ ChangeBatch …   whole transactions, or parts of a large one, with the position after
    source.confirm(position)                   the pool has everything up to it: the database may forget it

A **sink** stores what a grant delivers, and its own position *in the same transaction*. The sink's position is the one
that counts: the subscriber reads it before the first fetch, and acknowledges to the pool only what the sink has
stored. What the target rejects is quarantined before that transaction ends: the position moves past it, so afterwards
is too late.

The **pool**: `exchange.client.port`.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Protocol, Self, runtime_checkable

import pyarrow as pa

from exchange.client.port import Pool
from schemas.errors import ConflictError, Reason

__all__ = [
    "ChangeBatch",
    "ChangeOperation",
    "ChangePosition",
    "ChangeRequest",
    "ChangeSource",
    "DecodedRelease",
    "Pool",
    "Portion",
    "QuarantineCallback",
    "Reject",
    "RejectCode",
    "RejectedRecord",
    "Replaces",
    "ResumablePortion",
    "RowChunk",
    "Sink",
    "Snapshot",
    "SnapshotSource",
    "TableChanges",
    "TransactionSpan",
    "WriteResult",
]


class RejectCode(StrEnum):
    """Why a row is quarantined. Append only."""

    ENCODING = "ENCODING"
    ROW_SHAPE = "ROW_SHAPE"
    TYPE = "TYPE"
    RANGE = "RANGE"
    PRECISION_LOSS = "PRECISION_LOSS"
    NULL_NOT_ALLOWED = "NULL_NOT_ALLOWED"
    ENUM = "ENUM"
    ID_CHECKSUM = "ID_CHECKSUM"
    NUMBER_TOO_LONG_FOR_ID = "NUMBER_TOO_LONG_FOR_ID"
    NUMERIC_SPECIAL = "NUMERIC_SPECIAL"
    TIME_SPECIAL = "TIME_SPECIAL"
    DUPLICATE_KEY = "DUPLICATE_KEY"
    CONTRACT_MISSING_FIELD = "CONTRACT_MISSING_FIELD"
    CONTRACT_UNKNOWN_FIELD = "CONTRACT_UNKNOWN_FIELD"
    TOO_LARGE = "TOO_LARGE"
    TARGET_CONSTRAINT = "TARGET_CONSTRAINT"
    TARGET_TYPE = "TARGET_TYPE"
    TARGET_REJECTED = "TARGET_REJECTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """Why one row is quarantined. The message says what was expected and never holds the value.

    Attributes:
        line: of the row in its portion: the file's line on which it begins, or the row's number in the table as read.
        code: of the closed list.
        field: of the record, or of the source where the record has none; empty when it concerns the whole row.
        message: what was expected.
        original: the row as its source stores it, byte for byte.
    """

    line: int
    code: RejectCode
    field: str
    message: str
    original: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RowChunk:
    """Rows of a portion, in order, as columns of text.

    Attributes:
        columns: source column → its values; None is the source's own null (a CSV file has none).
        lines: of each row; see `Reject.line`.
        originals: each row's bytes; empty when only some columns were requested.
        rejects: rows that could not be split into columns. They count as read.
        place: behind the last row, for `ResumablePortion.chunks_after`; empty where there is none.
    """

    columns: Mapping[str, pa.StringArray]
    lines: Sequence[int]
    originals: Sequence[bytes]
    rejects: Sequence[Reject] = ()
    place: bytes = b""

    def __len__(self) -> int:
        return len(self.lines)


class Replaces(StrEnum):
    """What a portion replaces, and so which keys it voids by not naming them."""

    EVERYTHING = "everything"  # the resource whole
    SAME_NAME = "same_name"  # what an earlier portion of this name stated: one file a month, say
    NOTHING = "nothing"  # additions and changes alone


class Portion(Protocol):
    """One file, or one pass over a table.

    Attributes:
        name: for people, and the scope of `Replaces.SAME_NAME`.
        identity: 16 bytes that equal another portion's only if its rows are the same; empty when that is unknown.
        replaces: see `Replaces`.
        stable: two passes return the same rows. A table under writes does not.
        columns: the source's column names.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - the class says it
    @property
    def identity(self) -> bytes: ...  # noqa: D102
    @property
    def replaces(self) -> Replaces: ...  # noqa: D102
    @property
    def stable(self) -> bool: ...  # noqa: D102
    @property
    def columns(self) -> Sequence[str]: ...  # noqa: D102

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[RowChunk]:
        """Read the rows, or some columns of them without originals, from the beginning; may be called again.

        Raises:
            UnavailableError: the source is away, or changed while it was read.
        """
        ...

    def confirm(self) -> None:
        """Register that every row of it is accounted for. Idempotent: repeated after a crash."""
        ...


@runtime_checkable
class ResumablePortion(Portion, Protocol):
    """A portion in an order of its own, so that a pass that was interrupted goes on from a place in it."""

    @property
    def pass_identity(self) -> str:
        """Return what has to be equal for a pass to go on: database, rows and order; empty = this one cannot."""
        ...

    def chunks_after(self, place: bytes, rows: int, columns: Sequence[str] | None = None) -> Iterator[RowChunk]:
        """Read the rows behind a place, before which there were so many; otherwise as `chunks`."""
        ...


class SnapshotSource(Protocol):
    """A source that states what is, in portions."""

    def portions(self, fingerprint: bytes) -> Iterator[Portion]:
        """Return what is to be published now, oldest first; each is confirmed before the next is requested.

        Args:
            fingerprint: 8 bytes of contract and mapping; a portion published under another one is read again.

        Raises:
            UnavailableError: the source is away; try again.
            RefusedError: it does not grant access.
            InvalidError: the configuration does not fit it.
        """
        ...

    def close(self) -> None:
        """Close files and connections."""
        ...


_CHANGE_POSITION = struct.Struct("<B16sQQQB")
_CHANGE_VERSION = 2  # 1 is the position within a portion (`connectors.publishing.outbox.SourcePosition`)
_ORIGIN_VERSION = 3  # the same, followed by the origin
_MAX_ORIGIN = 128 - _CHANGE_POSITION.size  # a source position has 128 bytes at most (docs/reference/wire.md)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePosition:
    """A position in a log of changes, of one table: everything of it up to here is published.

    It is sent with each batch as its source position, so each receipt states it: also that a batch is a part of a
    transaction, or holds values that were read later than the change.

    Attributes:
        stream: 16 bytes that equal another position's only if both are of the same database.
        commit: the log's number of the last transaction (PostgreSQL: the LSN of its commit record). Transactions
            commit in the order of these numbers.
        end: the number behind that transaction.
        rows: so many of its rows are published, where it is not published whole.
        part: the transaction has more rows than a batch: only `rows` of them are published.
        read_again: a value was not in the log and was read from the table, later than the change.
        origin: what that transaction is called where it comes from, as its source defines it: at most 86 bytes. Empty
            where nobody else knows it, as in a database.
    """

    stream: bytes
    commit: int
    end: int = 0
    rows: int = 0
    part: bool = False
    read_again: bool = False
    origin: bytes = b""

    def __post_init__(self) -> None:
        if len(self.origin) > _MAX_ORIGIN:
            raise ValueError(f"got an origin of {len(self.origin)} bytes; expected {_MAX_ORIGIN} at most")

    def __bytes__(self) -> bytes:
        flags = self.part | self.read_again << 1
        version = _ORIGIN_VERSION if self.origin else _CHANGE_VERSION
        return _CHANGE_POSITION.pack(version, self.stream, self.commit, self.end, self.rows, flags) + self.origin

    @classmethod
    def parse(cls, position: bytes) -> Self | None:
        """Parse one; None where something else wrote it."""
        fixed, origin = position[: _CHANGE_POSITION.size], position[_CHANGE_POSITION.size :]
        version = _ORIGIN_VERSION if origin else _CHANGE_VERSION
        if len(fixed) != _CHANGE_POSITION.size or fixed[0] != version or len(origin) > _MAX_ORIGIN:
            return None
        _, stream, commit, end, rows, flags = _CHANGE_POSITION.unpack(fixed)
        return cls(
            stream=stream,
            commit=commit,
            end=end,
            rows=rows,
            part=bool(flags & 1),
            read_again=bool(flags & 2),
            origin=origin,
        )

    def published_rows(self, commit: int) -> int | None:
        """Return how many rows of a transaction are published; None = all of it."""
        if commit != self.commit:
            return None if commit < self.commit else 0
        return self.rows if self.part else None


class ChangeOperation(IntEnum):
    """What a change does to its key. An update of a key is a delete of the old one and an upsert of the new one."""

    UPSERT = 1
    DELETE = 2


@dataclass(frozen=True, slots=True)
class TransactionSpan:
    """Consecutive rows of one transaction.

    Attributes:
        commit, end: see `ChangePosition`.
        committed_at: microseconds UTC.
        first: number of rows of the table and transaction before these.
        rows: how many these are.
        last: no more rows of the table follow in this transaction.
        origin: see `ChangePosition`. Rows of two origins are in two `TableChanges`, and so in two batches.
    """

    commit: int
    end: int
    committed_at: int
    first: int
    rows: int
    last: bool
    origin: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableChanges:
    """Changes of one table, in order.

    Attributes:
        table: as requested.
        columns: every column that the table had when they were written.
        rows: the requested columns; a deleted row has its key alone. `lines` are the transactions' numbers.
        operations: one `ChangeOperation` a row.
        spans: the transactions, which are the rows in order.
        read_again: indices of rows with a value that was read from the table, later than the change.
        superseded: indices of rows of which a value could not be read any more, since a later change replaced them.
    """

    table: str
    columns: Sequence[str]
    rows: RowChunk
    operations: bytes
    spans: Sequence[TransactionSpan]
    read_again: frozenset[int] = frozenset()
    superseded: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.operations)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeBatch:
    """Whole transactions, or a part of one that is too large for a batch.

    Attributes:
        tables: the changes, of each table in order; of one table twice where its columns changed in between.
        position: what may be confirmed once all of these are published: the end of the last whole transaction.
        emptied: tables that were emptied at once (TRUNCATE); no later change of them follows.
    """

    tables: Sequence[TableChanges]
    position: int
    emptied: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRequest:
    """What is read of one table.

    Attributes:
        table: `schema.table`.
        after: position of the table; None = not known yet.
        key: columns that make the record's key.
        columns: columns that a record may be made of; of others no value is needed.
    """

    table: str
    after: ChangePosition | None
    key: Sequence[str]
    columns: frozenset[str]


class Snapshot(Protocol):
    """Tables of one moment, and the place in the log that follows it.

    Attributes:
        portions: table → its rows; they stay the same while the snapshot is open.
        position: of every one of the tables, once its portion is published.
    """

    @property
    def portions(self) -> Mapping[str, Portion]: ...  # noqa: D102 - the class says it
    @property
    def position(self) -> ChangePosition: ...  # noqa: D102

    def keep_log(self) -> None:
        """Let the database keep its log from this moment on, for this connector; idempotent.

        Called after the pool has acknowledged the portions. Until then nothing of the snapshot outlives its process:
        a crash leaves nothing that holds the log back.
        """
        ...


class ChangeSource(Protocol):
    """A database's log of changes. One connector reads it, once, for all of its tables."""

    @property
    def stream(self) -> bytes:
        """Return `ChangePosition.stream` of this database."""
        ...

    def prepare(self, requests: Sequence[ChangeRequest], *, adopt: bool, fresh: bool) -> frozenset[str]:
        """Check that the log can be read, and return the tables of which it is already kept for this connector.

        Args:
            requests: that will be read; the tables must be ready for them.
            adopt: the pool has positions of these tables, so a log that is kept under this name is this connector's,
                also where its own notes on that are lost.
            fresh: give up what is kept, if anything; all tables are read whole.

        Raises:
            InvalidError: CONFIG_INVALID, with the statement that makes the database ready.
            ConflictError: SOURCE_CHANGED, the log is gone, was read by another program, or is of another database.
            UnavailableError: SOURCE_UNAVAILABLE.
            RefusedError: SOURCE_UNAVAILABLE, a right is missing.
        """
        ...

    def snapshot(self, tables: Sequence[str]) -> AbstractContextManager[Snapshot]:
        """Return a snapshot of tables; raises what `prepare` raises."""
        ...

    def read(self, requests: Sequence[ChangeRequest], *, once: bool = False) -> Iterator[ChangeBatch | None]:
        """Return the changes after the positions, in order; None about every second in which there are none.

        With `once` it ends behind the last change that was committed when it was called.

        Raises:
            InvalidError: CONTRACT_BROKEN, a value was not sent and may not be read from the table.
            ConflictError: SOURCE_CHANGED.
            UnavailableError: SOURCE_UNAVAILABLE; the caller may read again, from the positions after what it has.
        """
        ...

    def confirm(self, position: int | None) -> None:
        """Register that everything up to a position (`ChangeBatch.position`) is published; None = nothing more.

        The thread that reads calls it, at least every few seconds while it does not ask for the next batch: it also
        tells the database that the reader lives.

        Raises:
            ConflictError: SOURCE_CHANGED, more of the log is kept than the configuration allows; it was given up.
            UnavailableError: SOURCE_UNAVAILABLE.
        """
        ...

    def close(self) -> None:
        """Close the connections. The log is kept for the next run."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedRelease:
    """One release, decoded: the input of a sink.

    Attributes:
        keys: 16-byte record keys, stable within the grant.
        recorded_at: microseconds UTC, one a record; never falls for one key.
        withdrawn: one flag a record; a withdrawn record has no values.
        records: the values of the records that are not withdrawn, in order.
        values: the framed Avro bytes, one a record, empty where withdrawn: kept for the quarantine.
        entry_id: the audit entry of the release; empty when nothing was released.
    """

    keys: Sequence[bytes]
    recorded_at: Sequence[int]
    withdrawn: Sequence[bool]
    records: pa.RecordBatch
    values: Sequence[bytes]
    entry_id: str

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRecord:
    """One record that the target rejected: its index in the release, why, and the field, empty where none is known."""

    index: int
    code: RejectCode
    message: str
    field: str = ""


QuarantineCallback = Callable[[Sequence[RejectedRecord]], None]
"""Makes durable which records of a release the target rejected. Idempotent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteResult:
    """The outcome of writing one release.

    Attributes:
        upserted, withdrawn: records applied.
        stale: records that lost against a later one of the same key.
        rejected: records that the target did not accept.
    """

    upserted: int = 0
    withdrawn: int = 0
    stale: int = 0
    rejected: Sequence[RejectedRecord] = field(default=())


class Sink(Protocol):
    """Where records go. One sink stores one grant's records."""

    def prepare(self, schema: pa.Schema) -> None:
        """Make sure that the target can hold records of this schema; add to it, never change what exists.

        Raises:
            ConflictError: CONTRACT_BROKEN, when the target lacks columns and may not get them.
            UnavailableError: TARGET_UNAVAILABLE.
        """
        ...

    def check(self, schema: pa.Schema) -> None:
        """Check, without a look at the target, that its kind can have columns for a schema; `prepare` does it as well.

        Raises:
            ConflictError: CONTRACT_BROKEN, naming the fields.
        """

    def position(self) -> bytes:
        """Return the position stored with the records; empty when there is none.

        Raises:
            UnavailableError: TARGET_UNAVAILABLE.
        """
        ...

    def write(
        self, release: DecodedRelease, before: bytes, after: bytes, quarantine: QuarantineCallback
    ) -> WriteResult:
        """Store the records and the position *after*, both or neither.

        Args:
            release: one release.
            before: the stored position.
            after: the next one.
            quarantine: called with what the target rejects, if anything, before the position is durable. A process
                that dies in between writes the same release again; a call afterwards would have lost the records.
                An error of it undoes the write.

        Raises:
            ConflictError: VERSION_CONFLICT, when the target's position is no longer *before*: another process writes.
            UnavailableError: TARGET_UNAVAILABLE; nothing was stored, or all of it was: ask `position`.
        """
        ...

    def begin_again(self) -> None:
        """Take everything in the target for withdrawn: the pool delivers from the beginning.

        It was restored, or the grant was renewed and shows something else.

        The stored position stays. The call may be repeated.

        Raises:
            ConflictError: TOPIC_GENERATION_CHANGED, the target cannot: a person has to empty it.
            UnavailableError: TARGET_UNAVAILABLE.
        """
        raise ConflictError(
            Reason.TOPIC_GENERATION_CHANGED,
            "the pool was restored from a backup, or the grant was renewed with another view, and delivers from the "
            "beginning; empty the target, and delete this subscription's ledger",
        )

    def close(self) -> None:
        """Close files and connections."""
        ...
