"""Claims and their bitemporal resolution: which version of each record is current at an instant. Pure.

A claim is one record of one resource about one subject, as the hub drew it. Claims are only ever added. Which of them
are current at an instant v is decided in each (resource, item), whose versions have one partition, so that positions
order them:

    upsert               holds from its valid_from, or from recorded_at where none is stated (`assumed`), to its
                         valid_to where one is stated
    correct              the same; without valid_from it takes that of the claim which was current at its position:
                         of those before it, at the time when it was recorded
    void                 removes every claim of the item before it; with valid_from only from then on

Current is, of the claims that hold at v, the one with the greatest (valid_from, position). So an upsert that arrives
late about an earlier time never covers a newer one, and a claim with an end gives way to the one before it.

Times are microseconds since 1970 UTC, intervals are half-open.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from exchange.hub.fold.identity import Handle, Link
from schemas.record import Operation

__all__ = [
    "Claim",
    "Held",
    "Instant",
    "Position",
    "Value",
    "current",
    "current_links",
    "held",
    "next_change",
    "retracted",
]

Instant: TypeAlias = int
Value: TypeAlias = object
"""A value as the codec decodes it: text, number, boolean, bytes, date, decimal. None is no value."""


class Position(NamedTuple):
    """Place of a record: in which resource's topic, and where."""

    resource: int
    generation: int
    partition: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One record of one resource about one subject.

    Attributes:
        handle: under which it came. It stays there, whatever joins the subject with others.
        position: of the record.
        item: the record's key under the hub's grant, 16 bytes.
        operation: upsert, correct, or void for a withdrawn record too.
        applied: number of the bucket's batch with which the hub learnt of it: its known time.
        recorded_at: when the pool recorded it.
        valid_from: as stated, None where nothing is.
        valid_to: as stated; the first instant at which it does not hold any more.
        values: by field; None for a void, and where the value was erased.
        links: of this handle with other identifiers of the subject, as the record states them.
    """

    handle: Handle
    position: Position
    item: bytes
    operation: Operation
    applied: int
    recorded_at: Instant
    valid_from: Instant | None = None
    valid_to: Instant | None = None
    values: Mapping[str, Value] | None = None
    links: tuple[Link, ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """A claim with the interval in which it holds.

    Attributes:
        claim: which.
        start: where it begins.
        end: where it ends, None for no end.
        assumed: whether nobody stated the beginning.
    """

    claim: Claim
    start: Instant
    end: Instant | None
    assumed: bool

    def holds(self, valid: Instant) -> bool:
        """Return whether it holds at an instant."""
        return self.start <= valid and (self.end is None or valid < self.end)

    @property
    def version(self) -> tuple[Instant, int, int]:
        """Order of the versions of an item: the greatest that holds is current."""
        return self.start, self.claim.position.generation, self.claim.position.offset


def held(claims: Iterable[Claim]) -> dict[tuple[int, bytes], list[Held]]:
    """Return the intervals of claims by (resource, item), in order of position; what voids remove is left out.

    A claim that comes twice counts once.
    """
    items: dict[tuple[int, bytes], dict[tuple[int, int, bool, Handle], Claim]] = {}
    for claim in claims:
        place = claim.position
        # A record that moves to another subject is a void of the one and an upsert of the other, at one position.
        order = (place.generation, place.offset, claim.operation is not Operation.VOID, claim.handle)
        items.setdefault((place.resource, claim.item), {})[order] = claim
    return {key: _resolved(versions[order] for order in sorted(versions)) for key, versions in items.items()}


def current(claims: Collection[Claim], valid: Instant) -> tuple[Held, ...]:
    """Return the claims that are current at an instant, one of each (resource, item), in order of these."""
    resolved = held(claims)
    found = (_at(resolved[key], valid) for key in sorted(resolved))
    return tuple(one for one in found if one is not None)


def current_links(claims: Collection[Claim], valid: Instant, trusted: Collection[int]) -> frozenset[Link]:
    """Return the links that are current at an instant, of resources that may state links."""
    stated = [claim for claim in claims if claim.position.resource in trusted]
    return frozenset(link for one in current(stated, valid) for link in one.claim.links)


def next_change(claims: Collection[Claim], valid: Instant) -> Instant | None:
    """Return the next instant at which other claims may be current, though none is added; None for never."""
    times = (
        time
        for versions in held(claims).values()
        for one in versions
        for time in (one.start, one.end)
        if time is not None and time > valid
    )
    return min(times, default=None)


def retracted(claims: Iterable[Claim]) -> frozenset[Position]:
    """Return the positions of claims that a void without valid time retracts: they ought never to have been."""
    items: dict[tuple[int, bytes], list[Claim]] = {}
    for claim in claims:
        items.setdefault((claim.position.resource, claim.item), []).append(claim)
    found: set[Position] = set()
    for versions in items.values():
        voids = [_place(one) for one in versions if one.operation is Operation.VOID and one.valid_from is None]
        if voids:
            found |= {
                one.position for one in versions if one.operation is not Operation.VOID and _place(one) < max(voids)
            }
    return frozenset(found)


def _place(claim: Claim) -> tuple[int, int]:
    return claim.position.generation, claim.position.offset


def _resolved(versions: Iterable[Claim]) -> list[Held]:
    alive: list[Held] = []
    for claim in versions:
        if claim.operation is Operation.VOID:
            alive = [] if claim.valid_from is None else _ended(alive, claim.valid_from)
            continue
        start, assumed = claim.valid_from, False
        if start is None and claim.operation is Operation.CORRECT:
            corrected = _at(alive, claim.recorded_at)
            if corrected is not None:
                start, assumed = corrected.start, corrected.assumed
        if start is None:
            start, assumed = claim.recorded_at, True
        alive.append(Held(claim, start, claim.valid_to, assumed))
    return alive


def _ended(alive: Iterable[Held], end: Instant) -> list[Held]:
    """Return intervals that end where they went beyond an instant, without those that would begin later."""
    return [
        one if one.end is not None and one.end <= end else Held(one.claim, one.start, end, one.assumed)
        for one in alive
        if one.start < end
    ]


def _at(alive: Iterable[Held], valid: Instant) -> Held | None:
    return max((one for one in alive if one.holds(valid)), key=lambda one: one.version, default=None)
