"""The contract of the pool's port (`exchange.client.port`): the same tests for every implementation.

A test module says what it runs on, and nothing more:

    class TestInMemory(PoolContract):
        @pytest.fixture
        def rig(self) -> Rig: ...

Every test has a topic of its own, and so lanes of its own. Where an implementation is free, so are the tests: records
of different keys may come in any order, and positions are opaque.
"""

import itertools
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exchange.client import BatchRefusedError, FetchResult, Pool
from exchange.client.receipts import verify_receipt
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from schemas.connector_report import (
    ConnectorReport,
    Direction,
    KeyRangeTotals,
    ReconciliationTotals,
    StreamReport,
    StreamState,
)
from schemas.errors import ConflictError, InvalidError, PoolError, Reason, RefusedError
from schemas.names import Topic
from schemas.record import (
    MAX_BATCH_RECORDS,
    NO_ROOT,
    Batch,
    KeyOccurrence,
    Mark,
    Operation,
    Packed,
    Receipt,
    frame,
    unframe,
)
from tests.kit.world.publisher import FIRST, Publisher, framed

PURPOSE, CASE = "eligibility", "STANDING-1"
UNKNOWN_GRANT = "01890000-0000-7000-8000-000000000099"
UNKNOWN_TOPIC = Topic.parse("nothing-at-all.v1")
BEGINNING = b"\x00"
_GOVERNED = {"level": "G2", "personal": "N", "sensitive": "N", "mask": "none"}
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Person",
    "namespace": "contract",
    "zh": "人",
    "key": ["id"],
    "fields": [
        {"name": "id", "zh": "号", "type": "string", **_GOVERNED},
        {"name": "district", "zh": "区", "type": "string", **_GOVERNED},
        {"name": "age", "zh": "岁", "type": ["null", "int"], "default": None, **_GOVERNED},
    ],
}
WIDER: dict[str, Any] = {
    **SCHEMA,
    "fields": [
        *SCHEMA["fields"],
        {"name": "note", "zh": "注", "type": ["null", "string"], "default": None, **_GOVERNED},
    ],
}
Row = dict[str, Any]


@dataclass(frozen=True)
class Machine:
    """A connector's machine: the port under its identity, and the key that it signs with."""

    pool: Pool
    pool_id: str
    department: str
    connector: str
    key: Ed25519PrivateKey

    def lane(self, topic: Topic) -> Publisher:
        """Return a new chain of batches."""
        return Publisher(self.pool_id, self.department, self.connector, str(topic), self.key)


class Rig(Protocol):
    """A pool with a department that provides and one that consumes."""

    provider: Machine
    second: Machine  # another connector of the providing department
    consumer: Machine

    def offer(self, schema: dict[str, Any]) -> Topic:
        """Make a topic of the provider."""
        ...

    def evolve(self, topic: Topic, schema: dict[str, Any]) -> None:
        """Register the topic's next schema."""
        ...

    def keep_latest(self, topic: Topic) -> None:
        """Have the topic keep the latest record of each key alone."""
        ...

    def request(self, topic: Topic, fields: Iterable[str], district: str = "") -> str:
        """Request fields, and the rows of one district or all, for the consumer; give the grant's id."""
        ...

    def approve(self, grant_id: str) -> None: ...
    def suspend(self, grant_id: str) -> None: ...
    def expired(self, topic: Topic) -> str:
        """Return a grant that was in force until a moment ago."""
        ...


def rows(*numbers: int, district: str = "", **more: Any) -> list[Row]:
    """Return persons by number; the even ones live in d0, the odd ones in d1."""
    return [{"id": f"p{n}", "district": district or f"d{n % 2}", "age": n, **more} for n in numbers]


