"""Watching: an append wakes the watchers of its topic, in every gateway."""

import threading

from tests.kit.cases.broker import (
    PATIENCE,
    Rig,
    append,
    batch,
    fresh_topic,
    lane_of,
)


class WatchContract:
    """Watching: an append wakes the watchers of its topic, in every gateway."""

    def test_an_append_wakes_the_watchers_of_its_topic_in_every_gateway(self, rig: Rig) -> None:
        writer, reader, topic = rig.broker(), rig.broker(), fresh_topic()
        writer.create_topic(topic)
        woken = [threading.Event() for _ in range(3)]
        with reader.watch(topic, woken[0].set), reader.watch(topic, woken[1].set), writer.watch(topic, woken[2].set):
            for sequence in (1, 2, 3):
                for event in woken:
                    event.clear()
                append(writer, batch(lane_of(topic), sequence))
                for event in woken:
                    assert event.wait(PATIENCE)

    def test_after_leaving_nobody_is_woken(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        left, stays = threading.Event(), threading.Event()
        with broker.watch(topic, stays.set):
            with broker.watch(topic, left.set):
                append(broker, batch(lane_of(topic), 1))
                assert left.wait(PATIENCE)
                assert stays.wait(PATIENCE)
            # A call that was under way may still come; one for an append that began later may not.
            for sequence in (2, 3):
                left.clear()
                stays.clear()
                append(broker, batch(lane_of(topic), sequence))
                assert stays.wait(PATIENCE)
            assert not left.is_set()

    def test_a_watcher_that_raises_harms_nobody(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        woken = threading.Event()

        def fail() -> None:
            raise RuntimeError("a watcher's own fault")

        with broker.watch(topic, fail), broker.watch(topic, woken.set):
            for sequence in (1, 2):
                woken.clear()
                append(broker, batch(lane_of(topic), sequence))
                assert woken.wait(PATIENCE)
