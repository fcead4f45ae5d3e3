"""Contract: positions, reading, waking up, retention and compaction."""

import threading
from datetime import timedelta

import pytest

from exchange.broker.port import Retention
from schemas.errors import GoneError, InvalidError, Reason
from tests.kit.cases.broker import (
    SECOND,
    START,
    VOID,
    Read,
    Rig,
    append,
    at_once,
    batch,
    expected,
    fresh_topic,
    key_of,
    lane_of,
    positions_of,
    read_all,
    read_step,
)

PATIENCE = 30.0  # seconds that a hint may take on a busy machine; a test that waits so long has failed


class ReadContract:
    """Positions, reading, waking up, retention and compaction."""

    # positions

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
            assert list(part.stretches[0].offsets) == [record.position]
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

    # bounds

    def test_a_read_keeps_to_its_bytes_but_gives_at_least_one_record(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        append(broker, batch(lane_of(topic), 1, range(60), size=1000))
        for limit in (1, 1_004, 2_500, 20_000):
            position, count = broker.ends(topic).earliest, 0
            while len(part := broker.read(topic, position, max_records=1000, max_bytes=limit)):
                size = sum(len(value or b"") for stretch in part.stretches for value in stretch.values)
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
            waiting -= {stretch.partition for stretch in part.stretches if len(stretch)}
            position, reads = part.next, reads + 1
            assert reads <= 20

    # recorded_at

    def test_recorded_at_never_falls_within_a_partition(self, rig: Rig) -> None:
        topic = fresh_topic()
        brokers = [rig.broker(), rig.broker()]
        brokers[0].create_topic(topic)
        for sequence, seconds in enumerate([10, 20, 5, 30, 1, 30], start=1):
            for number, broker in enumerate(brokers):
                at = START + (seconds - number) * SECOND
                append(broker, batch(lane_of(topic, f"c{number}"), sequence, range(12), recorded_at=at))
        records = read_all(brokers[0], topic)
        assert len(records) == 2 * 6 * 12
        for partition in range(4):
            times = [record.recorded_at for record in records if record.partition == partition]
            assert times == sorted(times)
            assert times[-1] == START + 30 * SECOND

    def test_since_gives_the_first_record_of_that_time_or_later(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        for sequence in (1, 2, 3):
            append(broker, batch(lane_of(topic), sequence, range(20), recorded_at=START + sequence * 10 * SECOND))
        records = read_all(broker, topic)
        for seconds in (0, 10, 11, 20, 25, 30):
            at = START + seconds * SECOND
            later = {record for record in records if record.recorded_at >= at}
            assert set(read_all(broker, topic, broker.since(topic, at))) == later
        assert broker.since(topic, START + 31 * SECOND) == broker.ends(topic).latest

    def test_since_of_an_empty_topic_is_its_end(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        assert broker.since(topic, START) == broker.ends(topic).latest

    # waking up

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

    # readers and the order of commits

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

    # retention

    def test_retention_makes_old_positions_gone_and_names_the_earliest(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic, retention=timedelta(minutes=10))
        old = batch(lane_of(topic), 1, range(40), recorded_at=START)
        new = batch(lane_of(topic), 2, range(40), recorded_at=START + 600 * SECOND)
        append(broker, old)
        (kept,) = append(broker, new)
        began = broker.ends(topic)
        rig.retain(topic, START + 601 * SECOND)
        ends = rig.broker().ends(topic)
        assert ends.latest == began.latest
        assert all(now > before for now, before in zip(ends.earliest, began.earliest, strict=True))
        with pytest.raises(GoneError) as raised:
            broker.read(topic, began.earliest, max_records=10, max_bytes=1 << 20)
        assert raised.value.reason is Reason.POSITION_GONE
        assert raised.value.details["earliest"] == ",".join(map(str, ends.earliest))
        assert read_all(broker, topic) == expected(kept, new)

    def test_one_overtaken_partition_is_enough_to_be_gone(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic, retention=timedelta(minutes=10))
        append(broker, batch(lane_of(topic), 1, range(40), recorded_at=START))
        append(broker, batch(lane_of(topic), 2, range(40), recorded_at=START + 600 * SECOND))
        began = broker.ends(topic)
        rig.retain(topic, START + 601 * SECOND)
        ends = broker.ends(topic)
        with pytest.raises(GoneError):
            broker.read(topic, (*ends.latest[:3], began.earliest[3]), max_records=10, max_bytes=1 << 20)

    def test_positions_are_not_reused_when_everything_has_gone(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic, retention=timedelta(minutes=10))
        append(broker, batch(lane_of(topic), 1, range(40), recorded_at=START))
        latest = broker.ends(topic).latest
        rig.retain(topic, START + 3000 * SECOND)
        ends = rig.broker().ends(topic)
        assert ends.earliest == ends.latest == latest
        assert read_all(broker, topic) == []
        (appended,) = append(broker, batch(lane_of(topic), 2, range(40), recorded_at=START + 3000 * SECOND))
        assert all(position >= latest[partition] for partition, position in positions_of(appended.runs))
        assert len(read_all(broker, topic, latest)) == 40

    def test_retention_forgets_no_receipt(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic, retention=timedelta(minutes=10))
        sent = batch(lane_of(topic), 1, range(40), recorded_at=START)
        (appended,) = append(broker, sent)
        rig.retain(topic, START + 3000 * SECOND)
        state = rig.broker().resume(lane_of(topic))
        assert state is not None
        assert (state.receipts[-1].sequence, state.receipts[-1].digest) == (1, appended.digest)
        assert state.receipts[-1].source_position == appended.source_position
        assert append(rig.broker(), sent)[0].duplicate
        assert read_all(broker, topic) == []

    def test_without_a_retention_everything_stays(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        append(broker, batch(lane_of(topic), 1, range(40), recorded_at=START))
        rig.retain(topic, START + 3600 * SECOND)
        assert len(read_all(broker, topic)) == 40

    # compaction

    def test_compaction_keeps_the_latest_of_each_key_where_it_stood(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic, keep=Retention.LATEST)
        for sequence in range(1, 7):
            people = [person for person in range(30) if person % sequence == 0]
            append(
                broker, batch(lane_of(topic), sequence, people, marks=bytes([1 + 2 * (sequence == 6)]) * len(people))
            )
        before, ends = read_all(broker, topic), broker.ends(topic)
        if not rig.compact(topic):
            return
        latest = {record.key: record for record in before}
        after = read_all(broker, topic)
        assert {record.key: record for record in after} == latest
        assert set(after) <= set(before)
        assert len(after) < len(before)
        assert broker.ends(topic) == ends
        assert any(record.mark == VOID for record in after)
        # A reader that stood in the middle reads on; what was compacted away is skipped, never "gone".
        for record in before[::7]:
            position = tuple(
                record.position if partition == record.partition else latest
                for partition, latest in enumerate(ends.latest)
            )
            rest = [each for each in after if each.partition == record.partition and each.position >= record.position]
            assert read_all(broker, topic, position) == rest

    def test_compaction_goes_on_with_what_came_later(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic, keep=Retention.LATEST)
        for sequence in range(1, 5):
            (appended,) = append(broker, batch(lane_of(topic), sequence, range(20)))
            if not rig.compact(topic):
                return
        assert {record.key for record in read_all(broker, topic)} == {key_of(person) for person in range(20)}
        last = set(positions_of(appended.runs))
        assert last <= {(record.partition, record.position) for record in read_all(broker, topic)}

    def test_a_topic_that_keeps_everything_is_not_compacted(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        for sequence in (1, 2):
            append(broker, batch(lane_of(topic), sequence, range(20)))
        rig.compact(topic)
        assert len(read_all(broker, topic)) == 40

    def test_several_readers_at_once_each_get_everything(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        append(broker, *(batch(lane_of(topic), sequence, range(300)) for sequence in range(1, 6)))
        everything = set(read_all(broker, topic))
        for found in at_once(*(lambda step=step: read_all(broker, topic, step=step) for step in (50, 333, 700, 5000))):
            assert isinstance(found, list)
            assert len(found) == 1500
            assert set(found) == everything