class Resource:
    """A topic of its own for one test, and the lane on which the provider publishes to it."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.topic = rig.offer(SCHEMA)
        self.schema_id, self.text = rig.provider.pool.schema(self.topic)
        self.lane = rig.provider.lane(self.topic)

    def values(self, people: Iterable[Row]) -> Packed:
        return framed(self.schema_id, self.text, people)

    def batch(
        self, people: Iterable[Row], *, seen: KeyOccurrence = KeyOccurrence.FIRST, source_position: bytes = b""
    ) -> Batch:
        """Sign the lane's next batch."""
        people = list(people)
        marks = bytes([int(Mark(Operation.UPSERT, seen))] * len(people))
        return self.lane.batch(self.values(people), marks=marks, source_position=source_position)

    def voids(self, *keys: str) -> Batch:
        marks = bytes([int(Mark(Operation.VOID, KeyOccurrence.AGAIN))] * len(keys))
        return self.lane.batch(Packed.of([b""] * len(keys)), marks=marks, void_keys=[key.encode() for key in keys])

    def publish(self, *batches: Batch, machine: Machine | None = None) -> list[Receipt]:
        return list((machine or self.rig.provider).pool.publish(self.topic, batches))

    def granted(self, *fields: str, district: str = "") -> "Consumer":
        grant_id = self.rig.request(self.topic, fields or ("id", "district", "age"), district)
        self.rig.approve(grant_id)
        return Consumer(self.rig.consumer.pool, grant_id)


@dataclass
class Consumer:
    """A grant as its consumer's machine uses it, and the state that it builds from what it gets."""

    pool: Pool
    grant_id: str

    def fetch(self, position: bytes = b"", **more: Any) -> FetchResult:
        return self.pool.fetch(self.grant_id, **{"position": position, "purpose": PURPOSE, "case": CASE, **more})

    def commit(self, position: bytes) -> str:
        return self.pool.commit(self.grant_id, position, purpose=PURPOSE, case=CASE)

    def decode(self, result: FetchResult) -> list[tuple[bytes, Row | None]]:
        """Return (record key, record or None where it is withdrawn)."""
        engine = engine_for(parse(self.pool.schema(schema_id=result.schema_id)[1]))
        found: list[tuple[bytes, Row | None]] = []
        for key, value in zip(result.keys(), result.values, strict=True):
            record = None
            if value:
                schema_id, datum = unframe(value)
                assert schema_id == result.schema_id
                (record,) = engine.decode([datum]).to_pylist()
            found.append((key, record))
        return found

    def records(self, result: FetchResult) -> list[Row]:
        return sorted((record for _, record in self.decode(result) if record), key=lambda record: str(record["id"]))


class _WithResource:
    @pytest.fixture
    def resource(self, rig: Rig) -> Resource:
        return Resource(rig)


def another_root(batch: Batch) -> Batch:
    return replace(batch, root=bytes(32))


