"""A consumer looks for what its grant does not show: how many rows, which keys, how long fields, and when.

It has everything that a department has: its certificate, its grant, every answer and every position. It may send what
it likes, as often as it likes. Time that a call takes is not looked at here (docs/threat-model.md).
"""

import hashlib
import ssl
import struct
import threading
from collections.abc import Iterator
from typing import Literal

import grpc
import httpx
import pytest
import sqlalchemy as sa
from google.protobuf.unknown_fields import UnknownFieldSet

from exchange.admin_client import AdminClient
from exchange.client import FetchResult
from schemas.errors import InvalidError, Reason, RefusedError
from schemas.proto.pool.v1 import exchange_pb2 as wire
from schemas.proto.pool.v1 import exchange_pb2_grpc as stubs
from schemas.record import KeyOccurrence
from tests.contract.pool_suite import BEGINNING, CASE, PURPOSE, WIDER, Consumer, Resource, Rig, rows
from tests.contract.test_pool import Served
from tests.e2e.conftest import kafka_section
from tests.kit.patience import PATIENCE
from tests.kit.world.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]


@pytest.fixture(scope="module", params=["postgres", pytest.param("kafka", marks=pytest.mark.kafka)])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    extra = kafka_section(request.getfixturevalue("kafka_node")) if request.param == "kafka" else ""
    with World.start(extra) as world:
        rig = Served(world)
        yield rig
        rig.close()


@pytest.fixture
def rig(served: Served) -> Rig:
    return served


@pytest.fixture
def resource(rig: Rig) -> Resource:
    return Resource(rig)


def everything(consumer: Consumer, position: bytes = BEGINNING, **bounds: int) -> list[FetchResult]:
    """Fetch from a position to the end."""
    answers = []
    while not answers or not answers[-1].caught_up:
        answers.append(consumer.fetch(position, **bounds))
        position = answers[-1].next_position
    return answers


def clear_token(consumer: Consumer, offsets: list[int]) -> bytes:
    """Return a position of the form that pools of the version before made, with these offsets."""
    (generation,) = struct.unpack_from("<Q", consumer.pool.describe(consumer.grant_id).position, 1)
    grant_id = consumer.grant_id
    head = struct.pack("<B8sqH", 1, hashlib.sha256(grant_id.encode()).digest()[:8], generation, len(offsets))
    return head + struct.pack(f"<{2 * len(offsets)}Q", *offsets, *offsets)


_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")


def offsets_in(token: bytes) -> list[list[int]]:
    """Return every vector of four offsets below 100,000, of 4 to 8 bytes each, that may be read in a token."""
    found = []
    for size in range(4, 9):
        for at in range(len(token) - 4 * size + 1):
            parts = [token[at + size * index : at + size * (index + 1)] for index in range(4)]
            for order in _ORDERS:
                vector = [int.from_bytes(part, order) for part in parts]
                if any(vector) and max(vector) < 100_000:
                    found.append(vector)
    return found


def test_a_position_shows_no_offset(resource: Resource) -> None:
    consumer = resource.granted(district="d1")
    resource.publish(resource.batch(rows(*range(1_000))))
    tokens = [answer.next_position for answer in everything(consumer, max_records=100)]
    tokens.append(consumer.pool.describe(consumer.grant_id).position)
    assert [offsets_in(token) for token in tokens] == [[] for _ in tokens]
    assert len(set(map(len, tokens))) == 1, "of one size, whatever the offsets are"
    first, again = (consumer.fetch(max_records=100).next_position for _ in range(2))
    assert first != again, "and of one position there are many tokens"


def test_a_position_cannot_be_made(resource: Resource) -> None:
    consumer = resource.granted(district="d1")
    resource.publish(resource.batch(rows(*range(40))))
    token = consumer.fetch(max_records=5).next_position
    made = [clear_token(consumer, [offset] * 4) for offset in (0, 1, 5, 10)]
    changed = [token[:at] + bytes([token[at] ^ 1]) + token[at + 1 :] for at in range(len(token))]
    for forged in made + changed:
        for call in (consumer.fetch, consumer.commit):
            with pytest.raises(InvalidError) as refused:
                call(forged)
            assert refused.value.reason is Reason.POSITION_INVALID


def test_no_answer_counts_what_is_hidden(served: Served, resource: Resource) -> None:
    consumer = resource.granted(district="d1")
    resource.publish(resource.batch(rows(1, *range(0, 100, 2))))
    address, identity = served._world.addresses["gateway"], served._labour.enrol("raw")
    credentials = grpc.ssl_channel_credentials(identity.authority, identity.key, identity.certificate)
    with grpc.secure_channel(address, credentials) as channel:
        call = stubs.ExchangeStub(channel).Fetch  # type: ignore[no-untyped-call]
        header = wire.RequestHeader(purpose=PURPOSE, case_number=CASE)
        reply = call(wire.FetchRequest(header=header, grant_id=consumer.grant_id, position=BEGINNING))
    assert len(reply.view.record_keys) == 16
    numbers = {field.number for field, _ in reply.ListFields()} | {each.field_number for each in UnknownFieldSet(reply)}
    assert numbers <= {1, 2, 3, 4, 6}, "view, position, entry, leaf and caught up"


