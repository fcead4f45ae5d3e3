"""Which texts hold a number of a person, and which only look like it."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.demo.people import credit_codes, persons
from registry.governance.case_form import CaseForm
from registry.governance.personal_numbers import PersonalNumber, find_personal_number, without_personal_numbers
from schemas.errors import InvalidError, Reason
from schemas.identifiers import random_id, uuid7

IDENTITY, MOBILE, CARD = PersonalNumber.IDENTITY, PersonalNumber.MOBILE, PersonalNumber.CARD
NUMBERS = [str(person["id_number"]) for person in persons(300)]
WIDE = str.maketrans("0123456789Xx-", "０１２３４５６７８９Ｘｘ－")
ARABIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
SUZHOU = str.maketrans("0123456789", "〇〡〢〣〤〥〦〧〨〩")
CIRCLED = str.maketrans("0123456789", "⓿❶❷❸❹❺❻❼❽❾")
SEEN = ("", " ", "-", "　", "－", "‑", " - ", ".", "\u00a0", "\n", "\r\n", "\t", "\u2028", "/", "•", "・", "\u2800")
UNSEEN = (
    "\u200b",
    "\x00",
    "\x7f",
    "\u00ad",
    "\u034f",
    "\ufe0f\u20e3",
    "\u3164",
    "\u115f",
    "\u180b",
    "\U000e0100",
    "\u0301",
)
SEPARATORS = (*SEEN, *UNSEEN)


@given(
    st.sampled_from(NUMBERS),
    st.sampled_from(SEPARATORS),
    st.sets(st.integers(1, 17), max_size=17),
    st.sampled_from(["", "查", "case ", "身份证号：", "2026/", "x"]),
    st.sampled_from(["", "的户籍", "!", " ", "，电话", "/2026"]),
    st.sampled_from([{}, WIDE, ARABIC, SUZHOU, CIRCLED]),
)
def test_an_identity_number_is_found_however_it_is_written(
    number: str, separator: str, cuts: set[int], before: str, after: str, script: dict[int, str]
) -> None:
    written = "".join(separator * (at in cuts) + each for at, each in enumerate(number))
    assert find_personal_number(f"{before}{written.translate(script)}{after}") is IDENTITY
    assert find_personal_number(f"{before}{written.translate(script).lower()}{after}") is IDENTITY


@given(st.sampled_from(NUMBERS), st.text("0123456789", max_size=8), st.text("0123456789", max_size=8))
def test_an_identity_number_is_found_within_other_digits(number: str, before: str, after: str) -> None:
    if number.endswith("X"):
        after = ""
    assert find_personal_number(f"AJ{before}{number}{after}") is IDENTITY


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("13800138000", MOBILE),
        ("电话13800138000，请回", MOBILE),
        ("+86 138 0013 8000", MOBILE),
        ("+86-13800138000", MOBILE),
        ("008613800138000", MOBILE),
        ("138-0013-8000", MOBILE),
        ("138\n0013\n8000", MOBILE),
        ("+86 (138) 0013/8000", MOBILE),
        ("11010519491231002\u00d7", IDENTITY),
        ("11010519491231002\u03a7", IDENTITY),
        ("1 3 8 0 0 1 3 8 0 0 0", MOBILE),
        ("１３８００１３８０００", MOBILE),
        ("①③⑧⓪⓪①③⑧⓪⓪⓪", MOBILE),
        ("13800138000, 13900139000", MOBILE),
        ("110105900307775", IDENTITY),
        ("证件 110105 900307 775", IDENTITY),
        ("4111111111111111", CARD),
        ("4111-1111-1111-1111", CARD),
        ("6222 0212 3456 7890 128", CARD),
        ("卡号6222021234567890128。", CARD),
        # what real offices write
        ("2026110100001234", None),
        ("(2026)浙01行初0042号", None),
        ("浙杭社保〔2026〕123号", None),
        ("HZ-2026-000123", None),
        ("13-2026-11001", None),
        ("2026-11-01 10:00:00 +08:00", None),
        ("2026-11-01/0001/330100", None),
        ("3301002026000012", None),
        ("第一百二十三号 12345678901", None),
        ("一三八〇〇一三八〇〇〇", None),  # in words
        ("2026/11/01-2026/11/30 (330100)", None),
        ("23800138000", None),
        ("138001380001", None),
        ("202611010000123", None),
        ("4111111111111112", None),
        ("1111222233334444", None),
        ("", None),
        ("社会保险法 第七十四条", None),
    ],
)
def test_what_is_found(text: str, kind: PersonalNumber | None) -> None:
    assert find_personal_number(text) is kind
    assert (without_personal_numbers(text) == text) is (kind is None)


def test_one_wrong_digit_is_no_identity_number() -> None:
    wrong = [f"{number[:17]}{check}" for number in NUMBERS[:100] for check in "0123456789X" if check != number[17]]
    assert not any(find_personal_number(one) is IDENTITY for one in wrong)


def test_an_organisation_s_code_is_not_personal() -> None:
    codes = list(itertools.islice(credit_codes(), 3_000))
    assert [code for code in codes if find_personal_number(f"单位{code}") is not None] == []


def test_ids_and_digests_are_not_personal() -> None:
    ids = [uuid7(1_795_000_000_000_000 + number) for number in range(3_000)]
    digests = [random_id() + random_id() for _ in range(3_000)]
    assert [one for one in (*ids, *digests) if find_personal_number(f"grant {one} ended") is not None] == []


@pytest.mark.parametrize(
    "form",
    ["2026{:04d}{:08d}", "YB{:04d}-2026{:08d}", "HZ-{:04d}-{:08d}", "〔2026〕{:04d}号 {:08d}", "2026-{:04d}-{:08d}"],
)
def test_case_numbers_of_dates_and_serial_numbers_pass(form: str) -> None:
    draw = random.Random(form)
    cases = [form.format(draw.randrange(10**4), draw.randrange(10**8)) for _ in range(5_000)]
    assert [case for case in cases if find_personal_number(case) is not None] == []


@given(st.text(max_size=60))
def test_any_text_is_decided(text: str) -> None:
    find_personal_number(text)


@pytest.mark.parametrize(
    ("form", "fits", "fails"),
    [
        (
            "YB-{YYYY}{MM}{DD}-{N6}",
            ["YB-20261101-000123"],
            ["YB-20261301-000123", "YB-20261101-00012", "yb-20261101-000123"],
        ),
        ("{YYYY}{N10}", ["20261234567890"], ["19991234567890", "２０２６1234567890"]),
        ("{A2}{N10}", ["AB1234567890"], ["A11234567890", "AB123456789"]),
        ("〔{YYYY}〕{N4}号", ["〔2026〕0042号"], ["〔2026〕42号", "〔2026〕0042号 "]),
        ("a.c", ["a.c"], ["abc"]),
    ],
)
def test_a_form_is_matched_whole(form: str, fits: list[str], fails: list[str]) -> None:
    parsed = CaseForm.parse(form)
    assert all(map(parsed.fits, fits))
    assert not any(map(parsed.fits, fails))


@pytest.mark.parametrize(
    "form",
    [
        "",
        "{X}",
        "{N0}",
        "{",
        "}",
        "{N6",
        "x" * 65,
        "{N99}",
        "{N18}",
        "{N11}",
        "A{N11}",
        "{N6}{YYYY}{MM}{DD}{N4}",
        "{N5}-{N6}",
        "{N9} {N9}",
        "{YYYY}{N18}",
        "{YYYY}-{N18}",
        "1{N10}",
    ],
)
def test_a_form_that_lets_a_personal_number_pass_is_refused(form: str) -> None:
    with pytest.raises(InvalidError) as caught:
        CaseForm.parse(form)
    assert caught.value.reason is Reason.CONFIG_INVALID


PARTS = st.sampled_from(
    ["{YYYY}", "{MM}", "{DD}", "{N2}", "{N4}", "{N6}", "{N9}", "{A1}", "-", " ", "号", "1", "19", "X"]
)


@given(st.lists(PARTS, max_size=7).map("".join), st.sampled_from(NUMBERS), st.randoms())
def test_no_form_that_is_accepted_fits_a_personal_number(form: str, number: str, draw: random.Random) -> None:
    try:
        parsed = CaseForm.parse(form)
    except InvalidError:
        return
    for text in (number, f"{number[:6]}-{number[6:]}", "13800138000", "4111111111111111", "110105900307775"):
        assert not parsed.fits(text)
