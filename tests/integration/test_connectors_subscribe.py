"""A grant's records into a target: order of crashes, withdrawals, refusals by the target, and an emptied one."""

import itertools
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.port import WriteResult
from connectors.sinks.files import FileSink
from connectors.sinks.sql import SqlSink
from connectors.state.ledger import Ledger, RunReport
from connectors.state.quarantine import Quarantine, QuarantineEntry, read_entries
from connectors.subscribing.subscriber import Subscriber, SubscriptionConfig
from schemas.errors import ConflictError, Reason, RefusedError, UnavailableError
from tests.kit.twins.pool_twin import CASE, PURPOSE
from tests.kit.world.department import TOPIC, Department, now, row, rows

GRANT = "g-1"


class Consumer:
    """A department that draws ids and notes of the rows whose amount is under 5."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = Department(folder)
        self.source.limits = self.source.limits.__class__(
            batch_rows=40, give_up_after=5, backoff=0.001, accept_deletes=True
        )
        self.twin = self.source.twin
        self.twin.grant(GRANT, TOPIC, ("id", "note"), lambda record: record["amount"] < 5)
        self.url = sa.make_url(f"sqlite:///{folder / 'target.db'}")
        self.ledger_file = folder / "sink" / "l.sqlite3"

    def draw(self, *, grant: str = GRANT, give_up_after: float = 5) -> RunReport:
        sink = SqlSink(self.url, "household", grant, create_table=True)
        ledger = Ledger(self.ledger_file, clock=now)
        try:
            return Subscriber(
                SubscriptionConfig(grant=grant, purpose=PURPOSE, case=CASE, batch_rows=30),
                sink,
                self.twin.client("d-2", "sink", self.source.key),
                ledger,
                stop=threading.Event(),
                give_up_after=give_up_after,
                backoff=0.001,
            ).run(once=True)
        finally:
            sink.close()
            ledger.close()

    def quarantined(self) -> list[QuarantineEntry]:
        ledger = Ledger(self.ledger_file, clock=now)
        try:
            return list(read_entries(ledger.sql))
        finally:
            ledger.close()

    def table(self) -> dict[str, str]:
        engine = sa.create_engine(self.url)
        with engine.connect() as connection:
            found = connection.exec_driver_sql("SELECT id, note FROM household WHERE _deleted_at IS NULL")
            table: dict[str, str] = dict(map(tuple, found))
        engine.dispose()
        return table


@pytest.fixture
def consumer(tmp_path: Path) -> Iterator[Consumer]:
    made = Consumer(tmp_path)
    made.source.put([*rows(95), *(row(number, "9.00") for number in range(95, 100))])
    made.source.publish()
    return made


def expected(consumer: Consumer) -> dict[str, str]:
    return {key: record["note"] for key, record in consumer.source.state().items() if record["amount"] < 5}


def refuse(consumer: Consumer, number: str) -> None:
    """Make the target's table, with a constraint that one record does not keep."""
    engine = sa.create_engine(consumer.url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE household (_record_key TEXT PRIMARY KEY, _recorded_at BIGINT, _deleted_at BIGINT, "
            f"id TEXT CHECK (id <> '{number}'), note TEXT)"
        )
    engine.dispose()


def test_the_table_holds_what_the_grant_gives(consumer: Consumer) -> None:
    run = consumer.draw()
    assert (run.read, run.published, run.outcome) == (95, 95, "done")
    assert consumer.table() == expected(consumer)
    assert consumer.draw().read == 0


def test_what_leaves_the_source_or_the_filter_is_withdrawn(consumer: Consumer) -> None:
    consumer.draw()
    consumer.source.put([row(1, note="new"), row(2, "9.00"), *rows(100)[3:95], row(99, "1.00")])
    consumer.source.publish()
    run = consumer.draw()
    assert run.voided == 2, "0 is void, 2 left the filter; 95 to 98 are void and were never within it"
    assert consumer.table() == expected(consumer)
    assert consumer.table()["0001"] == "new"
    assert "0002" not in consumer.table()
    assert "0099" in consumer.table()


@pytest.mark.parametrize("what", ["describe", "before fetch", "after fetch", "commit"])
def test_what_the_pool_forgets_to_answer_changes_nothing(consumer: Consumer, what: str) -> None:
    left = 3

    def fail(happened: str) -> None:
        nonlocal left
        if happened == what and left:
            left -= 1
            raise UnavailableError(Reason.GATEWAY_UNAVAILABLE, "away")

    consumer.twin.fail = fail
    consumer.draw()
    assert left == 0
    assert consumer.table() == expected(consumer)


def test_a_grant_that_is_not_ours_ends_the_subscription(consumer: Consumer) -> None:
    with pytest.raises(RefusedError):
        consumer.draw(grant="g-2")


def test_an_emptied_target_is_noticed_and_not_filled_from_the_middle(consumer: Consumer) -> None:
    consumer.draw()
    (consumer.folder / "target.db").unlink()
    with pytest.raises(ConflictError) as error:
        consumer.draw()
    assert error.value.reason is Reason.POSITION_INVALID
    assert "delete" in error.value.message


def test_what_the_target_refuses_is_quarantined_with_its_bytes(consumer: Consumer) -> None:
    refuse(consumer, "0007")
    run = consumer.draw()
    assert (run.read, run.published, run.quarantined) == (95, 94, 1)
    (entry,) = consumer.quarantined()
    assert entry.code == "TARGET_CONSTRAINT"
    assert b"0007" in entry.original


class Killed(BaseException):
    """The process's end, as far as a test may go."""


@pytest.mark.parametrize("when", ["before the commit", "after the commit"])
def test_what_the_target_refuses_outlives_a_crash(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    refuse(consumer, "0007")
    write, add = SqlSink.write, Quarantine.add
    left = [True]

    def dies_after(self: SqlSink, *release: Any) -> WriteResult:
        written = write(self, *release)
        if written.rejected and left:
            left.clear()
            raise Killed
        return written

    def dies_before(self: Quarantine, *rows: Any) -> None:
        add(self, *rows)
        if left:
            left.clear()
            raise Killed

    if when == "after the commit":
        monkeypatch.setattr(SqlSink, "write", dies_after)
    else:
        monkeypatch.setattr(Quarantine, "add", dies_before)
    with pytest.raises(Killed):
        consumer.draw()
    consumer.draw()
    assert set(expected(consumer)) - set(consumer.table()) == {"0007"}
    (entry,) = consumer.quarantined()
    assert b"0007" in entry.original
    assert entry.attempts == (2 if when == "before the commit" else 1)


def test_asked_to_stop_it_ends_between_releases(consumer: Consumer, tmp_path: Path) -> None:
    stop = threading.Event()
    consumer.twin.fail = lambda what: stop.set() if what == "commit" else None
    sink = FileSink(tmp_path / "out", GRANT)
    ledger = Ledger(tmp_path / "l.sqlite3", clock=now)
    run = Subscriber(
        SubscriptionConfig(grant=GRANT, purpose=PURPOSE, case=CASE, batch_rows=30),
        sink,
        consumer.twin.client("d-2", "sink", consumer.source.key),
        ledger,
        stop=stop,
    ).run(once=False)
    assert (run.outcome, run.read) == ("stopped", 30)
    ledger.close()


def test_parts_are_whole_numbered_and_proven(consumer: Consumer, tmp_path: Path) -> None:
    import hashlib

    sink = FileSink(tmp_path / "out", GRANT)
    ledger = Ledger(tmp_path / "l.sqlite3", clock=now)
    Subscriber(
        SubscriptionConfig(grant=GRANT, purpose=PURPOSE, case=CASE, batch_rows=30),
        sink,
        consumer.twin.client("d-2", "sink", consumer.source.key),
        ledger,
        stop=threading.Event(),
    ).run(once=True)
    ledger.close()
    manifests = [json.loads(each.read_text()) for each in sorted((tmp_path / "out").glob("*.manifest.json"))]
    assert [each["part"] for each in manifests] == [1, 2, 3, 4]
    assert sum(each["rows"] for each in manifests) == 95
    for before, after in itertools.pairwise(manifests):
        assert before["after"] == after["before"], "no release is missing between two parts"
    for each in manifests:
        content = (tmp_path / "out" / each["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == each["sha256"]
        assert content.count(b"\n") == each["rows"]
    line = json.loads((tmp_path / "out" / manifests[0]["file"]).read_text().splitlines()[0])
    assert set(line) == {"_record_key", "_recorded_at", "_operation", "id", "note"}


def test_after_a_restore_of_the_pool_source_and_target_end_equal(consumer: Consumer) -> None:
    """The pool lost what came after its backup: it comes again once, and the target keeps nothing of what it lost."""
    consumer.draw()
    backup = consumer.twin.back_up()
    file = consumer.source.drop / "rows.csv"
    file.unlink()
    # After the backup: three rows change, two leave, one is new and leaves again before the loss.
    later = [row(n, note="new" if n < 3 else "") for n in range(95) if n not in {7, 8}]
    path = consumer.source.put([*later, row(500)], name="first.csv")
    os.utime(path, (2_000_000_000, 2_000_000_000))
    consumer.source.publish()
    consumer.draw()
    path.unlink()
    path = consumer.source.put(later, name="second.csv")
    os.utime(path, (2_000_000_100, 2_000_000_100))
    consumer.source.publish()
    consumer.draw()
    state, table = consumer.source.state(), consumer.table()
    assert table == expected(consumer)
    stored = len(consumer.twin.records(TOPIC))
    consumer.twin.restore(backup)
    consumer.source.publish()
    assert consumer.source.state() == state
    assert len(consumer.twin.records(TOPIC)) <= stored, "only what was lost comes again"
    again = consumer.twin.records(TOPIC)
    keys = [each.key for each in again]
    consumer.draw()
    assert consumer.table() == table == expected(consumer)
    consumer.source.publish()
    consumer.draw()
    assert [each.key for each in consumer.twin.records(TOPIC)] == keys, "nothing is published twice"
    ledger = Ledger(consumer.source.ledger_file, clock=now)
    assert ledger.sql.execute("SELECT count(*) FROM lost_receipts").fetchone()[0], "what was accepted stays proven"
    ledger.close()


def test_a_target_that_cannot_begin_again_says_so(consumer: Consumer, tmp_path: Path) -> None:
    with pytest.raises(ConflictError) as refused:
        FileSink(tmp_path / "out", GRANT).begin_again()
    assert refused.value.reason is Reason.TOPIC_GENERATION_CHANGED


def test_a_ledger_that_an_earlier_program_went_on_with_publishes_everything_again(consumer: Consumer) -> None:
    backup = consumer.twin.back_up()
    file = consumer.source.drop / "rows.csv"
    file.unlink()
    path = consumer.source.put([row(n, note="new") for n in range(95)], name="first.csv")
    os.utime(path, (2_000_000_000, 2_000_000_000))
    consumer.source.publish()
    state = consumer.source.state()
    with closing(sqlite3.connect(consumer.source.ledger_file)) as sql, sql:  # as if it had sent these batches
        sql.executescript("DELETE FROM tracked; DELETE FROM key_batches")
    consumer.twin.restore(backup)
    consumer.source.publish()
    assert consumer.source.state() == state
    consumer.draw()
    assert consumer.table() == expected(consumer)
