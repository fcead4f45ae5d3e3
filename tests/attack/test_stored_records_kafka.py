"""Attacks on records in Kafka by whoever may write to it, or change its files: nothing of it is released.

What a change of the files gives is made by the test as a topic of the same name with the changed records: there is no
other way to write them. Consumers' positions of before would be refused besides, since such a topic has another
generation.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from kafka import TopicPartition as AdminPartition

from exchange.broker.kafka.broker import KafkaBroker
from exchange.broker.kafka.settings import admin
from exchange.broker.port import RecordsCorruptError, Retention
from schemas.errors import ConflictError, GoneError, InvalidError
from schemas.names import Lane, Topic
from schemas.record import OffsetRange
from tests.kit.cases.broker import CORRECT, KEY, UPSERT, VOID, Read, append, batch, fresh_topic, lane_of, read_all
from tests.kit.patience import PATIENCE
from tests.kit.world.kafka import Node

pytestmark = pytest.mark.kafka
PARTITIONS = 2
MARKS = bytes([UPSERT, CORRECT, VOID, UPSERT, UPSERT, CORRECT, UPSERT, UPSERT])
VALID = bytes(range(16)) + bytes(112)


@dataclass(frozen=True)
class Raw:
    """A record as Kafka has it."""

    partition: int
    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    millisecond: int

    def header(self, name: str) -> bytes:
        return dict(self.headers).get(name, b"")

    def with_header(self, name: str, value: bytes) -> "Raw":
        return replace(self, headers=tuple((one, value if one == name else text) for one, text in self.headers))


@dataclass
class Scene:
    """A topic with some batches of two lanes."""

    node: Node
    topic: Topic
    keep: Retention = Retention.ALL
    runs: dict[tuple[Lane, int], tuple[OffsetRange, ...]] = field(default_factory=dict)
    """Offsets by the receipts: first of what was appended, then of the same records as `rewrite` stores them."""
    alarms: list[RecordsCorruptError] = field(default_factory=list)

    def gateway(self, **changes: object) -> KafkaBroker:
        """Start a gateway, which remembers nothing of what was there before."""
        return KafkaBroker(
            self.node.settings(max_consumers=2),
            key=KEY,
            alarm=self.alarms.append,
            **{"receipts": lambda _: self.runs, **changes},  # type: ignore[arg-type]
        )

    def records(self) -> list[Raw]:
        """Read everything, past the gateway."""
        settings = self.node.settings(self.node.operator).consumer()
        consumer, found, open_ = Consumer(settings), [], set(range(PARTITIONS))
        consumer.assign([TopicPartition(str(self.topic), number, 0) for number in open_])
        while open_:
            message = consumer.poll(PATIENCE)
            assert message is not None
            if message.error() is not None:
                open_.discard(message.partition() or 0)
                continue
            found.append(
                Raw(
                    message.partition() or 0,
                    message.key() or b"",
                    message.value(),
                    tuple(message.headers() or ()),  # type: ignore[arg-type]
                    message.timestamp()[1],
                )
            )
        consumer.close()
        return found

    def write(self, records: Sequence[Raw]) -> None:
        """Append records as they are, with the certificate of an operator."""
        settings = self.node.settings(self.node.operator).producer("x")
        for name in ("transactional.id", "transaction.timeout.ms"):
            del settings[name]
        producer = Producer({**settings, "linger.ms": 0})
        for one in records:
            producer.produce(
                str(self.topic),
                one.value,
                one.key,
                one.partition,
                timestamp=one.millisecond,
                headers=list(one.headers),
            )
        assert producer.flush(PATIENCE) == 0

    def rewrite(self, records: Sequence[Raw], honest: Sequence[Raw]) -> None:
        """Leave a topic of the same name with these records, in their order; receipts are of the honest ones."""
        client = admin(self.node.settings(self.node.operator))
        client.delete_topics([str(self.topic)])
        client.close()
        with closing(self.gateway()) as broker:
            self._await_removal(broker)
            broker.create_topic(self.topic, partitions=PARTITIONS, keep=self.keep)
        self.write(records)
        self.runs = {
            batch: tuple(
                OffsetRange(partition=number, first=found[0], last=found[-1])
                for number in range(PARTITIONS)
                if (found := offsets_of(honest, batch, number))
            )
            for batch in self.runs
        }

    def _await_removal(self, broker: KafkaBroker) -> None:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                broker.topic(self.topic)
            except InvalidError:
                return
            broker._topics._cache.clear()


def fill(scene: Scene) -> Scene:
    with closing(scene.gateway()) as broker:
        broker.create_topic(scene.topic, partitions=PARTITIONS, keep=scene.keep)
        for sequence in range(1, 5):
            for connector in ("c1", "c2"):
                made = batch(
                    lane_of(scene.topic, connector), sequence, range(8), partitions=PARTITIONS, marks=MARKS, valid=VALID
                )
                for one in append(broker, made):
                    scene.runs[one.lane, one.sequence] = one.runs
    return scene


@pytest.fixture
def scene(kafka_node: Node) -> Scene:
    return fill(Scene(kafka_node, fresh_topic("attacked")))


def offsets_of(records: Sequence[Raw], batch: tuple[Lane, int], partition: int) -> list[int]:
    """Return the offsets of a batch's records in a partition where nothing else was ever in it."""
    there = [one for one in records if one.partition == partition]
    source, sequence = str(batch[0]).encode(), b"%d" % batch[1]
    return [
        offset
        for offset, one in enumerate(there)
        if (one.header("ce_source"), one.header("ce_id")) == (source, sequence)
    ]