def test_no_metric_counts_what_is_hidden(served: Served, resource: Resource) -> None:
    """The registry's listener shows the process's metrics: among them, how many records were published in the pool."""
    resource.granted(district="d1")
    resource.publish(resource.batch(rows(*range(0, 100, 2))))
    world, office = served._world, served._labour
    office.enrol("meter")
    folder = world.folder / "identities" / office.id / "meter"

    def metrics(account: AdminClient | None) -> httpx.Response:
        trust = ssl.create_default_context(cafile=str(world.data / "ca" / "authority.crt"))
        if account is None:
            trust.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        headers = {} if account is None else account._headers
        return httpx.get(f"https://{world.addresses['registry']}/metrics", headers=headers, verify=trust)

    roles = ("catalogue_editor", "sharing_office_head", "security_officer")
    for who in (None, *(office.account(role) for role in roles)):
        answer = metrics(who)
        assert (answer.status_code, "pool_records" in answer.text) == (403, False)
    assert "pool_records_published_total" in metrics(world.root).text


def test_asking_for_one_record_at_a_time_does_not_count_what_lies_between(resource: Resource) -> None:
    consumer = resource.granted(district="d1")
    resource.publish(resource.batch(rows(*range(0, 20, 2), 1, *range(20, 40, 2), 3, 5, *range(40, 60, 2))))
    for size in (1, 2, 3):
        sizes = [len(answer.values) for answer in everything(consumer, max_records=size)]
        assert sizes == [size] * (3 // size) + [3 % size], "each answer is full, and the one at the end is what is left"


def test_how_many_records_come_does_not_depend_on_fields_that_are_not_granted(rig: Rig) -> None:
    counts = []
    for note in ("", "甲" * 2_000):
        resource = Resource(rig)
        rig.evolve(resource.topic, WIDER)
        resource.schema_id, resource.text = rig.provider.pool.schema(resource.topic)
        consumer = resource.granted("id", district="d1")
        resource.publish(resource.batch(rows(*range(60), note=note)))
        counts.append([len(answer.values) for answer in everything(consumer, max_bytes=40)])
    assert counts[0] == counts[1]
    assert sum(counts[0]) == 30


def test_a_fetch_that_finds_nothing_does_not_tell_whether_something_came(resource: Resource) -> None:
    consumer = resource.granted(district="d1")
    resource.publish(resource.batch(rows(1)))
    position = consumer.fetch().next_position
    for batch in range(3):
        answer = consumer.fetch(position)
        assert (answer.next_position, len(answer.values), answer.caught_up) == (position, 0, True)
        resource.publish(resource.batch(rows(*range(batch * 100, batch * 100 + 20, 2))))
    resource.publish(resource.batch(rows(7)))
    assert len(consumer.fetch(position).values) == 1


def test_a_fetch_that_waits_is_not_woken_by_hidden_rows(resource: Resource) -> None:
    consumer = resource.granted(district="d1")
    resource.publish(resource.batch(rows(1)))
    position = consumer.fetch().next_position
    answers: list[FetchResult] = []
    waiting = threading.Thread(target=lambda: answers.append(consumer.fetch(position, wait=PATIENCE)))
    waiting.start()
    for number in range(0, 20, 2):
        resource.publish(resource.batch(rows(number)))
    assert not answers
    resource.publish(resource.batch(rows(3)))
    waiting.join(PATIENCE)
    assert [len(answer.values) for answer in answers] == [1]


def test_no_key_of_a_hidden_row_is_told(resource: Resource) -> None:
    """200 persons, 25 in the ward that is granted; then each is updated twice, some move, some are void, twice."""
    consumer = resource.granted(district="ward-3")
    people = {number: f"ward-{number % 8}" for number in range(200)}
    told: dict[bytes, int] = {}
    shown: set[bytes] = set()
    position, withdrawn = BEGINNING, 0

    def move(moved: dict[int, str], seen: KeyOccurrence) -> None:
        for district in sorted(set(moved.values())):
            numbers = [number for number in moved if moved[number] == district]
            resource.publish(resource.batch(rows(*numbers, district=district), seen=seen))

    for step in range(4):
        if step < 2:
            move(people, KeyOccurrence.AGAIN if step else KeyOccurrence.UNKNOWN)
        elif step == 2:
            people |= {3: "ward-4", 11: "ward-5", 4: "ward-3"}
            move(people, KeyOccurrence.FIRST)
            move({3: "ward-6"}, KeyOccurrence.AGAIN)
        else:
            for _ in range(2):
                resource.publish(resource.voids(*(f"p{number}" for number in range(40))))
        for answer in everything(consumer, position):
            position = answer.next_position
            for key, value in zip(answer.keys(), answer.values, strict=True):
                told[key] = told.get(key, 0) + 1
                assert value or key in shown, "a withdrawal names what was delivered, and not withdrawn since"
                shown = shown | {key} if value else shown - {key}
                withdrawn += not value
        if step == 1:
            early, early_shown = position, shown
    assert len(told) == 26, "the 25 of the ward and the one who moved there"
    assert withdrawn == 2 + len([number for number in range(40) if people[number] == "ward-3"])
    assert len(shown) == len([number for number in range(40, 200) if people[number] == "ward-3"])
    replayed = everything(consumer)
    assert set(told).issuperset(*(answer.keys() for answer in replayed))
    for answer in everything(consumer, early):
        for key, value in zip(answer.keys(), answer.values, strict=True):
            early_shown = early_shown | {key} if value else early_shown - {key}
    assert early_shown == shown, "a target that was set back gets to the same rows"


def test_what_was_delivered_before_the_upgrade_is_withdrawn_and_nothing_else(
    served: Served, resource: Resource
) -> None:
    consumer = resource.granted(district="d1")
    (receipt,) = resource.publish(resource.batch(rows(*range(40))))
    ends = dict.fromkeys(range(4), 0) | {run.partition: run.last + 1 for run in receipt.runs}
    offsets = [ends[number] for number in range(4)]
    before = {str(row["id"]): key for key, row in consumer.decode(consumer.fetch()) if row}
    committed = clear_token(consumer, offsets)
    _store(served, consumer.grant_id, committed, struct.pack("<4Q", *offsets))
    resource.publish(resource.batch(rows(*range(20), district="d9")), resource.voids("p30", "p31"))
    answer = consumer.fetch(committed)
    assert not any(answer.values)
    assert sorted(answer.keys()) == sorted(before[f"p{number}"] for number in (*range(1, 20, 2), 31))


def test_withdrawals_count_in_the_quota(rig: Served, resource: Resource) -> None:
    grant_id = rig.request(resource.topic, ["id"], "d1", quota_per_day=3)
    rig.approve(grant_id)
    consumer = Consumer(rig.consumer.pool, grant_id)
    resource.publish(resource.batch(rows(1, 3)))
    position = consumer.fetch().next_position
    resource.publish(resource.batch(rows(1, district="d9")))
    position = consumer.fetch(position).next_position
    resource.publish(resource.batch(rows(3, district="d9")))
    with pytest.raises(RefusedError) as refused:
        consumer.fetch(position)
    assert refused.value.reason is Reason.QUOTA_EXHAUSTED


def test_a_position_of_an_earlier_pool_is_read_until_the_first_release(served: Served, resource: Resource) -> None:
    consumer = resource.granted(district="d1")
    (receipt,) = resource.publish(resource.batch(rows(*range(40))))
    ends = dict.fromkeys(range(4), 0) | {run.partition: run.last + 1 for run in receipt.runs}
    offsets = [ends[number] for number in range(4)]
    committed = clear_token(consumer, offsets)
    consumer.fetch()
    _store(served, consumer.grant_id, committed, struct.pack("<4Q", *offsets))
    chosen = clear_token(consumer, [offset + 1 for offset in offsets])
    with pytest.raises(InvalidError):
        consumer.fetch(chosen)
    answer = consumer.fetch(committed)
    assert (len(answer.values), answer.next_position == committed) == (0, False), "the answer has one of today's form"
    assert len(consumer.fetch(committed).values) == 0, "an answer without records changes nothing"
    resource.publish(resource.batch(rows(101)))
    assert len(consumer.fetch(committed).values) == 1
    with pytest.raises(InvalidError, match="without a position to continue after the last commit"):
        consumer.fetch(committed)
    assert len(consumer.fetch().values) == 1, "what was committed before is still where a fetch without one begins"


def _store(served: Served, grant_id: str, committed: bytes, released: bytes) -> None:
    """Put a grant's stored positions into the state in which a pool of the version before left them."""
    url = (served._world.data / "database-url").read_text().strip()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM access_delivered WHERE grant_id = :id"), {"id": grant_id})
        connection.execute(
            sa.text(
                "UPDATE access_position SET committed = :committed, released = :released, tracked = '', runs = 0 "
                "WHERE grant_id = :id"
            ),
            {"id": grant_id, "committed": committed, "released": released},
        )
    engine.dispose()
