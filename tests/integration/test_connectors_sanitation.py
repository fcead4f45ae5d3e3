"""A city's real file, 74,401 service requests, as a department would drop it; and a small one with the same habits.

Rule for duplicates: every row whose service_request_number stands more than once is quarantined (DUPLICATE_KEY).
"""

import csv
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connectors.mapping.mapping import Column
from connectors.port import RejectCode
from schemas.record import KeyOccurrence, Operation
from tests.kit.world.department import Department, only

REAL = Path(os.environ.get("POOL_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "chicago_311_sanitation.csv"
TOPIC = "sanitation-request.v1"
KEY = "service_request_number"


def _field(name: str, kind: Any, *, nullable: bool = True) -> dict[str, Any]:
    return {"name": name, "type": ["null", kind], "default": None} if nullable else {"name": name, "type": kind}


DATE = {"type": "int", "logicalType": "date"}
STATUS = {"type": "enum", "name": "Status", "symbols": ["completed", "completed_dup", "open", "open_dup"]}
SCHEMA = {
    "type": "record",
    "name": "SanitationRequest",
    "key": [KEY],
    "fields": [
        _field("creation_date", DATE, nullable=False),
        _field("status", STATUS, nullable=False),
        _field("completion_date", DATE),
        _field(KEY, "string", nullable=False),
        _field("type_of_service_request", "string", nullable=False),
        _field("what_is_the_nature_of_this_code_violation", "string"),
        _field("street_address", "string", nullable=False),
        _field("zip_code", "int"),
        _field("x_coordinate", "double"),
        _field("y_coordinate", "double"),
        _field("ward", "int"),
        _field("police_district", "int"),
        _field("community_area", "int"),
        _field("latitude", "double"),
        _field("longitude", "double"),
    ],
}
COLUMNS = {
    "status": Column(
        values={
            "Completed": "completed",
            "Completed - Dup": "completed_dup",
            "Open": "open",
            "Open - Dup": "open_dup",
        }
    ),
    "what_is_the_nature_of_this_code_violation": Column(null_values=("",)),
}
HEADER = [field["name"] for field in SCHEMA["fields"]]  # type: ignore[index]

ROWS = [
    "2000-01-03,Completed,2011-03-28,00-0001,Violation,,4853 S WOOD,,1165166.5,18725.02,20.0,9.0,61.0,41.8,-87.6",
    "2000-01-03,Open,,00-0002,Violation,Other,4837 S DAMEN,60620.0,,,6.0,9.0,61.0,,",
    "2000-01-04,Open - Dup,,00-0003,Violation,Other,1 W 47 ST,60620.0,,,,,,,",
    "2000-01-04,Open,,00-0003,Violation,Other,1 W 47 ST,60620.0,,,6.0,,,,",
    "2000-01-05,Completed - Dup,2011-03-28,00-0004,Violation,Other,2 W 47 ST,60620.0,,,6.0,,,,",
]


def department_of(folder: Path) -> Department:
    made = Department(folder, topic=TOPIC, schema=SCHEMA, columns=dict(COLUMNS))
    made.limits = replace(made.limits, batch_rows=5_000)
    return made


def drop(department: Department, content: list[list[str]]) -> None:
    department.put(content, header=HEADER, name="requests.csv")


def test_the_habits_of_the_file_in_small(tmp_path: Path) -> None:
    department = department_of(tmp_path)
    drop(department, [line.split(",") for line in ROWS])
    run = only(department.publish())
    assert (run.read, run.published, run.quarantined) == (5, 3, 2)
    state = department.twin.state(TOPIC)
    assert {key: record["ward"] for key, record in state.items()} == {b"00-0001": 20, b"00-0002": 6, b"00-0004": 6}
    assert state[b"00-0002"]["completion_date"] is None
    assert state[b"00-0001"]["what_is_the_nature_of_this_code_violation"] is None
    assert state[b"00-0004"]["status"] == "completed_dup"


@pytest.mark.skipif(not REAL.exists(), reason="the real file is an addition; the habits are tested above without it")
def test_the_real_file(tmp_path: Path) -> None:
    department = department_of(tmp_path)
    with REAL.open(encoding="utf-8", newline="") as file:
        content = [list(cells) for cells in csv.reader(file)][1:]
    times = Counter(cells[3] for cells in content)
    once = {cells[3]: cells for cells in content if times[cells[3]] == 1}

    drop(department, content)
    run = only(department.publish())
    assert (run.read, run.published, run.quarantined, run.unchanged) == (74_401, 73_655, 746, 0)
    assert Counter(each.code for each in department.quarantined()) == {RejectCode.DUPLICATE_KEY: 746}
    assert len({each.original.split(b",")[3] for each in department.quarantined()}) == 371

    state = {key.decode(): record for key, record in department.twin.state(TOPIC).items()}
    assert set(state) == set(once)
    for key, cells in once.items():
        record = state[key]
        assert record["creation_date"].isoformat() == cells[0]
        assert (record["ward"], record["latitude"]) == (
            int(float(cells[10])) if cells[10] else None,
            float(cells[13]) if cells[13] else None,
        )
    ward = {key for key, record in state.items() if record["ward"] == 6}
    assert ward == {key for key, cells in once.items() if cells[10] == "6.0"}

    drop(department, content)
    assert department.publish() == [], "the same content again is not even read"

    count = len(department.twin.records(TOPIC))
    changed = [list(cells) for cells in content]
    place = next(at for at, cells in enumerate(changed) if cells[3] in once)
    changed[place][6] = "ONE CELL"
    drop(department, changed)
    run = only(department.publish())
    assert (run.published, run.voided, run.quarantined, run.unchanged) == (1, 0, 746, 73_654)
    (last,) = department.twin.records(TOPIC)[count:]
    assert last.value is not None
    assert (last.value["street_address"], last.mark.seen) == ("ONE CELL", KeyOccurrence.AGAIN)

    drop(department, changed[:place] + changed[place + 1 :])
    run = only(department.publish())
    assert (run.published, run.voided, run.unchanged) == (0, 1, 73_654)
    last = department.twin.records(TOPIC)[-1]
    assert (last.mark.operation, last.key.decode()) == (Operation.VOID, changed[place][3])
