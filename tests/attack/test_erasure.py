"""Attacks on an erasure: somebody has the pool's disk and looks for what was erased, or sets the database back."""

import shutil
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.audit.note import NoteKey
from exchange.audit.verify import verify_files
from exchange.broker.kafka.broker import KafkaBroker
from exchange.client import Identity
from exchange.server.embedded_postgres import EmbeddedPostgres
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError, UnavailableError
from schemas.names import Topic
from schemas.record import FRAME_SIZE
from tests.e2e.conftest import kafka_section
from tests.kit.cases.broker import KEY, append, batch, fresh_topic, key_of, lane_of, partition_of, read_all
from tests.kit.disk_search import found_in, planted
from tests.kit.patience import PATIENCE
from tests.kit.world.kafka import Node
from tests.kit.world.publisher import Publisher, framed
from tests.kit.world.world import World, run
from tests.torture.clerks import SCHEMA

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow]
BEGINNING = b"\x00"
ERASED, KEPT = "Qx7Lm2Pa", "Wd4Rt9Zk"
_numbers = count(1)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World.start() as world:
        yield world


class Scene:
    """A provider with permits in the pool, p7 with a planted value in each of its versions, p8 with another."""

    def __init__(self, world: World) -> None:
        number = next(_numbers)
        self.world = world
        self.topic = Topic.parse(f"permits-{number}.v1")
        self.erased, self.kept = f"{ERASED}{number:02}", f"{KEPT}{number:02}"
        self.provider = world.department(f"许可局{number}")
        self.provider.offer(str(self.topic), SCHEMA, level="G2")
        self.source = self.provider.enrol("source")
        self.publisher = Publisher(
            self.source.pool_id, self.provider.id, "source", str(self.topic), self.source.signing_key
        )
        consumer = world.department(f"核查局{number}")
        self.drawer: Identity = consumer.enrol("drawer")
        self.grant = consumer.request(str(self.topic), ["permit_no", "version", "note"])
        self.provider.approve(self.grant)
        for version in (1, 2, 3):
            self.publish(range(40), version)
        self.publish([7], 4)  # a block so small that PostgreSQL stores it in the row

    def publish(self, numbers: Sequence[int], version: int) -> None:
        notes = {7: planted(self.erased), 8: planted(self.kept)}
        with self.world.client(self.source) as pool:
            schema_id, text = pool.schema(self.topic)
            rows = [
                {"permit_no": f"p{n}", "version": version, "district": "东城", "note": notes.get(n)} for n in numbers
            ]
            list(pool.publish(self.topic, [self.publisher.batch(framed(schema_id, text, rows))]))

    def rows(self) -> list[dict[str, Any]]:
        """Draw everything, from the beginning; by key, the versions of each in their order."""
        with self.world.client(self.drawer) as pool:
            schema = parse(pool.describe(self.grant, purpose="eligibility", case="STANDING-1").schema_text)
            position, found = BEGINNING, []
            while True:
                got = pool.fetch(self.grant, position=position, purpose="eligibility", case="STANDING-1")
                found += [value[FRAME_SIZE:] for value in got.values if value]
                if got.caught_up and got.next_position == position:
                    rows = engine_for(schema).decode(found).to_pylist() if found else []
                    return sorted(rows, key=lambda row: str(row["permit_no"]))
                position = got.next_position

    def propose(self, key: str = "p7", reason: str = "个人信息主体撤回同意") -> str:
        body = {"topic": str(self.topic), "key": [key], "reason": reason}
        return str(self.provider.account("sharing_office_head").post("/erasures", body)["id"])

    def confirm(self, erasure_id: str) -> dict[str, Any]:
        """Confirm as the data authority, and wait until it is carried out."""
        self.world.root.post(f"/erasures/{erasure_id}/confirmation")
        return self.done(erasure_id)

    def done(self, erasure_id: str) -> dict[str, Any]:
        give_up = time.monotonic() + PATIENCE
        while True:
            (found,) = (one for one in self.world.root.get("/erasures") if one["id"] == erasure_id)
            if found["state"] == "done":
                return dict(found)
            assert time.monotonic() < give_up, found
            time.sleep(0.1)


