"""The hub's fold over random claims: order, the naive twin, overlay, as-of, links and leads; mutants that must die.

Each check has its text in `tests.kit.cases.hub_properties`. The mutants are wrong variants that a reader of the design
might write; each of them is put in place of the right function, and a check must notice within a bounded search.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from exchange.hub.fold import asof, claim, fold, identity, overlay
from exchange.hub.fold.claim import Claim, Held
from exchange.hub.fold.golden import FieldFlag
from exchange.hub.fold.identity import bucket_of
from schemas.record import Operation
from tests.kit import share
from tests.kit.cases import hub_properties
from tests.kit.cases.hub_claims import NOW, PLANS, World, random_claims, worlds
from tests.kit.cases.hub_properties import SEEN

RUNS = share.count(10_000, 400)
_SETTINGS = settings(max_examples=RUNS, suppress_health_check=[HealthCheck.too_slow])
_MOST_WORLDS = 4_000
"""Worlds in which a mutant has to be noticed."""

pytestmark = pytest.mark.counted


@_SETTINGS
@given(world=worlds(), seed=st.integers(0, 2**32 - 1))
def test_order_duplication_and_batches_change_nothing(world: World, seed: int) -> None:
    hub_properties.order(world, random.Random(seed))


@_SETTINGS
@given(world=worlds())
def test_the_fold_agrees_with_a_naive_twin(world: World) -> None:
    hub_properties.oracle(world)


@_SETTINGS
@given(world=worlds(most=6))
def test_an_overlay_that_decides_agrees_with_the_fold(world: World) -> None:
    hub_properties.incremental(world)


@_SETTINGS
@given(world=worlds(handles=3, linked=True))
def test_an_answer_as_of_a_basis_stands(world: World) -> None:
    hub_properties.known_time(world)


@_SETTINGS
@given(world=worlds(handles=4, linked=True))
def test_links_join_and_split_by_one_function(world: World) -> None:
    hub_properties.links(world)


@_SETTINGS
@given(world=worlds(), seed=st.integers(0, 2**32 - 1))
def test_no_field_without_lead_is_filled_and_a_lead_changes_its_field_alone(world: World, seed: int) -> None:
    hub_properties.leads(world, random.Random(seed))


def test_the_runs_came_across_what_they_are_for() -> None:
    _search(hub_properties.incremental, share.random_of("decided rows"), 400)
    _search(hub_properties.known_time, share.random_of("voided answers"), 3_000, handles=3, linked=True)
    _search(hub_properties.links, share.random_of("joined handles"), 400, handles=4, linked=True)
    _search(hub_properties.oracle, share.random_of("values"), 100)
    for what in (
        "decided",
        "undecided",
        "decided beside another",
        "decided conflicts",
        "voided",
        "stands",
        "joined",
        "refused joins",
        "values",
    ):
        assert SEEN[what] > 3, what


def _search(check: Callable[[World], None], chance: random.Random, most: int, **shape: int) -> None:
    for _ in range(most):
        claims = random_claims(chance, chance.randrange(1, 9), **shape)  # type: ignore[arg-type]
        check(World(claims, chance.choice(PLANS), chance.choice((NOW, 25, 60, 150))))


Mutant = Callable[[pytest.MonkeyPatch], None]


def void_of_the_newest_alone(patch: pytest.MonkeyPatch) -> None:
    right = claim._resolved

    def wrong(versions: Iterable[Claim]) -> list[Held]:
        kept: list[Claim] = []
        for one in versions:
            if one.operation is Operation.VOID and one.valid_from is None:
                kept = kept[:-1]
            else:
                kept.append(one)
        return right(kept)

    patch.setattr(claim, "_resolved", wrong)


def correction_with_its_own_time(patch: pytest.MonkeyPatch) -> None:
    right = claim._resolved
    patch.setattr(
        claim,
        "_resolved",
        lambda versions: right(
            replace(one, operation=Operation.UPSERT) if one.operation is Operation.CORRECT else one for one in versions
        ),
    )


def late_claim_covers_a_newer_one(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        claim.Held, "version", property(lambda one: (0, one.claim.position.generation, one.claim.position.offset))
    )


def end_is_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(claim.Held, "holds", lambda one, valid: one.start <= valid)


def void_with_a_time_retracts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(claim, "_ended", lambda _alive, _end: [])


def void_with_a_time_does_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(claim, "_ended", lambda alive, _end: list(alive))


def rank_is_ignored(patch: pytest.MonkeyPatch) -> None:
    right = fold.order_of
    patch.setattr(fold, "order_of", lambda _rank, one: right(0, one))


def strict_is_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fold.FieldPlan, "fills", lambda field, resource: resource in field.ranks)


def order_of_arrival(patch: pytest.MonkeyPatch) -> None:
    def wrong(claims: Iterable[Claim], valid: int) -> tuple[Held, ...]:
        found = {key: claim._at(versions, valid) for key, versions in claim.held(claims).items()}
        return tuple(one for one in found.values() if one is not None)

    patch.setattr(fold, "current", wrong)


def values_are_compared_as_they_are(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fold, "_differing", lambda _field, found, winner: [at for at in found if found[at] != found[winner]])


def rank_alone_decides_the_overlay(patch: pytest.MonkeyPatch) -> None:
    """Static rank against the provenance of the field: the shorter rule that the design warns of."""
    right = overlay._decide

    def wrong(*given: object) -> object:
        column = right(*given)  # type: ignore[arg-type]
        return replace(column, unknown=column.unknown & False)

    patch.setattr(overlay, "_decide", wrong)


def overlay_forgets_a_silent_claim(patch: pytest.MonkeyPatch) -> None:
    right = overlay._decide

    def wrong(field: object, number: int, rank: int, rows: object, *given: object) -> object:
        column = right(field, number, rank, rows, *given)  # type: ignore[arg-type]
        alone = [row is None or row.other is None or row.holders[number] != 2 for row in rows]  # type: ignore[attr-defined]
        return replace(column, unknown=column.unknown & alone)

    patch.setattr(overlay, "_decide", wrong)


def overlay_forgets_the_clock(patch: pytest.MonkeyPatch) -> None:
    right = overlay._row
    patch.setattr(
        overlay,
        "_row",
        lambda made, before, one, valid: right(made, before and replace(before, next_change=None), one, valid),
    )


def overlay_forgets_open_conflicts(patch: pytest.MonkeyPatch) -> None:
    right = overlay._row
    patch.setattr(
        overlay,
        "_row",
        lambda made, before, one, valid: right(
            made,
            before and replace(before, fields=tuple((at, flags & ~FieldFlag.CONFLICT) for at, flags in before.fields)),
            one,
            valid,
        ),
    )


def overlay_takes_any_operation(patch: pytest.MonkeyPatch) -> None:
    right = overlay._row
    patch.setattr(
        overlay,
        "_row",
        lambda made, before, one, valid: right(made, before, replace(one, operation=Operation.UPSERT), valid),
    )


def known_by_the_clock(patch: pytest.MonkeyPatch) -> None:
    """Known time by recorded_at instead of applied."""

    def wrong(claims: Sequence[Claim], basis: asof.Basis) -> list[Claim]:
        times: dict[int, int] = {}
        for one in claims:
            bucket = bucket_of(one.handle)
            if one.applied <= basis.applied.get(bucket, 0):
                times[bucket] = max(one.recorded_at, times.get(bucket, 0))
        return [one for one in claims if one.recorded_at <= times.get(bucket_of(one.handle), -1)]

    patch.setattr(asof, "known", wrong)


def a_retraction_changes_what_was_answered(patch: pytest.MonkeyPatch) -> None:
    right = asof.known
    patch.setattr(
        asof,
        "known",
        lambda claims, basis: [*right(claims, basis), *(one for one in claims if one.operation is Operation.VOID)],
    )


def citizens_share_a_record(patch: pytest.MonkeyPatch) -> None:
    right = identity.components
    patch.setattr(
        asof, "components", lambda links: right(replace(one, left_citizen=False, right_citizen=False) for one in links)
    )


def a_void_does_not_split(patch: pytest.MonkeyPatch) -> None:
    right = claim.current_links
    patch.setattr(
        asof,
        "current_links",
        lambda claims, valid, trusted: right(
            [one for one in claims if one.operation is not Operation.VOID], valid, trusted
        ),
    )


MUTANTS: dict[str, tuple[Mutant, Callable[..., None], dict[str, int]]] = {
    one.__name__: (one, check, shape)
    for check, shape, mutants in (
        (
            hub_properties.oracle,
            {},
            (
                void_of_the_newest_alone,
                correction_with_its_own_time,
                late_claim_covers_a_newer_one,
                end_is_ignored,
                void_with_a_time_retracts,
                void_with_a_time_does_nothing,
                rank_is_ignored,
                strict_is_ignored,
                values_are_compared_as_they_are,
            ),
        ),
        (hub_properties.order, {}, (order_of_arrival,)),
        (
            hub_properties.incremental,
            {},
            (
                rank_alone_decides_the_overlay,
                overlay_forgets_a_silent_claim,
                overlay_forgets_the_clock,
                overlay_forgets_open_conflicts,
                overlay_takes_any_operation,
            ),
        ),
        (
            hub_properties.known_time,
            {"handles": 3, "linked": True},
            (known_by_the_clock, a_retraction_changes_what_was_answered),
        ),
        (hub_properties.links, {"handles": 4, "linked": True}, (citizens_share_a_record, a_void_does_not_split)),
    )
    for one in mutants
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_variant_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant, check, shape = MUTANTS[name]
    chance = share.random_of(name)
    mutant(monkeypatch)
    whole = (lambda world: check(world, chance)) if check is hub_properties.order else check
    with pytest.raises(AssertionError):
        _search(whole, chance, _MOST_WORLDS, **shape)
