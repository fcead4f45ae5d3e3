"""Attacks on stored records by whoever administers the database: what the pool did not store so is not released."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
import sqlalchemy as sa

from exchange.broker.port import RecordsCorruptError, Retention
from exchange.broker.postgres.block_tags import BlockTags
from exchange.broker.postgres.broker import PostgresBroker, metadata
from exchange.broker.postgres.first_tags import tag_untagged
from registry.database.connection_pool import create_engine
from registry.database.unit_of_work import PostgresDatabase
from schemas.errors import CorruptError, Reason
from schemas.names import Topic
from tests.kit.cases.broker import KEY, SECOND, START, append, batch, fresh_topic, lane_of, read_all

pytestmark = pytest.mark.postgres
BATCHES = 6
PARTITIONS = 2


@dataclass
class Store:
    """A database with two topics of six batches each, and the gateways over it."""

    url: sa.URL
    engine: sa.Engine
    topic: Topic
    other: Topic
    alarms: list[RecordsCorruptError] = field(default_factory=list)

    def gateway(self) -> PostgresBroker:
        """Start a gateway, which remembers nothing of what was there before."""
        return PostgresBroker(
            PostgresDatabase(self.engine), key=KEY, alarm=self.alarms.append, check_period=timedelta(milliseconds=100)
        )

    def do(self, statement: str) -> None:
        """Do what the administrator of the database can; `{T}` and `{O}` are the topics' ids."""
        with self.engine.begin() as connection:
            ids = dict(connection.exec_driver_sql("SELECT name, id FROM broker_topic").all())
            text = statement.replace("{T}", str(ids[str(self.topic)])).replace("{O}", str(ids[str(self.other)]))
            assert connection.exec_driver_sql(text.replace("%", "%%")).rowcount != 0, "the attack did nothing"


@pytest.fixture
def store(database: sa.URL) -> Iterator[Store]:
    engine = create_engine(database, connections=8)
    metadata.create_all(engine)
    store = Store(database, engine, fresh_topic("attacked"), fresh_topic("other"))
    with closing(store.gateway()) as broker:
        for topic in (store.topic, store.other):
            broker.create_topic(topic, partitions=PARTITIONS)
            for sequence in range(1, BATCHES + 1):
                append(broker, batch(lane_of(topic), sequence, range(8), partitions=PARTITIONS, size=64))
    yield store
    engine.dispose()


SECOND_BLOCK = "(SELECT last FROM broker_stretch WHERE topic_id = {T} AND partition = 0 ORDER BY last OFFSET 1 LIMIT 1)"
THIRD_BLOCK = SECOND_BLOCK.replace("OFFSET 1", "OFFSET 2")
ONE = f"topic_id = {{T}} AND partition = 0 AND last = {SECOND_BLOCK}"
LAST_BLOCK = SECOND_BLOCK.replace("ORDER BY last OFFSET 1", "ORDER BY last DESC")

OF_PARTITION = "topic_id = {T} AND partition = 0"

