"""Bounded cardinality: a metric's label whose values are bounded, with `other` for the rest."""

import threading
from typing import Final

__all__ = ["OTHER", "BoundedLabel"]

OTHER: Final = "other"
"""Value of a label beyond its bound."""


class BoundedLabel:
    """The values of a label: the first *bound* of them are themselves, all others `other`. Thread-safe."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def of(self, value: str) -> str:
        """Return the label of a value that is known to exist."""
        if value in self._known:
            return value
        with self._lock:
            if len(self._known) >= self._bound:
                return OTHER
            self._known.add(value)
        return value

    def known(self, value: str) -> str:
        """Return the label of a value that a caller named, which may be none of the pool's."""
        return value if value in self._known else OTHER
