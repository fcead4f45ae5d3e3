"""The order of masks: what it claims holds for the masks of views; what it cannot claim counts as weaker."""

import itertools

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.access.view.mask import MASKS as OF_VIEWS
from registry.governance.mask_order import MASKS, hides_at_least
from schemas.access import MaskRule

TEXT = [rule for rule in MaskRule if "string" in OF_VIEWS[rule].accepts or not OF_VIEWS[rule].accepts]
texts = st.text("0123456789X王小明", max_size=20)


def shown(rule: MaskRule, text: str) -> str | None:
    """Return what a mask shows of a text; nothing of a field that is dropped."""
    if rule is MaskRule.DROP:
        return None
    result: str = OF_VIEWS[rule].apply(pa.array([text])).to_pylist()[0]
    return result


@given(texts, texts, st.sampled_from(TEXT), st.sampled_from(TEXT))
def test_what_the_hiding_mask_shows_follows_from_what_the_other_shows(
    one: str, other: str, mask: MaskRule, than: MaskRule
) -> None:
    spliced = one[:4] + other[4 : max(4, len(one) - 4)] + one[-4:] if len(one) > 8 else other
    if hides_at_least(mask, than) and shown(than, one) == shown(than, spliced):
        assert shown(mask, one) == shown(mask, spliced)


@pytest.mark.parametrize(
    ("mask", "than"), [pair for pair in itertools.permutations(TEXT, 2) if not hides_at_least(*pair)]
)
def test_a_mask_that_counts_as_weaker_shows_something_that_the_other_hides(mask: MaskRule, than: MaskRule) -> None:
    candidates = ["110105194912310021", "110105194912310031", "110106194912310021", "110205194912310021", "王", "李",
                  "王小明", "李小明", "110105", "110205", "12345", "12346", "210105194912310021"]  # fmt: skip
    pairs = itertools.combinations(candidates, 2)
    assert any(shown(than, a) == shown(than, b) and shown(mask, a) != shown(mask, b) for a, b in pairs)


def test_drop_hides_all_and_none_hides_nothing() -> None:
    for mask in MASKS:
        assert hides_at_least("drop", mask)
        assert hides_at_least(mask, "none")
        assert hides_at_least(mask, mask)
        assert hides_at_least(mask, "drop") is (mask == "drop")
        assert hides_at_least("none", mask) is (mask == "none")


def test_it_is_transitive() -> None:
    for a, b, c in itertools.product(MASKS, repeat=3):
        assert not (hides_at_least(a, b) and hides_at_least(b, c)) or hides_at_least(a, c), (a, b, c)


def test_a_mask_without_a_name_here_is_no_mask() -> None:
    assert not hides_at_least("rot13", "none")
    assert not hides_at_least("keep_3_4", "rot13")
    assert hides_at_least("drop", "rot13")
