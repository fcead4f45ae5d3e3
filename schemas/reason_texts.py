"""Localized texts of reason codes: a title, and what to do, in English and in Chinese.

The texts are data (`reasons.json`), which the reference page, the control API's problems and the command lines share.
Messages of errors stay English sentences: they name what was got, which no table can know.

    reason_text(Reason.TOKEN_EXPIRED, preferred_language("zh-CN,zh;q=0.9,en;q=0.8")).title      令牌已过期
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files
from typing import Final

from schemas.errors import Reason

__all__ = ["Language", "ReasonText", "environment_language", "preferred_language", "reason_text"]

_MOST_RANGES: Final = 16  # of a header that are read


class Language(StrEnum):
    """A language in which the texts exist, as a primary subtag (RFC 5646)."""

    ENGLISH = "en"
    CHINESE = "zh"


@dataclass(frozen=True, slots=True)
class ReasonText:
    """The texts of a reason.

    Attributes:
        title: a few words; the same for every occurrence.
        help: what to do, in one or two sentences.
    """

    title: str
    help: str


def reason_text(reason: Reason, language: Language) -> ReasonText:
    """Return the texts of a reason in a language."""
    found = _texts()[reason]
    return ReasonText(found["title"][language], found["help"][language])


def preferred_language(accepted: str) -> Language:
    """Return the language that a header `Accept-Language` wants most (RFC 9110, 12.5.4); English where it wants none.

    A range counts by its primary subtag. What cannot be read is left out: a header of a browser refuses no call.
    """
    best, weight = Language.ENGLISH, 0.0
    for part in accepted.split(",")[:_MOST_RANGES]:
        name, _, parameter = part.partition(";")
        language = name.strip().lower().partition("-")[0]
        quality = _quality(parameter)
        if language in tuple(Language) and quality > weight:
            best, weight = Language(language), quality
    return best


def environment_language(environment: Mapping[str, str]) -> Language:
    """Return the language of messages by the environment's locale (POSIX: LC_ALL, LC_MESSAGES, LANG)."""
    locale = next((environment[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if environment.get(name)), "")
    return Language.CHINESE if locale.lower().startswith("zh") else Language.ENGLISH


def _quality(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if not name.strip():
        return 1.0
    try:
        return float(value) if name.strip().lower() == "q" and len(value) <= 6 else 0.0
    except ValueError:
        return 0.0


@lru_cache(maxsize=1)
def _texts() -> Mapping[str, Mapping[str, Mapping[str, str]]]:
    found: dict[str, dict[str, dict[str, str]]] = json.loads(
        files("schemas").joinpath("reasons.json").read_text(encoding="utf-8")
    )
    return found