class PublishContract(_WithResource):
    """Who the pool is, what is published, and what a receipt proves."""

    def test_it_names_itself_and_its_caller(self, rig: Rig) -> None:
        hello = rig.provider.pool.hello()
        assert (hello.pool_id, hello.department, hello.connector) == (
            rig.provider.pool_id,
            rig.provider.department,
            rig.provider.connector,
        )
        assert hello.max_batch_records == MAX_BATCH_RECORDS
        assert hello.certificate_expires > hello.server_time
        assert rig.consumer.pool.hello().receipt_public_key == hello.receipt_public_key

    def test_a_schema_is_found_by_topic_and_by_id(self, rig: Rig, resource: Resource) -> None:
        assert json.loads(resource.text)["name"] == "Person"
        assert rig.provider.pool.schema(schema_id=resource.schema_id) == (resource.schema_id, resource.text)
        with raises(InvalidError, Reason.SUBJECT_UNKNOWN):
            rig.provider.pool.schema(UNKNOWN_TOPIC)
        with raises(InvalidError, Reason.SCHEMA_UNKNOWN):
            rig.provider.pool.schema(schema_id=999_999)

    def test_a_receipt_says_what_was_appended_and_is_signed(self, rig: Rig, resource: Resource) -> None:
        batch = resource.batch(rows(1, 2, 3), source_position=b"row 3")
        (receipt,) = resource.publish(batch)
        assert (receipt.lane, receipt.sequence, receipt.root) == (resource.lane.lane, 1, batch.root)
        assert receipt.source_position == b"row 3"
        assert sum(run.last - run.first + 1 for run in receipt.runs) == 3
        assert receipt.entry_id
        verify_receipt(receipt, rig.provider.pool.hello().receipt_public_key)

    def test_the_same_batch_again_gets_the_same_receipt_and_is_not_appended_again(self, resource: Resource) -> None:
        consumer = resource.granted()
        first, second = resource.batch(rows(1, 2)), resource.batch(rows(3))
        receipts = resource.publish(first, second)
        assert resource.publish(first) == receipts[:1]
        assert resource.publish(first, second) == receipts
        assert len(consumer.fetch().values) == 3

    def test_receipts_come_in_order_and_several_batches_may_be_under_way(self, rig: Rig, resource: Resource) -> None:
        batches = [resource.batch(rows(n)) for n in range(12)]
        receipts = list(rig.provider.pool.publish(resource.topic, iter(batches), in_flight=4))
        assert [(each.sequence, each.root) for each in receipts] == [(each.sequence, each.root) for each in batches]

    def test_an_error_of_the_iterator_of_batches_comes_back_to_the_caller(self, rig: Rig, resource: Resource) -> None:
        class SourceError(Exception):
            pass

        def batches() -> Iterator[Batch]:
            yield resource.batch(rows(1))
            raise SourceError

        with pytest.raises(SourceError):
            list(rig.provider.pool.publish(resource.topic, batches()))

    def test_a_number_too_high_is_a_gap(self, resource: Resource) -> None:
        resource.publish(resource.batch(rows(1)))
        resource.batch(rows(2))
        with raises(ConflictError, Reason.SEQUENCE_GAP):
            resource.publish(resource.batch(rows(3)))

    def test_a_batch_is_chained_to_the_one_before_it(self, resource: Resource) -> None:
        resource.publish(resource.batch(rows(1)))
        resource.lane.root = b"r" * 32
        with raises(ConflictError, Reason.PREVIOUS_ROOT_MISMATCH):
            resource.publish(resource.batch(rows(2)))

    def test_a_number_is_given_once(self, rig: Rig, resource: Resource) -> None:
        resource.publish(resource.batch(rows(1)))
        resource.lane = rig.provider.lane(resource.topic)
        with raises(ConflictError, Reason.SEQUENCE_CONFLICT):
            resource.publish(resource.batch(rows(2)))

    def test_a_lane_is_resumed_after_its_last_batch(self, rig: Rig, resource: Resource) -> None:
        head = rig.provider.pool.resume(resource.topic)
        assert (head.sequence, head.root, head.source_position) == (0, NO_ROOT, b"")
        batches = [resource.batch(rows(1), source_position=b"1"), resource.batch(rows(2), source_position=b"2")]
        resource.publish(*batches)
        head = rig.provider.pool.resume(resource.topic)
        assert (head.sequence, head.root, head.source_position) == (2, batches[1].root, b"2")
        resource.publish(resource.batch(rows(3)))
        assert rig.provider.pool.resume(resource.topic).sequence == 3

    def test_a_provider_is_told_whether_history_is_kept(self, rig: Rig, resource: Resource) -> None:
        assert rig.provider.pool.resume(resource.topic).keeps_history
        resource.publish(resource.batch(rows(1)))
        assert rig.provider.pool.resume(resource.topic).keeps_history
        rig.keep_latest(resource.topic)
        assert not rig.provider.pool.resume(resource.topic).keeps_history
        assert not rig.second.pool.resume(resource.topic).keeps_history

    def test_each_connector_has_a_lane_of_its_own(self, rig: Rig, resource: Resource) -> None:
        resource.publish(resource.batch(rows(1)))
        assert rig.second.pool.resume(resource.topic).sequence == 0
        other = rig.second.lane(resource.topic)
        (receipt,) = resource.publish(other.batch(resource.values(rows(2))), machine=rig.second)
        assert (receipt.lane, receipt.sequence) == (other.lane, 1)

    def test_an_unknown_topic_is_refused(self, rig: Rig) -> None:
        lane = rig.provider.lane(UNKNOWN_TOPIC)
        with raises(RefusedError, Reason.RESOURCE_UNKNOWN):
            rig.provider.pool.resume(UNKNOWN_TOPIC)
        with raises(RefusedError, Reason.RESOURCE_UNKNOWN):
            list(rig.provider.pool.publish(UNKNOWN_TOPIC, [lane.batch(Packed.of([frame(1, b"x")]))]))

    def test_another_department_s_topic_is_refused(self, rig: Rig, resource: Resource) -> None:
        lane = rig.consumer.lane(resource.topic)
        with raises(RefusedError, Reason.NOT_PROVIDER):
            rig.consumer.pool.resume(resource.topic)
        with raises(RefusedError, Reason.NOT_PROVIDER):
            resource.publish(lane.batch(resource.values(rows(1))), machine=rig.consumer)

    def test_records_of_an_earlier_schema_are_taken_and_of_an_unknown_one_refused(
        self, rig: Rig, resource: Resource
    ) -> None:
        rig.evolve(resource.topic, WIDER)
        schema_id, text = rig.provider.pool.schema(resource.topic)
        assert schema_id != resource.schema_id
        consumer = resource.granted("id")
        both = [*resource.values(rows(1)), *framed(schema_id, text, rows(2, note="x"))]
        resource.publish(resource.lane.batch(Packed.of(both)))
        assert [each["id"] for each in consumer.records(consumer.fetch())] == ["p1", "p2"]
        unknown = resource.lane.batch(framed(999_999, text, rows(3, note="x")))
        assert refusal(resource, unknown).reason is Reason.SCHEMA_UNKNOWN

    def test_bad_records_are_named_and_the_mended_batch_takes_the_same_number(self, resource: Resource) -> None:
        good = list(resource.values(rows(1, 2)))
        cut = frame(resource.schema_id, b"\xff")
        error = refusal(resource, resource.lane.batch(Packed.of([good[0], cut, good[1], cut])))
        assert error.reason is Reason.RECORD_INVALID
        assert error.sequence == 1
        assert [row.index for row in error.rows] == [1, 3]
        assert {row.field for row in error.rows} == {"id"}
        resource.lane = resource.rig.provider.lane(resource.topic)
        (receipt,) = resource.publish(resource.lane.batch(Packed.of(good)))
        assert receipt.sequence == 1

    def test_what_is_behind_a_refused_batch_is_not_appended(self, rig: Rig, resource: Resource) -> None:
        batches = [
            resource.batch(rows(1)),
            resource.lane.batch(Packed.of([frame(resource.schema_id, b"\xff")])),
            resource.batch(rows(2)),
        ]
        receipts: list[int] = []
        with raises(BatchRefusedError, Reason.RECORD_INVALID) as caught:
            receipts.extend(each.sequence for each in rig.provider.pool.publish(resource.topic, batches))
        assert (receipts, caught.value.sequence) == ([1], 2)
        assert rig.provider.pool.resume(resource.topic).root == batches[0].root

    def test_a_batch_that_another_key_signed_is_refused(self, rig: Rig, resource: Resource) -> None:
        stranger = replace(rig.provider, key=Ed25519PrivateKey.generate()).lane(resource.topic)
        error = refusal(resource, stranger.batch(resource.values(rows(1))))
        assert (error.reason, error.rows) == (Reason.SIGNATURE_INVALID, ())

    def test_a_batch_of_another_connector_s_lane_is_refused(self, rig: Rig, resource: Resource) -> None:
        batch = rig.second.lane(resource.topic).batch(resource.values(rows(1)))
        assert refusal(resource, batch).reason is Reason.SIGNATURE_INVALID

    def test_the_signature_covers_the_records(self, resource: Resource) -> None:
        batch = resource.batch(rows(1, 2))
        other = resource.values(rows(1, 3))
        assert refusal(resource, replace(batch, values=other)).reason is Reason.SIGNATURE_INVALID
        assert refusal(resource, another_root(batch)).reason is Reason.SIGNATURE_INVALID
        assert refusal(resource, replace(batch, previous_root=b"r" * 32)).reason is Reason.SIGNATURE_INVALID

    @pytest.mark.parametrize(
        ("form", "reason"),
        [
            (lambda resource: resource.lane.batch(Packed.of([])), Reason.BATCH_EMPTY),
            (
                lambda resource: resource.lane.batch(Packed.of([b"v"] * (MAX_BATCH_RECORDS + 1))),
                Reason.BATCH_TOO_LARGE,
            ),
            (lambda resource: resource.batch(rows(1), source_position=b"x" * 129), Reason.REQUEST_INVALID),
            (lambda resource: resource.lane.batch(resource.values(rows(1)), marks=b"\x1f"), Reason.REQUEST_INVALID),
            (lambda resource: replace(resource.batch(rows(1, 2)), marks=bytes([FIRST])), Reason.REQUEST_INVALID),
            (
                lambda resource: resource.lane.batch(resource.values(rows(1)), marks=b"\x23", void_keys=[b"p1"]),
                Reason.RECORD_INVALID,
            ),
            (lambda resource: resource.lane.batch(Packed.of([b""])), Reason.RECORD_INVALID),
            (lambda resource: resource.lane.batch(Packed.of([b"no frame"])), Reason.RECORD_INVALID),
        ],
        ids=["empty", "too large", "long position", "unknown mark", "a mark too few", "a void with a value",
             "an upsert without one", "without a frame"],
    )  # fmt: skip
    def test_a_batch_whose_parts_do_not_fit_is_refused(
        self, resource: Resource, form: Callable[[Resource], Batch], reason: Reason
    ) -> None:
        assert refusal(resource, form(resource)).reason is reason