def of_batch(records: Sequence[Raw], connector: str, sequence: int, partition: int = 0) -> list[int]:
    """Return the indexes of a batch's records in a partition."""
    return [
        index
        for index, one in enumerate(records)
        if one.partition == partition
        and one.header("ce_source").split(b"/")[1] == connector.encode()
        and one.header("ce_id") == b"%d" % sequence
    ]


def changed(records: list[Raw], change: Callable[[Raw], Raw], at: int = 1) -> list[Raw]:
    """Change one record of the second batch of c1."""
    index = of_batch(records, "c1", 2)[at]
    return [*records[:index], change(records[index]), *records[index + 1 :]]


def a_value(records: list[Raw]) -> list[Raw]:
    return changed(records, lambda one: replace(one, value=(one.value or b"")[:-1] + b"?"))


def a_value_made_a_void(records: list[Raw]) -> list[Raw]:
    return changed(records, lambda one: replace(one, value=None))


def a_key(records: list[Raw]) -> list[Raw]:
    return changed(records, lambda one: replace(one, key=bytes(16)))


def a_time(records: list[Raw]) -> list[Raw]:
    return changed(records, lambda one: replace(one, millisecond=one.millisecond + 1))


def with_key(at: int, change: Callable[[bytes], bytes]) -> Callable[[Raw], Raw]:
    return lambda one: replace(one, key=one.key[:at] + change(one.key[at:]))


def a_mark(records: list[Raw]) -> list[Raw]:
    return changed(records, with_key(28, lambda rest: bytes([rest[0] ^ 3]) + rest[1:]))


def a_number(records: list[Raw]) -> list[Raw]:
    return changed(records, with_key(24, lambda rest: bytes([0, 0, 0, 7]) + rest[4:]))


def a_valid_time(records: list[Raw]) -> list[Raw]:
    index = next(at for at, one in enumerate(records) if len(one.key) == 61)
    other = with_key(29, lambda rest: bytes([rest[0] ^ 1]) + rest[1:])(records[index])
    return [*records[:index], other, *records[index + 1 :]]


def a_valid_time_removed(records: list[Raw]) -> list[Raw]:
    index = next(at for at, one in enumerate(records) if len(one.key) == 61)
    other = with_key(29, lambda rest: rest[16:])(records[index])
    return [*records[:index], other, *records[index + 1 :]]


def a_sequence(records: list[Raw]) -> list[Raw]:
    members = set(of_batch(records, "c1", 2))
    return [one.with_header("ce_id", b"3") if i in members else one for i, one in enumerate(records)]


def a_lane(records: list[Raw]) -> list[Raw]:
    members = set(of_batch(records, "c1", 2))
    source = records[of_batch(records, "c2", 2)[0]].header("ce_source")
    return [one.with_header("ce_source", source) if i in members else one for i, one in enumerate(records)]


def a_record_removed(records: list[Raw]) -> list[Raw]:
    index = of_batch(records, "c1", 2)[1]
    return [*records[:index], *records[index + 1 :]]


def hole(one: Raw) -> Raw:
    """Return what a reader passes over, in the place of a record."""
    return replace(one, value=b"\xfferased" + bytes(56))


def a_hole(records: list[Raw]) -> list[Raw]:
    return changed(records, hole)


def a_whole_batch_made_a_hole(records: list[Raw]) -> list[Raw]:
    members = {at for number in range(PARTITIONS) for at in of_batch(records, "c1", 2, number)}
    return [hole(one) if index in members else one for index, one in enumerate(records)]


def the_first_batch_made_a_hole(records: list[Raw]) -> list[Raw]:
    members = {at for number in range(PARTITIONS) for at in of_batch(records, "c1", 1, number)}
    return [hole(one) if index in members else one for index, one in enumerate(records)]


def a_batch_removed(records: list[Raw]) -> list[Raw]:
    members = set(of_batch(records, "c1", 2))
    return [one for index, one in enumerate(records) if index not in members]


