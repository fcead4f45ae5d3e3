"""What a grant shows beyond the schema's masks, and what of it a request must write out."""

from dataclasses import replace
from typing import Any

import pytest

from exchange.access.grants.exposure import Exposure, exposure_of, undecided_exposure, with_default_masks
from exchange.access.grants.life_cycle import RequestTerms, submit
from schemas.access import (
    AllOf,
    AnyOf,
    Compare,
    Exists,
    Grant,
    Level,
    MaskRule,
    Member,
    Not,
    Prefix,
    Range,
    Role,
    RowFilter,
)
from schemas.errors import InvalidError, Reason
from tests.kit.cases.grants import CONSUMER, NOW, a_draft, a_grant, a_person, masks_of

MASKS = masks_of(id_number="keep_3_4", full_name="name_first", diagnosis="drop", address="addr_district")
HEAD = a_person(Role.SHARING_OFFICE_HEAD, CONSUMER, "wang.hr")
TERMS = RequestTerms(purposes={"eligibility"}, level=Level.G4, masks=MASKS, check_view=lambda _: None)
LEAVES: list[RowFilter] = [
    Compare("eq", "diagnosis", "HIV"),
    Compare("ne", "diagnosis", "HIV"),
    Member("diagnosis", ("HIV",)),
    Range("diagnosis", "H", "I"),
    Prefix("diagnosis", "H"),
    Exists("diagnosis"),
]


def requested(**changes: Any) -> Grant:
    plain = {"fields": ("id_number", "birth_date"), "masks": (), "row_filter": None}
    return submit(a_draft(**{**plain, **changes}), by=HEAD, at=NOW, terms=TERMS)


def refused(reason: Reason, **changes: Any) -> str:
    with pytest.raises(InvalidError) as error:
        requested(**changes)
    assert error.value.reason is reason
    return error.value.message


def test_the_schema_s_masks_are_written_into_the_request() -> None:
    request = requested(fields=("id_number", "full_name", "diagnosis", "address", "birth_date"))
    assert request.masks == (
        ("address", MaskRule.DROP),  # no view has its mask
        ("diagnosis", MaskRule.DROP),
        ("full_name", MaskRule.NAME_FIRST),
        ("id_number", MaskRule.KEEP_3_4),
    )
    assert not exposure_of(request, MASKS)


def test_a_stricter_mask_needs_no_reason_and_stays() -> None:
    request = requested(masks=(("id_number", MaskRule.DROP), ("birth_date", MaskRule.NONE)))
    assert request.masks == (("birth_date", MaskRule.NONE), ("id_number", MaskRule.DROP))
    assert request.unmasked == ()


@pytest.mark.parametrize("rule", [MaskRule.NONE, MaskRule.NAME_FIRST, MaskRule.DIV_CITY])
def test_a_mask_that_does_not_hide_as_much_needs_a_reason_and_is_named(rule: MaskRule) -> None:
    masks = (("id_number", rule),)
    assert "unmasked_reason" in refused(Reason.MASK_WEAKER, masks=masks)
    refused(Reason.MASK_WEAKER, masks=masks, unmasked_reason="  ")
    request = requested(masks=masks, unmasked_reason="benefits are paid by number")
    assert request.unmasked == ("id_number",)
    assert exposure_of(request, MASKS) == Exposure(unmasked=("id_number",))
    assert not undecided_exposure(request, MASKS)


def test_a_request_of_which_the_schema_leaves_nothing_is_refused() -> None:
    assert "drops every requested field" in refused(Reason.REQUEST_INVALID, fields=("diagnosis", "address"))


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: type(leaf).__name__)
@pytest.mark.parametrize(
    "within",
    [
        lambda leaf: leaf,
        Not,
        lambda leaf: AllOf((Compare("eq", "birth_date", "2000-01-01"), leaf)),
        lambda leaf: AnyOf((leaf, leaf)),
    ],
)
def test_every_form_of_a_filter_on_a_hidden_field_discloses_it(leaf: RowFilter, within: Any) -> None:
    refused(Reason.FILTER_DISCLOSES, row_filter=within(leaf))
    refused(Reason.FILTER_DISCLOSES, row_filter=within(leaf), filter_discloses=("diagnosis",))
    named = {"filter_discloses": ("diagnosis",), "disclosure_reason": "HIV care"}
    assert requested(row_filter=within(leaf), **named).filter_discloses == ("diagnosis",)


def test_a_filter_undoes_no_mask_of_the_view() -> None:
    prefix = Prefix("id_number", "110105")
    refused(Reason.FILTER_DISCLOSES, row_filter=prefix)
    refused(Reason.FILTER_DISCLOSES, row_filter=prefix, masks=(("id_number", MaskRule.DROP),))
    # A mask that the request itself puts on a field that the schema shows is a mask.
    own = (("birth_date", MaskRule.YEAR_ONLY),)
    refused(Reason.FILTER_DISCLOSES, row_filter=Range("birth_date", "2000-01-01", None), masks=own)
    clear = {"masks": (("id_number", MaskRule.NONE),), "unmasked_reason": "needed"}
    assert requested(row_filter=prefix, **clear).filter_discloses == (), "who sees the field learns nothing from it"


def test_what_is_named_for_nothing_is_refused() -> None:
    refused(Reason.REQUEST_INVALID, unmasked_reason="for nothing")
    refused(Reason.REQUEST_INVALID, disclosure_reason="for nothing")
    stray = {"filter_discloses": ("diagnosis",), "disclosure_reason": "HIV care"}
    refused(Reason.REQUEST_INVALID, **stray)


def test_a_grant_of_before_shows_what_no_request_wrote_out() -> None:
    before = a_grant(fields=("id_number", "full_name", "birth_date"), masks=(), row_filter=LEAVES[0])
    found = Exposure(unmasked=("id_number", "full_name"), disclosed=("diagnosis",))
    assert exposure_of(before, MASKS) == undecided_exposure(before, MASKS) == found


def test_a_mask_that_the_schema_gets_later_is_undecided_and_a_field_that_was_in_clear_stays_decided() -> None:
    request = requested(masks=(("id_number", MaskRule.NONE),), unmasked_reason="needed")
    stricter = masks_of(id_number="drop", birth_date="year_only")
    assert undecided_exposure(request, stricter) == Exposure(unmasked=("birth_date",))


def test_a_field_that_the_schema_does_not_know_counts_as_dropped() -> None:
    stray = replace(a_grant(), fields=("id_number", "nobody.knows"), masks=(), row_filter=Exists("nor.this"))
    assert exposure_of(stray, {}) == Exposure(unmasked=("id_number", "nobody.knows"), disclosed=("nor.this",))
    assert with_default_masks(stray, {}) == stray