class FetchContract(_WithResource):
    """What a grant delivers, to whom, for what, and until when."""

    def test_a_grant_describes_what_it_delivers(self, resource: Resource) -> None:
        consumer = resource.granted("id", "age")
        described = consumer.pool.describe(consumer.grant_id)
        assert (described.grant_id, described.topic, described.state) == (consumer.grant_id, resource.topic, "active")
        assert [each["name"] for each in json.loads(described.schema_text)["fields"]] == ["id", "age"]
        assert consumer.pool.schema(schema_id=described.schema_id)[0] == described.schema_id
        assert described.expires > consumer.pool.hello().server_time
        assert described.provider == resource.rig.provider.department
        resource.publish(resource.batch(rows(1)))
        assert len(consumer.fetch(described.position).values) == 1, "its position is one to fetch from"

    def test_a_description_is_refused_for_a_purpose_or_case_that_a_fetch_may_not_state(
        self, resource: Resource
    ) -> None:
        consumer = resource.granted()
        for declared, reason in (
            ({"purpose": "statistics", "case": CASE}, Reason.PURPOSE_MISMATCH),
            ({"purpose": PURPOSE, "case": "C-OTHER"}, Reason.CASE_MISMATCH),
            ({"purpose": PURPOSE}, Reason.CASE_MISSING),
        ):
            with raises(RefusedError, reason):
                consumer.pool.describe(consumer.grant_id, **declared)
        assert consumer.pool.describe(consumer.grant_id, purpose=PURPOSE, case=CASE).state == "active"

    def test_the_granted_rows_and_fields_and_nothing_else_are_released(self, resource: Resource) -> None:
        consumer = resource.granted("id", "age", district="d1")
        resource.publish(resource.batch(rows(1, 2, 3)), resource.batch(rows(4, 5)))
        result = consumer.fetch()
        assert consumer.records(result) == [{"id": f"p{n}", "age": n} for n in (1, 3, 5)]
        assert result.caught_up
        assert result.entry_id
        assert set(map(len, result.keys())) == {16}
        assert len(set(result.keys())) == len(result.times()) == 3

    def test_a_release_without_records_has_no_entry(self, resource: Resource) -> None:
        consumer = resource.granted(district="d1")
        resource.publish(resource.batch(rows(2, 4)))
        result = consumer.fetch()
        assert (len(result.values), result.entry_id, result.caught_up) == (0, "", True)

    def test_pages_follow_each_other_without_gap_or_overlap(self, resource: Resource) -> None:
        consumer = resource.granted()
        resource.publish(*(resource.batch(rows(*range(start, start + 5))) for start in range(0, 20, 5)))
        position, found = b"", []
        for page in itertools.count(1):
            result = consumer.fetch(position, max_records=7)
            assert len(result.values) <= 7
            found += [each["age"] for each in consumer.records(result)]
            position = result.next_position
            if result.caught_up:
                assert page >= 3
                break
        assert sorted(found) == list(range(20))

    def test_at_the_end_the_position_stays_and_an_earlier_one_gives_the_same_again(self, resource: Resource) -> None:
        consumer = resource.granted()
        resource.publish(resource.batch(rows(1, 2)))
        first = consumer.fetch()
        end = consumer.fetch(first.next_position)
        assert (end.next_position, len(end.values), end.caught_up, end.entry_id) == (first.next_position, 0, True, "")
        repeated = consumer.fetch()
        assert replace(repeated, entry_id=first.entry_id, next_position=first.next_position) == first
        assert repeated.entry_id != first.entry_id, "each release has an entry of its own"

    def test_a_record_key_is_stable_within_a_grant_and_means_nothing_in_another(self, resource: Resource) -> None:
        one, other = resource.granted(), resource.granted()
        resource.publish(resource.batch(rows(1)))
        before = one.fetch()
        resource.publish(resource.batch(rows(1, district="d9"), seen=KeyOccurrence.AGAIN))
        after = one.fetch(before.next_position)
        assert before.keys() == after.keys()
        assert before.keys() != other.fetch().keys()[:1]
        assert before.times()[0] <= after.times()[0]

    def test_what_leaves_the_rows_is_withdrawn_and_what_was_never_in_them_is_not(self, resource: Resource) -> None:
        consumer = resource.granted(district="d1")
        resource.publish(resource.batch(rows(1, 3, 5)))
        before = consumer.fetch()
        keys = {str(record["id"]): key for key, record in consumer.decode(before) if record}
        resource.publish(
            resource.batch(rows(1, district="d9"), seen=KeyOccurrence.FIRST),
            resource.batch(rows(3, district="d9"), seen=KeyOccurrence.UNKNOWN),
            resource.batch(rows(7, district="d9"), seen=KeyOccurrence.AGAIN),
            resource.batch(rows(8, district="d9"), seen=KeyOccurrence.UNKNOWN),
            resource.voids("p5", "p9", "p8"),
            resource.batch(rows(1, 3, district="d8"), seen=KeyOccurrence.AGAIN),
        )
        result = consumer.fetch(before.next_position)
        assert sorted(result.keys()) == sorted((keys["p1"], keys["p3"], keys["p5"])), "each once, whatever its mark"
        assert not any(result.values)
        assert result.entry_id, "a withdrawal is a release"
        repeated = consumer.fetch(before.next_position)
        assert (repeated.keys(), repeated.values) == (result.keys(), result.values)
        whole = consumer.decode(consumer.fetch(BEGINNING))
        assert sorted(key for key, row in whole if row is None) == sorted(result.keys()), "a replay withdraws the same"

    def test_a_fetch_that_waits_gets_what_comes_meanwhile(self, resource: Resource) -> None:
        consumer = resource.granted()
        results: list[FetchResult] = []
        waiting = threading.Thread(target=lambda: results.append(consumer.fetch(wait=30.0)))
        waiting.start()
        resource.publish(resource.batch(rows(1)))
        waiting.join(60)
        assert [len(each.values) for each in results] == [1]
        empty = consumer.fetch(results[0].next_position, wait=0.05)
        assert (len(empty.values), empty.caught_up) == (0, True)

    def test_a_committed_position_is_where_a_fetch_without_one_begins(self, resource: Resource) -> None:
        consumer = resource.granted()
        resource.publish(resource.batch(rows(1)))
        first = consumer.fetch()
        assert consumer.commit(first.next_position)
        assert consumer.pool.describe(consumer.grant_id).position == first.next_position
        resource.publish(resource.batch(rows(2)))
        assert [each["id"] for each in consumer.records(consumer.fetch())] == ["p2"]
        assert len(consumer.fetch(BEGINNING).values) == 2, "and one 0 byte begins again"

    @pytest.mark.parametrize("position", [b"nonsense", bytes(64)], ids=["short", "long"])
    def test_a_position_that_is_none_is_refused(self, resource: Resource, position: bytes) -> None:
        consumer = resource.granted()
        for call in (consumer.fetch, consumer.commit):
            with raises(InvalidError, Reason.POSITION_INVALID):
                call(position)

    def test_only_a_position_can_be_committed(self, resource: Resource) -> None:
        consumer = resource.granted()
        for position in (b"", BEGINNING):
            with raises(InvalidError, Reason.POSITION_INVALID):
                consumer.commit(position)

    def test_a_position_of_another_grant_is_refused(self, resource: Resource) -> None:
        one, other = resource.granted(), resource.granted()
        position = one.fetch().next_position
        for call in (other.fetch, other.commit):
            with raises(InvalidError, Reason.POSITION_INVALID):
                call(position)

    @pytest.mark.parametrize(
        ("declared", "reason"),
        [
            ({"purpose": ""}, Reason.PURPOSE_MISSING),
            ({"purpose": "research"}, Reason.PURPOSE_MISMATCH),
            ({"case": ""}, Reason.CASE_MISSING),
            ({"case": "ANOTHER-1"}, Reason.CASE_MISMATCH),
        ],
        ids=["no purpose", "another purpose", "no case", "another case"],
    )
    def test_purpose_and_case_are_those_of_the_grant(
        self, resource: Resource, declared: dict[str, Any], reason: Reason
    ) -> None:
        consumer = resource.granted()
        position = consumer.fetch().next_position
        with raises(RefusedError, reason):
            consumer.fetch(**declared)
        with raises(RefusedError, reason):
            consumer.pool.commit(consumer.grant_id, position, **{"purpose": PURPOSE, "case": CASE, **declared})

    def test_a_grant_is_its_consumer_s_alone(self, rig: Rig, resource: Resource) -> None:
        consumer = resource.granted()
        for pool, grant_id, reason in (
            (rig.consumer.pool, UNKNOWN_GRANT, Reason.GRANT_UNKNOWN),
            (rig.provider.pool, consumer.grant_id, Reason.GRANT_OTHER_CONSUMER),
        ):
            stranger = Consumer(pool, grant_id)
            for call in (stranger.fetch, lambda: stranger.commit(b"p"), lambda: pool.describe(grant_id)):  # noqa: B023
                with raises(RefusedError, reason):
                    call()

    def test_a_grant_that_was_not_approved_releases_nothing(self, rig: Rig, resource: Resource) -> None:
        consumer = Consumer(rig.consumer.pool, rig.request(resource.topic, ["id"]))
        for call in (consumer.fetch, lambda: consumer.pool.describe(consumer.grant_id)):
            with raises(RefusedError, Reason.GRANT_NOT_ACTIVE):
                call()

    def test_a_suspended_grant_releases_nothing_and_is_still_described(self, rig: Rig, resource: Resource) -> None:
        consumer = resource.granted()
        resource.publish(resource.batch(rows(1)))
        position = consumer.fetch().next_position
        rig.suspend(consumer.grant_id)
        for call in (consumer.fetch, lambda: consumer.commit(position)):
            with raises(RefusedError, Reason.GRANT_SUSPENDED):
                call()
        assert consumer.pool.describe(consumer.grant_id).state == "suspended"

    def test_an_expired_grant_releases_nothing(self, rig: Rig, resource: Resource) -> None:
        consumer = Consumer(rig.consumer.pool, rig.expired(resource.topic))
        for call in (consumer.fetch, lambda: consumer.commit(b"p")):
            with raises(RefusedError, Reason.GRANT_EXPIRED):
                call()


