"""Exactly-once append: duplicates, conflicts and gaps, in one gateway or in several at once."""

from dataclasses import replace

import pytest

from exchange.broker.port import Appended
from schemas.errors import ConflictError, Reason
from tests.kit.cases.broker import (
    HookCalls,
    Rig,
    append,
    at_once,
    batch,
    expected,
    fresh_topic,
    lane_of,
    positions_of,
    read_all,
)


class ExactlyOnceContract:
    """Exactly-once append: duplicates, conflicts and gaps, in one gateway or in several at once."""

    def test_the_same_batch_again_gives_the_same_receipt_and_appends_nothing(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        sent = [batch(lane_of(topic), sequence) for sequence in (1, 2, 3)]
        first = [append(broker, each)[0] for each in sent]
        for gateway in (broker, rig.broker()):
            for each, receipt in zip(sent, first, strict=True):
                assert append(gateway, each) == [replace(receipt, duplicate=True)]
        assert len(read_all(broker, topic)) == 24

    def test_a_group_may_begin_with_batches_appended_before(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        sent = [batch(lane_of(topic), sequence) for sequence in range(1, 6)]
        first = append(broker, *sent[:3])
        hook = HookCalls()
        again = broker.append(sent, hook)
        assert again[:3] == [replace(receipt, duplicate=True) for receipt in first]
        assert [receipt.duplicate for receipt in again[3:]] == [False, False]
        assert [appended for _, appended in hook.calls] == [tuple(again[3:])]
        assert len(read_all(broker, topic)) == 40

    def test_a_group_is_appended_in_one_go(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        sent = [batch(lane_of(topic), sequence, range(sequence * 100)) for sequence in range(1, 9)]
        hook = HookCalls()
        receipts = broker.append(sent, hook)
        assert [receipt.sequence for receipt in receipts] == list(range(1, 9))
        assert [receipt.count for receipt in receipts] == [len(each.keys) for each in sent]
        assert len(hook.calls) == 1
        everything = sorted(
            record for pair in zip(receipts, sent, strict=True) for record in map(repr, expected(*pair))
        )
        assert sorted(map(repr, read_all(broker, topic))) == everything

    def test_another_digest_for_a_known_sequence_is_a_conflict(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        sent = batch(lane_of(topic), 1)
        append(broker, sent)
        for gateway in (broker, rig.broker()):
            with pytest.raises(ConflictError) as raised:
                append(gateway, batch(lane_of(topic), 1, salt="another"))
            assert raised.value.reason is Reason.SEQUENCE_CONFLICT
            assert raised.value.details["sequence"] == "1"
            assert raised.value.details["accepted_digest"] == sent.digest.hex()
        assert len(read_all(broker, topic)) == 8

    @pytest.mark.parametrize("appended_before", [0, 2])
    @pytest.mark.parametrize("ahead", [2, 5])
    def test_a_gap_is_refused_and_the_next_number_named(self, rig: Rig, appended_before: int, ahead: int) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        for sequence in range(1, appended_before + 1):
            append(broker, batch(lane_of(topic), sequence))
        with pytest.raises(ConflictError) as raised:
            append(broker, batch(lane_of(topic), appended_before + ahead))
        assert raised.value.reason is Reason.SEQUENCE_GAP
        assert raised.value.details["expected"] == str(appended_before + 1)
        assert len(read_all(broker, topic)) == 8 * appended_before
        append(broker, batch(lane_of(topic), appended_before + 1))

    def test_a_group_with_a_gap_appends_nothing_of_it(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        with pytest.raises(ConflictError) as raised:
            append(broker, batch(lane_of(topic), 1), batch(lane_of(topic), 3))
        assert raised.value.reason is Reason.SEQUENCE_GAP
        assert read_all(broker, topic) == []

    def test_a_sequence_older_than_what_is_remembered_appends_nothing(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        for start in range(1, 41, 8):
            append(broker, *(batch(lane_of(topic), start + index, [index]) for index in range(8)))
        before = sorted(read_all(broker, topic), key=lambda one: (one.partition, one.position))
        for gateway in (broker, rig.broker()):
            # An adapter that remembers it gives the receipt; one that does not must not take it for new.
            refused = None
            try:
                assert append(gateway, batch(lane_of(topic), 1, [0]))[0].duplicate
            except ConflictError as error:
                refused = error
            if refused is not None:
                assert refused.reason is Reason.SEQUENCE_GAP
                assert refused.details["expected"] == "41"
        assert sorted(read_all(broker, topic), key=lambda one: (one.partition, one.position)) == before

    def test_many_lanes_append_at_once_and_nothing_is_lost_or_doubled(self, rig: Rig) -> None:
        topic, batches = fresh_topic(), 12
        brokers = [rig.broker() for _ in range(2)]
        brokers[0].create_topic(topic)

        def publish(number: int) -> list[tuple[Appended, int]]:
            broker, lane = brokers[number % 2], lane_of(topic, f"c{number}")
            sent = [batch(lane, sequence, range(50)) for sequence in range(1, batches + 1)]
            return [(receipt, len(read)) for each in sent for receipt in append(broker, each) for read in [each.keys]]

        done = at_once(*(lambda number=number: publish(number) for number in range(6)))
        places = [place for lane in done for receipt, _ in lane for place in positions_of(receipt.runs)]  # type: ignore[attr-defined]
        assert len(set(places)) == len(places) == 6 * batches * 50
        records = read_all(brokers[0], topic)
        assert sorted((record.partition, record.position) for record in records) == sorted(places)
        for number in range(6):
            mine = [
                record for record in records if (record.value or b"").startswith(b"\x00\x00\x00\x00\x07c%d/" % number)
            ]
            assert len({record.value for record in mine}) == len(mine) == batches * 50
            for partition in range(4):
                sequences = [
                    int((record.value or b"").split(b"/")[1]) for record in mine if record.partition == partition
                ]
                assert sequences == sorted(sequences)

    def test_two_gateways_that_send_the_same_batch_append_it_once(self, rig: Rig) -> None:
        topic = fresh_topic()
        brokers = [rig.broker() for _ in range(4)]
        brokers[0].create_topic(topic)

        def publish(number: int) -> Reason | None:
            for sequence in range(1, 9):
                try:
                    append(brokers[number], batch(lane_of(topic), sequence))
                except ConflictError as error:
                    return error.reason
            return None

        ends = at_once(*(lambda number=number: publish(number) for number in range(4)))
        assert set(ends) <= {None, Reason.LANE_FENCED}
        state = brokers[0].resume(lane_of(topic))
        assert state is not None
        records = read_all(brokers[0], topic)
        assert len(records) == len({record.value for record in records}) == 8 * state.receipts[-1].sequence