def close_segments(world: World) -> None:
    """Let PostgreSQL write everything to its files, close its write-ahead log, and take statistics."""
    engine = sa.create_engine(
        EmbeddedPostgres(world.data).url_file.read_text().strip(), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
    )
    with engine.connect() as connection:
        for statement in ("ANALYZE", "SELECT pg_switch_wal()", "CHECKPOINT"):
            connection.exec_driver_sql(statement)
    engine.dispose()


def on_disk(scene: Scene, folder: Path | None = None) -> dict[str, list[str]]:
    return found_in(folder or scene.world.data, [scene.erased, scene.kept])


def test_after_an_erasure_no_file_of_the_pool_holds_the_value(world: World) -> None:
    scene = Scene(world)
    close_segments(world)
    before = on_disk(scene)
    assert any("pg_wal" in file for file in before[scene.erased]), before
    assert any("base" in file for file in before[scene.erased]), before
    assert {row["note"] for row in scene.rows()} == {planted(scene.erased), planted(scene.kept), None}
    done = scene.confirm(scene.propose())
    assert done["destroyed"] == 4
    after = on_disk(scene)
    assert after[scene.erased] == [], "a value is left"
    assert after[scene.kept], "the search finds what is there"


def test_all_else_stays_as_it_was_and_the_trace_too(world: World) -> None:
    scene = Scene(world)
    before = scene.rows()
    scene.confirm(scene.propose())
    assert scene.rows() == [row for row in before if row["permit_no"] != "p7"]
    entries = world.root.get("/audit/entries", {"resource": str(scene.topic), "limit": 1000})
    actions = [one["entry"]["action"] for one in entries]
    assert {f"exchange:erasure:{act}" for act in ("propose", "confirm", "complete")} <= set(actions)
    assert actions.count("exchange:records:publish") == 4
    assert '"p7"' not in str(entries)
    give_up = time.monotonic() + PATIENCE
    verified = run("pool", "broker", "verify", "--data", str(world.data), "--topic", str(scene.topic), check=False)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    key = NoteKey.parse((world.data / "log.pub").read_text().strip())
    while not (report := verify_files(world.data / "log", key=key)).ok:
        assert time.monotonic() < give_up, list(report.lines())
        time.sleep(0.2)


def test_from_the_confirmation_on_nothing_of_the_key_is_released_and_a_later_record_is(world: World) -> None:
    scene = Scene(world)
    erasure = scene.propose()
    assert any(row["permit_no"] == "p7" for row in scene.rows()), "a proposal alone does nothing"
    world.root.post(f"/erasures/{erasure}/confirmation")
    assert all(row["permit_no"] != "p7" for row in scene.rows())
    scene.done(erasure)
    scene.publish([7], 9)
    assert [row["version"] for row in scene.rows() if row["permit_no"] == "p7"] == [9]


def test_one_person_alone_erases_nothing(world: World) -> None:
    scene = Scene(world)
    erasure = scene.propose()
    with pytest.raises(RefusedError) as refused:
        scene.provider.account("sharing_office_head").post(f"/erasures/{erasure}/confirmation")
    assert refused.value.reason is Reason.SAME_PERSON
    for role in ("security_officer", "catalogue_editor"):
        with pytest.raises(RefusedError):
            scene.provider.account(role).post(f"/erasures/{erasure}/confirmation")
    operator = world.account(f"operator-{erasure[-6:]}", "operator")
    body = {"topic": str(scene.topic), "key": ["p8"], "reason": "试"}
    for path, sent in (("/erasures", body), (f"/erasures/{erasure}/confirmation", {})):
        with pytest.raises(RefusedError):
            operator.post(path, sent)
    stranger = world.department(f"旁观局{erasure[-6:]}").account("sharing_office_head")
    with pytest.raises(RefusedError):
        stranger.post("/erasures", body)
    assert any(row["permit_no"] == "p7" for row in scene.rows())


