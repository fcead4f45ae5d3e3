"""As-of answers (bitemporal): what the hub would have answered at a known time, about an instant. Pure.

Known time is the number of a bucket's batch (`applied`), not a clock: a basis names it per bucket, with the version of
the rules. The answer is the fold of the claims that were applied by then, under the rules that were active then, so
that nothing that arrives later changes it. Links count by the basis of the bucket of the handle that they came under.

One thing does change it, by intent: a retraction. A record that ought never to have been published is not shown again
for any basis; its fields are answered as VOIDED, the others as they were. That it was answered then is proven by the
digest in the entry of that answer.
"""

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from exchange.hub.fold.claim import Claim, Instant, Position, current_links, retracted
from exchange.hub.fold.fold import Plan, fold
from exchange.hub.fold.golden import Cell, FieldFlag, Golden, Sourced
from exchange.hub.fold.identity import Components, Handle, bucket_of, components
from schemas.errors import InvalidError, Reason

__all__ = ["Basis", "applied_at", "as_of", "known", "subject"]


@dataclass(frozen=True, slots=True)
class Basis:
    """What an answer was made from.

    Attributes:
        applied: number of the last batch that counts, by bucket; a bucket that is missing has none.
        rules: version of the rules.
    """

    applied: Mapping[int, int]
    rules: int


def known(claims: Collection[Claim], basis: Basis) -> list[Claim]:
    """Return the claims that the hub knew at a basis."""
    return [one for one in claims if one.applied <= basis.applied.get(bucket_of(one.handle), 0)]


def subject(claims: Collection[Claim], made: Plan, valid: Instant) -> Components:
    """Return how the links that are current at an instant join the handles of claims."""
    return components(current_links(claims, valid, made.links))


def as_of(plans: Mapping[int, Plan], claims: Collection[Claim], handle: Handle, basis: Basis, valid: Instant) -> Golden:
    """Return the golden record of a subject as the hub knew it at a basis.

    Args:
        plans: by version of the rules.
        claims: every claim of every handle that was ever linked with this one, later ones too.
        handle: any of the subject's.
        basis: known time and version of the rules.
        valid: the instant that the answer is about.

    Raises:
        InvalidError: AS_OF_NOT_REACHED, there were no rules of that version.
    """
    made = plans.get(basis.rules)
    if made is None:
        raise InvalidError(
            Reason.AS_OF_NOT_REACHED,
            f"got version {basis.rules} of the rules; expected one that was active: {sorted(plans)}",
        )
    then = known(claims, basis)
    members = subject(then, made, valid).members(handle)
    golden = fold(made, [one for one in then if one.handle in members], valid)
    late = retracted([one for one in claims if one.handle in members]) - retracted(then)
    return _without(golden, late) if late else golden


def applied_at(times: Sequence[Instant], asked: Instant, watermark: Instant) -> int:
    """Return the number of the last batch of a bucket at a time.

    Args:
        times: of its batches 1, 2, 3 …, ascending.
        asked: the known time.
        watermark: the time up to which nothing can be added to the bucket any more.

    Raises:
        InvalidError: AS_OF_NOT_REACHED, the time lies behind the watermark; an answer could still change.
    """
    if asked > watermark:
        raise InvalidError(
            Reason.AS_OF_NOT_REACHED,
            f"got a known time {asked}; expected one up to the watermark {watermark}: ask again later",
            details={"watermark": str(watermark)},
        )
    return bisect_right(times, asked)


def _without(golden: Golden, gone: frozenset[Position]) -> Golden:
    hidden = {at for at, one in enumerate(golden.sources) if one.position in gone}
    cells = {name: _cell(cell, hidden) for name, cell in golden.fields.items()}
    return replace(golden, fields=MappingProxyType(cells))


def _cell(cell: Cell, hidden: Collection[int]) -> Cell:
    if not isinstance(cell.value, tuple):
        return Cell(None, cell.source, cell.flags | FieldFlag.VOIDED) if cell.source in hidden else cell
    kept = tuple(one for one in cell.value if not (isinstance(one, Sourced) and one.source in hidden))
    return cell if len(kept) == len(cell.value) else Cell(kept or None, cell.source, cell.flags | FieldFlag.VOIDED)
