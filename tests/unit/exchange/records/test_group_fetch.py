"""A group goes around nothing that a fetch alone is held by."""

from types import SimpleNamespace
from typing import Any

from exchange.authorization.serving import ServingGuard
from exchange.records.fetch import FetchService
from exchange.records.group_fetch import GroupFetch
from schemas.errors import Reason, UnavailableError

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


def test_nothing_is_released_where_signing_stopped_while_the_group_was_read() -> None:
    began: list[str] = []
    serving = ServingGuard()
    made: Any = {
        name: SimpleNamespace()
        for name in GroupFetch.__init__.__annotations__
        if name not in {"return", "monotonic", "serving", "database"}
    }
    group = GroupFetch(**made, serving=serving, database=SimpleNamespace(begin=lambda: began.append("begin")))
    serving.update(UnavailableError(Reason.LOG_BEHIND, "the oldest unsigned entry is 61 s old"))
    assert group._released({0: SimpleNamespace()}) == {}  # type: ignore[dict-item]  # never read
    assert began == []
