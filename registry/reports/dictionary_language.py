"""Language of a data dictionary: Chinese, English or both. Pure."""

from enum import StrEnum

__all__ = ["Language"]


class Language(StrEnum):
    """Language of a dictionary."""

    ZH = "zh"
    EN = "en"
    BOTH = "both"

    def of(self, words: tuple[str, str]) -> str:
        """Choose from (Chinese, English)."""
        if self is Language.BOTH:
            return words[0] if words[0] == words[1] else f"{words[0]} {words[1]}"
        return words[0] if self is Language.ZH else words[1]
