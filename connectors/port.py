"""The connectors' ports: where rows come from, where records go, and the pool as a department sees it.

A **source** states a department's data in *portions*. A portion is one file of a drop folder, or one reading of a
table. Its rows come in chunks of text columns (`Changes`), because everything a department writes is text until
the contract says otherwise: a reader that guesses makes a number of an 18-digit identity number.

    source.read() ─▶ Portion ─▶ changes() ─▶ Changes …     the columns, and for each row its line and original bytes
                        │
                        └─ done()                          everything of it is published, unchanged or quarantined

A portion that is `replaces=EVERYTHING` states the resource whole: a key that it lacks is no longer valid and goes
out as a void. Its rows are read twice, first for the keys alone (what is there twice? what is missing? how much?),
then for the records, so that the delete guard speaks before anything leaves.

A **sink** stores what a grant delivers, and its own position *in the same transaction*. It alone knows how far it
is; the runner asks it before each fetch, and acknowledges to the pool only what the sink holds. What its target
refuses is set aside before that transaction ends: the position moves on over it, so afterwards is too late.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import pyarrow as pa

from exchange.client.messages import Fetched, Hello, Standing, Subscription
from schemas.names import Topic
from schemas.record import Batch, Receipt

__all__ = [
    "Changes",
    "Delivered",
    "Pool",
    "Portion",
    "Reject",
    "RejectCode",
    "Replaces",
    "SetAside",
    "Sink",
    "Source",
    "Undelivered",
    "Written",
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
        line: of the row in its portion: the file's line on which it begins, or the row's number in a table's reading.
        code: of the closed list.
        field: of the record, or of the source where the record has none; empty when the whole row is meant.
        message: what was expected.
        original: the row as its source gave it, byte for byte.
    """

    line: int
    code: RejectCode
    field: str
    message: str
    original: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Rows of a portion, in order, as columns of text.

    Attributes:
        columns: source column → its values; None is the source's own "no value" (a CSV file has none).
        lines: of each row; see `Reject.line`.
        originals: each row's bytes; empty when the reader asked for some columns only.
        rejects: rows that could not be put into columns at all. They count as read.
    """

    columns: Mapping[str, pa.StringArray]
    lines: Sequence[int]
    originals: Sequence[bytes]
    rejects: Sequence[Reject] = ()

    def __len__(self) -> int:
        return len(self.lines)


class Replaces(StrEnum):
    """What a portion stands for, and so which keys it voids by not naming them."""

    EVERYTHING = "everything"  # the resource whole
    SAME_NAME = "same_name"  # what an earlier portion of this name stated: one file a month, say
    NOTHING = "nothing"  # additions and changes alone


class Portion(Protocol):
    """One file, or one reading of a table.

    Attributes:
        name: for people, and the scope of `Replaces.SAME_NAME`.
        identity: 16 bytes that equal another portion's only if its rows are the same; empty when it cannot be told.
        replaces: see `Replaces`.
        stable: both readings give the same rows. A table under writes does not.
        columns: the source's column names.
        expected: rows, roughly, for a progress bar; 0 when unknown.
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
    @property
    def expected(self) -> int: ...  # noqa: D102

    def changes(self, columns: Sequence[str] | None = None) -> Iterator[Changes]:
        """Read the rows, or some columns of them without originals, from the beginning; may be called again.

        Raises:
            UnavailableError: the source is away, or changed while it was read.
        """
        ...

    def done(self) -> None:
        """Be told that every row of it is accounted for. May be told again after a crash."""
        ...


class Source(Protocol):
    """Where rows come from."""

    def read(self, fingerprint: bytes) -> Iterator[Portion]:
        """Return what is there to be published now, oldest first; each is done before the next is asked for.

        Args:
            fingerprint: 8 bytes of contract and mapping; what was published under another one is read again.

        Raises:
            UnavailableError: the source is away; try again.
            RefusedError: it does not let us in.
            InvalidError: the configuration does not fit it.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """One release, decoded: what a sink writes.

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
class Undelivered:
    """One record that the target refused: its place in the release, and why."""

    index: int
    code: RejectCode
    message: str


SetAside = Callable[[Sequence[Undelivered]], None]
"""Makes durable which records of a release the target refused. May be told of the same one again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of a release at its target.

    Attributes:
        upserted, withdrawn: records applied.
        stale: records that the target already held in a later form.
        refused: records that the target did not take.
    """

    upserted: int = 0
    withdrawn: int = 0
    stale: int = 0
    refused: Sequence[Undelivered] = field(default=())


class Sink(Protocol):
    """Where records go. One sink stores one grant's records."""

    def prepare(self, schema: pa.Schema) -> None:
        """Make sure that the target can hold records of this schema; add to it, never change what is there.

        Raises:
            ConflictError: CONTRACT_BROKEN, when the target has not the columns and may not be given them.
            UnavailableError: TARGET_UNAVAILABLE.
        """
        ...

    def position(self) -> bytes:
        """Return how far the target is; empty when it has nothing.

        Raises:
            UnavailableError: TARGET_UNAVAILABLE.
        """
        ...

    def write(self, delivered: Delivered, before: bytes, after: bytes, set_aside: SetAside) -> Written:
        """Store the records and the position *after*, both or neither.

        Args:
            delivered: one release.
            before: what `position` is now.
            after: what it is to be.
            set_aside: to be told what the target refuses, if anything, before the position is durable. A process that
                dies in between is told the same release again; one that told afterwards would have lost the records.
                What it raises undoes the write.

        Raises:
            ConflictError: VERSION_CONFLICT, when the target's position is no longer *before*: another process writes.
            UnavailableError: TARGET_UNAVAILABLE; nothing was stored, or all of it was: ask `position`.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


class Pool(Protocol):
    """What a connector needs of the pool; `exchange.client.PoolClient` is the real one."""

    def hello(self) -> Hello:
        """Greet: who the pool is, and whom it takes us for."""
        ...

    def schema(self, topic: Topic | None = None, schema_id: int | None = None) -> tuple[int, str]:
        """Return (id, Avro text) of a topic's latest schema, or of an id."""
        ...

    def resume(self, topic: Topic) -> Standing:
        """Return where this connector's lane of the topic stands."""
        ...

    def publish(self, topic: Topic, batches: Iterable[Batch], *, in_flight: int = 4) -> Iterator[Receipt]:
        """Send batches; give their receipts in order. *batches* may be drawn from another thread."""
        ...

    def describe(self, grant_id: str, *, purpose: str = "", case: str = "") -> Subscription:
        """Return what a grant delivers."""
        ...

    def fetch(
        self,
        grant_id: str,
        *,
        position: bytes = b"",
        purpose: str,
        case: str,
        max_records: int = 10_000,
        max_bytes: int = 4 * 1024 * 1024,
        wait: float = 0.0,
    ) -> Fetched:
        """Draw records after a position."""
        ...

    def commit(self, grant_id: str, position: bytes, *, purpose: str, case: str) -> str:
        """Acknowledge what is stored permanently."""
        ...
