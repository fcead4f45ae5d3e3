"""A group goes around nothing that a fetch alone is held by."""

from types import SimpleNamespace
from typing import Any

from exchange.records.fetch import FetchService
from exchange.records.group_fetch import GroupFetch

# What a fetch alone has and a group has in another form: its store of grants, and what makes positions and drafts.
_OTHERWISE = {"_access", "_tokens"}


def test_whatever_a_fetch_alone_asks_a_group_has_too() -> None:
    """A guard, a limiter or a budget that `FetchService` gets belongs in `GroupFetch` as well.

    Where this fails: hand it to `GroupFetch` in `FetchService.grouped`, and ask it in `GroupFetch.fetch` and
    `GroupFetch._released`. A call that it refuses is left out there; the fetch alone then says why.
    """
    made: Any = {
        name: SimpleNamespace(name=name)
        for name in FetchService.__init__.__annotations__
        if name not in {"return", "window", "monotonic"}
    }
    alone = FetchService(**made, window=0.5)
    group = alone.grouped(SimpleNamespace())  # type: ignore[arg-type]  # never called
    assert isinstance(group, GroupFetch)
    held_by = {id(value) for value in vars(group).values()}
    missing = {name for name, value in vars(alone).items() if id(value) not in held_by}
    assert missing == _OTHERWISE
