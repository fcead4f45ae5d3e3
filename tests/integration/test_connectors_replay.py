"""`pool-connect replay`: what a target could not hold is written once it can; what is not valid any more is not."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from connectors import cli
from connectors.runtime import service
from connectors.runtime.exit_codes import ExitCode
from tests.kit.world.department import row, rows
from tests.kit.world.target_consumer import CONFIG, Client, TargetConsumer

TABLE = (
    "CREATE TABLE household (_record_key VARCHAR(32) PRIMARY KEY, _recorded_at BIGINT, _deleted_at BIGINT, "
    "id TEXT, amount NUMERIC(12, 2), since DATE, note TEXT)"
)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def consumer(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TargetConsumer:
    """A consumer whose table has refused the records 0007 and 0008."""
    if request.param == "sqlite":
        url = sa.make_url(f"sqlite:///{tmp_path / 'target.db'}")
    else:
        url = request.getfixturevalue("database")
    made = TargetConsumer(tmp_path, url)
    made.source.put(rows(95))
    made.source.publish()
    monkeypatch.setenv("TARGET", url.render_as_string(hide_password=False))
    monkeypatch.setattr(cli, "_connect", lambda *_: Client(made.source))
    monkeypatch.setattr(service, "stop_on_signals", lambda _: None)
    execute(made, TABLE)
    if request.param == "sqlite":
        for event in ("INSERT", "UPDATE"):
            execute(
                made,
                f"CREATE TRIGGER small_{event} BEFORE {event} ON household WHEN NEW.id IN ('0007', '0008') "
                "BEGIN SELECT RAISE(ABORT, 'no'); END",
            )
    else:
        execute(made, "ALTER TABLE household ADD CONSTRAINT small CHECK (id NOT IN ('0007', '0008'))")
    made.draw()
    assert len(quarantine(made)) == 2
    return made


def execute(consumer: TargetConsumer, statement: str) -> None:
    engine = sa.create_engine(consumer.url)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def mend(consumer: TargetConsumer) -> None:
    if consumer.url.get_backend_name() == "sqlite":
        for event in ("INSERT", "UPDATE"):
            execute(consumer, f"DROP TRIGGER small_{event}")
    else:
        execute(consumer, "ALTER TABLE household DROP CONSTRAINT small")


def quarantine(consumer: TargetConsumer) -> list[str]:
    done = CliRunner().invoke(cli.app, ["quarantine", "list", str(consumer.folder / "c.yaml")])
    return done.output.splitlines()


def note_of(consumer: TargetConsumer, number: str) -> str | None:
    engine = sa.create_engine(consumer.url)
    with engine.connect() as connection:
        found: str | None = connection.exec_driver_sql(
            f"SELECT coalesce(note, '') FROM household WHERE id = '{number}' AND _deleted_at IS NULL"
        ).scalar()
    engine.dispose()
    return found


def test_what_the_mended_table_can_hold_is_written_and_nothing_is_missing(consumer: TargetConsumer) -> None:
    mend(consumer)
    code, out = consumer.call("replay")
    assert (code, "2 records tried = 2 written + 0 rejected" in out) == (ExitCode.OK, True), out
    assert quarantine(consumer) == []
    code, out = consumer.call("reconcile")
    assert (code, "95          95  0 in quarantine" in out) == (ExitCode.OK, True), out
    assert "0 records tried" in consumer.call("replay")[1]
    consumer.draw()


def test_what_the_table_still_rejects_stays_in_quarantine(consumer: TargetConsumer) -> None:
    code, out = consumer.call("replay")
    assert (code, "2 records tried = 0 written + 2 rejected" in out) == (ExitCode.QUARANTINE, True), out
    assert len(quarantine(consumer)) == 2


def test_a_later_record_is_not_overwritten(consumer: TargetConsumer) -> None:
    mend(consumer)
    consumer.source.put([row(7, note="newer") if number == 7 else row(number) for number in range(95)])
    consumer.source.publish()
    consumer.draw()
    code, out = consumer.call("replay")
    assert (code, "1 records tried = 1 written" in out) == (ExitCode.OK, True), out
    assert (note_of(consumer, "0007"), note_of(consumer, "0008")) == ("newer", "")


def test_a_record_that_was_withdrawn_meanwhile_does_not_come_back(consumer: TargetConsumer) -> None:
    mend(consumer)
    consumer.source.put([row(7, "9.00") if number == 7 else row(number) for number in range(95) if number != 8])
    consumer.source.publish()
    consumer.draw()
    code, out = consumer.call("replay")
    assert (code, "0 records tried" in out) == (ExitCode.OK, True), out
    assert (note_of(consumer, "0007"), note_of(consumer, "0008")) == (None, None)
    assert consumer.call("reconcile")[0] == ExitCode.OK


def test_nothing_is_written_for_another_purpose_or_where_withdrawn_rows_are_deleted(consumer: TargetConsumer) -> None:
    mend(consumer)
    for old, new in (("case: ", "case: X"), ("create_table: true", "create_table: true, deletes: hard")):
        (consumer.folder / "c.yaml").write_text(CONFIG.replace(old, new))
        assert consumer.call("replay")[0] != ExitCode.OK
        assert note_of(consumer, "0007") is None