class ReportContract:
    """What a report promises."""

    def test_a_report_is_taken_however_often_it_replaces_the_one_before(self, rig: Rig) -> None:
        for state in (StreamState.RUNNING, StreamState.WAITING):
            stream = StreamReport(
                name="people.v1",
                direction=Direction.PUBLISH,
                mode="snapshot",
                state=state,
                sequence=2**62,
                quarantine={"NULL_NOT_ALLOWED": 3},
            )
            report = ConnectorReport(program="exchange-pool/0.1.0", started=1, streams=[stream])
            answer = rig.second.pool.report(report)
            assert answer is not None
            assert answer.next >= 1

    def test_a_report_beyond_its_bounds_is_refused(self, rig: Rig) -> None:
        stream = StreamReport(name="people.v1", direction=Direction.PUBLISH, state=StreamState.DONE)
        for wrong in (
            replace(stream, name="a row's value"),
            replace(stream, reason="what went wrong, in words"),
            replace(stream, quarantine={f"CODE_{chr(97 + n % 26)}_{chr(97 + n // 26)}": 1 for n in range(101)}),
            replace(stream, last_success=-1),
        ):
            with raises(InvalidError, Reason.REQUEST_INVALID):
                rig.second.pool.report(ConnectorReport(program="p", started=1, streams=[wrong]))
        with raises(InvalidError, Reason.REQUEST_INVALID):
            rig.second.pool.report(ConnectorReport(program="p", started=1, streams=[stream] * 2))

    def test_totals_of_a_reconciliation_get_an_entry_each(self, rig: Rig) -> None:
        ranges = [KeyRangeTotals(digit, 3, 4, False) for digit in "0123456789abcdef"]
        totals = ReconciliationTotals(
            direction=Direction.PUBLISH, stream="people.v1", sequence=7, ranges=ranges, set_aside=1, equal=False
        )
        entries = [rig.second.pool.reconciled(totals) for _ in range(2)]
        assert all(entries)
        assert len({*entries}) == 2
        for wrong in (replace(totals, stream="a row's value"), replace(totals, equal=True)):
            with raises(InvalidError, Reason.REQUEST_INVALID):
                rig.second.pool.reconciled(wrong)


class PoolContract(PublishContract, FetchContract, ReportContract):
    """Everything that the port promises."""


def raises(kind: type[PoolError], reason: Reason) -> Any:
    """Expect an error of the pool with this reason."""
    return pytest.raises(kind, check=lambda error: error.reason is reason)


def refusal(resource: Resource, batch: Batch) -> BatchRefusedError:
    """Publish a batch that is refused; give the refusal."""
    with pytest.raises(BatchRefusedError) as caught:
        resource.publish(batch)
    assert caught.value.sequence == batch.sequence
    return caught.value
