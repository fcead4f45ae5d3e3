"""Reading: positions, bounds, fairness between partitions, readers beside writers."""

import threading

import pytest

from schemas.errors import InvalidError, Reason
from tests.kit.cases.broker import (
    PATIENCE,
    Read,
    Rig,
    append,
    at_once,
    batch,
    expected,
    fresh_topic,
    lane_of,
    positions_of,
    read_all,
    read_step,
)


class ReadContract:
    """Reading: positions, bounds, fairness between partitions, readers beside writers."""

    def test_positions_are_stable_and_the_same_for_every_gateway(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        append(broker, batch(lane_of(topic), 1, range(100)))
        before = read_all(broker, topic)
        append(broker, batch(lane_of(topic, "c2"), 1, range(100)))
        after = read_all(rig.broker(), topic)
        assert set(before) < set(after)
        for partition in range(4):
            places = [record.position for record in after if record.partition == partition]
            assert places == sorted(set(places))

    @pytest.mark.parametrize("step", [1, 7, 64, 1000])
    def test_reading_on_from_next_gives_every_record_once(self, rig: Rig, step: int) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        pairs = []
        for sequence in range(1, 5):
            sent = batch(lane_of(topic), sequence, range(sequence * 5))
            pairs.append((append(broker, sent)[0], sent))
        found: list[Read] = []
        position = broker.ends(topic).earliest
        while got := read_step(broker, topic, position, step):
            assert len(got[0]) <= step
            assert all(new >= old for new, old in zip(got[1], position, strict=True))
            found += got[0]
            position = got[1]
        everything = [record for pair in pairs for record in expected(*pair)]
        assert len(found) == len(everything)
        assert set(found) == set(everything)
        for partition in range(4):
            places = [record.position for record in found if record.partition == partition]
            assert places == sorted(places)

    def test_reading_may_start_at_any_position(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic, partitions=1)
        append(broker, *(batch(lane_of(topic), n, range(10), partitions=1) for n in (1, 2)))
        everything = read_all(broker, topic)
        assert len(everything) == 20
        for index, record in enumerate(everything):
            assert read_all(broker, topic, (record.position,)) == everything[index:]
            part = broker.read(topic, (record.position,), max_records=1, max_bytes=1 << 20)
            assert list(part.partitions[0].offsets) == [record.position]
            assert record.position < part.next[0]
            assert read_all(broker, topic, part.next) == everything[index + 1 :]

    def test_the_end_gives_nothing_and_stays_where_it_is(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        append(broker, batch(lane_of(topic), 1, range(20)))
        latest = broker.ends(topic).latest
        part = broker.read(topic, latest, max_records=10, max_bytes=1000)
        assert len(part) == 0
        assert part.next == latest
        append(broker, batch(lane_of(topic), 2, range(20)))
        assert len(read_all(broker, topic, latest)) == 20

    def test_latest_is_one_past_the_last_record(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        (appended,) = append(broker, batch(lane_of(topic), 1, range(40)))
        latest = broker.ends(topic).latest
        for partition, position in positions_of(appended.runs):
            assert position < latest[partition]

    @pytest.mark.parametrize("wrong", [(), (0,), (0, 0, 0), (0, 0, 0, 0, 0), (-1, 0, 0, 0)])
    def test_positions_that_do_not_fit_the_topic_are_refused(self, rig: Rig, wrong: tuple[int, ...]) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        with pytest.raises(InvalidError) as raised:
            broker.read(topic, wrong, max_records=10, max_bytes=1000)
        assert raised.value.reason is Reason.POSITION_INVALID

    def test_a_position_beyond_the_end_is_refused(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        append(broker, batch(lane_of(topic), 1, range(20)))
        latest = broker.ends(topic).latest
        for partition in range(4):
            beyond = tuple(position + 1000 * (index == partition) for index, position in enumerate(latest))
            with pytest.raises(InvalidError) as raised:
                broker.read(topic, beyond, max_records=10, max_bytes=1000)
            assert raised.value.reason is Reason.POSITION_INVALID

    def test_a_read_keeps_to_its_bytes_but_gives_at_least_one_record(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        append(broker, batch(lane_of(topic), 1, range(60), size=1000))
        for limit in (1, 1_004, 2_500, 20_000):
            position, count = broker.ends(topic).earliest, 0
            while len(part := broker.read(topic, position, max_records=1000, max_bytes=limit)):
                size = sum(len(value or b"") for records in part.partitions for value in records.values)
                assert size <= limit or len(part) == 1
                count += len(part)
                position = part.next
            assert count == 60

    def test_no_partition_starves_behind_another(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        append(broker, batch(lane_of(topic), 1, range(2000)))
        position, waiting, reads = broker.ends(topic).earliest, {0, 1, 2, 3}, 0
        while waiting:
            part = broker.read(topic, position, max_records=40, max_bytes=1 << 20)
            waiting -= {records.partition for records in part.partitions if len(records)}
            position, reads = part.next, reads + 1
            assert reads <= 20

    def test_a_reader_that_polls_while_many_lanes_commit_skips_nothing(self, rig: Rig) -> None:
        topic, lanes, batches = fresh_topic(), 5, 15
        brokers, reader = [rig.broker() for _ in range(2)], rig.broker()
        brokers[0].create_topic(topic)
        ready = threading.Event()
        running = threading.Semaphore(0)

        def publish(number: int) -> None:
            ready.wait(PATIENCE)
            lane = lane_of(topic, f"c{number}")
            try:
                for sequence in range(1, batches + 1):
                    # Batches of very different size commit out of the order in which they began.
                    append(brokers[number % 2], batch(lane, sequence, range(1 + (sequence * 37 * (number + 1)) % 400)))
            finally:
                running.release()

        def poll() -> list[Read]:
            position, found, ended = reader.ends(topic).earliest, [], 0
            ready.set()
            while True:
                while running.acquire(blocking=False):
                    ended += 1
                got = read_step(reader, topic, position, 500)
                if got is not None:
                    found += got[0]
                    position = got[1]
                elif ended == lanes:
                    return found

        *_, found = at_once(*(lambda number=number: publish(number) for number in range(lanes)), poll)
        assert isinstance(found, list)
        for partition in range(4):
            places = [record.position for record in found if record.partition == partition]
            assert places == sorted(set(places))
        assert set(found) == set(read_all(reader, topic))
        wanted = sum(1 + (n * 37 * (number + 1)) % 400 for number in range(lanes) for n in range(1, batches + 1))
        assert len(found) == wanted

    def test_several_readers_at_once_each_get_everything(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        append(broker, *(batch(lane_of(topic), sequence, range(300)) for sequence in range(1, 6)))
        everything = set(read_all(broker, topic))
        for found in at_once(*(lambda step=step: read_all(broker, topic, step=step) for step in (50, 333, 700, 5000))):
            assert isinstance(found, list)
            assert len(found) == 1500
            assert set(found) == everything