def test_a_rejected_erasure_is_not_carried_out_and_the_key_is_in_no_reason(world: World) -> None:
    scene = Scene(world)
    erasure = scene.propose()
    world.root.post(f"/erasures/{erasure}/rejection", {"reason": "未核实身份"})
    with pytest.raises(ConflictError):
        world.root.post(f"/erasures/{erasure}/confirmation")
    with pytest.raises(InvalidError):
        scene.propose(reason="erase p7 please")
    assert any(row["permit_no"] == "p7" for row in scene.rows())


def test_a_restored_database_is_erased_again_before_the_pool_serves(world: World) -> None:
    """The database is set back to a copy from before the erasure; the list in the data folder is not."""
    scene = Scene(world)
    world.stop()
    backup = world.folder / "backup"
    shutil.copytree(world.data / "pg", backup, symlinks=True)
    for path in (backup, *backup.rglob("*")):
        owner = (world.data / "pg").stat()
        shutil.chown(path, owner.st_uid, owner.st_gid)
    world.serve()
    authority = world.account("second-authority", "data_authority")
    body = {"topic": str(scene.topic), "key": ["p7"], "reason": "依法删除"}
    erasure = authority.post("/erasures", body)["id"]
    scene.confirm(erasure)
    world.stop()
    listed = world.data / "erasures.jsonl"
    lines = listed.read_text()
    listed.unlink()  # a start writes again what the database knows
    world.serve()
    world.stop()
    assert sorted(filter(None, listed.read_text().splitlines())) == sorted(filter(None, lines.splitlines()))
    shutil.rmtree(world.data / "pg")
    shutil.move(backup, world.data / "pg")
    assert on_disk(scene)[scene.erased], "the copy has it"
    world.serve()
    assert on_disk(scene)[scene.erased] == []
    with pytest.raises(UnavailableError) as stopped:  # nothing at all leaves a database that is older than its log
        scene.rows()
    assert stopped.value.reason is Reason.LOG_BEHIND


@pytest.mark.kafka
def test_on_kafka_the_operator_carries_it_out_and_no_segment_holds_the_value(kafka_node: Node) -> None:
    with World.start(kafka_section(kafka_node)) as world:
        scene = Scene(world)
        before = scene.rows()
        found = on_disk(scene, kafka_node.folder)
        assert any(file.endswith(".log") for file in found[scene.erased]), found
        erasure = scene.propose()
        world.root.post(f"/erasures/{erasure}/confirmation")
        assert scene.rows() == [row for row in before if row["permit_no"] != "p7"]
        operator = kafka_node.operator
        apply = ("broker", "apply", "--data", str(world.data))
        done = run("pool", *apply, "--certificate", str(operator.certificate), "--key", str(operator.key), check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert scene.done(erasure)["destroyed"] == 4
        after = on_disk(scene, kafka_node.folder)
        assert after[scene.erased] == [], "a value is left"
        assert after[scene.kept], "the search finds what is there"
        assert on_disk(scene)[scene.erased] == []
        assert scene.rows() == [row for row in before if row["permit_no"] != "p7"], "each version of the others stays"
        scene.publish([7], 9)
        assert [row["version"] for row in scene.rows() if row["permit_no"] == "p7"] == [9]
        verified = run("pool", "broker", "verify", "--data", str(world.data), "--topic", str(scene.topic), check=False)
        assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.kafka
def test_the_gateway_s_certificate_does_not_erase_on_kafka(kafka_node: Node) -> None:
    broker = KafkaBroker(kafka_node.settings(), key=KEY)
    try:
        topic = fresh_topic()
        broker.create_topic(topic)
        append(broker, batch(lane_of(topic), 1, [7]))
        with pytest.raises(ConflictError):
            broker.erase(topic, partition_of(key_of(7)), key_of(7), 1 << 60)
        assert sum(one.value is not None for one in read_all(broker, topic)) == 1
    finally:
        broker.close()
