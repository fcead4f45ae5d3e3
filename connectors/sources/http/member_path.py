"""Path to a member of a JSON value: names and indices of RFC 9535 (JSONPath), of which each path has one result.

    $                    the value itself
    $.person.name        members by name
    $['full name'][0]    a name of any characters, an item of an array

Selectors that may have several results (`*`, `..`, filters, slices) are refused.
"""

import re
from typing import Any

from schemas.errors import InvalidError, Reason

__all__ = ["MemberPath"]

_STEP = re.compile(
    r"""\.(?P<name>[^\W\d][\w-]*)|\['(?P<quoted>[^'\\]+)'\]|\["(?P<double>[^"\\]+)"\]|\[(?P<index>\d{1,6})\]"""
)


class MemberPath:
    """One parsed path."""

    def __init__(self, text: str) -> None:
        """Parse it.

        Raises:
            InvalidError: CONFIG_INVALID.
        """
        self.text = text
        steps: list[str | int] = []
        at = 1
        while at < len(text):
            found = _STEP.match(text, at)
            if found is None:
                break
            index = found["index"]
            steps.append(int(index) if index is not None else found["name"] or found["quoted"] or found["double"])
            at = found.end()
        if not text.startswith("$") or at < len(text):
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"got the path {text!r}; expected $, names and indices, such as $.data.items or $['full name'][0]",
            )
        self._steps = tuple(steps)

    def find(self, value: Any) -> Any:
        """Return what is there, None where a step has nothing."""
        for step in self._steps:
            if isinstance(step, int):
                value = value[step] if isinstance(value, list) and step < len(value) else None
            else:
                value = value.get(step) if isinstance(value, dict) else None
        return value
