"""Truncation of the texts of audit entries: each is bounded, whatever a caller sends.

A text that is too long is cut, and ends with the first 16 digits of the SHA-256 of the whole text, so that two long
ones can be told apart and a known one can be recognized. What an allowed act stores is not cut: its interface has
refused longer texts before, with `request_invalid`. What is cut are texts of denials, and criteria of searches.
"""

import hashlib
from collections.abc import Mapping
from typing import Final

from schemas.canonical import Json

__all__ = ["MAX_DECLARED", "MAX_RESOURCE", "MAX_TEXT", "bounded", "bounded_data"]

MAX_RESOURCE: Final = 500
"""Characters of a resource: of the longest subject (`registry.subjects.contexts.MAX_SUBJECT`)."""
MAX_DECLARED: Final = 200
"""Characters of a purpose, a case number, a person."""
MAX_TEXT: Final = 2_000
"""Characters of each text of the data, such as a reason."""


def bounded(text: str, most: int) -> str:
    """Return a text of at most so many characters."""
    if len(text) <= most:
        return text
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
    return f"{text[: most - 18]}… {digest}"


def bounded_data(data: Mapping[str, Json]) -> dict[str, Json]:
    """Return an entry's data with each text bounded, at any depth."""
    return {name: _bounded(value) for name, value in data.items()}


def _bounded(value: Json) -> Json:
    if isinstance(value, str):
        return bounded(value, MAX_TEXT)
    if isinstance(value, list):
        return [_bounded(item) for item in value]
    if isinstance(value, dict):
        return bounded_data(value)
    return value
