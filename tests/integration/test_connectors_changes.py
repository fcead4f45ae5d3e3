"""A database's log into the pool: snapshot and hand-over, changes, keys, TOAST, TRUNCATE, columns that change."""

import json
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.mapping.mapping import Column
from connectors.port import ChangePosition, Pool, RejectCode
from connectors.runtime.exit_codes import ExitCode, exit_code_for
from schemas.errors import ConflictError, InvalidError, Reason
from schemas.names import Topic
from schemas.record import Batch, KeyOccurrence, Mark, Operation, Receipt
from tests.kit.world.changing_tables import SLOT, ChangingTables, execute, only, query, slots

pytestmark = pytest.mark.postgres

TABLE = "CREATE TABLE item (id bigint PRIMARY KEY, name text, amount bigint)"
FULL = "ALTER TABLE item REPLICA IDENTITY FULL"
PUBLICATION = "CREATE PUBLICATION pool FOR TABLE item"


@pytest.fixture
def tables(tmp_path: Path, source: sa.URL) -> ChangingTables:
    execute(source, TABLE, FULL, PUBLICATION)
    return ChangingTables(tmp_path, source)


class RecordingPool:
    """Keeps the batches that are sent."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.batches: list[Batch] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def publish(self, topic: Topic, batches: Iterable[Batch], *, in_flight: int = 4) -> Iterator[Receipt]:
        def kept() -> Iterator[Batch]:
            for batch in batches:
                self.batches.append(batch)
                yield batch

        return self._pool.publish(topic, kept(), in_flight=in_flight)


def in_database(url: sa.URL, table: str = "item") -> dict[str, dict[str, object]]:
    rows = query(url, f"SELECT id, name, amount FROM {table}")
    return {str(row[0]): {"id": row[0], "name": row[1], "amount": row[2]} for row in rows}


def test_a_snapshot_is_followed_by_what_changes_after_it(tables: ChangingTables) -> None:
    execute(tables.url, "INSERT INTO item SELECT n, 'x', n FROM generate_series(1, 100) n")
    snapshot, stream = tables.publish()
    assert (snapshot.published, stream.published) == (100, 0)
    assert slots(tables.url) == [SLOT]
    execute(
        tables.url,
        "INSERT INTO item VALUES (101, 'y', 1)",
        "UPDATE item SET name = 'z' WHERE id <= 10",
        "DELETE FROM item WHERE id BETWEEN 11 AND 15",
    )
    report = only(tables.publish())
    assert (report.published, report.voided, report.unchanged) == (11, 5, 0)
    assert tables.state() == in_database(tables.url)
    assert only(tables.publish()).read == 0


def changed(tables: ChangingTables, *statements: str) -> None:
    """Publish the table once, then change it."""
    tables.publish()
    execute(tables.url, *statements)


# -- deletes and keys ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on_delete", "latest_alone", "stated"),
    [("retract", False, 0), ("end", True, 1), ("", False, 1), ("", True, 0)],
    ids=["retract", "end", "history is kept", "the latest is kept"],
)
def test_a_delete_retracts_or_ends_and_shows_no_column_but_the_key(
    tables: ChangingTables, on_delete: str, latest_alone: bool, stated: int
) -> None:
    tables.on_delete = on_delete
    tables.twin.latest_alone = {"item.v1"} if latest_alone else set()
    sent = tables.pool = RecordingPool(tables.twin.client("d-1", "changes", tables.key))
    before = time.time()
    changed(tables, "INSERT INTO item VALUES (1, 'secret', 4711)", "DELETE FROM item WHERE id = 1")
    assert only(tables.publish()).voided == 1
    last = sent.batches[-1]
    assert [Mark.of(mark).operation for mark in last.marks] == [Operation.UPSERT, Operation.VOID]
    assert list(last.void_keys) == [b"1"]
    assert list(last.values)[1] == b""
    assert bool(last.valid) == bool(stated)
    if stated:
        assert struct.unpack("<4q", last.valid)[:2] == (0, 0)
        ended = struct.unpack("<4q", last.valid)[2] / 1e6
        assert before - 1 < ended < time.time() + 1, "when the transaction committed"
    assert tables.state() == {}


def test_a_changed_key_voids_the_old_one(tables: ChangingTables) -> None:
    for identity in ("FULL", "DEFAULT"):
        execute(
            tables.url, f"ALTER TABLE item REPLICA IDENTITY {identity}", "ALTER TABLE item ALTER name TYPE varchar(9)"
        )
        changed(tables, "INSERT INTO item VALUES (1, 'a', 1)", "UPDATE item SET id = 2, name = 'b' WHERE id = 1")
        tables.publish()
        assert tables.state() == in_database(tables.url)
        execute(tables.url, "DELETE FROM item")
    tables.publish()
    assert tables.state() == {}


def test_a_key_that_comes_and_goes_in_one_transaction_ends_as_it_is_in_the_table(tables: ChangingTables) -> None:
    changed(
        tables,
        "BEGIN; INSERT INTO item VALUES (1, 'a', 1), (2, 'a', 1); DELETE FROM item WHERE id = 1; "
        "INSERT INTO item VALUES (1, 'b', 1); DELETE FROM item WHERE id = 2; COMMIT",
    )
    report = only(tables.publish())
    assert (report.published, report.voided) == (3, 2)
    assert tables.state() == in_database(tables.url)
    execute(tables.url, "UPDATE item SET name = 'c' WHERE id = 1", "INSERT INTO item VALUES (2, 'c', 1)")
    tables.publish()
    seen = [each.mark.seen for each in tables.twin.records("item.v1")]
    first, again = KeyOccurrence.FIRST, KeyOccurrence.AGAIN
    assert seen == [first, first, again, first, again, again, first]


def test_what_is_not_published_and_changes_is_unchanged(tables: ChangingTables) -> None:
    execute(tables.url, "ALTER TABLE item ADD secret text")
    tables.columns = {"item.v1": {"secret": Column(exclude=True)}}
    changed(tables, "INSERT INTO item VALUES (1, 'a', 1, 's')", "UPDATE item SET secret = 't'")
    report = only(tables.publish())
    assert (report.published, report.unchanged) == (1, 1)


def test_a_row_that_fits_no_record_is_set_aside_and_the_others_go_on(tables: ChangingTables) -> None:
    execute(tables.url, "ALTER TABLE item ALTER amount TYPE numeric")
    changed(tables, "INSERT INTO item VALUES (1, 'a', 'NaN'), (2, 'b', 2)")
    report = only(tables.publish())
    assert (report.published, report.quarantined) == (1, 1)
    (entry,) = tables.quarantined()
    assert (entry.code, entry.field, entry.portion) == (RejectCode.NUMERIC_SPECIAL, "amount", "public.item")
    assert json.loads(entry.original) == {"id": "1", "name": "a", "amount": "NaN"}
    tables.twin.refuses = lambda record: "no" if record["name"] == "refused" else ""
    execute(tables.url, "INSERT INTO item VALUES (3, 'refused', 3), (4, 'd', 4)")
    report = only(tables.publish())
    assert (report.published, report.quarantined) == (1, 1)
    assert [json.loads(each.original)["id"] for each in tables.quarantined()] == ["1", "3"]
    assert set(tables.state()) == {"2", "4"}


def test_a_row_that_was_set_aside_leaves_the_quarantine_with_its_next_change(tables: ChangingTables) -> None:
    execute(tables.url, "ALTER TABLE item ALTER amount TYPE numeric")
    changed(tables, "INSERT INTO item VALUES (1, 'a', 'NaN'), (2, 'b', 'NaN'), (3, 'c', 'NaN'), (4, 'd', 'NaN')")
    tables.publish()
    assert len(tables.quarantined()) == 4
    changed(
        tables,
        "UPDATE item SET amount = 1 WHERE id = 1",
        "DELETE FROM item WHERE id = 2",
        "UPDATE item SET name = 'still not' WHERE id = 3",
        "BEGIN; INSERT INTO item VALUES (5, 'e', 'NaN'); UPDATE item SET amount = 5 WHERE id = 5; COMMIT",
        "BEGIN; INSERT INTO item VALUES (6, 'f', 6); UPDATE item SET amount = 'NaN' WHERE id = 6; COMMIT",
    )
    tables.publish()
    left = [json.loads(each.original) for each in tables.quarantined()]
    assert [(row["id"], row["name"]) for row in left] == [("4", "d"), ("3", "still not"), ("6", "f")]
    tables.twin.refuses = lambda record: "no" if record["name"] == "refused" else ""
    changed(tables, "UPDATE item SET amount = 0, name = 'refused' WHERE id IN (3, 4, 6)")
    tables.publish()
    assert [json.loads(each.original)["name"] for each in tables.quarantined()] == ["refused"] * 3
    changed(tables, "UPDATE item SET name = 'good'")
    tables.publish()
    assert tables.quarantined() == []
    assert set(tables.state()) == {"1", "3", "4", "5", "6"}


# -- values that are stored out of line ------------------------------------------------------------------------------

LONG = "repeat(md5(random()::text), 400)"  # 12,800 characters that do not compress well
OUT_OF_LINE = "ALTER TABLE item ALTER name SET STORAGE EXTERNAL"


def test_an_unchanged_long_value_comes_from_the_old_row_under_full_identity(tables: ChangingTables) -> None:
    execute(tables.url, OUT_OF_LINE, f"INSERT INTO item VALUES (1, {LONG}, 1)")
    changed(tables, "UPDATE item SET amount = 2")
    assert only(tables.publish()).published == 1
    assert tables.state() == in_database(tables.url)


def test_without_it_the_table_is_refused_with_the_statement(tables: ChangingTables) -> None:
    execute(tables.url, "ALTER TABLE item REPLICA IDENTITY DEFAULT")
    with pytest.raises(InvalidError) as error:
        tables.publish()
    assert 'ALTER TABLE "public"."item" REPLICA IDENTITY FULL;' in error.value.message
    assert tables.twin.records("item.v1") == []
    assert slots(tables.url) == [], "nothing was made of what will not be read"


def test_identity_that_is_taken_away_in_mid_stream_lets_no_partial_record_through(tables: ChangingTables) -> None:
    execute(tables.url, OUT_OF_LINE, f"INSERT INTO item VALUES (1, {LONG}, 1)")
    changed(
        tables,
        "ALTER TABLE item REPLICA IDENTITY DEFAULT",
        "UPDATE item SET amount = 2",
        "ALTER TABLE item REPLICA IDENTITY FULL",
    )
    for _ in range(2):
        with pytest.raises(InvalidError) as error:
            tables.publish()
        assert error.value.reason is Reason.CONTRACT_BROKEN
    tables.settings = replace(tables.settings, reread=frozenset({"public.item"}))
    tables.publish()
    assert tables.state() == in_database(tables.url)


def test_a_value_that_is_read_again_is_marked_in_the_position(tables: ChangingTables) -> None:
    execute(tables.url, "ALTER TABLE item REPLICA IDENTITY DEFAULT", OUT_OF_LINE)
    execute(tables.url, f"INSERT INTO item VALUES (1, {LONG}, 1), (2, {LONG}, 1), (3, {LONG}, 1)")
    tables.settings = replace(tables.settings, reread=frozenset({"public.item"}))
    sent = tables.pool = RecordingPool(tables.twin.client("d-1", "changes", tables.key))
    changed(
        tables,
        "UPDATE item SET amount = 2",
        "DELETE FROM item WHERE id = 2",
        "UPDATE item SET id = 4 WHERE id = 3",
        "UPDATE item SET name = 'short' WHERE id = 1",
    )
    report = only(tables.publish())
    assert tables.state() == in_database(tables.url)
    assert report.unchanged == 3, "two were replaced before they could be read; the last one is what was read again"
    position = ChangePosition.parse(sent.batches[-1].source_position)
    assert position is not None
    assert position.read_again


# -- columns that change in mid-stream ---------------------------------------------------------------------------------


def test_a_new_column_is_reported_and_nothing_is_lost(tables: ChangingTables) -> None:
    changed(
        tables,
        "INSERT INTO item VALUES (1, 'a', 1)",
        "ALTER TABLE item ADD phone text",
        "INSERT INTO item VALUES (2, 'b', 2, '138')",
    )
    with pytest.raises(InvalidError) as error:
        tables.publish()
    assert error.value.reason is Reason.CONTRACT_BROKEN
    assert "phone" in error.value.message
    assert "138" not in error.value.message
    tables.columns = {"item.v1": {"phone": Column(exclude=True)}}
    tables.publish()
    assert tables.state() == in_database(tables.url)


def test_rows_before_and_after_a_dropped_column_are_each_read_by_their_own_columns(tables: ChangingTables) -> None:
    """A decoder that asked today's catalogue would put amounts into names, or fail."""
    execute(tables.url, "ALTER TABLE item ADD note text")
    tables.columns = {"item.v1": {"note": Column(exclude=True)}}
    changed(
        tables,
        "INSERT INTO item VALUES (1, 'a', 1, 'n')",
        "ALTER TABLE item DROP note",
        "INSERT INTO item VALUES (2, 'b', 2)",
        "ALTER TABLE item RENAME name TO note",
        "ALTER TABLE item ADD name text",
        "UPDATE item SET name = note",
        "INSERT INTO item (id, note, amount, name) VALUES (3, 'x', 3, 'c')",
    )
    tables.publish()
    assert tables.state() == in_database(tables.url)