def two_records_exchanged(records: list[Raw]) -> list[Raw]:
    one, other = of_batch(records, "c1", 2)[:2]
    exchanged = list(records)
    exchanged[one], exchanged[other] = records[other], records[one]
    return exchanged


def a_copy_of_the_next_in_the_place_of_a_record(records: list[Raw]) -> list[Raw]:
    one, other = of_batch(records, "c1", 2)[:2]
    return [*records[:one], records[other], *records[one + 1 :]]


def two_batches_exchanged(records: list[Raw]) -> list[Raw]:
    second, third = of_batch(records, "c1", 2), of_batch(records, "c1", 3)
    order = [*range(len(records))]
    order[second[0] : second[-1] + 1], order[third[0] : third[-1] + 1] = third, second
    return [records[index] for index in order]


def a_batch_in_another_partition(records: list[Raw]) -> list[Raw]:
    members = set(of_batch(records, "c1", 2))
    return [replace(one, partition=1) if index in members else one for index, one in enumerate(records)]


def a_batch_repeated(records: list[Raw]) -> list[Raw]:
    return records + [records[index] for index in of_batch(records, "c1", 1)]


def a_tag_removed(records: list[Raw]) -> list[Raw]:
    return changed(records, lambda one: replace(one, key=one.key[:28]))


def a_bare_key(records: list[Raw]) -> list[Raw]:
    return changed(records, lambda one: replace(one, key=one.key[:16]))


def an_invented_record(records: list[Raw]) -> list[Raw]:
    first = records[of_batch(records, "c1", 4)[0]]
    return [*records, replace(first, key=first.key[:-16] + bytes(16), value=b"\0\0\0\0\7invented")]


ATTACKS = [
    a_value,
    a_value_made_a_void,
    a_key,
    a_time,
    a_mark,
    a_number,
    a_valid_time,
    a_valid_time_removed,
    a_sequence,
    a_lane,
    a_record_removed,
    a_hole,
    a_whole_batch_made_a_hole,
    the_first_batch_made_a_hole,
    a_batch_removed,
    two_records_exchanged,
    a_copy_of_the_next_in_the_place_of_a_record,
    two_batches_exchanged,
    a_batch_in_another_partition,
    a_batch_repeated,
    a_tag_removed,
    a_bare_key,
    an_invented_record,
]


def contents(records: Sequence[Read]) -> list[tuple[int, bytes, bytes | None, int, int, bytes]]:
    """Return what was read, without offsets, partition by partition."""
    ordered = sorted(records, key=lambda one: (one.partition, one.position))
    return [(one.partition, one.key, one.value, one.recorded_at, one.mark, one.valid) for one in ordered]


def test_records_that_nobody_touched_are_read_from_everywhere(scene: Scene) -> None:
    with closing(scene.gateway()) as broker:
        whole = read_all(broker, scene.topic)
        assert len(whole) == 64
        assert {one.valid for one in whole} == {bytes(range(16)), b""}
        for step in (1, 3, 7):
            assert contents(read_all(broker, scene.topic, step=step)) == contents(whole)
        for at in [(one.position, 0) for one in whole if one.partition == 0]:
            found = read_all(broker, scene.topic, after=at)
            assert contents(found) == contents([one for one in whole if one.partition or one.position >= at[0]])
    assert scene.alarms == []


def test_the_same_records_written_again_in_their_order_are_read(scene: Scene) -> None:
    """Otherwise the attacks below would show nothing."""
    with closing(scene.gateway()) as broker:
        whole = contents(read_all(broker, scene.topic))
    records = scene.records()
    scene.rewrite(records, records)
    with closing(scene.gateway()) as broker:
        assert contents(read_all(broker, scene.topic)) == whole
    assert scene.alarms == []


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.__name__ for attack in ATTACKS])
def test_nothing_of_an_attacked_read_is_released(scene: Scene, attack: Callable[[list[Raw]], list[Raw]]) -> None:
    records = scene.records()
    scene.rewrite(attack(records), records)
    with closing(scene.gateway()) as broker, pytest.raises(RecordsCorruptError):
        broker.read(scene.topic, (0, 0), max_records=1_000, max_bytes=1 << 20)
    assert {alarm.topic for alarm in scene.alarms} == {str(scene.topic)}


def a_header(name: str) -> Callable[[list[Raw]], list[Raw]]:
    def change(records: list[Raw]) -> list[Raw]:
        other = {"ce_type": b"pool.correct.again", "ce_id": b"3", "pool_tag": bytes(20)}[name]
        at = next(index for index, one in enumerate(records) if one.header(name) not in {b"", other})
        return [*records[:at], records[at].with_header(name, other), *records[at + 1 :]]

    return change


def no_tag_header(records: list[Raw]) -> list[Raw]:
    return changed(
        records, lambda one: replace(one, headers=tuple(each for each in one.headers if each[0] != "pool_tag"))
    )


