"""The fold by example: what each line of the rules means, with times that one can follow."""

import pytest

from exchange.hub.fold.asof import Basis, applied_at, as_of
from exchange.hub.fold.claim import Claim, Position, current
from exchange.hub.fold.fold import conflicts, fold
from exchange.hub.fold.golden import Conflict, FieldFlag, Provenance, difference, pack_provenance, unpack_provenance
from schemas.errors import CorruptError, InvalidError, Reason
from schemas.record import Operation
from tests.kit.cases.hub_claims import NOW, PLANS, SUBJECT, a_claim, a_plan

VOID, CORRECT = Operation.VOID, Operation.CORRECT


def name(*claims: Claim, at: int = NOW) -> object:
    return fold(a_plan(), claims, at).fields["full_name"].value


def test_a_late_claim_about_an_earlier_time_never_covers_a_newer_one() -> None:
    newer, late = a_claim(0, valid_from=50, full_name="new"), a_claim(1, valid_from=40, full_name="old")
    assert name(newer, late) == "new"
    assert name(newer, late, at=45) == "old"


def test_a_claim_with_an_end_gives_way_to_the_one_before() -> None:
    always, bounded = a_claim(0, valid_from=10, full_name="a"), a_claim(1, valid_from=20, valid_to=30, full_name="b")
    assert [name(always, bounded, at=at) for at in (9, 10, 20, 29, 30)] == [None, "a", "b", "b", "a"]


def test_a_correction_without_a_time_takes_that_of_what_it_corrects() -> None:
    claims = [a_claim(0, valid_from=5, full_name="wrong"), a_claim(1, operation=CORRECT, full_name="right")]
    assert name(*claims, at=6) == "right"
    late = a_claim(2, valid_from=8, full_name="later")
    assert name(*claims, late) == "later"


def test_a_void_removes_all_before_it_and_with_a_time_only_from_then_on() -> None:
    first, second = a_claim(0, valid_from=10, full_name="a"), a_claim(1, valid_from=20, full_name="b")
    assert name(first, second, a_claim(2, operation=VOID)) is None
    ended = a_claim(2, operation=VOID, valid_from=30)
    assert [name(first, second, ended, at=at) for at in (15, 29, 30)] == ["a", "b", None]
    assert name(first, second, a_claim(2, operation=VOID), a_claim(3, valid_from=5, full_name="c")) == "c"


def test_a_field_comes_from_its_lead_or_from_the_next_one_marked() -> None:
    lead, next_ = a_claim(0, full_name="A"), a_claim(0, resource=2, full_name="B", item=b"2" * 16)
    both = fold(a_plan(), [lead, next_], NOW)
    assert both.fields["full_name"].value == "A"
    assert both.fields["full_name"].flags == FieldFlag.CONFLICT | FieldFlag.ASSUMED
    alone = fold(a_plan(), [next_], NOW).fields["full_name"]
    assert (alone.value, alone.flags) == ("B", FieldFlag.SECONDARY | FieldFlag.ASSUMED)
    assert conflicts(a_plan(), [lead, next_], NOW) == {Conflict("full_name", lead.position, next_.position)}


def test_under_a_strict_rule_others_are_compared_and_never_fill() -> None:
    other = a_claim(0, resource=3, sex_code="2")
    assert fold(a_plan(), [other], NOW).fields["sex_code"].value is None
    lead = a_claim(0, sex_code="1")
    assert conflicts(a_plan(), [lead, other], NOW) == {Conflict("sex_code", lead.position, other.position)}


def test_what_a_rule_does_not_name_says_nothing() -> None:
    stranger = a_claim(0, resource=2, sex_code="2")
    golden = fold(a_plan(), [stranger, a_claim(0, sex_code="1")], NOW)
    assert golden.fields["sex_code"].value == "1"
    assert not golden.fields["sex_code"].flags & FieldFlag.CONFLICT
    assert len(golden.sources) == 2, "it stays among the sources"


