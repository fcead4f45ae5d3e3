"""Three processes beside the pool, on either broker: a source connector, a sink connector, a second consumer."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from exchange.demo.people import DISTRICTS, persons
from schemas import library
from tests.kit.patience import PATIENCE, wait_for
from tests.kit.world.world import BIN, World, in_clear

pytestmark = [pytest.mark.e2e, pytest.mark.postgres, pytest.mark.timeout(600)]
FIELDS = ("id_number", "full_name", "household_division_code")
PEOPLE = list(persons(3_000))
NAMES = list(PEOPLE[0])


@contextmanager
def process(*command: str, stdin: int | None = None) -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    )  # fmt: skip
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            said, _ = started.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            started.send_signal(signal.SIGABRT)  # the fault handler prints where each thread stands
            said, _ = started.communicate()
            pytest.fail(f"{command[0]} did not stop on SIGTERM:\n{said[-8000:]}")
        print(said[-3000:])


def write_config(folder: Path, content: dict[str, Any]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "connector.yaml"
    file.write_text(json.dumps({"version": 1, **content}, ensure_ascii=False))
    return str(file)


def kind_of(name: str) -> str:
    if name == "id_number":
        return "TEXT NOT NULL PRIMARY KEY"
    return "DATE" if name.endswith("_date") else "BOOLEAN" if isinstance(PEOPLE[0][name], bool) else "TEXT"


def make_source(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        columns = ", ".join(f"{name} {kind_of(name)}" for name in NAMES)
        connection.execute(f"CREATE TABLE population ({columns})")
        marks = ", ".join("?" * len(NAMES))
        rows = [[str(v) if k.endswith("date") and v else v for k, v in person.items()] for person in PEOPLE]
        connection.executemany(f"INSERT INTO population VALUES ({marks})", rows)
    connection.close()


def table(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the sink's valid rows by id number."""
    connection = sqlite3.connect(path, timeout=PATIENCE)
    try:
        rows = connection.execute(f"SELECT {', '.join(FIELDS)} FROM residents WHERE _deleted_at IS NULL").fetchall()
    except sqlite3.OperationalError:
        return {}
    finally:
        connection.close()
    return {row[0]: row for row in rows}


def change(path: Path, statement: str, *values: str) -> None:
    connection = sqlite3.connect(path, timeout=PATIENCE)
    with connection:
        connection.execute(statement, values)
    connection.close()


def test_the_sink_table_follows_the_source_table_and_so_does_a_second_consumer(world: World) -> None:
    folder = world.folder / "processes"
    folder.mkdir()
    police, labour = world.department("公安局二"), world.department("人社局二")
    police.offer("residents.v1", library.text("population"), code="101001/000002")
    source_db, sink_db = folder / "police.db", folder / "labour.db"
    make_source(source_db)
    row_filter = {"op": "eq", "field": "household_division_code", "value": DISTRICTS[1]}
    terms = {"row_filter": row_filter, **in_clear(*FIELDS)}
    grants = [labour.request("residents.v1", list(FIELDS), **terms) for _ in range(2)]
    for grant_id in grants:
        police.approve(grant_id)
    gateway = world.addresses["gateway"]

    def place(office: Any, connector: str) -> dict[str, Any]:
        identity = office.enrol(connector)
        del identity
        where = world.folder / "identities" / office.id / connector
        return {"connector": connector, "exchange": {"identity": str(where), "gateway": gateway}}

    source = write_config(
        folder / "source",
        {
            **place(police, "residents-source"),
            "source": {"kind": "sql", "url": f"sqlite:///{source_db}", "poll": "1s"},
            "publish": [{"resource": "residents.v1", "table": "population", "deletes": {"stop_if_more_than": "100%"}}],
        },
    )
    sink = write_config(
        folder / "sink",
        {
            **place(labour, "residents-sink"),
            "subscribe": [
                {
                    "grant": grants[0],
                    "purpose": "eligibility",
                    "case": "STANDING-1",
                    "wait": "1s",
                    "into": {"kind": "sql", "url": f"sqlite:///{sink_db}", "table": "residents", "create_table": True},
                }
            ],
        },
    )
    place(labour, "second-consumer")
    second_identity = str(world.folder / "identities" / labour.id / "second-consumer")
    out = folder / "second.jsonl"
    expected = {
        str(person["id_number"]): tuple(str(person[name]) for name in FIELDS)
        for person in PEOPLE
        if person["household_division_code"] == DISTRICTS[1]
    }
    consumer = (sys.executable, "-m", "tests.kit.world.second_consumer", second_identity, grants[1], str(out), gateway)
    with (
        process(str(BIN / "pool-connect"), "run", source),
        process(str(BIN / "pool-connect"), "run", sink),
        process(*consumer, stdin=subprocess.PIPE),
    ):
        wait_for(lambda: table(sink_db) == expected, "the sink's table equals the granted rows of the source")
        moved, renamed = list(expected)[:2]
        change(source_db, "UPDATE population SET household_division_code = ? WHERE id_number = ?", DISTRICTS[2], moved)
        change(source_db, "UPDATE population SET full_name = '改名' WHERE id_number = ?", renamed)
        gone = list(expected)[2]
        change(source_db, "DELETE FROM population WHERE id_number = ?", gone)
        del expected[moved], expected[gone]
        expected[renamed] = (renamed, "改名", DISTRICTS[1])
        wait_for(lambda: table(sink_db) == expected, "a changed, a moved and a deleted row have followed")

        def latest() -> dict[str, tuple[str, ...]]:
            by_key: dict[str, Any] = {}
            for line in out.read_text().splitlines() if out.exists() else ():
                record = json.loads(line)
                by_key[record["key"]] = record["row"]
            rows = [row for row in by_key.values() if row is not None]
            return {row["id_number"]: tuple(row[name] for name in FIELDS) for row in rows}

        wait_for(lambda: latest() == expected, "the second consumer saw the same")
