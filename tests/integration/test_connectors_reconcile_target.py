"""`pool-connect reconcile` of a subscription: what a target does not hold as its grant says is found, by key range."""

import json
import stat
from pathlib import Path

import pytest
import sqlalchemy as sa

from connectors import cli
from connectors.runtime import service
from connectors.runtime.exit_codes import ExitCode
from tests.kit.world.department import row, rows
from tests.kit.world.target_consumer import Client, TargetConsumer


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def consumer(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TargetConsumer:
    if request.param == "sqlite":
        url = sa.make_url(f"sqlite:///{tmp_path / 'target.db'}")
    else:
        url = request.getfixturevalue("database")
    made = TargetConsumer(tmp_path, url)
    made.source.put([*rows(95, note="备注"), *(row(number, "9.00") for number in range(95, 100))])
    made.source.publish()
    monkeypatch.setenv("TARGET", url.render_as_string(hide_password=False))
    monkeypatch.setattr(cli, "_connect", lambda *_: Client(made.source))
    monkeypatch.setattr(service, "stop_on_signals", lambda _: None)
    return made


def test_a_target_that_holds_what_the_grant_delivers_is_equal(consumer: TargetConsumer) -> None:
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


def test_what_somebody_changed_removed_or_added_in_the_target_is_found(consumer: TargetConsumer) -> None:
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


def test_what_was_not_fetched_yet_is_a_difference_until_it_is(consumer: TargetConsumer) -> None:
    consumer.draw()
    consumer.source.put([*rows(95, note="备注"), row(200), row(201)])
    consumer.source.publish()
    code, out = consumer.call("reconcile")
    assert (code, "2 only in the pool" in out) == (ExitCode.PERSON, True), out
    consumer.draw()
    assert consumer.call("reconcile")[0] == ExitCode.OK


def test_a_record_that_the_target_could_not_hold_is_counted_apart(consumer: TargetConsumer) -> None:
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


def test_looking_makes_no_table(consumer: TargetConsumer) -> None:
    assert consumer.call("reconcile")[0] != ExitCode.OK
    engine = sa.create_engine(consumer.url)
    assert not sa.inspect(engine).get_table_names()
    engine.dispose()
