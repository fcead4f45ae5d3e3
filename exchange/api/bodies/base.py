"""Base of the bodies of the control API (input validation): unknown members are refused, and what is too large.

Each text has 2,000 characters at most, each list 2,000 items, and a body 65,536 characters in all. A schema's text has
a limit of its own (`registry.avro.parser`). No text, and no name of a member, has a zero character or half a surrogate
pair: JSON can write both, the database and UTF-8 have neither.
"""

import re
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, model_validator

__all__ = ["MAX_BODY", "MAX_ITEMS", "MAX_TEXT", "Body", "ReasonBody", "check_characters", "moment_or_none"]


MAX_TEXT: Final = 2_000
"""Characters of each text of a body."""
MAX_ITEMS: Final = 2_000
"""Items of each list of a body."""
MAX_BODY: Final = 65_536
"""Characters of all texts of a body."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class Body(BaseModel):
    """A body of a request; see the module."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _is_bounded(cls, sent: Any) -> Any:
        _check_sent(sent)
        return sent


class ReasonBody(Body):
    """A reason, as text; it is written into the audit log."""

    reason: str = ""


def check_characters(text: str, name: str) -> str:
    """Return a text that the database and UTF-8 can have.

    Raises:
        ValueError: it has a zero character, or half a surrogate pair.
    """
    if "\0" in text or (not text.isascii() and _SURROGATE.search(text)):
        raise ValueError(f"got a zero character or half a surrogate pair in {name}; expected a text without")
    return text


def moment_or_none(moment: datetime | None) -> str | None:
    """Return a time as ISO 8601, where there is one."""
    return None if moment is None else moment.isoformat()


def _check_sent(sent: Any) -> None:
    """Check the sizes and the characters of what was sent; the values are checked by its model."""
    whole, waiting = 0, [("body", sent)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, str):
            whole += len(value)
            check_characters(value, name)
            if len(value) > MAX_TEXT:
                raise ValueError(f"got a text of {len(value)} characters as {name}; expected {MAX_TEXT} at most")
        elif isinstance(value, list):
            if len(value) > MAX_ITEMS:
                raise ValueError(f"got a list of {len(value)} items as {name}; expected {MAX_ITEMS} at most")
            waiting += [(name, item) for item in value]
        elif isinstance(value, dict):
            whole += sum(map(len, value))
            for member in value:
                check_characters(member, "a name of a member")
            waiting += [(name if name != "body" else str(member)[:40], item) for member, item in value.items()]
    if whole > MAX_BODY:
        raise ValueError(f"got a body of {whole} characters; expected {MAX_BODY} at most")
