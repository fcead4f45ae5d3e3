"""Contract: topics, exactly-once append, the receipt and the seal."""

from dataclasses import replace
from datetime import timedelta

import pytest

from exchange.broker.port import Appended, Retention
from registry.database.unit_of_work import UnitOfWork
from schemas.errors import ConflictError, InvalidError, PoolError, Reason
from schemas.record import MAX_BATCH_RECORDS
from tests.kit.cases.broker import (
    CORRECT,
    START,
    UPSERT,
    VOID,
    Rig,
    Seals,
    append,
    at_once,
    batch,
    expected,
    fresh_topic,
    lane_of,
    positions_of,
    read_all,
)


class SealError(Exception):
    """What a seal of the tests raises; it is the caller's own and must come back as it is."""


class AppendContract:
    """Topics, exactly-once append, the receipt and the seal."""

    # topics

    def test_a_new_topic_is_empty_and_described_as_asked(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        made = broker.create_topic(topic, partitions=3, keep=Retention.LATEST, retention=timedelta(days=30))
        assert (made.topic, made.partitions, made.keep) == (topic, 3, Retention.LATEST)
        assert made.retention == timedelta(days=30)
        assert broker.topic(topic) == made
        ends = broker.ends(topic)
        assert ends.earliest == ends.latest
        assert len(ends.latest) == 3
        assert read_all(broker, topic) == []

    def test_creating_a_topic_again_gives_it_back_and_keeps_its_records(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        made = broker.create_topic(topic)
        append(broker, batch(lane_of(topic), 1))
        assert rig.broker().create_topic(topic) == made
        assert len(read_all(broker, topic)) == 8

    def test_another_number_of_partitions_is_a_conflict(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic, partitions=2)
        with pytest.raises(ConflictError) as raised:
            broker.create_topic(topic, partitions=3)
        assert raised.value.reason is Reason.ALREADY_EXISTS
        assert broker.topic(topic).partitions == 2

    def test_gateways_that_create_one_topic_at_once_all_get_it(self, rig: Rig) -> None:
        topic = fresh_topic()
        brokers = [rig.broker() for _ in range(4)]
        made = at_once(*(lambda broker=broker: broker.create_topic(topic) for broker in brokers))
        assert made == [brokers[0].topic(topic)] * 4

    def test_an_unknown_topic_is_not_found_by_any_call(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        calls = [
            lambda: broker.topic(topic),
            lambda: broker.ends(topic),
            lambda: broker.since(topic, START),
            lambda: broker.read(topic, (0, 0, 0, 0), max_records=1, max_bytes=1 << 20),
            lambda: append(broker, batch(lane_of(topic), 1)),
        ]
        for call in calls:
            with pytest.raises(InvalidError) as raised:
                call()
            assert raised.value.reason is Reason.NOT_FOUND

    # records and their receipt

    def test_the_receipt_says_where_every_record_stands(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        sent = batch(lane_of(topic), 1, range(40), source_position=b"\x00\xff opaque" + bytes(100))
        (appended,) = append(broker, sent)
        assert not appended.duplicate
        assert (appended.lane, appended.sequence, appended.digest) == (sent.lane, 1, sent.digest)
        assert (appended.count, appended.source_position) == (40, sent.source_position)
        assert appended.recorded_at == sent.recorded_at
        assert read_all(broker, topic) == expected(appended, sent)

    def test_records_of_one_key_keep_their_order(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        sent = [batch(lane_of(topic), sequence, [1, 2, 3, 1, 2, 1]) for sequence in (1, 2, 3)]
        append(broker, sent[0])
        append(broker, *sent[1:])
        for person in (1, 2, 3):
            in_order = [
                value
                for each in sent
                for key, value in zip(each.keys, each.values, strict=True)
                if key == sent[0].keys[person - 1]
            ]
            found = [record.value for record in read_all(broker, topic) if record.key == sent[0].keys[person - 1]]
            assert found == in_order

    def test_voids_marks_and_valid_times_come_back(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        valid = b"".join(
            start.to_bytes(8, "little", signed=True) + end.to_bytes(8, "little", signed=True)
            for start, end in [(0, 0), (-1, 5), (1, START), (2**62, 0), (-(2**63), 2**63 - 1)]
        )
        sent = batch(
            lane_of(topic), 1, [1, 2, 3, 1, 2], marks=bytes([UPSERT, CORRECT, VOID, VOID, UPSERT]), valid=valid
        )
        plain = batch(lane_of(topic), 2, [5, 6], marks=bytes([VOID, CORRECT]))
        receipts = append(broker, sent, plain)
        found = {(record.partition, record.position): record for record in read_all(broker, topic)}
        for appended, each in zip(receipts, (sent, plain), strict=True):
            assert [found[record.partition, record.position] for record in expected(appended, each)] == expected(
                appended, each
            )
        voids = [record for record in found.values() if record.mark == VOID]
        assert len(voids) == 3
        assert all(record.value is None for record in voids)

    def test_ten_thousand_records_are_one_batch(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        sent = batch(lane_of(topic), 1, range(MAX_BATCH_RECORDS), size=100)
        (appended,) = append(broker, sent)
        assert appended.count == MAX_BATCH_RECORDS
        assert read_all(broker, topic, step=3_000).__len__() == MAX_BATCH_RECORDS
        assert sorted(read_all(broker, topic), key=lambda record: (record.partition, record.position)) == expected(
            appended, sent
        )

    def test_more_than_ten_thousand_records_are_refused(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        with pytest.raises(InvalidError) as raised:
            append(broker, batch(lane_of(topic), 1, range(MAX_BATCH_RECORDS + 1)))
        assert raised.value.reason is Reason.BATCH_TOO_LARGE
        assert read_all(broker, topic) == []

    def test_an_oversize_record_refuses_its_whole_batch(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        sent = batch(lane_of(topic), 1, range(50))
        values = list(sent.values)
        values[25] = bytes(64 * 1024 * 1024 + 1)
        with pytest.raises(InvalidError) as raised:
            append(broker, replace(sent, values=values))
        assert raised.value.reason is Reason.BATCH_TOO_LARGE
        assert read_all(broker, topic) == []
        (appended,) = append(broker, batch(lane_of(topic), 1, range(50), salt="without it"))
        assert not appended.duplicate
        assert len(read_all(broker, topic)) == 50

    # exactly once

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
        seals = Seals()
        again = broker.append(sent, seals)
        assert again[:3] == [replace(receipt, duplicate=True) for receipt in first]
        assert [receipt.duplicate for receipt in again[3:]] == [False, False]
        assert [appended for _, appended in seals.calls] == [tuple(again[3:])]
        assert len(read_all(broker, topic)) == 40

    def test_a_group_is_appended_in_one_go(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        sent = [batch(lane_of(topic), sequence, range(sequence * 100)) for sequence in range(1, 9)]
        seals = Seals()
        receipts = broker.append(sent, seals)
        assert [receipt.sequence for receipt in receipts] == list(range(1, 9))
        assert [receipt.count for receipt in receipts] == [len(each.keys) for each in sent]
        assert len(seals.calls) == 1
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
        before = read_all(broker, topic)
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
        assert read_all(broker, topic) == before

    # the seal

    def test_the_seal_is_called_once_with_what_was_newly_appended(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        seals = Seals()
        receipts = broker.append([batch(lane_of(topic), 1)], seals)
        assert [appended for _, appended in seals.calls] == [tuple(receipts)]
        assert isinstance(seals.calls[0][0], UnitOfWork) is rig.joins_work
        broker.append([batch(lane_of(topic), 1)], seals)
        assert len(seals.calls) == 1

    def test_records_are_not_visible_before_the_seal_where_it_shares_the_transaction(self, rig: Rig) -> None:
        broker, reader, topic = rig.broker(), rig.broker(), fresh_topic()
        broker.create_topic(topic)
        seen: list[int] = []

        def look(work: UnitOfWork | None, appended: object) -> None:
            seen.append(len(read_all(reader, topic)))

        broker.append([batch(lane_of(topic), 1)], look)
        assert seen == ([0] if rig.joins_work else [8])

    @pytest.mark.parametrize("error", [SealError("no"), PoolError(Reason.QUOTA_EXHAUSTED, "no")])
    def test_a_seal_that_raises_makes_append_raise(self, rig: Rig, error: Exception) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        append(broker, batch(lane_of(topic), 1))
        with pytest.raises(type(error)):
            broker.append([batch(lane_of(topic), 2)], Seals(error))
        (again,) = append(broker, batch(lane_of(topic), 2))
        # What was committed without its seal is found again: by the retry here, by lanes() in the sweeper.
        assert again.duplicate is not rig.joins_work
        assert len(read_all(broker, topic)) == 16

    # several at once

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