# -- TRUNCATE ----------------------------------------------------------------------------------------------------------


def test_a_truncated_table_stops_and_the_other_goes_on(tables: ChangingTables) -> None:
    other(tables)
    execute(tables.url, "INSERT INTO item SELECT n, 'x', n FROM generate_series(1, 30) n")
    changed(tables, "UPDATE item SET name = 'y' WHERE id = 1", "TRUNCATE item", "INSERT INTO other VALUES (1, 'o', 1)")
    for _ in range(2):
        with pytest.raises(ConflictError) as error:
            tables.publish()
        assert (error.value.reason, exit_code_for(error.value)) == (Reason.SOURCE_CHANGED, ExitCode.PERSON)
        assert "TRUNCATE" in error.value.message
        execute(tables.url, "INSERT INTO other VALUES (2, 'o', 1)", "INSERT INTO item VALUES (7, 'n', 7)")
        assert len(tables.state()) == 30, "nothing was voided"
        assert tables.state()["1"]["name"] == "y", "what was changed before is published"
        execute(tables.url, "DELETE FROM other WHERE id = 2", "DELETE FROM item")
    assert tables.state("other.v1") == in_database(tables.url, "other")
    execute(tables.url, "INSERT INTO item VALUES (7, 'n', 7)")
    with pytest.raises(InvalidError) as guard:
        tables.publish(resnapshot=["public.item"])
    assert guard.value.reason is Reason.DELETE_GUARD
    tables.limits = replace(tables.limits, accept_deletes=True)
    tables.publish(resnapshot=["public.item"])
    execute(tables.url, "INSERT INTO item VALUES (8, 'n', 8)")
    tables.publish()
    assert tables.state() == in_database(tables.url)