ATTACKS = [
    ("a byte of a value", f"UPDATE broker_stretch SET data = set_byte(data, 10, 7) WHERE {ONE}"),
    ("a key", f"UPDATE broker_stretch SET keys = set_byte(keys, 0, 7) WHERE {ONE}"),
    ("a mark", f"UPDATE broker_stretch SET marks = set_byte(marks, 0, 2) WHERE {ONE}"),
    ("the lengths of two values", f"UPDATE broker_stretch SET lengths = set_byte(lengths, 0, 1) WHERE {ONE}"),
    ("valid times added", f"UPDATE broker_stretch SET valid = decode(repeat('01', 16 * count), 'hex') WHERE {ONE}"),
    (
        "a value made a void",
        f"UPDATE broker_stretch SET lengths = decode('ffffffff', 'hex') || substr(lengths, 5) WHERE {ONE}",
    ),
    ("the time of a block", f"UPDATE broker_stretch SET recorded_at = recorded_at - 1 WHERE {ONE}"),
    ("records cut off", f"UPDATE broker_stretch SET count = 1 WHERE {ONE}"),
    (
        "bytes and digest together",
        f"UPDATE broker_stretch SET data = set_byte(data, 10, 7), digest = sha256(data) WHERE {ONE}",
    ),
    ("the tag removed", f"UPDATE broker_stretch SET tag = NULL WHERE {ONE}"),
    ("a block removed", f"DELETE FROM broker_stretch WHERE {ONE}"),
    ("the last block removed", f"DELETE FROM broker_stretch WHERE {OF_PARTITION} AND last = {LAST_BLOCK}"),
    ("all blocks of a partition removed", "DELETE FROM broker_stretch WHERE topic_id = {T} AND partition = 0"),
    ("all blocks removed", "DELETE FROM broker_stretch WHERE topic_id = {T}"),
    (
        "a block removed, the one before stretched over the hole",
        f"""UPDATE broker_stretch SET ends = {SECOND_BLOCK} WHERE topic_id = {{T}} AND partition = 0
            AND last = (SELECT min(last) FROM broker_stretch WHERE topic_id = {{T}} AND partition = 0);
            DELETE FROM broker_stretch WHERE {ONE}""",
    ),
    (
        "a block removed, the next one moved to its place",
        f"""CREATE TEMP TABLE gone AS SELECT first, last FROM broker_stretch WHERE {ONE};
            DELETE FROM broker_stretch WHERE {ONE};
            UPDATE broker_stretch s SET begins = g.first, first = g.first, last = g.last, ends = g.last FROM gone g
            WHERE s.topic_id = {{T}} AND s.partition = 0 AND s.last = {SECOND_BLOCK}""",
    ),
    (
        "a block of another topic in its place",
        f"""UPDATE broker_stretch a SET data = b.data, keys = b.keys, marks = b.marks, lengths = b.lengths,
                digest = b.digest, tag = b.tag FROM broker_stretch b
            WHERE a.topic_id = {{T}} AND a.partition = 0 AND a.last = {SECOND_BLOCK}
                AND b.topic_id = {{O}} AND b.partition = 0 AND b.last = a.last""",
    ),
    (
        "a block of another partition in its place",
        f"""UPDATE broker_stretch a SET data = b.data, keys = b.keys, marks = b.marks, lengths = b.lengths,
                count = b.count, size = b.size, digest = b.digest, tag = b.tag FROM broker_stretch b
            WHERE a.topic_id = {{T}} AND a.partition = 0 AND a.last = {SECOND_BLOCK}
                AND b.topic_id = {{T}} AND b.partition = 1
                AND b.last = (SELECT min(last) FROM broker_stretch WHERE topic_id = {{T}} AND partition = 1)""",
    ),
    ("earliest moved over records", "UPDATE broker_partition SET earliest = 8 WHERE topic_id = {T} AND partition = 0"),
    ("latest moved back", "UPDATE broker_partition SET latest = latest - 1 WHERE topic_id = {T} AND partition = 0"),
    (
        "latest moved back, with its blocks",
        f"""UPDATE broker_partition SET latest = {THIRD_BLOCK} + 1 WHERE topic_id = {{T}} AND partition = 0;
            DELETE FROM broker_stretch WHERE topic_id = {{T}} AND partition = 0 AND last > {THIRD_BLOCK}""",
    ),
    ("a partition's row removed", "DELETE FROM broker_partition WHERE topic_id = {T} AND partition = 0"),
    ("the last partition's row removed", "DELETE FROM broker_partition WHERE topic_id = {T} AND partition = 1"),
    (
        "a partition's row of another topic",
        """UPDATE broker_partition a SET latest = b.latest, recorded_at = b.recorded_at, tag = b.tag
           FROM broker_partition b
           WHERE a.topic_id = {T} AND a.partition = 0 AND b.topic_id = {O} AND b.partition = 0""",
    ),
    ("the topic's generation", "UPDATE broker_topic SET generation = generation + 1 WHERE id = {T}"),
    ("the topic's retention", "UPDATE broker_topic SET retention = 1 WHERE id = {T}"),
    ("fewer partitions", "UPDATE broker_topic SET partitions = 1 WHERE id = {T}"),
    (
        "the name of another topic",
        """UPDATE broker_topic SET name = name || '0' WHERE id = {T};
           UPDATE broker_topic SET name = (SELECT left(name, -1) FROM broker_topic WHERE id = {T}) WHERE id = {O}""",
    ),
]  # fmt: skip


