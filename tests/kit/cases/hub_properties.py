"""What the hub's fold keeps true, as checks of one world; the property tests run them, and the mutants must fail them.

They call the fold through its modules, so that a test which puts a wrong function in its place is seen by them.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from exchange.hub.fold import asof, fold, overlay
from exchange.hub.fold.asof import Basis
from exchange.hub.fold.claim import Claim, Position, retracted
from exchange.hub.fold.fold import Plan
from exchange.hub.fold.golden import (
    Conflict,
    FieldFlag,
    Golden,
    Provenance,
    Sourced,
    pack_provenance,
    unpack_provenance,
)
from exchange.hub.fold.identity import MOST_IDENTIFIERS, Handle, bucket_of
from exchange.hub.fold.overlay import GoldenColumns
from exchange.hub.fold.rules import Kind
from schemas.record import Operation
from tests.kit.cases.hub_claims import FIELDS, HANDLES, NUMBERS, PLANS, World, columns
from tests.kit.cases.naive_hub import naive_golden

SEEN: Final[Counter[str]] = Counter()
"""What the runs came across, so that a test can tell that a check was not idle."""

_NAMES: Final = {number: name for name, number in NUMBERS.items()}


def packed(golden: Golden) -> tuple[bytes, tuple[object, ...]]:
    """Return a golden record as bytes and values, which two equal ones share."""
    return pack_provenance(Provenance.of(golden)), tuple(repr(cell.value) for cell in golden.fields.values())


def order(world: World, chance: random.Random) -> None:
    """Whatever order, duplication or split the claims come in: the same golden record, provenance and conflicts."""
    mixed = [*world.claims, *chance.choices(world.claims, k=len(world.claims) // 2)]
    chance.shuffle(mixed)
    first = fold.fold(world.plan, world.claims, world.valid)
    assert packed(fold.fold(world.plan, mixed, world.valid)) == packed(first)
    together = fold.conflicts(world.plan, world.claims, world.valid)
    assert fold.conflicts(world.plan, mixed, world.valid) == together
    assert unpack_provenance(pack_provenance(Provenance.of(first))) == Provenance.of(first)
    SEEN["conflicts"] += len(together)


def oracle(world: World) -> None:
    """The values, their sources and the conflicts are those that the naive twin finds."""
    golden = fold.fold(world.plan, world.claims, world.valid)
    rules = naive_rules(world.plan)
    expected, conflicts = naive_golden(rules, [naive_record(one) for one in world.claims], world.valid)
    for name, cell in golden.fields.items():
        assert _sourced(golden, cell.value, cell.source) == expected[name], name
    found = {(one.field, one.winner, one.loser) for one in fold.conflicts(world.plan, world.claims, world.valid)}
    assert found == conflicts
    for name, cell in golden.fields.items():
        assert bool(cell.flags & FieldFlag.CONFLICT) == any(one == name for one, _, _ in conflicts)
        SEEN["values"] += cell.value is not None


def incremental(world: World) -> None:
    """A batch laid over golden records gives what the fold of all claims gives, wherever it decides."""
    golden: Golden | None = None
    known: list[Claim] = []
    for claim in world.claims:
        # A batch holds several subjects; the others have no part in this one's result.
        stranger = replace(claim, handle=HANDLES[-1], item=b"s" * 16)
        before = GoldenColumns(
            values=columns([_plain(golden), None]) if golden is not None else columns([None, None]),
            provenance=[None if golden is None else Provenance.of(golden), None],
            linked=[False, False],
        )
        batch = columns([dict(claim.values or {}), dict(claim.values or {})])
        laid = overlay.overlay(world.plan, before, [claim, stranger], batch, world.valid)
        was_open = frozenset[Conflict]() if not known else fold.conflicts(world.plan, known, world.valid)
        known.append(claim)
        golden = fold.fold(world.plan, known, world.valid)
        if laid.undecided[0]:
            SEEN["undecided"] += 1
            assert laid.provenance[0] is None
            continue
        SEEN["decided"] += 1
        SEEN["decided beside another"] += len(golden.sources) > 1
        assert laid.provenance[0] == Provenance.of(golden)
        assert {name: laid.values[name][0].as_py() for name in laid.values} == _plain(golden)
        assert was_open | laid.conflicts[0] == fold.conflicts(world.plan, known, world.valid)
        SEEN["decided conflicts"] += len(laid.conflicts[0])


def known_time(world: World) -> None:
    """Every answer as of a basis stays what it was, whatever comes later; what is retracted is voided, not replaced."""
    plans = {one.version: one for one in PLANS}
    asked: list[tuple[Handle, Basis, int, Golden]] = []
    applied: dict[int, int] = {}
    for at, claim in enumerate(world.claims):
        applied[bucket_of(claim.handle)] = claim.applied
        later = world.claims[at + 1 :]
        if any(applied.get(bucket_of(one.handle)) == one.applied for one in later):
            continue  # a batch is not complete
        basis = Basis(dict(applied), 1 + at % len(PLANS))
        for valid in (world.valid, claim.recorded_at):
            so_far = world.claims[: at + 1]
            asked.append((claim.handle, basis, valid, asof.as_of(plans, so_far, claim.handle, basis, valid)))
    for handle, basis, valid, answer in asked:
        again = asof.as_of(plans, world.claims, handle, basis, valid)
        assert again.sources == answer.sources
        gone = retracted(_of_members(world, plans[basis.rules], handle, basis, valid))
        for name, cell in again.fields.items():
            if cell.flags & FieldFlag.VOIDED:
                SEEN["voided"] += 1
                _is_voided(answer, name, gone)
            else:
                assert cell == answer.fields[name]
                SEEN["stands"] += cell.value is not None


def links(world: World) -> None:
    """Components depend on the set of links; what a void splits is as if never linked; citizens share no record."""
    made = world.plan
    joined = asof.subject(world.claims, made, world.valid)
    mixed = list(reversed(world.claims))
    assert asof.subject(mixed, made, world.valid) == joined
    for handle in HANDLES:
        members = joined.members(handle)
        SEEN["joined"] += len(members) > 1
        assert len(members & set(HANDLES[:2])) <= 1, "two citizen numbers share a record"
        assert len(members) <= MOST_IDENTIFIERS
        assert joined.of(handle) in members
        assert all(joined.members(one) == members for one in members)
        if members & set(HANDLES[:2]):
            assert joined.of(handle) in HANDLES[:2]
    SEEN["refused joins"] += len(joined.conflicts)
    stated = {(one.position.partition, one.item): one for one in world.claims if one.position.resource == 4}
    ended = [
        replace(
            one, operation=Operation.VOID, valid_from=None, valid_to=None, values=None, links=(),
            position=one.position._replace(offset=10_000),
        )
        for one in stated.values()
    ]  # fmt: skip
    apart = asof.subject([*world.claims, *ended], made, world.valid)
    assert not apart.representative
    for handle in HANDLES:
        mine = [one for one in world.claims if one.handle == handle and one.position.resource != 4]
        after = [one for one in [*world.claims, *ended] if one.handle in apart.members(handle)]
        assert fold.fold(made, after, world.valid).fields == fold.fold(made, mine, world.valid).fields


def naive_rules(plan: Plan) -> dict[str, Any]:
    """Return what the naive twin needs to know of a plan, by the names of resources."""
    kinds = {"_nfkc_space": "nfkc_space", "_digits": "digits"}
    return {
        "fields": {
            one.name: {
                "rule": one.kind.value,
                "order": [_NAMES[number] for number in sorted(one.ranks, key=lambda each: one.ranks[each])],
                "strict": one.strict,
                "normalise": kinds.get(getattr(one.normalise, "__name__", ""), "exact"),
            }
            for one in plan.fields
        }
    }


def naive_record(claim: Claim) -> dict[str, Any]:
    """Return a claim as the naive twin reads it."""
    place = claim.position
    return {
        "place": place,
        "resource": _NAMES[place.resource],
        "number": place.resource,
        "generation": place.generation,
        "partition": place.partition,
        "offset": place.offset,
        "item": claim.item,
        "op": claim.operation.name.lower(),
        "recorded_at": claim.recorded_at,
        "valid_from": claim.valid_from,
        "valid_to": claim.valid_to,
        "values": claim.values,
    }


@dataclass
class Lead:
    """Two rules that differ in one field's lead.

    Attributes:
        changed: the field.
        before: the rules.
        after: with another order of the field.
    """

    changed: str
    before: Plan
    after: Plan = field(init=False)

    def __post_init__(self) -> None:
        fields = list(self.before.fields)
        at = next(number for number, one in enumerate(fields) if one.name == self.changed)
        turned = {number: -rank for number, rank in fields[at].ranks.items()}
        fields[at] = replace(fields[at], kind=Kind.LEAD, ranks=_from_zero(turned))
        self.after = replace(self.before, fields=tuple(fields))


def leads(world: World, chance: random.Random) -> None:
    """A field that no resource may fill stays empty; another lead of one field changes that field alone."""
    golden = fold.fold(world.plan, world.claims, world.valid)
    pair = Lead(chance.choice(FIELDS), world.plan)
    other = fold.fold(pair.after, world.claims, world.valid)
    assert other.sources == golden.sources
    for name, cell in golden.fields.items():
        assert name == pair.changed or other.fields[name] == cell
    SEEN["changed by another lead"] += other.fields[pair.changed] != golden.fields[pair.changed]
    silent = chance.choice(FIELDS)
    without = tuple(replace(one, ranks={}) if one.name == silent else one for one in world.plan.fields)
    nobody = fold.fold(replace(world.plan, fields=without), world.claims, world.valid)
    assert nobody.fields[silent].value is None
    assert nobody.fields[silent].source is None
    for one in world.plan.fields:
        for at in _sources(golden, one.name):
            assert golden.sources[at].position.resource in one.ranks


def _from_zero(ranks: dict[int, int]) -> dict[int, int]:
    return {number: rank for rank, number in enumerate(sorted(ranks, key=lambda each: (ranks[each], each)))}


def _sources(golden: Golden, name: str) -> Sequence[int]:
    cell = golden.fields[name]
    if isinstance(cell.value, tuple):
        return [one.source for one in cell.value if isinstance(one, Sourced)]
    return [] if cell.source is None else [cell.source]


def _plain(golden: Golden | None) -> dict[str, Any] | None:
    """Return values as columns hold them; of a set the first, which the overlay never decides on."""
    if golden is None:
        return None
    return {
        name: cell.value[0].value if isinstance(cell.value, tuple) else cell.value
        for name, cell in golden.fields.items()
    }


def _sourced(golden: Golden, value: object, source: int | None) -> object:
    if isinstance(value, tuple):
        return [(one.value, golden.sources[one.source].position) for one in value]
    return None if source is None else (value, golden.sources[source].position)


def _of_members(world: World, plan: Plan, handle: Handle, basis: Basis, valid: int) -> list[Claim]:
    members = asof.subject(asof.known(world.claims, basis), plan, valid).members(handle)
    return [one for one in world.claims if one.handle in members]


def _is_voided(answer: Golden, name: str, gone: frozenset[Position]) -> None:
    places = {answer.sources[at].position for at in _sources(answer, name)}
    assert places & gone, "a value was voided that nobody retracted"