def test_a_set_keeps_every_distinct_value_with_its_source() -> None:
    claims = [a_claim(0, titles="x"), a_claim(0, resource=2, titles="y"), a_claim(1, partition=1, titles="x")]
    golden = fold(a_plan(), claims, NOW)
    found = [(value.value, golden.sources[value.source].position.resource) for value in golden.fields["titles"].value]  # type: ignore[attr-defined]
    assert found == [("x", 1), ("y", 2)]


def test_the_newest_claim_wins_by_valid_time_and_then_by_arrival() -> None:
    older, newer = a_claim(0, valid_from=20, mobile_phone="1"), a_claim(0, resource=3, valid_from=30, mobile_phone="2")
    assert fold(a_plan(), [older, newer], NOW).fields["mobile_phone"].value == "2"
    same = a_claim(9, resource=3, valid_from=20, mobile_phone="3")
    assert fold(a_plan(), [older, same], NOW).fields["mobile_phone"].value == "3"


def test_the_next_change_is_the_next_beginning_or_end() -> None:
    claims = [a_claim(0, valid_from=10, valid_to=200), a_claim(1, valid_from=150)]
    assert fold(a_plan(), claims, NOW).next_change == 150
    assert fold(a_plan(), claims, 160).next_change == 200
    assert fold(a_plan(), claims[1:], 160).next_change is None


def test_a_generation_of_a_restored_topic_comes_after_the_one_before() -> None:
    before, after = a_claim(9, full_name="a"), a_claim(0, full_name="b", recorded_at=19)
    after = Claim(
        handle=SUBJECT, position=Position(1, 2, 0, 0), item=before.item, operation=Operation.UPSERT, applied=99,
        recorded_at=19, values={"full_name": "b"},
    )  # fmt: skip
    assert [one.claim.position.generation for one in current([before, after], NOW)] == [2]


def test_an_answer_as_of_a_basis_is_voided_by_a_later_retraction_and_by_nothing_else() -> None:
    plans = {one.version: one for one in PLANS}
    claims = [a_claim(0, full_name="a", sex_code="1"), a_claim(0, resource=2, full_name="b")]
    basis = Basis({0: 1}, 1)
    then = as_of(plans, claims, SUBJECT, basis, NOW)
    later = [*claims, a_claim(1, full_name="c"), a_claim(2, resource=2, operation=VOID)]
    assert as_of(plans, later, SUBJECT, basis, NOW) == as_of(plans, [*later[:3]], SUBJECT, basis, NOW)
    retracted = as_of(plans, [*claims, a_claim(1, operation=VOID)], SUBJECT, basis, NOW)
    assert retracted.fields["full_name"].value is None
    assert retracted.fields["full_name"].flags & FieldFlag.VOIDED
    assert retracted.sources == then.sources
    ended = as_of(plans, [*claims, a_claim(1, operation=VOID, valid_from=50)], SUBJECT, basis, NOW)
    assert ended == then


def test_a_basis_is_never_guessed() -> None:
    assert [applied_at([10, 20, 20, 30], asked, 40) for asked in (9, 10, 20, 40)] == [0, 1, 3, 4]
    with pytest.raises(InvalidError) as caught:
        applied_at([10], 41, 40)
    assert caught.value.reason is Reason.AS_OF_NOT_REACHED
    assert caught.value.details == {"watermark": "40"}
    with pytest.raises(InvalidError, match="version 9"):
        as_of({one.version: one for one in PLANS}, [], SUBJECT, Basis({}, 9), NOW)


def test_conflicts_are_stored_as_what_opens_and_what_closes() -> None:
    one, other, third = (Conflict(name, Position(1, 1, 0, 0), Position(2, 1, 0, 0)) for name in "abc")
    opened, closed = difference(frozenset({one, other}), frozenset({other, third}))
    assert (set(opened), set(closed)) == ({third}, {one})


def test_a_packed_provenance_that_is_damaged_is_refused() -> None:
    packed = pack_provenance(Provenance.of(fold(a_plan(), [a_claim(0, full_name="a")], NOW)))
    assert unpack_provenance(packed).sources[0].item == bytes(16)
    for damaged in (packed[:-1], packed + b"\0", b"\2" + packed[1:], b""):
        with pytest.raises(CorruptError):
            unpack_provenance(damaged)
