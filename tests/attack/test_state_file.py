"""The file of the current state holds what the grant delivers and nothing beyond, or is not there at all.

`pool-connect export` runs as its user runs it, against a served pool. What the grant does not give holds a canary that
is looked for in every byte that the command wrote or printed, and in what is left on the disk.
"""

import csv
import json
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from schemas.errors import Reason
from tests.contract.pool_suite import BEGINNING, CASE, PURPOSE, Consumer, Resource, rows
from tests.contract.test_pool import Served
from tests.e2e.conftest import kafka_section
from tests.kit.patience import wait_for
from tests.kit.world.world import Office, World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

CANARY = "canary-"
FORMS = ("csv", "jsonl", "parquet")


@pytest.fixture(scope="module", params=["postgres", pytest.param("kafka", marks=pytest.mark.kafka)])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    extra = kafka_section(request.getfixturevalue("kafka_node")) if request.param == "kafka" else ""
    with World.start(extra) as world:
        rig = Served(world)
        yield rig
        rig.close()


@pytest.fixture
def resource(served: Served) -> Resource:
    return Resource(served)


class Reader:
    """A consumer's machine with the command and nothing else: no configuration, no state."""

    _numbers = count(1)

    def __init__(self, served: Served, folder: Path, office: Office | None = None) -> None:
        self._world = served._world
        self.folder = folder
        own = (office or served._labour).enrol(f"reader-{next(self._numbers)}")
        self._identity = folder / "identity"
        own.save(self._identity)
        (folder / "out").mkdir()

    def export(self, grant: str, form: str, **more: str) -> tuple[int, str, Path]:
        """Run the command; return its exit code, all that it said, and the file."""
        output = self.folder / "out" / f"state.{form}"
        options = {"identity": str(self._identity), "grant": grant, "purpose": PURPOSE, "case": CASE}
        options |= {"gateway": self._world.addresses["gateway"], **more}
        words = [word for name, value in options.items() if value for word in (f"--{name}", value)]
        done = self._world.programs.run("pool-connect", "export", str(output), *words, check=False)
        return done.returncode, done.stdout + done.stderr, output

    def left(self) -> bytes:
        """Return all that is on the disk of what the command may have written."""
        return b"".join(each.read_bytes() for each in sorted((self.folder / "out").rglob("*")) if each.is_file())


@pytest.fixture
def reader(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    scratch = tmp_path / "out" / "tmp"
    made = Reader(served, tmp_path)
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))  # the scratch of the command is looked through too
    assert tempfile.gettempdir()
    return made


def read(file: Path) -> list[dict[str, Any]]:
    """Return the records of a state file, without the columns of the connector's own."""
    match file.suffix:
        case ".csv":
            with file.open(newline="") as lines:
                found: list[dict[str, Any]] = list(csv.DictReader(lines))
        case ".jsonl":
            found = [json.loads(line) for line in file.read_text().splitlines()]
        case _:
            found = pq.read_table(file).to_pylist()
    assert len({each["_record_key"] for each in found}) == len(found)
    return [{name: each[name] for name in each if not name.startswith("_")} for each in found]


def wait_until_drawn(served: Served, grant: str, expected: set[str]) -> None:
    """Wait until a grant delivers these ids: Kafka shows what it acknowledged a moment later."""
    consumer = Consumer(served.consumer.pool, grant)

    def ids() -> set[str]:
        latest: dict[bytes, str] = {}
        position = BEGINNING
        while True:
            result = consumer.fetch(position)
            for key, record in consumer.decode(result) if len(result.values) else []:
                latest.pop(key, None)
                if record is not None:
                    latest[key] = str(record["id"])
            position = result.next_position
            if result.caught_up:
                return set(latest.values())

    wait_for(lambda: ids() == expected, "what was published")


