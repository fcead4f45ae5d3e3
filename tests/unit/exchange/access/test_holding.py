"""A grant is decided on with all that its consumer holds of the resource."""

from dataclasses import replace
from typing import Any

import pytest

from exchange.access.decision.grant_rules import Event
from exchange.access.grants.holding import MOST_HELD, Holding, check_ceiling, check_decided, check_resumption
from exchange.access.grants.life_cycle import advance, approve, confirm, provision
from schemas.access import Compare, Grant, GrantState, Level, MaskRule, Role
from schemas.errors import ConflictError, Reason, RefusedError
from tests.kit.cases.grants import NOW, PROVIDER, a_grant, a_person, held, masks_of

MASKS = masks_of(id_number="keep_3_4", diagnosis="drop")
OWNER = a_person(Role.SHARING_OFFICE_HEAD, PROVIDER, "li.ps")
OFFICER = a_person(Role.SECURITY_OFFICER, PROVIDER, "sun.ps")


def grant(id_: str, *fields: str, **changes: Any) -> Grant:
    plain = {"masks": (), "row_filter": None, "state": GrantState.ACTIVE, "ceiling": Level.G4}
    return a_grant(id=id_, fields=fields, **{**plain, **changes})


def request(id_: str, *fields: str, **changes: Any) -> Grant:
    return grant(id_, *fields, **{"state": GrantState.SUBMITTED, "approved_by": None, "approved_at": None, **changes})


CLEAR = {"masks": (("id_number", MaskRule.NONE),), "unmasked": ("id_number",), "unmasked_reason": "needed"}
MASKED = {"masks": (("id_number", MaskRule.KEEP_3_4),)}
HIV = {
    "row_filter": Compare("eq", "diagnosis", "HIV"),
    "filter_discloses": ("diagnosis",),
    "disclosure_reason": "HIV care",
}


def reason(check: Any, holding: Holding) -> Reason | None:
    try:
        check(holding)
    except RefusedError as error:
        return error.reason
    return None


def test_the_union_is_of_fields_levels_masks_and_filters() -> None:
    holding = held(
        request("c", "birth_date", "full_name"), grant("a", "full_name", "id_number", **CLEAR),
        grant("b", "full_name", **HIV), masks=MASKS,
    )  # fmt: skip
    assert holding.together_with == ("a", "b")
    assert set(holding.fields) == {"birth_date", "full_name", "id_number"}
    assert (holding.unmasked, holding.disclosed, holding.adds) == (("id_number",), ("diagnosis",), ("birth_date",))
    assert holding.sensitive
    assert not held(request("c", "full_name"), grant("a", "id_number", **MASKED), masks=MASKS).sensitive


def test_the_ceiling_reaches_the_level_of_all() -> None:
    low = request("c", "full_name", ceiling=Level.G2)
    assert reason(check_ceiling, held(low, level=Level.G2)) is None
    beside = held(low, grant("a", "diagnosis"), level=Level.G2)
    high = replace(beside, others=(replace(beside.others[0], level=Level.G4),))
    assert reason(check_ceiling, high) is Reason.LEVEL_ABOVE_CEILING
    unknown = replace(beside, others=(replace(beside.others[0], level=None),))
    assert reason(check_ceiling, unknown) is Reason.LEVEL_ABOVE_CEILING, "it counts as its ceiling"
    assert reason(check_ceiling, replace(beside, part=replace(beside.part, level=None))) is Reason.LEVEL_ABOVE_CEILING


def test_a_sensitive_holding_is_confirmed_as_it_is_and_approved_by_another_person() -> None:
    plain, clear = request("b", "full_name"), grant("a", "id_number", **CLEAR)
    holding = held(plain, clear, masks=MASKS)
    with pytest.raises(RefusedError) as error:
        approve(plain, by=OWNER, at=NOW, holding=holding)
    assert error.value.reason is Reason.CONFIRMATION_MISSING
    confirmed = confirm(plain, by=OFFICER, at=NOW, holding=holding)
    assert (confirmed.state, confirmed.confirmed_by, confirmed.together_with) == (
        GrantState.SUBMITTED, "sun.ps", ("a",),
    )  # fmt: skip
    grown = held(confirmed, clear, grant("c", "birth_date"), masks=MASKS)
    assert reason(check_decided, grown) is Reason.CONFIRMATION_MISSING, "not with this one"
    with pytest.raises(RefusedError) as error:
        approve(confirmed, by=replace(OWNER, id="sun.ps"), at=NOW, holding=held(confirmed, clear, masks=MASKS))
    assert error.value.reason is Reason.SAME_PERSON
    agreed = approve(confirmed, by=OWNER, at=NOW, holding=held(confirmed, clear, masks=MASKS))
    active = provision(agreed, by=OWNER, at=NOW, holding=held(agreed, clear, masks=MASKS), view_schema_id=3)
    assert (active.state, active.together_with) == (GrantState.ACTIVE, ("a",))
    grown = held(agreed, clear, grant("c", "birth_date"), masks=MASKS)
    with pytest.raises(RefusedError) as error:
        provision(agreed, by=OWNER, at=NOW, holding=grown, view_schema_id=3)
    assert error.value.reason is Reason.CONFIRMATION_MISSING, "activation decides again"


@pytest.mark.parametrize(("terms", "expected"), [({}, Reason.MASK_WEAKER), (MASKED | HIV, Reason.FILTER_DISCLOSES)])
def test_what_no_request_wrote_out_is_neither_approved_nor_resumed(terms: dict[str, Any], expected: Reason) -> None:
    terms = {**terms, "filter_discloses": ()}
    assert reason(check_decided, held(request("a", "id_number", **terms), masks=MASKS)) is expected
    old = grant("a", "id_number", state=GrantState.SUSPENDED, **terms)
    with pytest.raises(RefusedError) as error:
        advance(old, Event.RECTIFIED, by=OWNER, at=NOW, reason="mended", holding=held(old, masks=MASKS))
    assert error.value.reason is expected


def test_a_suspended_grant_is_resumed_where_the_newest_was_decided_on_with_it() -> None:
    old = grant("a", "full_name", ceiling=Level.G2, state=GrantState.SUSPENDED)
    newer = grant("b", "id_number", **CLEAR, confirmed_by="sun.ps", together_with=("a",))
    high = held(old, newer, masks=MASKS, level=Level.G4)
    assert reason(check_resumption, high) is None
    assert reason(check_decided, high) is not None, "its own approval would not cover it"


def test_a_department_holds_a_bounded_number_of_grants_on_a_resource() -> None:
    others = [grant(f"g{number:03}", "full_name") for number in range(MOST_HELD)]
    assert reason(check_ceiling, held(request("new", "full_name"), *others[1:])) is None
    with pytest.raises(ConflictError, match="end some of them"):
        check_decided(held(request("new", "full_name"), *others))


def test_grants_of_before_that_were_never_decided_on_together_are_not_resumed_beside_each_other() -> None:
    old = grant("a", "full_name", state=GrantState.SUSPENDED)
    other = grant("b", "id_number", **CLEAR, confirmed_by="sun.ps")
    assert reason(check_resumption, held(old, other, masks=MASKS)) is Reason.CONFIRMATION_MISSING
    assert reason(check_resumption, held(old, grant("b", "birth_date"), masks=MASKS)) is None, "nothing sensitive"
