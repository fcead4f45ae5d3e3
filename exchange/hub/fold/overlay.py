"""Overlay (incremental fold) in columns: a batch of one resource over golden records, without their claims. Pure.

A row is decided only where golden record and provenance alone determine the result; every other row is `undecided`,
and its subject is folded from its claims. A claim c of (resource r, item i) is decided when

    a  it is an upsert without valid_to that holds already, that begins no earlier than any current claim, and the
       golden record changes by no clock (no current claim has an end, none waits for its beginning)
    b  the subject is not linked, its golden record is of the same rules, and it has no open conflict
    c  at most one current claim O beside that of (r, i) exists, and it is not of r

Then for each field:

    nobody else                      the value of c
    O fills the field                c wins if it comes before O in the fold's order, and O stays otherwise; where both
                                     state a value and the two differ, they are in conflict
    (r, i) fills it                  the same value stays; another or none is undecided, for O's own value, which may
                                     come to the front, is not in the golden record
    nobody fills it                  the value of c

A shorter rule, which compares the rank of r with the provenance of each field, is wrong: it lets a late claim of a
better resource win whose newer claim states nothing, and misses a conflict with a claim that fills no field.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from exchange.hub.fold.claim import Claim, Instant, Value
from exchange.hub.fold.fold import FieldPlan, Plan, order_of
from exchange.hub.fold.golden import NO_FLAG, Conflict, FieldFlag, Provenance, Source
from exchange.hub.fold.normalise import Normaliser
from exchange.hub.fold.rules import Kind
from schemas.record import Operation

__all__ = ["GoldenColumns", "Overlaid", "overlay"]

_Bools = npt.NDArray[np.bool_]

_NOBODY: Final = 0
_OTHER: Final = 1
_SAME: Final = 2


@dataclass(frozen=True, slots=True)
class GoldenColumns:
    """Golden records of the subjects of a batch, one a row.

    Attributes:
        values: by field that the rules store.
        provenance: of each row; None for a subject that has no golden record.
        linked: whether the subject is linked with another handle.
    """

    values: Mapping[str, pa.Array]
    provenance: Sequence[Provenance | None]
    linked: Sequence[bool]


@dataclass(frozen=True, slots=True)
class Overlaid:
    """What became of a batch.

    Attributes:
        undecided: whether a row must be folded from its claims; it has null everywhere else.
        values: by field.
        provenance: of each row.
        conflicts: of each row; those that the claim opens.
    """

    undecided: _Bools
    values: Mapping[str, pa.Array]
    provenance: tuple[Provenance | None, ...]
    conflicts: tuple[frozenset[Conflict], ...]


@dataclass(slots=True)
class _Row:
    """What the rules of the fields need to know of a row."""

    claim: Source
    other: Source | None = None
    holders: tuple[int, ...] = ()  # by field: nobody, the other claim, or the earlier one of this item
    flags: tuple[FieldFlag, ...] = ()


@dataclass(frozen=True, slots=True)
class _Column:
    """One field of a batch.

    Attributes:
        before: values of the golden records.
        stated: values of the claims.
        wins: whether the claim fills the field.
        stays: whether the other claim goes on to fill it.
        differs: whether the two contradict each other.
        unknown: whether the claims have to be read.
    """

    before: pa.Array
    stated: pa.Array
    wins: _Bools
    stays: _Bools
    differs: _Bools
    unknown: _Bools


def overlay(
    made: Plan, golden: GoldenColumns, claims: Sequence[Claim], batch: Mapping[str, pa.Array], valid: Instant
) -> Overlaid:
    """Return the golden records after a batch, for the rows that can be decided.

    Args:
        made: the rules.
        golden: of the subjects, row by row.
        claims: one a row, of one resource; their values are taken from *batch*.
        batch: columns of the values, by field; a field that is missing is stated by no row.
        valid: the instant of the fold.
    """
    size = len(claims)
    resource = claims[0].position.resource if claims else 0
    times = Counter(one.handle for one in claims)
    rows = [
        None if times[claim.handle] > 1 or linked else _row(made, provenance, claim, valid)
        for claim, provenance, linked in zip(claims, golden.provenance, golden.linked, strict=True)
    ]
    decided = np.array([row is not None for row in rows], np.bool_)
    columns: list[_Column] = []
    for number, field in enumerate(made.fields):
        before = golden.values[field.name]
        stated = batch.get(field.name)
        rank = field.ranks.get(resource)
        if stated is None or rank is None:  # this resource says nothing about the field
            stated = pa.nulls(size, before.type)
        column = _decide(field, number, rank or 0, rows, before, stated)
        decided &= ~column.unknown
        columns.append(column)
    values = {
        field.name: _merged(one.before, one.stated, one.wins & decided, one.stays & decided)
        for field, one in zip(made.fields, columns, strict=True)
    }
    provenance: list[Provenance | None] = []
    opened: list[frozenset[Conflict]] = []
    for at, row in enumerate(rows):
        if row is None or not decided[at]:
            provenance.append(None)
            opened.append(frozenset())
            continue
        made_of, conflicts = _provenance(made, row, [(bool(one.wins[at]), bool(one.differs[at])) for one in columns])
        provenance.append(made_of)
        opened.append(conflicts)
    return Overlaid(~decided, values, tuple(provenance), tuple(opened))


def _row(made: Plan, before: Provenance | None, claim: Claim, valid: Instant) -> _Row | None:
    """Return a row whose claim fulfils the conditions a to c, else None."""
    assumed = claim.valid_from is None
    start = claim.recorded_at if claim.valid_from is None else claim.valid_from
    if claim.operation is not Operation.UPSERT or claim.valid_to is not None or claim.links or start > valid:
        return None
    row = _Row(Source(claim.position, claim.item, start, None, claim.recorded_at, assumed))
    if before is None:
        row.holders = (_NOBODY,) * len(made.fields)
        return row
    if before.rules != made.version or before.next_change is not None:
        return None
    conflicting = any(flags & FieldFlag.CONFLICT for _, flags in before.fields)
    if conflicting or any(start < one.valid_from for one in before.sources):
        return None
    mine = [_replaces(row.claim, one) for one in before.sources]
    others = [one for one, same in zip(before.sources, mine, strict=True) if not same]
    resource = claim.position.resource
    if len(others) > 1 or any(one.position.resource == resource for one in others):  # an older version counts as one
        return None
    row.other = others[0] if others else None
    kinds = [_SAME if same else _OTHER for same in mine]
    row.holders = tuple(_NOBODY if source is None else kinds[source] for source, _ in before.fields)
    row.flags = tuple(flags for _, flags in before.fields)
    return row


def _replaces(claim: Source, before: Source) -> bool:
    """Return whether a claim is a later version of the same item."""
    mine, theirs = claim.position, before.position
    same = (mine.resource, claim.item) == (theirs.resource, before.item)
    return same and (mine.generation, mine.offset) > (theirs.generation, theirs.offset)


def _decide(
    field: FieldPlan, number: int, rank: int, rows: Sequence[_Row | None], before: pa.Array, stated: pa.Array
) -> _Column:
    """Return what becomes of one field."""
    size = len(rows)
    holder = np.array([_NOBODY if row is None else row.holders[number] for row in rows], np.int8)
    others = [None if row is None else row.other for row in rows]
    alone = np.array([one is None for one in others], np.bool_)
    states = np.asarray(stated.is_valid())
    if field.kind is Kind.SET:
        # A set holds what several claims state: nothing of it is decided here, unless nothing is there.
        none = np.zeros(size, np.bool_)
        return _Column(before, stated, none, none, none, states | (holder != _NOBODY))
    fills = not (field.strict and rank > 0)
    first = np.array(
        [row is not None and row.other is not None and _before(field, rank, row.claim, row.other) for row in rows],
        np.bool_,
    )
    # Under a strict rule the other claim may state a value that fills nothing, and yet is compared.
    silent = np.array(
        [
            one is not None and one.position.resource in field.ranks and not field.fills(one.position.resource)
            for one in others
        ],
        np.bool_,
    )
    same, equal = _compared(field.normalise, before, stated)
    by_other, by_same, by_nobody = holder == _OTHER, holder == _SAME, holder == _NOBODY
    unknown = by_same & ~alone & (~same | ~first)
    unknown |= by_nobody & silent & states & fills
    wins = states & fills & (alone | by_nobody | by_same | (by_other & first))
    return _Column(before, stated, wins, by_other & ~wins, by_other & states & ~equal, unknown)


def _before(field: FieldPlan, rank: int, one: Source, other: Source) -> bool:
    theirs = field.ranks.get(other.position.resource)
    return theirs is None or order_of(rank, one) < order_of(theirs, other)


def _compared(normalise: Normaliser, before: pa.Array, stated: pa.Array) -> tuple[_Bools, _Bools]:
    """Return of each row whether both values are the same, and whether their normal forms are; no value is none."""
    both = np.asarray(pc.and_(before.is_valid(), stated.is_valid()))
    try:
        same = np.asarray(pc.fill_null(pc.equal(before, stated), fill_value=False))
    except pa.ArrowNotImplementedError:  # arrays and maps
        same = np.array([one == other for one, other in _pairs(before, stated)], np.bool_) & both
    equal = same.copy()
    others = np.flatnonzero(both & ~same)
    for at, (one, other) in zip(others, _pairs(before.take(others), stated.take(others)), strict=True):
        equal[at] = normalise(one) == normalise(other)
    return same, equal


def _pairs(before: pa.Array, stated: pa.Array) -> Iterator[tuple[Value, Value]]:
    return zip(before.to_pylist(), stated.to_pylist(), strict=True)


def _merged(before: pa.Array, stated: pa.Array, wins: _Bools, stays: _Bools) -> pa.Array:
    kept = pc.if_else(pa.array(stays), before, pa.scalar(None, before.type))
    # A set's column has another type than what one claim states, which never wins.
    return pc.if_else(pa.array(wins), stated, kept) if wins.any() else kept


def _provenance(made: Plan, row: _Row, outcome: Sequence[tuple[bool, bool]]) -> tuple[Provenance, frozenset[Conflict]]:
    other = row.other
    sources = [row.claim] if other is None else [row.claim, other]
    sources.sort(key=lambda one: (one.position.resource, one.item))
    mine = sources.index(row.claim)
    theirs = 1 - mine
    fields: list[tuple[int | None, FieldFlag]] = []
    conflicts: set[Conflict] = set()
    for number, (field, (wins, differs)) in enumerate(zip(made.fields, outcome, strict=True)):
        if wins:
            flags = FieldFlag.SECONDARY if field.ranks[row.claim.position.resource] > 0 else NO_FLAG
            flags |= FieldFlag.ASSUMED if row.claim.assumed else NO_FLAG
        elif row.holders[number] == _OTHER:
            flags = row.flags[number]
        else:
            fields.append((None, NO_FLAG))
            continue
        if differs and other is not None:
            flags |= FieldFlag.CONFLICT
            pair = (row.claim, other) if wins else (other, row.claim)
            conflicts.add(Conflict(field.name, pair[0].position, pair[1].position))
        fields.append((mine if wins else theirs, flags))
    return Provenance(made.version, None, tuple(sources), tuple(fields)), frozenset(conflicts)
