"""Attacks on a void: after its acknowledgement nobody gets the person any more, by any way that a consumer has."""

import struct
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import count

import pytest
import sqlalchemy as sa

from exchange.client import Identity
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from schemas.errors import PoolError, Reason
from schemas.names import Topic
from schemas.record import FRAME_SIZE
from tests.e2e.conftest import kafka_section
from tests.kit import share
from tests.kit.patience import PATIENCE
from tests.kit.world.publisher import Publisher, framed
from tests.kit.world.world import Office, World
from tests.torture.clerks import SCHEMA

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow]
BEGINNING = b"\x00"
VALID_FROM = struct.pack("<qq", 1_800_000_000_000_000, 0)
_numbers = count(1)


@pytest.fixture(scope="module", params=["postgres", pytest.param("kafka", marks=pytest.mark.kafka)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    extra = kafka_section(request.getfixturevalue("kafka_node")) if request.param == "kafka" else ""
    # The consumers replay all records as often as they can, to be in the middle of it when a void is acknowledged.
    with World.start(f"[limits]\nrepeats_per_minute = 1000000\n{extra}") as world:
        yield world


class Scene:
    """A provider with permits p0 … p39 in the pool, and departments that draw them."""

    def __init__(self, world: World) -> None:
        number = next(_numbers)
        self.world = world
        self.topic = Topic.parse(f"permits-{number}.v1")
        self.provider = world.department(f"许可局{number}")
        self.provider.offer(str(self.topic), SCHEMA, level="G2")
        self.source = self.provider.enrol("source")
        self.publisher = Publisher(
            self.source.pool_id, self.provider.id, "source", str(self.topic), self.source.signing_key
        )
        self.publish(range(40))

    def publish(self, numbers: Sequence[int], version: int = 1) -> None:
        with self.world.client(self.source) as pool:
            schema_id, text = pool.schema(self.topic)
            rows = [{"permit_no": f"p{n}", "version": version, "district": "东城", "note": None} for n in numbers]
            list(pool.publish(self.topic, [self.publisher.batch(framed(schema_id, text, rows))]))

    def void(self, *numbers: int, valid: bytes = b"") -> None:
        """Publish voids; return when they are acknowledged."""
        with self.world.client(self.source) as pool:
            keys = [f"p{n}".encode() for n in numbers]
            list(pool.publish(self.topic, [self.publisher.voids(keys, valid=valid * len(keys))]))

    def consumer(self, name: str) -> "Consumer":
        return Consumer(self, self.world.department(f"{name}{next(_numbers)}"))


class Consumer:
    """A department with a grant on all history."""

    def __init__(self, scene: Scene, office: Office) -> None:
        self.world = scene.world
        self.office = office
        self.identity: Identity = office.enrol("drawer")
        self.grant = office.request(str(scene.topic), ["permit_no", "version"])
        scene.provider.approve(self.grant)
        self.position = b""

    def drain(self, *, again: bool = False, max_records: int = 10_000) -> tuple[dict[str, int], int]:
        """Draw to the end, from the beginning if *again*; return the versions by key and the number of withdrawals."""
        position = BEGINNING if again else self.position
        found: dict[str, int] = {}
        withdrawn = 0
        with self.world.client(self.identity) as pool:
            schema = parse(pool.describe(self.grant, purpose="eligibility", case="STANDING-1").schema_text)
            while True:
                got = pool.fetch(
                    self.grant, position=position, purpose="eligibility", case="STANDING-1", max_records=max_records
                )
                values = [value for value in got.values if value]
                withdrawn += len(got.values) - len(values)
                rows = engine_for(schema).decode([value[FRAME_SIZE:] for value in values]).to_pylist() if values else []
                found |= {row["permit_no"]: row["version"] for row in rows}
                if got.caught_up and got.next_position == position:
                    break
                position = got.next_position
        self.position = position
        return found, withdrawn


@pytest.fixture
def scene(world: World) -> Scene:
    return Scene(world)


def test_after_a_void_neither_a_replay_nor_a_new_grant_delivers_the_person(scene: Scene) -> None:
    old = scene.consumer("核查局")
    assert set(old.drain()[0]) == {f"p{n}" for n in range(40)}
    scene.void(7, 8)
    remaining = {f"p{n}" for n in range(40)} - {"p7", "p8"}
    assert old.drain() == ({}, 2), "who got the person is told to delete it"
    assert old.drain(again=True) == (dict.fromkeys(remaining, 1), 2), "a replay, whose target may hold the person"
    new = scene.consumer("统计局")
    assert new.drain(max_records=5) == (dict.fromkeys(remaining, 1), 0), "a new grant learns nothing of the person"


def test_a_person_published_after_the_void_is_delivered_again(scene: Scene) -> None:
    scene.void(7)
    scene.publish([7], version=2)
    found, _ = scene.consumer("核查局").drain()
    assert found["p7"] == 2
    assert len(found) == 40


def test_a_void_with_a_valid_time_ends_validity_alone(scene: Scene) -> None:
    scene.void(7, valid=VALID_FROM)
    found, withdrawn = scene.consumer("核查局").drain()
    assert found["p7"] == 1, "what was true before stays readable to a grant with history"
    assert withdrawn == 1


def test_a_consumer_that_lags_gets_no_value_that_was_retracted_meanwhile(scene: Scene) -> None:
    consumer = scene.consumer("核查局")
    with scene.world.client(consumer.identity) as pool:
        got = pool.fetch(consumer.grant, purpose="eligibility", case="STANDING-1", max_records=1)
        assert len(got.values) == 1
        consumer.position = got.next_position
    scene.void(*range(40))
    assert consumer.drain()[0] == {}


def test_after_a_restart_of_the_pool_the_person_stays_away(scene: Scene) -> None:
    consumer = scene.consumer("核查局")
    scene.void(7)
    scene.world.stop()
    scene.world.serve()
    assert "p7" not in consumer.drain()[0]


@pytest.mark.parametrize(
    ("attack", "finding"),
    [
        ("DELETE FROM erasure_retraction WHERE topic = :topic", "retraction.missing"),
        ("UPDATE erasure_retraction SET position = 0 WHERE topic = :topic", "retraction.moved"),
        ("UPDATE erasure_retraction SET key = sha256(key) WHERE topic = :topic", "retraction.missing"),
    ],
)
def test_who_takes_a_retraction_from_the_database_gets_nothing_of_the_topic(
    scene: Scene, attack: str, finding: str
) -> None:
    consumer = scene.consumer("核查局")
    scene.void(7, 8)
    run_sql(scene, attack)
    with pytest.raises(PoolError) as caught:
        consumer.drain()
    assert caught.value.reason is Reason.ROW_FORGED
    scene.void(9)  # a later one does not repair it
    with pytest.raises(PoolError):
        consumer.drain()
    assert "erasure_retraction_version" in (scene.world.folder / "pool.log").read_text(), "reported"
    verified = scene.world.programs.run(
        "pool", "broker", "verify", "--data", str(scene.world.data), "--topic", str(scene.topic), check=False
    )
    assert verified.returncode == 1
    assert finding in verified.stdout
    assert "retraction.forged" in verified.stdout


def test_a_gateway_that_has_seen_retractions_does_not_forget_them_when_all_are_set_back(scene: Scene) -> None:
    consumer = scene.consumer("核查局")
    scene.void(7)
    assert "p7" not in consumer.drain()[0]
    run_sql(scene, "DELETE FROM erasure_retraction WHERE topic = :topic")
    run_sql(scene, "DELETE FROM erasure_retraction_version WHERE topic = :topic")
    for _ in range(2):
        with pytest.raises(PoolError) as caught:
            consumer.drain(again=True)
        assert caught.value.reason is Reason.ROW_FORGED


def test_a_day_s_count_that_is_set_back_is_named(scene: Scene) -> None:
    consumer = scene.consumer("核查局")
    assert len(consumer.drain()[0]) == 40
    data = scene.world.data
    arguments = (
        "pool", "audit", "verify", "--files", str(data / "log"), "--key", str(data / "log.pub"),
        "--database", str(data / "database-url"), "--secrets", str(data / "secrets"),
    )  # fmt: skip
    scene.world.stop()  # so that the files hold every entry
    scene.world.serve()
    assert "quota.lowered" not in scene.world.programs.run(*arguments, check=False).stdout
    run_sql(scene, "UPDATE access_quota SET released = 0 WHERE :topic <> ''")
    verified = scene.world.programs.run(*arguments, check=False)
    assert verified.returncode == 1
    assert any("quota.lowered" in line and consumer.grant in line for line in verified.stdout.splitlines())


def run_sql(scene: Scene, statement: str) -> None:
    engine = sa.create_engine((scene.world.data / "database-url").read_text().strip())
    try:
        with engine.begin() as connection:
            assert connection.execute(sa.text(statement), {"topic": str(scene.topic)}).rowcount > 0
    finally:
        engine.dispose()


@pytest.mark.counted
def test_while_it_is_drawn_no_value_arrives_after_the_acknowledgement_of_its_void(scene: Scene) -> None:
    """Others draw all records again and again; each void is acknowledged, and from then on its value never comes."""
    consumers = [scene.consumer("核查局"), scene.consumer("统计局")]
    gone: dict[str, float] = {}
    late: list[str] = []
    drawn = [0, 0]
    stop = threading.Event()

    def draw(number: int) -> None:
        while not stop.is_set():
            before = time.monotonic()
            try:
                found, _ = consumers[number].drain(again=True, max_records=7)
            except PoolError as error:
                late.append(str(error))
                return
            # What was retracted before this pass began must not be in it.
            late.extend(key for key in found if gone.get(key, before) < before)
            drawn[number] += 1

    threads = [threading.Thread(target=draw, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(share.count(20, 8)):
            scene.void(number)
            gone[f"p{number}"] = time.monotonic()
        enough = [count + 2 for count in drawn]
        give_up = time.monotonic() + PATIENCE
        while any(have < wanted for have, wanted in zip(drawn, enough, strict=True)) and not late:
            assert time.monotonic() < give_up, "the consumers draw"
            time.sleep(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not late