@pytest.mark.parametrize(
    "attack",
    [a_header("ce_type"), a_header("ce_id"), a_header("pool_tag"), no_tag_header, a_value, a_time, a_batch_repeated],
    ids=["mark", "sequence", "tag", "no tag", "value", "time", "repeated"],
)
def test_records_of_a_topic_that_keeps_the_latest_of_each_key_have_tags_too(
    kafka_node: Node, attack: Callable[[list[Raw]], list[Raw]]
) -> None:
    scene = fill(Scene(kafka_node, fresh_topic("attacked"), keep=Retention.LATEST))
    records = scene.records()
    assert {len(one.key) for one in records} == {16}
    scene.rewrite(records, records)
    with closing(scene.gateway()) as broker:
        assert len(broker.read(scene.topic, (0, 0), max_records=1_000, max_bytes=1 << 20))
    assert scene.alarms == []
    scene.rewrite(attack(records), records)
    with closing(scene.gateway()) as broker, pytest.raises(RecordsCorruptError):
        read_all(broker, scene.topic)


def test_a_batch_that_is_appended_again_is_noticed_by_its_receipt(scene: Scene) -> None:
    with closing(scene.gateway()) as broker:
        assert len(read_all(broker, scene.topic)) == 64
        end = broker.ends(scene.topic).latest
    records = scene.records()
    scene.write([records[index] for index in of_batch(records, "c1", 1)])
    with closing(scene.gateway()) as broker, pytest.raises(RecordsCorruptError):
        read_all(broker, scene.topic, after=end)


def test_records_of_before_are_read_up_to_the_mark_of_the_migration(scene: Scene) -> None:
    whole = scene.records()
    scene.rewrite([replace(one, key=one.key[:16]) for one in whole], whole)
    with closing(scene.gateway()) as broker:
        marks = broker.untagged_marks()
        generation = broker.topic(scene.topic).generation
    assert marks[scene.topic] == (generation, tuple(sum(one.partition == n for one in whole) for n in (0, 1)))
    with closing(scene.gateway(untagged=marks)) as broker:
        append(broker, batch(lane_of(scene.topic, "c3"), 1, range(8), partitions=PARTITIONS))
        assert len(read_all(broker, scene.topic)) == 72
    other = {scene.topic: (generation + 1, (1 << 40,) * 2)}
    with closing(scene.gateway(untagged=other)) as broker, pytest.raises(RecordsCorruptError):
        read_all(broker, scene.topic)
    scene.write([replace(whole[0], key=whole[0].key[:16])])
    with closing(scene.gateway(untagged=marks)) as broker, pytest.raises(RecordsCorruptError):
        read_all(broker, scene.topic)


def filled(broker: KafkaBroker, retention: timedelta | None = None) -> Topic:
    topic = fresh_topic("attacked")
    broker.create_topic(topic, partitions=2, retention=retention)
    for sequence in (1, 2, 3):
        append(broker, batch(lane_of(topic), sequence, range(8), partitions=2))
    return topic


def remove_first(node: Node, topic: Topic) -> None:
    client = admin(node.settings(node.operator))
    client.delete_records({AdminPartition(str(topic), 0): 3})
    client.close()


def test_removed_first_records_of_a_topic_that_keeps_them_are_corrupt_and_no_retention(kafka_node: Node) -> None:
    alarms: list[RecordsCorruptError] = []
    with closing(KafkaBroker(kafka_node.settings(), key=KEY, alarm=alarms.append)) as broker:
        topic = filled(broker)
        assert len(read_all(broker, topic)) == 24
        remove_first(kafka_node, topic)
        with pytest.raises(RecordsCorruptError):
            broker.ends(topic)
    other = KafkaBroker(kafka_node.settings(), key=KEY, alarm=alarms.append)
    with closing(other), pytest.raises(RecordsCorruptError):
        other.read(topic, (0, 0), max_records=100, max_bytes=1 << 20)
    assert {(alarm.topic, alarm.partition, alarm.offsets) for alarm in alarms} == {(str(topic), 0, (0, 2))}


def test_what_retention_removed_is_gone_and_not_corrupt(kafka_node: Node) -> None:
    with closing(KafkaBroker(kafka_node.settings(kafka_node.operator), key=KEY)) as broker:
        topic = filled(broker, timedelta(days=9))
        remove_first(kafka_node, topic)
        assert broker.ends(topic).earliest == (3, 0)
        with pytest.raises(GoneError):
            broker.read(topic, (0, 0), max_records=100, max_bytes=1 << 20)
        # Afterwards it cannot keep all: that would be what an attack leaves.
        with pytest.raises(ConflictError, match="number of days"):
            broker.configure_topic(topic, keep=Retention.ALL, retention=None)
        assert broker.configure_topic(topic, keep=Retention.ALL, retention=timedelta(days=99)).retention is not None
