"""Golden record (survivorship result) with provenance field by field, and its packed form. Pure.

The packed provenance lies beside the record's values in the store. It is version 1:

    version u8 · rules u32 · next_change i64 · n u16 · n claims · f u16 · f fields
    claim   resource u16 · item 16 · generation u32 · partition u16 · offset u64 · valid_from i64 · valid_to i64 ·
            recorded_at i64 · assumed u8
    field   index u16 into the claims (65535: empty) · flags u8

The claims are all that are current, those too that fill no field: the overlay needs them, and so does the answer to
"which departments hold something about me". Numbers are big-endian; a time that does not exist is the greatest i64. A
field of a `set` names its first source here, and the others stand beside the values.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag
from typing import Final, NamedTuple

from exchange.hub.fold.claim import Held, Instant, Position, Value
from schemas.errors import CorruptError, Reason

__all__ = [
    "NO_FLAG",
    "Cell",
    "Conflict",
    "FieldFlag",
    "Golden",
    "Provenance",
    "Source",
    "Sourced",
    "difference",
    "pack_provenance",
    "unpack_provenance",
]

_HEAD: Final = struct.Struct(">BIqH")
_SOURCE: Final = struct.Struct(">H16sIHQqqqB")
_COUNT: Final = struct.Struct(">H")
_FIELD: Final = struct.Struct(">HB")
_VERSION: Final = 1
_EMPTY: Final = 2**16 - 1
_NEVER: Final = 2**63 - 1


class FieldFlag(IntFlag):
    """What an answer says beside a field's value."""

    CONFLICT = 1  # another source states another value
    SECONDARY = 2  # the leading source states none
    ASSUMED = 4  # nobody stated since when it holds
    VOIDED = 8  # as of then: the claim was retracted later, so that its value is not shown


NO_FLAG: Final = FieldFlag(0)


class Conflict(NamedTuple):
    """Two claims that state different values of a field. Places and names, never a value."""

    field: str
    winner: Position
    loser: Position


@dataclass(frozen=True, slots=True)
class Source:
    """A current claim as the provenance names it.

    Attributes:
        position: of its record.
        item: the record's key.
        valid_from: where it begins.
        valid_to: where it ends, None for no end.
        recorded_at: when the pool recorded it.
        assumed: whether nobody stated the beginning.
    """

    position: Position
    item: bytes
    valid_from: Instant
    valid_to: Instant | None
    recorded_at: Instant
    assumed: bool

    @classmethod
    def of(cls, one: Held) -> "Source":
        """Return a current claim as a source."""
        return cls(one.claim.position, one.claim.item, one.start, one.end, one.claim.recorded_at, one.assumed)


class Sourced(NamedTuple):
    """One value of a field that keeps every distinct value, with the index of its source."""

    value: Value
    source: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One field of a golden record.

    Attributes:
        value: None for none; of a `set`, a tuple of `Sourced`.
        source: index into the sources, None for an empty field.
        flags: what an answer says beside it.
    """

    value: Value = None
    source: int | None = None
    flags: FieldFlag = NO_FLAG


@dataclass(frozen=True, slots=True)
class Golden:
    """The golden record of one subject at one instant.

    Attributes:
        rules: version of the rules.
        sources: every current claim, in order of resource and item.
        fields: by name, in order of the names.
        next_change: next instant at which it may change by itself; None for never.
    """

    rules: int
    sources: tuple[Source, ...]
    fields: Mapping[str, Cell]
    next_change: Instant | None

    @property
    def values(self) -> Mapping[str, Value]:
        """Values by field."""
        return {name: cell.value for name, cell in self.fields.items()}


@dataclass(frozen=True, slots=True)
class Provenance:
    """A golden record without its values.

    Attributes:
        rules: version of the rules.
        next_change: next instant at which it may change by itself.
        sources: every current claim.
        fields: index of the source, or None, and the flags of each stored field in order of the names.
    """

    rules: int
    next_change: Instant | None
    sources: tuple[Source, ...]
    fields: tuple[tuple[int | None, FieldFlag], ...]

    @classmethod
    def of(cls, golden: Golden) -> "Provenance":
        """Return the provenance of a golden record."""
        fields = tuple((cell.source, cell.flags) for cell in golden.fields.values())
        return cls(golden.rules, golden.next_change, golden.sources, fields)


def pack_provenance(provenance: Provenance) -> bytes:
    """Return the packed form."""
    sources, fields = provenance.sources, provenance.fields
    packed = [_HEAD.pack(_VERSION, provenance.rules, _time(provenance.next_change), len(sources))]
    for one in sources:
        place = one.position
        packed.append(
            _SOURCE.pack(
                place.resource, one.item, place.generation, place.partition, place.offset,
                one.valid_from, _time(one.valid_to), one.recorded_at, one.assumed,
            )
        )  # fmt: skip
    packed.append(_COUNT.pack(len(fields)))
    packed += [_FIELD.pack(_EMPTY if source is None else source, flags) for source, flags in fields]
    return b"".join(packed)


def unpack_provenance(packed: bytes) -> Provenance:
    """Return the provenance of its packed form.

    Raises:
        CorruptError: RECORDS_CORRUPT, the bytes are no packed provenance.
    """
    try:
        version, rules, change, count = _HEAD.unpack_from(packed)
        at = _HEAD.size
        sources: list[Source] = []
        for _ in range(count):
            resource, item, generation, partition, offset, start, end, recorded, assumed = _SOURCE.unpack_from(
                packed, at
            )
            place = Position(resource, generation, partition, offset)
            sources.append(Source(place, item, start, _known(end), recorded, bool(assumed)))
            at += _SOURCE.size
        (count,) = _COUNT.unpack_from(packed, at)
        at += _COUNT.size
        cells = [_FIELD.unpack_from(packed, at + number * _FIELD.size) for number in range(count)]
        at += count * _FIELD.size
        fields = tuple((None if source == _EMPTY else source, FieldFlag(flags)) for source, flags in cells)
    except struct.error as error:
        raise _corrupt() from error
    if version != _VERSION or at != len(packed) or any(one is not None and one >= len(sources) for one, _ in fields):
        raise _corrupt()
    return Provenance(rules, _known(change), tuple(sources), fields)


def difference(
    before: frozenset[Conflict], after: frozenset[Conflict]
) -> tuple[frozenset[Conflict], frozenset[Conflict]]:
    """Return the conflicts to open and those to close, for a store that keeps the interval of each."""
    return after - before, before - after


def _time(instant: Instant | None) -> int:
    return _NEVER if instant is None else instant


def _known(time: int) -> Instant | None:
    return None if time == _NEVER else time


def _corrupt() -> CorruptError:
    return CorruptError(
        Reason.RECORDS_CORRUPT,
        "the provenance of a golden record cannot be read; fold the subject from its claims again",
    )
