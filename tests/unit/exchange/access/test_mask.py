"""Masks show no more than their rule says: of any text, of any script, under nulls and in windows of arrays."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.access.view.mask import MASKS, mask_of
from schemas.access import MaskRule
from schemas.errors import InvalidError, Reason


def shown(rule, values, arrow=None):
    column = pa.array(values, arrow or pa.string())
    masked = MASKS[MaskRule(rule)].apply(column)
    masked.validate(full=True)
    assert masked.type == column.type
    return masked.to_pylist()


CASES = {
    "keep_3_4": {
        "11010519491231002X": "110***********002X",
        "E1234567890": "E12****7890",  # 11 characters: four are hidden
        "E123456789": "**********",  # 10: three would be, which is too few
        "1234567": "*******",
        "": "",
        "护照号码一二三四五六七八九": "护照号******六七八九",
        "a护1照2号3码4五6七": "a护1*****4五6七",
    },
    "phone_3_4": {"13812345678": "138****5678", "62345678": "********", "+8613812345678": "+86*******5678"},
    "name_first": {
        "王小明": "王**",
        "欧阳娜娜": "欧***",
        "王": "*",
        "": "",
        "Li": "L*",
        "\U00020bb7野家": "\U00020bb7**",
        "é\u0301x": "é**",
    },
    "div_city": {
        "110105": "110100",
        "110105001001": "110100000000",
        "1101": "****",
        "11010": "*****",
        "一二三四五六": "一二三四00",
        "": "",
    },
}


@pytest.mark.parametrize(("rule", "text"), [(rule, text) for rule, cases in CASES.items() for text in cases])
def test_a_text_is_masked_by_its_rule(rule, text):
    assert shown(rule, [text]) == [CASES[rule][text]]


@pytest.mark.parametrize("rule", CASES)
def test_texts_are_masked_alike_whatever_stands_beside_them(rule):
    texts = [*CASES[rule], None, *reversed(CASES[rule]), None]
    assert shown(rule, texts) == [None if text is None else CASES[rule][text] for text in texts]
    ascii_only = [text for text in texts if text is None or text.isascii()]
    assert shown(rule, ascii_only) == [None if text is None else CASES[rule][text] for text in ascii_only]


@pytest.mark.parametrize("rule", CASES)
def test_a_window_of_a_longer_column_is_masked_without_its_surroundings(rule):
    texts = ["secret-secret", *CASES[rule], None, "also-secret-too"]
    column = pa.array(texts)[1:-1]
    masked = MASKS[MaskRule(rule)].apply(column)
    masked.validate(full=True)
    assert masked.to_pylist() == [*CASES[rule].values(), None]
    assert b"secret" not in masked.buffers()[2].to_pybytes()


@pytest.mark.parametrize("rule", ["keep_3_4", "phone_3_4", "name_first", "div_city"])
def test_what_stands_under_a_null_is_masked_too(rule):
    plain = pa.array(["11010519491231002X", "11010519491231003X"])
    under = pa.Array.from_buffers(pa.string(), 2, [pa.py_buffer(b"\x02"), *plain.buffers()[1:]])
    assert under.to_pylist() == [None, "11010519491231003X"]
    masked = MASKS[MaskRule(rule)].apply(under)
    assert masked.is_valid().to_pylist() == [False, True]
    assert b"19491231" not in masked.buffers()[2].to_pybytes()


@pytest.mark.parametrize("rule", CASES)
def test_an_empty_column_and_one_of_nulls(rule):
    assert shown(rule, []) == []
    assert shown(rule, [None, None]) == [None, None]
    assert shown(rule, ["", ""]) == ["", ""]


def naive(rule, text):
    head, tail, least, fill = {
        "keep_3_4": (3, 4, 11, "*"),
        "phone_3_4": (3, 4, 11, "*"),
        "name_first": (1, 0, 2, "*"),
        "div_city": (4, 0, 6, "0"),
    }[rule]
    if len(text) < least:
        return "*" * len(text)
    return text[:head] + fill * (len(text) - head - tail) + text[len(text) - tail :]


TEXTS = st.lists(
    st.none()
    | st.text(st.characters(codec="utf-8"), max_size=25)
    | st.text("0123456789X王", max_size=20)
    | st.text("0123456789", min_size=18, max_size=18),
    max_size=12,
)


@settings(max_examples=400)
@given(values=TEXTS, rule=st.sampled_from(["keep_3_4", "phone_3_4", "name_first", "div_city"]), data=st.data())
def test_every_column_is_masked_as_one_text_at_a_time_is(values, rule, data):
    start = data.draw(st.integers(0, len(values)))
    column = pa.array(values, pa.string())[start:]
    masked = MASKS[MaskRule(rule)].apply(column)
    masked.validate(full=True)
    assert masked.to_pylist() == [None if text is None else naive(rule, text) for text in values[start:]]


def test_a_date_keeps_its_year_alone():
    day = dt.date
    assert shown(
        "year_only", [day(1990, 3, 7), None, day(1990, 1, 1), day(1, 12, 31), day(1969, 12, 31)], pa.date32()
    ) == [
        day(1990, 1, 1),
        None,
        day(1990, 1, 1),
        day(1, 1, 1),
        day(1969, 1, 1),
    ]
    window = pa.array([day(1980, 5, 5), None, day(1990, 3, 7)], pa.date32())[1:]
    assert MASKS[MaskRule.YEAR_ONLY].apply(window).to_pylist() == [None, day(1990, 1, 1)]


def test_the_first_days_that_32_bits_can_count_do_not_wrap():
    days = np.array([-(2**31), -(2**31) + 1, 2**31 - 1], np.int32)
    masked = MASKS[MaskRule.YEAR_ONLY].apply(pa.array(days).cast(pa.date32())).cast(pa.int32()).to_pylist()
    assert masked[0] == masked[1] == -(2**31)
    assert 2**31 - 366 <= masked[2] < 2**31


@pytest.mark.parametrize("rule", ["geo_3", "hmac_sm3", "KEEP_3_4", "", "none "])
def test_a_mask_that_the_pool_does_not_have_is_refused(rule):
    with pytest.raises(InvalidError) as caught:
        mask_of(rule, "name", "string")
    assert caught.value.reason is Reason.MASK_UNKNOWN
    assert "keep_3_4" in str(caught.value)


@pytest.mark.parametrize(("rule", "kind"), [("keep_3_4", "int"), ("year_only", "string"), ("name_first", "enum")])
def test_a_mask_on_a_type_that_it_does_not_accept_is_refused(rule, kind):
    with pytest.raises(InvalidError) as caught:
        mask_of(rule, "born", kind)
    assert caught.value.reason is Reason.MASK_UNKNOWN
    assert "drop" in str(caught.value)
    assert "born" in str(caught.value)


def test_every_rule_of_a_grant_is_carried_out():
    assert set(MASKS) == set(MaskRule)
    for rule in (MaskRule.NONE, MaskRule.DROP):
        assert mask_of(rule, "any", "array").rule is rule