def test_records_that_nobody_touched_are_read(store: Store) -> None:
    with closing(store.gateway()) as broker:
        assert len(read_all(broker, store.topic)) == 8 * BATCHES
        assert len(read_all(broker, store.topic, step=3)) == 8 * BATCHES
    assert store.alarms == []


@pytest.mark.parametrize("attack", [attack for _, attack in ATTACKS], ids=[name for name, _ in ATTACKS])
def test_nothing_of_an_attacked_partition_is_released(store: Store, attack: str) -> None:
    store.do(attack)
    with closing(store.gateway()) as broker:
        with pytest.raises(CorruptError) as caught:
            read_all(broker, store.topic)
        assert caught.value.reason is Reason.RECORDS_CORRUPT
        assert store.alarms
        assert {alarm.topic for alarm in store.alarms} == {str(store.topic)}


def test_the_error_names_topic_and_partition_and_the_alarm_the_offsets(store: Store) -> None:
    store.do(f"UPDATE broker_stretch SET data = set_byte(data, 10, 7) WHERE {ONE}")
    with closing(store.gateway()) as broker, pytest.raises(RecordsCorruptError) as caught:
        read_all(broker, store.topic)
    assert f"{store.topic}, partition 0" in caught.value.message
    assert store.alarms[0].offsets is not None
    first, last = store.alarms[0].offsets
    assert f"{first}" not in caught.value.message.replace(str(store.topic), "")
    assert 0 < first < last


def test_an_older_partition_row_that_is_put_back_is_noticed_while_the_gateway_runs(store: Store) -> None:
    store.do("CREATE TABLE kept AS SELECT * FROM broker_partition WHERE topic_id = {T}")
    with closing(store.gateway()) as broker:
        append(broker, batch(lane_of(store.topic), BATCHES + 1, range(8), partitions=PARTITIONS))
        assert len(read_all(broker, store.topic)) == 8 * (BATCHES + 1)
        store.do(
            """DELETE FROM broker_stretch s USING kept k
               WHERE s.topic_id = k.topic_id AND s.partition = k.partition AND s.last >= k.latest;
               UPDATE broker_partition p SET latest = k.latest, recorded_at = k.recorded_at, tag = k.tag
               FROM kept k WHERE p.topic_id = k.topic_id AND p.partition = k.partition"""
        )
        with pytest.raises(RecordsCorruptError):
            read_all(broker, store.topic)
        with pytest.raises(RecordsCorruptError):  # its offsets would be assigned again
            append(broker, batch(lane_of(store.topic), BATCHES + 2, range(8), partitions=PARTITIONS))


def test_a_topic_that_is_removed_and_made_again_is_noticed_while_the_gateway_runs(store: Store) -> None:
    with closing(store.gateway()) as broker:
        read_all(broker, store.topic)
        store.do("UPDATE broker_topic SET name = name || '0' WHERE id = {T}")
        with pytest.raises(RecordsCorruptError):
            broker.topic(store.topic)
        with closing(store.gateway()) as other:
            other.create_topic(store.topic, partitions=PARTITIONS)
        with pytest.raises(RecordsCorruptError):
            broker.topic(store.topic)


@pytest.mark.parametrize("hidden", ["recorded_at = 0", "recorded_at = 9223372036854775807"])
def test_history_since_an_approval_does_not_begin_elsewhere(store: Store, hidden: str) -> None:
    since = START + 3 * SECOND
    with closing(store.gateway()) as broker:
        right = broker.positions_for_time(store.topic, since)
    third = f"UPDATE broker_stretch SET {hidden} WHERE topic_id = {{T}} AND partition = 0 AND last = {THIRD_BLOCK}"
    store.do(third)
    with closing(store.gateway()) as broker, pytest.raises(RecordsCorruptError):
        read_all(broker, store.topic, after=broker.positions_for_time(store.topic, since))
    assert right[0] > 0


