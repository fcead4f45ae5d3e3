"""Keyset pagination (seek method): a page is what follows a key, in the order of an index, and never an offset.

A page of rows that are filtered after they were read (a tag that does not hold, another department's) is filled up, so
that a page which is shorter than its limit is the last one.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

__all__ = ["MAX_PAGE", "collect"]

MAX_PAGE: Final = 1_000
"""Items of a page at most."""

_Row = TypeVar("_Row")
_Item = TypeVar("_Item")
_Key = TypeVar("_Key")


def collect(
    read: Callable[[_Key, int], Sequence[_Row]],
    keep: Callable[[Sequence[_Row]], Iterable[_Item]],
    key: Callable[[_Row], _Key],
    *,
    after: _Key,
    limit: int,
) -> list[_Item]:
    """Return the first *limit* items after a key; fewer only where there are no more.

    Args:
        read: returns the rows after a key, in order, at most so many.
        keep: returns the items of those rows that are to be listed.
        key: of a row.
        after: see `read`.
        limit: at least 1.
    """
    found: list[_Item] = []
    while True:
        rows = read(after, limit)
        found += keep(rows)
        if len(rows) < limit or len(found) >= limit:
            return found[:limit]
        after = key(rows[-1])
