"""Texts of reasons exist in both languages, and the language that is asked for is the one that is answered."""

import re

import pytest

from schemas.errors import Reason
from schemas.reason_texts import Language, environment_language, preferred_language, reason_text


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_title_and_something_to_do_in_both_languages(reason: Reason) -> None:
    english, chinese = (reason_text(reason, language) for language in Language)
    for text in (english.title, english.help, chinese.title, chinese.help):
        assert text == text.strip() != ""
        assert not re.search(r"\]\(|<|>", text), "no markup: it is read on a terminal too"
    assert re.search(r"[\u4e00-\u9fff]", chinese.title)
    assert re.search(r"[\u4e00-\u9fff]", chinese.help)
    assert not re.search(r"[\u4e00-\u9fff]", english.title + english.help)
    assert len(english.title) <= 40
    assert chinese.help.endswith("。")


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", Language.ENGLISH),
        ("*", Language.ENGLISH),
        ("de, fr;q=0.9", Language.ENGLISH),
        ("zh-CN,zh;q=0.9,en;q=0.8", Language.CHINESE),
        ("ZH-Hans", Language.CHINESE),
        ("en;q=0.8, zh;q=0.9", Language.CHINESE),
        ("en, zh", Language.ENGLISH),
        ("zh;q=0", Language.ENGLISH),
        ("zh;q=nan, en;q=x", Language.ENGLISH),
        ("zh;q=inf", Language.CHINESE),
        ("zhuang", Language.ENGLISH),
        (",".join(["de"] * 20) + ",zh", Language.ENGLISH),
        ("zh;q=0,1;;=", Language.ENGLISH),
    ],
)
def test_the_language_that_is_wanted_most(accepted: str, language: Language) -> None:
    assert preferred_language(accepted) is language


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, Language.ENGLISH),
        ({"LANG": "zh_CN.UTF-8"}, Language.CHINESE),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C.UTF-8"}, Language.ENGLISH),
        ({"LANG": "en_GB.UTF-8", "LC_MESSAGES": "zh_CN.UTF-8", "LC_ALL": ""}, Language.CHINESE),
    ],
)
def test_the_language_of_a_terminal(environment: dict[str, str], language: Language) -> None:
    assert environment_language(environment) is language