def test_neither_retention_nor_compaction_works_on_what_is_corrupt(store: Store) -> None:
    store.do("UPDATE broker_topic SET retention = 1, keep = 'latest' WHERE id = {T}")
    with closing(store.gateway()) as broker:
        with pytest.raises(RecordsCorruptError):
            broker.retain(START + 1000 * SECOND)
        with pytest.raises(RecordsCorruptError):
            broker.compact()
    with store.engine.begin() as connection:
        count = "SELECT sum(count) FROM broker_stretch WHERE topic_id = (SELECT id FROM broker_topic WHERE name = %s)"
        assert connection.exec_driver_sql(count, (str(store.topic),)).scalar_one() == 8 * BATCHES


def test_what_retention_and_compaction_remove_is_no_hole(store: Store) -> None:
    kept, timed = fresh_topic("kept"), fresh_topic("timed")
    with closing(store.gateway()) as broker:
        broker.create_topic(kept, partitions=PARTITIONS, keep=Retention.LATEST)
        broker.create_topic(timed, partitions=PARTITIONS, retention=timedelta(seconds=3))
        for sequence in range(1, 7):
            # Every other batch is superseded whole, the others in part.
            people = range(4) if sequence % 2 else range(8)
            append(broker, batch(lane_of(kept), sequence, people, partitions=PARTITIONS))
            append(broker, batch(lane_of(timed), sequence, range(8), partitions=PARTITIONS))
        before = [
            broker.read(kept, broker.ends(kept).earliest, max_records=n, max_bytes=1 << 20).next for n in range(1, 40)
        ]
        assert broker.compact() > 0
        assert broker.retain(START + 7 * SECOND) > 0
    with closing(store.gateway()) as broker:
        assert len(read_all(broker, kept)) == 8
        assert len(read_all(broker, timed)) == 8 * 3
        for position in before:  # of consumers that were given them before
            read_all(broker, kept, after=position)
    assert store.alarms == []


def test_records_of_before_get_tags_once(store: Store) -> None:
    for table in ("broker_topic", "broker_partition"):
        store.do(f"UPDATE {table} SET tag = NULL")
    store.do("UPDATE broker_stretch SET tag = NULL, digest = NULL, begins = NULL, ends = NULL")
    with closing(store.gateway()) as broker, pytest.raises(RecordsCorruptError):
        broker.topic(store.topic)
    seen: list[tuple[str, int, int]] = []

    def interrupt(topic: str, done: int, blocks: int) -> None:
        seen.append((topic, done, blocks))
        if len(seen) == 2:
            raise KeyboardInterrupt

    database, tags = PostgresDatabase(store.engine), BlockTags(KEY)
    with pytest.raises(KeyboardInterrupt):
        tag_untagged(database, tags, interrupt)
    tag_untagged(database, tags, interrupt)
    assert seen[-1][1] == seen[-1][2] > 0
    assert tag_untagged(database, tags, interrupt) == 0
    with closing(store.gateway()) as broker:
        assert len(read_all(broker, store.topic)) == 8 * BATCHES
        append(broker, batch(lane_of(store.topic), BATCHES + 1, range(8), partitions=PARTITIONS))
        assert len(read_all(broker, store.topic)) == 8 * (BATCHES + 1)


def test_first_tags_do_not_cover_a_hole(store: Store) -> None:
    for table in ("broker_topic", "broker_partition", "broker_stretch"):
        store.do(f"UPDATE {table} SET tag = NULL")
    store.do(f"DELETE FROM broker_stretch WHERE {ONE}")
    tag_untagged(PostgresDatabase(store.engine), BlockTags(KEY), lambda *_: None)
    with closing(store.gateway()) as broker, pytest.raises(RecordsCorruptError):
        read_all(broker, store.topic)