@pytest.mark.parametrize("form", FORMS)
def test_it_holds_the_granted_rows_and_fields_as_they_are_now(
    served: Served, resource: Resource, reader: Reader, form: str
) -> None:
    hidden = [{"id": f"{CANARY}{number}", "district": "d2", "age": number} for number in range(20)]
    resource.publish(resource.batch([*rows(*range(30)), *hidden]))
    moved = [{"id": "p1", "district": f"{CANARY}elsewhere", "age": 1}]  # it leaves the grant's rows
    resource.publish(resource.batch([*rows(3, district="d1", age=99), *moved]), resource.voids("p5"))
    grant = served.request(resource.topic, ["id", "age"], "d1", filter_discloses=["district"], disclosure_reason="试验")
    served.approve(grant)
    expected = {f"p{number}": str(number) for number in range(1, 30, 2)} | {"p3": "99"}
    for gone in ("p1", "p5"):
        del expected[gone]
    wait_until_drawn(served, grant, set(expected))
    code, said, file = reader.export(grant, form)
    assert code == 0, said
    found = {str(each["id"]): str(each["age"]) for each in read(file)}
    assert found == expected
    assert {name for each in read(file) for name in each} == {"id", "age"}
    assert file.stat().st_mode & 0o777 == 0o600
    manifest = json.loads(file.with_name(f"{file.name}.manifest.json").read_text())
    assert (manifest["records"], manifest["grant"], manifest["bytes"]) == (len(expected), grant, file.stat().st_size)
    entry = served._world.root.get(f"/audit/entries/{manifest['last_entry']}")["entry"]
    assert (entry["action"], entry["purpose"], entry["grant"]["id"]) == ("exchange:records:fetch", PURPOSE, grant)
    everything = reader.left() + said.encode()
    assert CANARY.encode() not in everything
    # A second one is a file of its own; the first is not touched.
    assert reader.export(grant, form)[0] == 1
    assert json.loads(file.with_name(f"{file.name}.manifest.json").read_text()) == manifest


@pytest.mark.parametrize("form", FORMS)
def test_a_mask_is_in_the_file_too(served: Served, resource: Resource, reader: Reader, form: str) -> None:
    people = [{"id": f"p{number}", "district": f"330{CANARY}{number}4321", "age": number} for number in range(5)]
    resource.publish(resource.batch(people))
    grant = served.request(resource.topic, ["id", "district"], masks={"district": "keep_3_4"})
    served.approve(grant)
    wait_until_drawn(served, grant, {f"p{number}" for number in range(5)})
    code, said, file = reader.export(grant, form)
    assert code == 0, said
    assert {each["district"][:3] + each["district"][-4:] for each in read(file)} == {"3304321"}
    assert CANARY.encode() not in reader.left() + said.encode()


def test_what_the_grant_does_not_allow_leaves_no_file(
    served: Served, resource: Resource, reader: Reader, tmp_path_factory: pytest.TempPathFactory
) -> None:
    resource.publish(resource.batch([{"id": f"{CANARY}{n}", "district": "d1", "age": n} for n in range(9)]))
    waiting = served.request(resource.topic, ["id"])
    suspended = served.request(resource.topic, ["id"])
    served.approve(suspended)
    granted = served.request(resource.topic, ["id"])
    served.approve(granted)
    served.suspend(suspended)
    stranger = Reader(served, tmp_path_factory.mktemp("stranger"), served._world.department("住建局"))
    small = served.request(resource.topic, ["id"], quota_per_day=4)
    served.approve(small)
    for machine, grant, more, reason in (
        (reader, waiting, {}, Reason.GRANT_NOT_ACTIVE),
        (reader, suspended, {}, Reason.GRANT_SUSPENDED),
        (reader, granted, {"purpose": "research"}, Reason.PURPOSE_MISMATCH),
        (reader, granted, {"case": "OTHER-2026-1"}, Reason.CASE_MISMATCH),
        (reader, granted, {"case": ""}, Reason.CASE_MISSING),
        (stranger, granted, {}, Reason.GRANT_OTHER_CONSUMER),
        (reader, small, {}, Reason.QUOTA_EXHAUSTED),
    ):
        code, said, file = machine.export(grant, "jsonl", **more)
        assert code == 2, said
        assert reason.value in said
        assert not list(file.parent.glob("*state*")), "neither file nor manifest, nor a part of them"
        assert CANARY.encode() not in machine.left() + said.encode()
