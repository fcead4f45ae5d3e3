"""Two pools as processes, and a connector between them: killed again and again, it loses and doubles nothing."""

import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from connectors.port import ChangePosition
from connectors.sources.pool.provenance import Origin
from exchange.client import Identity, PoolClient
from exchange.demo.people import persons
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from schemas import library
from schemas.names import Topic
from tests.kit.patience import PATIENCE, wait_for
from tests.kit.share import count, random_of
from tests.kit.world.publisher import AGAIN, Publisher, chunks, framed
from tests.kit.world.world import Office, World, in_clear

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]
THERE, HERE = Topic.parse("population.v1"), Topic.parse("population-of-the-province.v1")
FIELDS = ["id_number", "full_name", "birth_date"]
PEOPLE = list(persons(400))
OWN = {"_source_pool": "source_pool", "_source_department": "source_department", "_source_entry": "source_entry"}


@pytest.fixture(scope="module")
def province() -> Iterator[World]:
    with World.start(pool_id="province") as world:
        yield world


class Register:
    """The department that publishes in the province's pool."""

    def __init__(self, world: World) -> None:
        self.office = world.department("公安厅")
        self.office.offer(str(THERE), library.text("population"))
        self.identity = self.office.enrol("register")
        self._world = world
        name = self.identity.connector
        self._lane = Publisher(self.identity.pool_id, self.office.id, name, str(THERE), self.identity.signing_key)

    def publish(self, rows: list[dict[str, Any]], *voids: str) -> None:
        with self._world.client(self.identity) as pool:
            schema_id, text = pool.schema(THERE)
            values = [framed(schema_id, text, part) for part in chunks(rows, 50)]
            batches = [self._lane.batch(each, marks=bytes([AGAIN] * len(each))) for each in values]
            if voids:
                batches.append(self._lane.voids([each.encode() for each in voids]))
            list(pool.publish(THERE, batches))


def schema_here() -> str:
    """Return the province's schema with the fields that are granted, and three that say where a record is from."""
    schema = json.loads(library.text("population"))
    fields = [{**each, "check": []} for each in schema["fields"] if each["name"] in FIELDS]
    said = {"zh": "来源", "level": "G2", "personal": "N", "sensitive": "N", "mask": "none"}
    fields += [{"name": name, "type": ["null", "string"], "default": None, **said} for name in OWN.values()]
    subject = [{"kind": "person", "role": "self", "id": "id_number"}]
    return json.dumps({**schema, "fields": fields, "subject": subject})


def drawn(pool: PoolClient, grant: str) -> list[tuple[bytes, dict[str, Any] | None]]:
    """Return what a grant delivers from its beginning: record key and values, None for a withdrawal."""
    found: list[tuple[bytes, dict[str, Any] | None]] = []
    position = b"\0"
    while True:
        fetched = pool.fetch(grant, position=position, purpose="eligibility", case="STANDING-1")
        values = list(fetched.values)
        engine = engine_for(parse(pool.schema(schema_id=fetched.schema_id)[1])) if values else None
        for key, value in zip(fetched.keys(), values, strict=True):
            assert engine is not None
            found.append((key, engine.decode([value[5:]]).to_pylist()[0] if value else None))
        position = fetched.next_position
        if fetched.caught_up:
            return found


def state(history: list[tuple[bytes, dict[str, Any] | None]]) -> dict[str, dict[str, Any]]:
    latest = dict(history)
    return {row["id_number"]: row for row in latest.values() if row is not None}


