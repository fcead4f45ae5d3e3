"""The hub's source over the client: places become positions of claims, and a grant without them is refused."""

import struct
from dataclasses import replace
from typing import Any

import pytest

from exchange.client.messages import FetchResult
from exchange.hub.drawing.client_source import ClientSource
from schemas.errors import InvalidError, Reason
from schemas.record import Operation, Packed

RESULT = FetchResult(
    schema_id=3,
    values=Packed.of([b"one", None]),
    record_keys=b"a" * 16 + b"b" * 16,
    recorded_at=struct.pack("<2q", 10, 11),
    next_position=b"next",
    entry_id="e1",
    caught_up=True,
    places=struct.pack("<HQHQ", 1, 5, 0, 2**40),
    marks=bytes([Operation.CORRECT, Operation.VOID]),
    valid=struct.pack("<4q", 7, 0, 0, 9),
)


class Client:
    """Answers as a pool does, and keeps what it was asked."""

    def __init__(self, result: FetchResult) -> None:
        self.result = result
        self.asked: list[Any] = []

    def fetch(self, grant: str, **asked: Any) -> FetchResult:
        self.asked.append((grant, asked))
        return self.result

    def commit(self, grant: str, position: bytes, **asked: Any) -> str:
        self.asked.append((grant, position, asked))
        return "e2"

    def schema(self, topic: object = None, schema_id: int | None = None) -> tuple[int, str]:
        return schema_id or 0, "text"


def source(result: FetchResult = RESULT) -> tuple[ClientSource, Client]:
    client: Any = Client(result)
    return ClientSource(client, purpose="base-library", case="", generation=2, most=7, wait=1.5), client


def test_a_release_has_place_operation_and_times_of_each_record() -> None:
    drawn, client = source()
    release = drawn.fetch("g", b"")
    first, second = release.records
    assert (first.partition, first.offset, first.item, first.operation) == (1, 5, b"a" * 16, Operation.CORRECT)
    assert (first.recorded_at, first.valid_from, first.valid_to, first.value) == (10, 7, None, b"one")
    assert (second.partition, second.offset, second.operation, second.value) == (0, 2**40, Operation.VOID, b"")
    assert (second.valid_from, second.valid_to) == (None, 9)
    assert (release.generation, release.next_position, release.entry, release.caught_up) == (2, b"next", "e1", True)
    (asked,) = client.asked
    assert asked == (
        "g",
        {"position": b"\0", "purpose": "base-library", "case": "", "max_records": 7, "wait": 1.5, "places": True},
    )


def test_it_goes_on_from_the_position_and_acknowledges_it() -> None:
    drawn, client = source()
    drawn.fetch("g", b"there")
    drawn.commit("g", b"next")
    assert client.asked[0][1]["position"] == b"there"
    assert client.asked[1] == ("g", b"next", {"purpose": "base-library", "case": ""})
    assert drawn.schema(3) == "text"


def test_records_that_state_no_times_have_none() -> None:
    drawn, _ = source(replace(RESULT, valid=b""))
    assert {(one.valid_from, one.valid_to) for one in drawn.fetch("g", b"").records} == {(None, None)}


def test_a_grant_or_a_pool_without_places_is_refused() -> None:
    for result in (replace(RESULT, places=b""), replace(RESULT, marks=b"")):
        drawn, _ = source(result)
        with pytest.raises(InvalidError) as caught:
            drawn.fetch("g", b"")
        assert caught.value.reason is Reason.CONFIG_INVALID
    nothing = replace(RESULT, values=Packed.of([]), record_keys=b"", recorded_at=b"", places=b"", marks=b"", valid=b"")
    drawn, _ = source(nothing)
    assert list(drawn.fetch("g", b"").records) == []
