"""A page is bounded in items and in bytes, and links to the next one until there is no more."""

import json
from typing import Any

import pytest
from fastapi import Request

from exchange.api.caller import MAX_BYTES, certificate_key, listed, topic_key
from registry.database.keyset import collect
from schemas.errors import InvalidError


def page(items: list[str], limit: int, query: str = "") -> tuple[list[Any], str]:
    scope = {"type": "http", "method": "GET", "path": "/v1/x", "query_string": query.encode(), "headers": []}
    answer = listed(Request(scope), items, limit, document=lambda one: {"id": one}, key=lambda one: one)
    return json.loads(bytes(answer.body)), answer.headers.get("link", "")


def test_a_page_that_is_not_full_is_the_last() -> None:
    assert page([], 2) == ([], "")
    assert page(["a"], 2) == ([{"id": "a"}], "")


def test_a_full_page_links_to_the_next_with_its_own_parameters() -> None:
    found, link = page(["a", "b 人"], 2, "state=active&state=suspended&after=0&limit=2")
    assert [one["id"] for one in found] == ["a", "b 人"]
    assert link == '</v1/x?state=active&state=suspended&limit=2&after=b+%E4%BA%BA>; rel="next"'


def test_a_page_ends_where_it_would_be_too_long() -> None:
    items = [f"{number:03}" + "x" * 100_000 for number in range(60)]
    found, link = page(items, 1_000)
    assert 0 < len(found) < 60
    assert len(json.dumps(found)) < MAX_BYTES + 200_000
    assert f"after={found[-1]['id']}" in link
    assert len(page(["x" * 2 * MAX_BYTES, "y"], 10)[0]) == 1, "one item at least"


def test_what_is_left_out_does_not_shorten_a_page() -> None:
    rows = list(range(100))

    def read(after: int, limit: int) -> list[int]:
        return [one for one in rows if one > after][:limit]

    def evens(found: Any) -> list[int]:
        return [one for one in found if one % 10 == 0]

    assert collect(read, evens, int, after=-1, limit=4) == [0, 10, 20, 30]
    assert collect(read, evens, int, after=30, limit=4) == [40, 50, 60, 70]
    assert collect(read, evens, int, after=70, limit=4) == [80, 90]
    assert collect(read, lambda _: [], int, after=-1, limit=4) == []


@pytest.mark.parametrize("key", [topic_key, certificate_key])
def test_a_cursor_of_another_form_is_refused(key: Any) -> None:
    assert key("") in {None, ("", "", "")}
    with pytest.raises(InvalidError):
        key("x")
