"""Rows of the hub's tables as they are stored: what is clear, and what is sealed.

A sealed value is opened with its row's clear columns as associated data (`exchange.hub.store.sealing`), so a value
belongs to its row: taken to another row, or with a column changed, it opens no more.
"""

from dataclasses import dataclass
from enum import IntFlag
from typing import Final, TypeAlias

from exchange.hub.fold.claim import Claim, Instant, Position
from exchange.hub.fold.identity import Handle
from schemas.record import Operation

__all__ = [
    "DISPUTED",
    "RESTRICTED",
    "ConflictRow",
    "DrawPosition",
    "GoldenFlag",
    "GoldenRow",
    "ItemRow",
    "LinkRow",
    "Mark",
    "MarkKind",
    "SealedClaim",
    "WrappedKey",
]

MarkKind: TypeAlias = str
DISPUTED: Final[MarkKind] = "disputed"
RESTRICTED: Final[MarkKind] = "restricted"


class GoldenFlag(IntFlag):
    """What holds of a golden row as a whole."""

    MOVED = 1  # the subject's record stands under another handle, which the provenance names
    LINKED = 2  # other handles belong to it
    QUARANTINED = 4  # it could not be folded: it is answered as unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedKey:
    """Data key of a subject.

    Attributes:
        handle: whose.
        wrapped: under the KEK of the month; None once it is erased.
        kek: number of the month.
        erased_at: when; None while it is there.
    """

    handle: Handle
    wrapped: bytes | None
    kek: int
    erased_at: Instant | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedClaim:
    """A claim as it is stored.

    Attributes:
        handle: under which it came.
        position: of the record.
        item: the record's key under the hub's grant.
        operation: upsert, correct or void.
        applied: number of the bucket's batch.
        recorded_at: when the pool recorded it.
        valid_from: as stated.
        valid_to: as stated.
        schema: id of the value's schema; 0 without a value.
        sealed: links and value; None where the subject had been erased before it came.
    """

    handle: Handle
    position: Position
    item: bytes
    operation: Operation
    applied: int
    recorded_at: Instant
    valid_from: Instant | None
    valid_to: Instant | None
    schema: int
    sealed: bytes | None

    @classmethod
    def of(cls, claim: Claim, *, schema: int, sealed: bytes | None) -> "SealedClaim":
        """Return a claim as it is stored."""
        return cls(
            handle=claim.handle,
            position=claim.position,
            item=claim.item,
            operation=claim.operation,
            applied=claim.applied,
            recorded_at=claim.recorded_at,
            valid_from=claim.valid_from,
            valid_to=claim.valid_to,
            schema=schema,
            sealed=sealed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenRow:
    """A golden record as it is stored, of a subject library.

    Attributes:
        handle: of the subject.
        library: whose.
        rules: version of the rules.
        applied: number of the bucket's batch that changed it last.
        flags: what holds of it.
        sealed: the values.
        prov: packed provenance; of a moved one the handle under which the record stands.
    """

    handle: Handle
    library: str
    rules: int
    applied: int
    flags: GoldenFlag
    sealed: bytes
    prov: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRow:
    """A golden record of an item library: a licence, a penalty, a case.

    Attributes:
        library: whose.
        item: its key.
        handle: of the subject that it is about.
        rules: version of the rules.
        applied: number of the bucket's batch that changed it last.
        flags: what holds of it.
        sealed: the values.
        prov: packed provenance.
    """

    library: str
    item: bytes
    handle: Handle
    rules: int
    applied: int
    flags: GoldenFlag
    sealed: bytes
    prov: bytes


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class LinkRow:
    """An index of links: which handles to read together. What joins them is in the sealed claims alone.

    Attributes:
        left: the lesser handle.
        right: the greater one.
        claim: the position of the first record that said so.
        applied: number of the batch of the bucket of the handle that it came under.
    """

    left: Handle
    right: Handle
    claim: Position
    applied: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConflictRow:
    """Two claims that contradict each other: places and a field's name, never a value.

    Attributes:
        handle: of the subject.
        library: whose.
        field: which.
        winner: the claim whose value is shown.
        loser: the other one.
        opened: number of the batch that brought it.
        closed: number of the batch that ended it; None while it is open.
    """

    handle: Handle
    library: str
    field: str
    winner: Position
    loser: Position
    opened: int
    closed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A mark on a field or a whole record, with the known time for which it stands.

    Attributes:
        handle: of the subject.
        library: whose.
        field: which; empty for the whole record.
        kind: `disputed`, or `restricted`.
        from_applied: number of the batch from which it stands.
        to_applied: number of the batch with which it ended; None while it stands.
        ticket: why.
    """

    handle: Handle
    library: str
    field: str
    kind: MarkKind
    from_applied: int
    to_applied: int | None
    ticket: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawPosition:
    """How far a grant of the hub was drawn, in one group of buckets.

    Attributes:
        grant: id.
        group: of buckets, from 0.
        position: token of the pool, from which to fetch next.
        vector: next offset by partition; what lies below was drawn.
    """

    grant: str
    group: int
    position: bytes
    vector: tuple[int, ...]
