"""`pool-connect reconcile`: what differs between a source and the pool is found, and nothing is published or shown."""

import copy
import json
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from connectors import cli
from connectors.runtime.exit_codes import ExitCode
from tests.kit.world.changing_tables import SLOT, ChangingTables, execute
from tests.kit.world.department import SCHEMA, TOPIC, Department, row, rows

CONFIG = f"""\
version: 1
connector: drop
exchange: {{ identity: identity/ }}
source: {{ kind: files, path: drop/, ready_when: unchanged for 0s }}
publish:
  - resource: {TOPIC}
    columns:
      note: {{ null_values: [""] }}
    deletes: {{ stop_if_more_than: 100% }}
batch: {{ rows: 40 }}
"""
CHANGES = """\
version: 1
connector: changes
exchange: {{ identity: identity/ }}
source:
  kind: sql
  url: "{url}"
  cdc: {{ slot: {slot}, publication: pool }}
publish:
  - {{ resource: item.v1, table: public.item, mode: cdc }}
"""


class Client:
    """The pool's client of a command, in this process."""

    def __init__(self, client: Any, sign: Callable[[bytes], bytes]) -> None:
        self._client = client
        self.sign = sign

    def refresh(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.fixture
def department(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Department:
    (tmp_path / "c.yaml").write_text(CONFIG)
    department = Department(tmp_path)
    client = department.twin.client("d-1", "drop", department.key)
    monkeypatch.setattr(cli, "_connect", lambda *_: Client(client, department.key.sign))
    return department


def call(folder: Path, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, [words[0], str(folder / "c.yaml"), *words[1:]])
    return done.exit_code, done.stdout


def publish(folder: Path) -> None:
    code, out = call(folder, "run", "--once")
    assert code == ExitCode.OK, out


def test_a_source_that_was_published_whole_is_equal(department: Department) -> None:
    department.put(rows(200))
    publish(department.folder)
    records = len(department.twin.records(TOPIC))
    code, out = call(department.folder, "reconcile")
    assert (code, "source and pool are equal" in out) == (ExitCode.OK, True), out
    assert "200         200  of 200 rows, 0 are no record" in out
    totals = json.loads(call(department.folder, "reconcile", "--json")[1])
    assert sum(each["source"] for each in totals["result"]["ranges"]) == 200
    assert all(each["source_hash"] == each["pool_hash"] for each in totals["result"]["ranges"])
    assert len(department.twin.records(TOPIC)) == records, "nothing is published"


def test_what_differs_is_counted_and_its_keys_are_written_to_a_file_alone(department: Department) -> None:
    department.put([*rows(198), row(5000), row(5001)])
    publish(department.folder)
    records = len(department.twin.records(TOPIC))
    changed = [row(number, "9.99") if number == 7 else row(number) for number in range(198)]
    department.put([*changed, row(5001), row(6000), row(6001)])
    code, out = call(department.folder, "reconcile")
    assert code == ExitCode.PERSON
    assert set(out.splitlines()[-2].strip().split("; ")) > {
        "1 differs", "1 only in the pool", "2 only at the source",
    }  # fmt: skip
    assert "DIFFERS" in out
    for key in ("0007", "5000", "6000"):
        assert key not in out
    target = department.folder / "differences.tsv"
    code, out = call(department.folder, "reconcile", "--differences", str(target))
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    found = [line.split("\t") for line in target.read_text().splitlines()]
    assert sorted((what, "0007" in key or "5000" in key or "600" in key) for what, key in found) == [
        ("differs", True),
        ("only at the source", True),
        ("only at the source", True),
        ("only in the pool", True),
    ]
    assert call(department.folder, "reconcile", "--differences", str(target))[0] == ExitCode.CONFIG
    assert len(department.twin.records(TOPIC)) == records, "nothing is published"
    publish(department.folder)
    assert call(department.folder, "reconcile")[0] == ExitCode.OK


def test_a_row_that_is_refused_leaves_its_record_in_the_pool_and_is_no_difference(department: Department) -> None:
    department.put(rows(50))
    publish(department.folder)
    department.put([row(0, "x"), *rows(50)[1:], row(77, "y")])
    publish(department.folder)
    code, out = call(department.folder, "reconcile")
    assert (code, "2 are no record" in out) == (ExitCode.OK, True), out


def test_a_field_that_was_added_and_is_empty_is_no_difference(department: Department) -> None:
    department.put(rows(50))
    publish(department.folder)
    schema = copy.deepcopy(SCHEMA)
    schema["fields"].append({"name": "phone", "type": ["null", "string"], "default": None})
    department.twin.publish_schema(TOPIC, schema)
    code, out = call(department.folder, "reconcile")
    assert (code, "source and pool are equal" in out) == (ExitCode.OK, True), out


def test_a_pool_that_has_lost_batches_is_told_even_where_the_source_is_as_the_ledger(department: Department) -> None:
    department.put(rows(100))
    publish(department.folder)
    fresh = Department(department.folder).twin
    client = Client(fresh.client("d-1", "drop", department.key), department.key.sign)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_connect", lambda *_: client)
        code, out = call(department.folder, "reconcile")
    assert code == ExitCode.PERSON
    assert "the pool's last batch is 0, this machine's 3" in out


def test_nothing_is_compared_before_the_first_publication(department: Department) -> None:
    department.put(rows(3))
    assert call(department.folder, "reconcile")[0] != ExitCode.OK
    assert not (department.folder / "state").exists(), "looking leaves nothing behind"


@pytest.mark.postgres
def test_a_table_that_is_followed_by_its_log_is_compared_too(
    tmp_path: Path, source: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(source, "CREATE TABLE item (id bigint PRIMARY KEY, name text, amount bigint)")
    execute(source, "ALTER TABLE item REPLICA IDENTITY FULL", "CREATE PUBLICATION pool FOR TABLE item")
    execute(source, "INSERT INTO item SELECT n, 'x' || n, n FROM generate_series(1, 500) n")
    tables = ChangingTables(tmp_path, source)
    client = Client(tables.twin.client("d-1", "changes", tables.key), tables.key.sign)
    monkeypatch.setattr(cli, "_connect", lambda *_: client)
    url = source.set(drivername="postgresql").render_as_string(hide_password=False)
    monkeypatch.setenv("SOURCE_URL", url)
    (tmp_path / "c.yaml").write_text(CHANGES.format(url="${env:SOURCE_URL}", slot=SLOT))
    publish(tmp_path)
    execute(source, "UPDATE item SET name = 'y' WHERE id = 3", "DELETE FROM item WHERE id = 4")
    code, out = call(tmp_path, "reconcile")
    assert (code, "1 differs" in out, "1 only in the pool" in out) == (ExitCode.PERSON, True, True), out
    publish(tmp_path)
    code, out = call(tmp_path, "reconcile")
    assert (code, "499         499" in out) == (ExitCode.OK, True), out