def other(tables: ChangingTables) -> None:
    execute(
        tables.url,
        TABLE.replace("item", "other"),
        FULL.replace("item", "other"),
        "ALTER PUBLICATION pool ADD TABLE other",
    )
    tables.tables["public.other"] = "other.v1"
    tables.__post_init__()


# -- tables that are added, removed and added again -------------------------------------------------------------------


def test_a_table_that_is_added_is_read_whole_and_the_others_go_on(tables: ChangingTables) -> None:
    changed(tables, "INSERT INTO item VALUES (1, 'a', 1)")
    other(tables)
    execute(tables.url, "INSERT INTO other VALUES (1, 'o', 1)", "INSERT INTO item VALUES (2, 'b', 1)")
    tables.publish()
    execute(tables.url, "UPDATE other SET name = 'p'", "DELETE FROM item WHERE id = 1")
    tables.publish()
    assert tables.state() == in_database(tables.url)
    assert tables.state("other.v1") == in_database(tables.url, "other")
    assert [each.value for each in tables.twin.records("item.v1") if each.value].count(tables.state()["2"]) == 1
    assert slots(tables.url) == [SLOT]


def test_a_table_that_was_left_out_for_a_while_misses_nothing(tables: ChangingTables) -> None:
    """The slot has gone on without it: its old position would be a hole."""
    other(tables)
    changed(tables, "INSERT INTO other VALUES (1, 'o', 1), (2, 'o', 2)")
    tables.publish()
    tables.tables.pop("public.other")
    changed(tables, "DELETE FROM other WHERE id = 1", "INSERT INTO item VALUES (1, 'a', 1)")
    tables.publish()
    tables.tables["public.other"] = "other.v1"
    tables.publish()
    assert tables.state("other.v1") == in_database(tables.url, "other")


# -- transactions and batches ------------------------------------------------------------------------------------------


def test_a_transaction_of_10_000_rows_is_one_batch_and_a_larger_one_is_marked(tables: ChangingTables) -> None:
    sent = tables.pool = RecordingPool(tables.twin.client("d-1", "changes", tables.key))
    changed(
        tables,
        "INSERT INTO item VALUES (0, 'x', 0)",
        "INSERT INTO item SELECT n, 'x', n FROM generate_series(1, 10000) n",
        "UPDATE item SET name = 'y'",
    )
    tables.publish()
    positions = [ChangePosition.parse(batch.source_position) for batch in sent.batches]
    shapes = [
        (len(batch), position.rows, position.part)
        for batch, position in zip(sent.batches, positions, strict=True)
        if position
    ]
    assert shapes == [(1, 0, False), (10_000, 0, False), (10_000, 10_000, True), (1, 0, False)]
    assert len({position.commit for position in positions if position}) == 3
    assert tables.state() == in_database(tables.url)
