"""`pool-connect reconcile` of a subscription: what a target does not hold as its grant says is found, by key range."""

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from connectors import cli
from connectors.runtime import service
from connectors.runtime.exit_codes import ExitCode
from tests.kit.twins.pool_twin import CASE, PURPOSE
from tests.kit.world.department import TOPIC, Department, row, rows

CONFIG = f"""\
version: 1
connector: sink
exchange: {{ identity: identity/ }}
subscribe:
  - grant: g-1
    purpose: {PURPOSE}
    case: {CASE}
    batch_rows: 30
    into: {{ kind: sql, url: "${{env:TARGET}}", table: household, create_table: true }}
"""
FIELDS = ("id", "amount", "since", "note")


class Client:
    """The pool's client of a command, in this process."""

    def __init__(self, department: Department) -> None:
        self._client = department.twin.client("d-2", "sink", department.key)
        self.sign = department.key.sign

    def refresh(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class Consumer:
    """A department that draws the rows whose amount is under 5 into a table."""

    def __init__(self, folder: Path, url: sa.URL) -> None:
        self.folder, self.url = folder, url
        self.source = Department(folder)
        self.source.limits = replace(self.source.limits, accept_deletes=True)
        self.source.twin.grant("g-1", TOPIC, FIELDS, lambda record: record["amount"] < 5)
        (folder / "c.yaml").write_text(CONFIG)

    def call(self, *words: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli.app, [words[0], str(self.folder / "c.yaml"), *words[1:]])
        return done.exit_code, done.output

    def draw(self) -> None:
        code, out = self.call("run", "--once")
        assert code in (ExitCode.OK, ExitCode.QUARANTINE), out

    def change(self, *statements: str) -> None:
        engine = sa.create_engine(self.url)
        with engine.begin() as connection:
            for each in statements:
                assert connection.exec_driver_sql(each).rowcount == 1
        engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def consumer(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Consumer:
    if request.param == "sqlite":
        url = sa.make_url(f"sqlite:///{tmp_path / 'target.db'}")
    else:
        url = request.getfixturevalue("database")
    made = Consumer(tmp_path, url)
    made.source.put([*rows(95, note="备注"), *(row(number, "9.00") for number in range(95, 100))])
    made.source.publish()
    monkeypatch.setenv("TARGET", url.render_as_string(hide_password=False))
    monkeypatch.setattr(cli, "_connect", lambda *_: Client(made.source))
    monkeypatch.setattr(service, "stop_on_signals", lambda _: None)
    return made


def test_a_target_that_holds_what_the_grant_delivers_is_equal(consumer: Consumer) -> None:
    consumer.draw()
    consumer.source.put([row(0, note="new"), *rows(95)[2:], row(95, "1.00")])
    consumer.source.publish()
    consumer.draw()
    code, out = consumer.call("reconcile")
    assert (code, "target and pool are equal" in out) == (ExitCode.OK, True), out
    assert "95          95" in out
    totals = json.loads(consumer.call("reconcile", "--json")[1])
    assert all(each["target_hash"] == each["pool_hash"] for each in totals["result"]["ranges"])
    assert totals["last_entry"], "what was drawn has its entries in the log"


def test_what_somebody_changed_removed_or_added_in_the_target_is_found(consumer: Consumer) -> None:
    consumer.draw()
    consumer.change(
        "UPDATE household SET note = 'other' WHERE id = '0003'",
        "UPDATE household SET amount = 1.51 WHERE id = '0004'",
        "DELETE FROM household WHERE id = '0005'",
        "INSERT INTO household (_record_key, _recorded_at, id) VALUES ('0123456789abcdef0123456789abcdef', 1, '7777')",
    )
    code, out = consumer.call("reconcile")
    assert code == ExitCode.PERSON
    assert set(out.splitlines()[-1].strip().split("; ")) > {
        "2 differs", "1 only in the pool", "1 only in the target",
    }  # fmt: skip
    assert not {"0003", "0004", "0005", "7777", "other"} & set(out.split())
    target = consumer.folder / "differences.tsv"
    consumer.call("reconcile", "--differences", str(target))
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert "only in the target\t0123456789abcdef0123456789abcdef" in target.read_text().splitlines()


def test_what_was_not_fetched_yet_is_a_difference_until_it_is(consumer: Consumer) -> None:
    consumer.draw()
    consumer.source.put([*rows(95, note="备注"), row(200), row(201)])
    consumer.source.publish()
    code, out = consumer.call("reconcile")
    assert (code, "2 only in the pool" in out) == (ExitCode.PERSON, True), out
    consumer.draw()
    assert consumer.call("reconcile")[0] == ExitCode.OK


def test_a_record_that_the_target_could_not_hold_is_counted_apart(consumer: Consumer) -> None:
    engine = sa.create_engine(consumer.url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE household (_record_key VARCHAR(32) PRIMARY KEY, _recorded_at BIGINT, _deleted_at BIGINT, "
            "id TEXT CHECK (id <> '0007'), amount NUMERIC(12, 2), since DATE, note TEXT)"
        )
    engine.dispose()
    consumer.draw()
    code, out = consumer.call("reconcile")
    assert (code, "1 in quarantine" in out) == (ExitCode.OK, True), out


def test_looking_makes_no_table(consumer: Consumer) -> None:
    assert consumer.call("reconcile")[0] != ExitCode.OK
    engine = sa.create_engine(consumer.url)
    assert not sa.inspect(engine).get_table_names()
    engine.dispose()
