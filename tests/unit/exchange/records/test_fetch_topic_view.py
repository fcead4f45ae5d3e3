"""A fetch asks the broker for a topic's ends at most once, and judges by them whether it has caught up."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from exchange.broker.port import Ends, ReadResult
from exchange.records.reading.scan import SharedTopicView, TopicView
from exchange.records.release import ViewOutput
from schemas.names import Topic
from schemas.record import Packed

TOPIC = Topic.parse("permits.v1")


class Broker:
    def __init__(self) -> None:
        self.asked = 0
        self.reads: list[Any] = []

    def read(self, *arguments: Any, **_: Any) -> ReadResult:
        self.reads.append(arguments[1])
        return ReadResult(partitions=(), next=(0, 0))

    def topic(self, topic: Topic) -> Any:
        return type("Info", (), {"topic": topic})

    def ends(self, topic: Topic) -> Ends:
        assert topic == TOPIC
        self.asked += 1
        return Ends(earliest=(0, 0), latest=(5, 7))


def test_the_ends_are_asked_for_when_they_are_needed_and_once() -> None:
    broker: Any = Broker()
    view = TopicView(broker, TOPIC)
    assert broker.asked == 0
    assert (view.ends, view.ends) == (Ends(earliest=(0, 0), latest=(5, 7)),) * 2
    assert broker.asked == 1


def test_records_that_came_while_it_read_do_not_hide_that_a_fetch_has_caught_up() -> None:
    broker: Any = Broker()
    view = TopicView(broker, TOPIC)
    assert view.reached_end((5, 7))
    assert view.reached_end((9, 7)), "two records were appended after the ends were asked for"
    assert not view.reached_end((9, 6))


class Views:
    """Views that say how often they were applied; grants are named by what they show."""

    def __init__(self) -> None:
        self.applied: list[tuple[str, int]] = []

    def definition(self, grant: str) -> str:
        return grant[0]

    def apply(self, grant: str, values: list[bytes | None]) -> ViewOutput:
        self.applied.append((grant, len(values)))
        return ViewOutput(selected=np.array([value is not None for value in values]), values=Packed.of([]))


def test_fetches_together_read_a_position_once_and_another_one_for_itself() -> None:
    broker: Any = Broker()
    view = SharedTopicView(broker, TOPIC)
    first = view.read((0, 0), max_records=10, max_bytes=10)
    assert view.read((0, 0), max_records=10, max_bytes=10) is first
    assert view.read((1, 0), max_records=10, max_bytes=10) is not first
    assert broker.reads == [(0, 0), (1, 0)]


def test_equal_views_of_the_same_values_are_applied_once_and_no_others() -> None:
    broker: Any = Broker()
    views: Any = Views()
    view = SharedTopicView(broker, TOPIC)
    read, other = SimpleNamespace(), SimpleNamespace()

    def apply(grant: Any, of: Any, values: list[bytes | None]) -> int:
        view.output(views, grant, of, values)
        return len(views.applied)

    assert apply("a1", read, [b"x", b"y"]) == apply("a2", read, [b"x", b"y"]) == 1
    assert apply("b1", read, [b"x", b"y"]) == 2, "another view"
    assert apply("a1", read, [b"x", None]) == 3, "a value is left out"
    assert apply("a1", other, [b"x", b"z"]) == 4, "another read"
    assert apply("a1", other, [b"x"] * 200) == 5
    assert apply("a2", other, [b"x"] * 200) == 6, "many values: each for itself"