class Bridge:
    """The connector: a consumer's machine in the province, a provider's in the city."""

    def __init__(self, folder: Path, province: World, city: World, there: Identity, here: Identity, grant: str) -> None:
        self.config = folder / "bridge.yaml"
        self.state = folder / "state" / "bridge"
        self._programs = city.programs
        draw = {"grant": grant, "purpose": "eligibility", "case": "STANDING-1", "batch_rows": 60}
        content = {
            "version": 1,
            "connector": "bridge",
            "exchange": {"identity": str(identity(city, here)), "gateway": city.addresses["gateway"]},
            "source": {
                "kind": "pool",
                "identity": str(identity(province, there)),
                "gateway": province.addresses["gateway"],
            },
            "publish": [
                {"resource": str(HERE), "draw": draw, "columns": {own: {"as": name} for own, name in OWN.items()}}
            ],
        }
        self.config.write_text(json.dumps(content))

    def run(self, *words: str) -> str:
        return self._programs.run("pool-connect", words[0], str(self.config), *words[1:]).stdout

    def start(self) -> subprocess.Popen[str]:
        command = self._programs.command("pool-connect", "run", str(self.config))
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True, env={**os.environ})

    def receipts(self) -> list[tuple[int, bytes]]:
        with closing(sqlite3.connect(f"file:{self.state / HERE.__str__()}.sqlite3?mode=ro", uri=True)) as sql:
            return sql.execute("SELECT records, source_position FROM receipts ORDER BY sequence").fetchall()


def identity(world: World, own: Identity) -> Path:
    return world.folder / "identities" / own.department / own.connector


@pytest.fixture
def bridge(tmp_path: Path, province: World, postgres_world: World) -> tuple[Register, Bridge, Office]:
    city = postgres_world
    register = Register(province)
    consumer = province.department("某市大数据局")
    there = consumer.enrol("bridge")
    grant = consumer.request(str(THERE), FIELDS, **in_clear(*FIELDS))
    register.office.approve(grant)
    office = city.department("大数据局")
    office.offer(str(HERE), schema_here(), code=city.new_code())
    return register, Bridge(tmp_path, province, city, there, office.enrol("bridge"), grant), office


@pytest.mark.counted
def test_what_a_pool_delivers_reaches_the_consumers_of_another(
    bridge: tuple[Register, Bridge, Office], province: World, postgres_world: World
) -> None:
    register, connector, office = bridge
    city, seed = postgres_world, random_of("other pool")
    register.publish(PEOPLE)
    checked = connector.run("check")
    assert "pool province, connector bridge there" in checked
    assert "its view fits the contract" in checked
    expected = {row["id_number"]: row for row in PEOPLE}
    for number in range(count(6, 3)):  # killed wherever it is
        process = connector.start()
        try:
            process.wait(seed.uniform(1.2, 3.5))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
        changed = [{**row, "full_name": f"{row['full_name']}{number}"} for row in seed.sample(PEOPLE, 40)]
        gone = seed.sample(sorted(expected), 3)
        changed = [row for row in changed if row["id_number"] in expected and row["id_number"] not in gone]
        register.publish(changed, *gone)
        expected.update((row["id_number"], row) for row in changed)
        for each in gone:
            del expected[each]
    connector.run("run", "--once")

    consumer = city.department("民政局")
    grant = consumer.request(str(HERE), [*FIELDS, *OWN.values()], **in_clear(*FIELDS, *OWN.values()))
    office.approve(grant)
    with city.client(consumer.enrol("reader")) as pool:
        history = drawn(pool, grant)
        found = state(history)
        assert {key: row["full_name"] for key, row in found.items()} == {
            key: row["full_name"] for key, row in expected.items()
        }
        assert {(row["source_pool"], row["source_department"]) for row in found.values()} == {
            ("province", register.office.id)
        }
        stated = [(key, json.dumps(value, default=str)) for key, value in history]
        assert len(stated) == len(set(stated)), "nothing comes twice"

        # While it runs: a person who is erased there is gone here too.
        process = connector.start()
        try:
            erased = min(expected)
            register.publish([], erased)
            wait_for(lambda: erased not in state(drawn(pool, grant)), "the withdrawal")
        finally:
            process.send_signal(signal.SIGTERM)
            out = process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == 0, out

    # A receipt of this pool names the release of the other one, which is in its log.
    origins = [
        origin
        for _, position in connector.receipts()
        if (change := ChangePosition.parse(position)) and (origin := Origin.parse(change.origin))
    ]
    assert origins
    assert {origin.pool for origin in origins} == {"province"}
    entry = province.root.get(f"/audit/entries/{origins[-1].entry}")
    assert entry["entry"]["action"] == "exchange:records:fetch"
