"""A fetch asks the broker for a topic's ends at most once, and judges by them whether it has caught up."""

from typing import Any

from exchange.broker.port import Ends
from exchange.records.reading.scan import TopicView
from schemas.names import Topic

TOPIC = Topic.parse("permits.v1")


class Broker:
    def __init__(self) -> None:
        self.asked = 0

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
