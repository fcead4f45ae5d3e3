"""Ports of the connectors: a source of rows, a sink of records, and the pool as a department calls it.

A **source** states a department's data in *portions*. A portion is one file of a drop folder, or one reading of a
table. Its rows come in chunks of text columns (`RowChunk`), because everything a department writes is text until
the contract says otherwise: a reader that guesses makes a number of an 18-digit identity number.

    source.portions() ─▶ Portion ─▶ chunks() ─▶ RowChunk …   the columns, and for each row its line and original bytes
                            │
                            └─ confirm()                     everything of it is published, unchanged or quarantined

A portion that is `replaces=EVERYTHING` states the resource whole: a key that it lacks is no longer valid and goes
out as a void. Its rows are read twice, first for the keys alone (duplicates, missing keys, number of rows), then for
the records, so that the delete guard can stop the portion before anything leaves.

A **sink** stores what a grant delivers, and its own position *in the same transaction*. The sink's position is the one
that counts: the subscriber reads it before the first fetch, and acknowledges to the pool only what the sink has
stored. What the target rejects is quarantined before that transaction ends: the position moves past it, so afterwards
is too late.

The **pool**: `exchange.client.port`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import pyarrow as pa

from exchange.client.port import Pool
from schemas.errors import ConflictError, Reason

__all__ = [
    "DecodedRelease",
    "Pool",
    "Portion",
    "QuarantineCallback",
    "Reject",
    "RejectCode",
    "RejectedRecord",
    "Replaces",
    "RowChunk",
    "Sink",
    "Source",
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
    """

    columns: Mapping[str, pa.StringArray]
    lines: Sequence[int]
    originals: Sequence[bytes]
    rejects: Sequence[Reject] = ()

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


class Source(Protocol):
    """Where rows come from."""

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
    """One record that the target rejected: its index in the release, and why."""

    index: int
    code: RejectCode
    message: str


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
        """Take everything in the target for withdrawn: the pool was restored, and delivers from the beginning.

        The stored position stays. The call may be repeated.

        Raises:
            ConflictError: TOPIC_GENERATION_CHANGED, the target cannot: a person has to empty it.
            UnavailableError: TARGET_UNAVAILABLE.
        """
        raise ConflictError(
            Reason.TOPIC_GENERATION_CHANGED,
            "the pool was restored from a backup, and delivers from the beginning; empty the target, and delete this "
            "subscription's ledger",
        )

    def close(self) -> None:
        """Close files and connections."""
        ...
