"""A city's file of service requests through the whole line: `pool-connect run --once` in, ward 6 out.

With the real file where it lies beside the project (74,401 rows), and always with a generated one of the same habits:
keys that stand twice, wards written like `20.0`, empty cells. The rule for duplicates: every row whose
service_request_number stands more than once is quarantined. What the consumer must get is computed here with the csv
module alone.
"""

import csv
import json
import random
import shutil
import sqlite3
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_connectors_sanitation import HEADER, REAL, SCHEMA
from tests.kit.share import count
from tests.kit.world.world import Office, World, run

pytestmark = [pytest.mark.e2e, pytest.mark.postgres, pytest.mark.slow, pytest.mark.timeout(600)]
TOPIC = "sanitation-request.v1"
KEY, WARD = HEADER.index("service_request_number"), HEADER.index("ward")
FIELDS = ["service_request_number", "creation_date", "status", "street_address", "ward"]
LABELS = {"Completed": "completed", "Completed - Dup": "completed_dup", "Open": "open", "Open - Dup": "open_dup"}


def governed() -> str:
    """Return the schema with every field classified, as the catalogue demands."""
    label = {"level": "G2", "personal": "N", "sensitive": "N", "mask": "none"}
    fields = [{**field, "zh": field["name"], **label} for field in SCHEMA["fields"]]  # type: ignore[attr-defined]
    return json.dumps({**SCHEMA, "zh": "环境卫生诉求", "fields": fields})


def invented(count: int) -> list[list[str]]:
    draw = random.Random(311)
    rows = []
    for number in range(count):
        key = number if draw.random() > 0.02 else draw.randrange(count)
        ward = f"{draw.randrange(1, 51)}.0" if draw.random() > 0.02 else ""
        state = draw.choice(list(LABELS))
        street = f"{draw.randrange(9999)} W {draw.randrange(99)} ST"
        done = "2011-03-28" if state.startswith("Completed") else ""
        cells = ["2000-01-03", state, done, f"00-{key:08d}", "Sanitation Code Violation", "", street, ""]
        rows.append([*cells, "1165166.5", "1872509.02", ward, "9.0", "", "", ""])
    return rows


def ward_six(rows: list[list[str]]) -> set[tuple[str, ...]]:
    times = Counter(cells[KEY] for cells in rows)
    return {
        (cells[KEY], cells[0], LABELS[cells[1]], cells[6], cells[WARD].removesuffix(".0"))
        for cells in rows
        if times[cells[KEY]] == 1 and cells[WARD] == "6.0"
    }


class City:
    """The department that drops the file."""

    def __init__(self, world: World, office: Office, folder: Path) -> None:
        self.drop = folder / "drop"
        self.drop.mkdir(parents=True)
        office.enrol("city-drop")
        identity = world.folder / "identities" / office.id / "city-drop"
        columns: dict[str, Any] = {
            "status": {"values": LABELS},
            "what_is_the_nature_of_this_code_violation": {"null_values": [""]},
        }
        content = {
            "version": 1,
            "connector": "city-drop",
            "exchange": {"identity": str(identity), "gateway": world.addresses["gateway"]},
            "source": {"kind": "files", "path": str(self.drop), "ready_when": "marker .ok"},
            "publish": [{"resource": TOPIC, "columns": columns}],
        }
        self.config = folder / "connector.yaml"
        self.config.write_text(json.dumps(content))

    def publish(self, rows: list[list[str]]) -> str:
        with (self.drop / "requests.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([HEADER, *rows])
        (self.drop / "requests.csv.ok").touch()
        done = run("pool-connect", "run", str(self.config), "--once")
        return done.stdout + done.stderr


class Consumer:
    """The department that gets ward 6."""

    def __init__(self, world: World, office: Office, grant_id: str, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.table = folder / "target.db"
        office.enrol("ward-sink")
        identity = world.folder / "identities" / office.id / "ward-sink"
        into = {"kind": "sql", "url": f"sqlite:///{self.table}", "table": "requests", "create_table": True}
        content = {
            "version": 1,
            "connector": "ward-sink",
            "exchange": {"identity": str(identity), "gateway": world.addresses["gateway"]},
            "subscribe": [{"grant": grant_id, "purpose": "eligibility", "case": "STANDING-1", "into": into}],
        }
        self.config = folder / "connector.yaml"
        self.config.write_text(json.dumps(content))

    def draw(self) -> set[tuple[str, ...]]:
        run("pool-connect", "run", str(self.config), "--once")
        connection = sqlite3.connect(self.table)
        found = connection.execute(f"SELECT {', '.join(FIELDS)} FROM requests WHERE _deleted_at IS NULL").fetchall()
        columns = [row[1] for row in connection.execute("PRAGMA table_info(requests)")]
        connection.close()
        assert {name for name in columns if not name.startswith("_")} == set(FIELDS)
        return {tuple(map(str, row)) for row in found}


def balance(read: int, published: int, quarantined: int, unchanged: int, voided: int) -> str:
    told = f"{read:,} rows read = {published:,} published + {quarantined:,} quarantined + {unchanged:,} unchanged"
    return f"{told}; {voided:,} voided"


@pytest.mark.counted
@pytest.mark.parametrize("which", ["invented", "real"])
def test_the_file_goes_in_whole_and_one_ward_comes_out(which: str, request: pytest.FixtureRequest) -> None:
    if which == "real" and not REAL.exists():
        pytest.skip("the real file is an addition; the same is tested with an invented one")
    if which == "real":
        with REAL.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))[1:]
        assert len(rows) == 74_401
    else:
        rows = invented(count(3_000, 1_000))
    doubles = sum(count for count in Counter(cells[KEY] for cells in rows).values() if count > 1)
    once = len(rows) - doubles
    with World.start() if which == "real" else nullcontext(request.getfixturevalue("postgres_world")) as world:
        folder = world.folder / which
        provider, consumer = world.department("城管局"), world.department("卫健委")
        provider.offer(TOPIC, governed(), level="G2", code="201001/000001")
        grant_id = consumer.request(TOPIC, FIELDS, row_filter={"op": "eq", "field": "ward", "value": 6}, ceiling="G2")
        provider.approve(grant_id)
        city = City(world, provider, folder / "city")
        sink = Consumer(world, consumer, grant_id, folder / "ward")

        assert balance(len(rows), once, doubles, 0, 0) in city.publish(rows)
        assert sink.draw() == ward_six(rows)

        assert " published" not in city.publish(rows).replace(" 0 published", ""), "the same content publishes nothing"

        times = Counter(cells[KEY] for cells in rows)
        place = next(at for at, cells in enumerate(rows) if times[cells[KEY]] == 1 and cells[WARD] == "6.0")
        changed = [list(cells) for cells in rows]
        changed[place][6] = "ONE CELL"
        assert balance(len(rows), 1, doubles, once - 1, 0) in city.publish(changed)
        assert sink.draw() == ward_six(changed)

        removed = changed[:place] + changed[place + 1 :]
        assert balance(len(rows) - 1, 0, doubles, once - 1, 1) in city.publish(removed)
        assert sink.draw() == ward_six(removed)
        shutil.rmtree(folder)
