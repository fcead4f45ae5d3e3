"""A scan: what an answer may tell of positions, of the end, and of time."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from exchange.broker.port import Ends, PartitionRecords, ReadResult
from exchange.identity.secrets import MemorySecrets
from exchange.records.reading.position_token import ConsumerPosition, PositionTokens
from exchange.records.reading.scan import GrantScan, TopicView
from exchange.records.release import ViewOutput
from schemas.access import Compare, GrantState, History
from schemas.errors import GoneError, Reason
from schemas.record import Packed
from tests.kit.cases.grants import a_grant

SHOWS_SOME: Any = a_grant(state=GrantState.ACTIVE, history=History.ALL, row_filter=Compare("eq", "a", "x"))
TOKENS = PositionTokens(MemorySecrets(b"s" * 32).grant_key, lambda: 1)
START = ConsumerPosition(last_released=(0,), next=(0,), runs=0)


class Topic:
    """A topic of one partition whose records are shown, or not, by a text of "+" and "-"."""

    def __init__(self, records: str, page: int = 100, *, seconds: float = 0.0) -> None:
        self.records, self.page, self.seconds = records, page, seconds  # of one read
        self.now = 0.0

    def topic(self, _: object) -> Any:
        return SimpleNamespace(topic=SHOWS_SOME.topic, partitions=1, generation=1)

    def ends(self, _: object) -> Ends:
        return Ends(earliest=(0,), latest=(len(self.records),))

    def read(self, _: object, after: tuple[int, ...], *, max_records: int, max_bytes: int) -> ReadResult:
        assert max_bytes
        self.now += self.seconds
        offsets = range(after[0], min(after[0] + min(max_records, self.page), len(self.records)))
        part = PartitionRecords(
            partition=0,
            offsets=offsets,
            keys=[offset.to_bytes(16, "big") for offset in offsets],
            values=[self.records[offset].encode() for offset in offsets],
            recorded_at=list(offsets),
            mark=lambda _: 1,
            valid=lambda _: b"",
        )
        return ReadResult(partitions=(part,) if offsets else (), next=(offsets.stop if offsets else after[0],))

    def apply(self, _: object, values: list[bytes]) -> ViewOutput:
        shown = [value == b"+" for value in values]
        return ViewOutput(selected=np.array(shown, np.bool_), values=Packed.of([v for v in values if v == b"+"]))


def scan(topic: Any, wanted: int) -> tuple[int, bool, tuple[int, ...]]:
    nothing: Any = SimpleNamespace(blocked=lambda *_: None)
    silent: Any = SimpleNamespace(withdrawn=lambda _, __, candidates, ___: np.zeros_like(candidates))
    reader = GrantScan(topic, TOKENS, nothing, monotonic=lambda: topic.now)
    selection, caught_up = reader.collect(SHOWS_SOME, TopicView(topic, SHOWS_SOME.topic), START, silent, wanted, 0)
    return len(selection), caught_up, selection.next


@pytest.mark.parametrize(
    ("records", "wanted", "expected"),
    [
        ("+" * 5, 3, (3, False)),
        ("-+--+--+-+", 3, (3, False)),
        ("+-+-+", 3, (3, False)),
        ("+-+-+----", 3, (3, False)),
        ("+-+-", 3, (2, True)),
        ("----", 3, (0, True)),
        ("", 3, (0, True)),
    ],
)
def test_an_answer_is_full_or_at_the_end_and_what_is_hidden_behind_it_does_not_show(
    records: str, wanted: int, expected: tuple[int, bool]
) -> None:
    for page in (1, 2, 100):
        assert scan(Topic(records, page), wanted)[:2] == expected


def test_a_scan_that_takes_too_long_answers_with_what_it_has_found() -> None:
    found, caught_up, position = scan(Topic("+" + "-" * 100, page=2, seconds=1.0), 10)
    assert (found, caught_up) == (1, False)
    assert 0 < position[0] < 101


def test_where_retention_was_faster_the_error_has_a_sealed_position_and_no_offset() -> None:
    topic = Topic("+" * 9)

    def gone(*_: object, **__: object) -> ReadResult:
        raise GoneError(Reason.POSITION_GONE, "gone", details={"earliest": "7"})

    topic.read = gone  # type: ignore[method-assign]
    with pytest.raises(GoneError) as refused:
        scan(topic, 3)
    assert set(refused.value.details) == {"position"}
    position = TOKENS.open(bytes.fromhex(refused.value.details["position"]), SHOWS_SOME.id, 1, 1)
    assert (position.next, position.runs) == ((7,), None)
