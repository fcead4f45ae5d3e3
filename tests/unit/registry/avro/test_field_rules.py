import json
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum.cn import uscc as stdnum_uscc
from stdnum.iso7064 import mod_11_2

from registry.avro.field_rules import RULE_NAMES, Rule, Verdict
from registry.avro.parser import parse
from tests.kit.cases.random_avro import id18

KNOWN = [
    ("cn_id18", "11010519491231002X", Verdict.VALID),
    ("cn_id18", "440524188001010014", Verdict.VALID),
    ("cn_id18", "11010519491231002x", Verdict.INVALID),  # the check character is written large
    ("cn_id18", "110105194912310021", Verdict.INVALID),
    ("cn_id18", "11010519491331002X", Verdict.INVALID),
    ("cn_id18", "1101051949123100２X", Verdict.INVALID),  # a full-width digit
    ("cn_id18", "", Verdict.INVALID),
    ("uscc", "91110000600037341L", Verdict.VALID),
    ("uscc", "91110000600037342L", Verdict.INVALID),
    ("uscc", "91110000600037341I", Verdict.INVALID),  # I is not in the alphabet
    ("cn_mobile", "13800138000", Verdict.VALID),
    ("cn_mobile", "12800138000", Verdict.INVALID),
    ("cn_mobile", "1380013800", Verdict.INVALID),
    ("cn_mobile", "١3800138000", Verdict.INVALID),
    ("not_empty", " ", Verdict.VALID),
    ("not_empty", "", Verdict.INVALID),
]


def column_verdict(rule: Rule, text: str) -> int:
    return int(rule.check_column(pa.array(["x", text, None]))[1])


@pytest.mark.parametrize(("name", "text", "verdict"), KNOWN)
def test_known_codes(name: str, text: str, verdict: Verdict) -> None:
    rule = Rule(name, "f")
    assert rule.check_text(text) == verdict
    assert column_verdict(rule, text) == verdict


def test_a_date_of_birth_must_be_real() -> None:
    rule = Rule("cn_id18", "f")
    days = {
        "19000229": False,
        "20000229": True,
        "19960229": True,
        "19970229": False,
        "20010431": False,
        "17991231": False,
    }
    for day, real in {**days, "20010430": True, "20010100": False, "20010001": False}.items():
        head = "110105" + day + "002"
        text = head + mod_11_2.calc_check_digit(head)
        assert (rule.check_text(text) is Verdict.VALID) == real, day
        assert column_verdict(rule, text) == rule.check_text(text), day


def test_an_early_credit_code_passes_with_a_warning() -> None:
    # The outer check character is changed; that of the organisation code inside still fits.
    good = "91110000600037341L"
    odd = good[:17] + "M"
    assert Rule("uscc", "f").check_text(odd) is Verdict.SUSPECT
    assert column_verdict(Rule("uscc", "f"), odd) == Verdict.SUSPECT


_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"


@given(st.integers(0, 2**32))
def test_check_characters_agree_with_another_implementation(seed: int) -> None:
    rng = random.Random(seed)
    number = id18(rng)
    assert mod_11_2.is_valid(number)
    head = "91" + "".join(rng.choice("0123456789") for _ in range(6)) + "".join(rng.choice(_ALPHABET) for _ in range(9))
    code = head + stdnum_uscc.calc_check_digit(head)
    mutant = code[: (at := rng.randrange(18))] + rng.choice(_ALPHABET) + code[at + 1 :]
    rule = Rule("uscc", "f")
    assert rule.check_text(code) is Verdict.VALID
    assert (rule.check_text(mutant) is Verdict.VALID) == stdnum_uscc.is_valid(mutant)
    changed = number[: (at := rng.randrange(18))] + rng.choice("0123456789X") + number[at + 1 :]
    if Rule("cn_id18", "f").check_text(changed) is Verdict.VALID:
        assert mod_11_2.is_valid(changed)


def _texts(rng: random.Random) -> list[str | None]:
    texts: list[str | None] = []
    for _ in range(rng.randint(0, 40)):
        text = rng.choice(
            [id18(rng), "91110000600037341L", f"1{rng.randint(3, 9)}{rng.randint(0, 10**9 - 1):09}", "王", ""]
        )
        if text and rng.random() < 0.5:
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice("0123456789XIa王\x1f") + text[at + rng.randint(0, 1) :]
        texts.append(None if rng.random() < 0.1 else text)
    return texts


@given(st.integers(0, 2**32))
def test_a_column_is_judged_exactly_as_its_texts_are(seed: int) -> None:
    rng = random.Random(seed)
    texts = _texts(rng)
    start = rng.randint(0, len(texts))
    column = pa.array(texts, pa.string()).slice(start)
    for rule in [*(Rule(name, "f") for name in RULE_NAMES), Rule("codes", "f", (), frozenset({"王", ""}))]:
        expected = [Verdict.VALID if text is None else rule.check_text(text) for text in texts[start:]]
        assert np.array_equal(rule.check_column(column), np.array(expected, np.uint8)), rule.name


def test_a_condition_looks_at_texts_and_at_symbols_alike() -> None:
    rule = parse(json.dumps({"type": "record", "name": "r", "fields": [
        {"name": "kind", "type": "string"},
        {"name": "id", "type": "string", "check": {"rule": "cn_id18", "when": {"kind": ["ric18"]}}},
    ]})).rules[0]  # fmt: skip
    kinds = pa.array(["ric18", "passport", None])
    for column in (kinds, kinds.dictionary_encode()):
        assert rule.conditions[0].column(column).tolist() == [True, False, False]
