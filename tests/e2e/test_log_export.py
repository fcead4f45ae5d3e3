"""Exports of the log as CSV and JSON lines: whole, with ids and actors, safe for a spreadsheet, and logged."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from exchange.audit.search.entry_rows import COLUMNS
from schemas import library
from schemas.errors import PoolError, Reason, RefusedError
from tests.kit.world.world import Office, World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

BEGINNING = b"\x00"
FORMULA = '=HYPERLINK("https://x")'


@pytest.fixture(scope="module")
def office(postgres_world: World) -> Office:
    provider, consumer = postgres_world.department("民政局出口"), postgres_world.department("医保局出口")
    provider.offer("residents-exported.v1", library.text("population"))
    grant = consumer.request("residents-exported.v1", ["id_number"])
    with postgres_world.client(consumer.enrol("sink")) as client, pytest.raises(PoolError):
        client.fetch(grant, position=BEGINNING, purpose=FORMULA, case="STANDING-1")
    return consumer


def downloaded(account: Any, path: str, query: dict[str, Any]) -> str:
    with account.download(path, query) as parts:
        return b"".join(parts).decode()


def exports(world: World) -> list[dict[str, Any]]:
    return [one["entry"] for one in world.root.get("/audit/entries", {"action": "audit:log:export", "limit": 1_000})]


def test_an_export_has_what_a_search_has_and_is_two_entries(postgres_world: World, office: Office) -> None:
    root, query = postgres_world.root, {"department": office.id}
    before = exports(postgres_world)
    rows = list(csv.DictReader(io.StringIO(downloaded(root, "/audit/entries.csv", query), newline="")))
    documents = [json.loads(line) for line in downloaded(root, "/audit/entries.jsonl", query).splitlines()]
    searched = root.get("/audit/entries", {**query, "limit": 1_000})
    assert tuple(rows[0]) == COLUMNS
    assert [one["entry"] for one in rows] == [one["entry"]["id"] for one in documents]
    assert [one["entry"]["id"] for one in documents] == [one["entry"]["id"] for one in searched]
    assert all(one["actor"] for one in rows)
    made = exports(postgres_world)[: -len(before) or None]
    assert [one["data"].get("format") for one in made] == [None, "jsonl", None, "csv"]
    assert [one["data"].get("count") for one in made] == [len(rows), None, len(rows), None]
    assert made[3]["data"]["query"]["department"] == office.id
    assert made[2]["data"] | {"complete": True, "digest": made[3]["data"]["digest"]} == made[2]["data"]


def test_a_spreadsheet_runs_nothing_of_an_export(postgres_world: World, office: Office) -> None:
    text = downloaded(postgres_world.root, "/audit/entries.csv", {"department": office.id, "actor": "sink"})
    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert f"'{FORMULA}" in cells, cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


def test_a_department_exports_what_it_may_see_and_others_nothing(postgres_world: World, office: Office) -> None:
    head = office.account("sharing_office_head")
    exported = [json.loads(line) for line in downloaded(head, "/audit/entries.jsonl", {}).splitlines()]
    searched = head.get("/audit/entries", {"limit": 1_000})
    assert {one["leaf_hash"] for one in exported} <= {one["leaf_hash"] for one in searched}
    assert len(exported) > 3
    departments = {(one["entry"].get("actor") or {}).get("department") for one in exported}
    assert departments <= {office.id, None}, "the others are about it and have no actor"
    operator = postgres_world.account("exporter", "operator")
    for account, query, reason in (
        (operator, {}, Reason.ROLE_MISSING),
        (office.account("sharing_office_head"), {"party": "another"}, Reason.OTHER_DEPARTMENT),
    ):
        with pytest.raises(RefusedError) as caught:
            downloaded(account, "/audit/entries.csv", query)
        assert caught.value.reason is reason
    with pytest.raises(PoolError):
        downloaded(postgres_world.root, "/audit/entries.csv", {"limit": 5})


def test_the_command_writes_a_file_that_was_not_there(postgres_world: World, office: Office, tmp_path: Path) -> None:
    token, file = tmp_path / "token", tmp_path / "entries.csv"
    token.write_text(postgres_world.people.tokens[postgres_world.account("exporting", "auditor") and "exporting"])
    words = (
        "audit", "export", "--format", "csv", "--department", office.id, "--output", str(file),
        "--data", str(postgres_world.data), "--token-file", str(token),
    )  # fmt: skip
    postgres_world.programs.run("pool", *words)
    rows = list(csv.DictReader(io.StringIO(file.read_text(), newline="")))
    assert rows
    assert all(one["entry"] for one in rows)
    count = len(exports(postgres_world))
    again = postgres_world.programs.run("pool", *words, check=False)
    assert again.returncode == 1
    assert "File exists" in again.stderr
    assert len(exports(postgres_world)) == count, "nothing left, so nothing is in the log"
