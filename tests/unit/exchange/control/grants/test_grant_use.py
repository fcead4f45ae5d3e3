"""Use of a grant: what was released in the last 31 days, of entries and counters; what failed is no use."""

import json
from datetime import date, timedelta
from typing import Any, cast

from exchange.audit.store import EntryPlace, EntryQuery, StoredLeaf
from exchange.authorization.request_context import RequestContext
from exchange.control.grants.use import GrantUse
from schemas.access import Actor, ActorKind, Role
from schemas.merkle import leaf_hash

HEAD = Actor(kind=ActorKind.HUMAN, id="head", department="d-1", role=Role.SHARING_OFFICE_HEAD)
NOW = 1_790_000_000_000_000
DAY = int(timedelta(days=1).total_seconds()) * 1_000_000


class Stored:
    """Grants, counters and entries."""

    def __init__(self, *entries: dict[str, Any]) -> None:
        self.entries = entries
        self.asked: list[EntryQuery] = []

    def reading(self, actor: Actor, call: Any, grant_id: str, read: Any) -> Any:
        return read(None, None)

    def released_days(self, reader: Any, grant_id: str, *, limit: int) -> list[tuple[date, int]]:
        return [(date(2026, 9, 21), 12)]

    def find(self, query: EntryQuery) -> list[StoredLeaf]:
        self.asked.append(query)
        acts = {"action": "exchange:records:fetch", "decision": "allow"}
        leaves = [json.dumps(acts | one).encode() for one in self.entries][: query.limit]
        return [StoredLeaf(index=0, leaf=one, leaf_hash=leaf_hash(one), place=EntryPlace(0, 0)) for one in leaves]


def use(*entries: dict[str, Any]) -> dict[str, Any]:
    stored: Any = Stored(*entries)
    made = GrantUse(grants=stored, access=stored, entries=stored, clock=lambda: NOW)
    return cast("dict[str, Any]", made.use(HEAD, RequestContext(trace="0" * 32, client="t"), "g-1"))


def fetch(age: float, **data: Any) -> dict[str, Any]:
    return {"id": f"e-{age}", "at": NOW - int(age * DAY), "data": data}


def test_releases_are_counted_and_failures_and_empty_answers_are_none() -> None:
    found = use(
        fetch(0.5, failed="internal"), fetch(1, count=0), fetch(2, count=7), fetch(3, count=5), fetch(40, count=9)
    )
    assert found["releases"] == 2
    assert found["last"] | {"records": 7, "entry": "e-2"} == found["last"]
    assert found["days"] == [{"day": "2026-09-21", "records": 12}]
    assert not found["more"]


def test_the_last_release_may_be_long_ago() -> None:
    found = use(fetch(40, count=9))
    assert (found["releases"], found["last"]["records"]) == (0, 9)
    assert use()["last"] is None


def test_more_than_are_counted_says_so() -> None:
    found = use(*[fetch(1, count=1)] * 1_500)
    assert (found["releases"], found["more"]) == (1_000, True)
