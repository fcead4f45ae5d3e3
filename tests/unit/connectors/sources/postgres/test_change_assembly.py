"""Messages → batches of changes: whole transactions, key updates, TOAST, TRUNCATE, columns that change in between."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.port import ChangeOperation, ChangePosition, ChangeRequest, TableChanges
from connectors.sources.postgres.change_assembly import AssembledBatch, AssemblyLimits, ChangeAssembler
from connectors.sources.postgres.pgoutput import (
    UNCHANGED,
    Begin,
    Commit,
    Delete,
    Identity,
    Insert,
    Message,
    Relation,
    RelationColumn,
    Truncate,
    TypeName,
    Update,
)
from schemas.errors import InvalidError, Reason

STREAM = bytes(16)
START = ChangePosition(stream=STREAM, commit=0)
UP, DEL = ChangeOperation.UPSERT, ChangeOperation.DELETE


def relation(*names: str, oid: int = 1, table: str = "t", types: Sequence[int] = ()) -> Relation:
    columns = tuple(RelationColumn(name, types[at] if types else 25, -1, name == "id") for at, name in enumerate(names))
    return Relation(oid, "public", table, Identity.DEFAULT, columns)


def request(table: str = "public.t", after: ChangePosition = START, columns: Iterable[str] = ("id", "a")) -> Any:
    return ChangeRequest(table=table, after=after, key=("id",), columns=frozenset(columns))


def transaction(lsn: int, *messages: Message) -> list[Message]:
    return [Begin(lsn, lsn * 1000, lsn), *messages, Commit(lsn, lsn + 5, lsn * 1000)]


def assemble(
    messages: Iterable[Message], *requests: ChangeRequest, limits: AssemblyLimits | None = None
) -> list[AssembledBatch]:
    assembler = ChangeAssembler(requests or [request()], limits or AssemblyLimits(), 0)
    given_out = [batch for message in messages for batch in assembler.feed(message, 10)]
    last = assembler.flush()
    return [*given_out, last] if last is not None else given_out


def rows(changes: TableChanges) -> list[tuple[Any, ...]]:
    columns = [column.to_pylist() for column in changes.rows.columns.values()]
    return list(zip(map(ChangeOperation, changes.operations), *columns, strict=True))


def only(batches: Sequence[AssembledBatch]) -> TableChanges:
    (batch,) = batches
    (changes,) = batch.batch.tables
    return changes


def test_transactions_are_given_together_with_the_position_behind_them() -> None:
    (batch,) = assemble(
        [relation("id", "a"), *transaction(10, Insert(1, ["1", "x"])), *transaction(20, Delete(1, ["1", None], True))]
    )
    (changes,) = batch.batch.tables
    assert rows(changes) == [(UP, "1", "x"), (DEL, "1", None)]
    assert [(span.commit, span.rows, span.last, span.committed_at) for span in changes.spans] == [
        (10, 1, True, 10_000),
        (20, 1, True, 20_000),
    ]
    assert batch.batch.position == 25


def test_a_changed_key_is_a_delete_of_the_old_and_an_upsert_of_the_new() -> None:
    for old, is_key in ((["1", None], True), (["1", "x"], False)):
        changes = only(assemble([relation("id", "a"), *transaction(10, Update(1, old, is_key, ["2", "x"]))]))
        assert rows(changes) == [(DEL, "1", None), (UP, "2", "x")]
        assert [span.rows for span in changes.spans] == [2]


def test_a_deleted_row_has_its_key_alone_also_where_all_of_it_was_sent() -> None:
    changes = only(assemble([relation("id", "a"), *transaction(10, Delete(1, ["1", "secret"], False))]))
    assert rows(changes) == [(DEL, "1", None)]
    assert b"secret" not in changes.rows.originals[0]


def test_an_unchanged_value_comes_from_the_old_row_and_is_missing_where_there_is_none() -> None:
    full = only(assemble([relation("id", "a"), *transaction(10, Update(1, ["1", "long"], False, ["1", UNCHANGED]))]))
    assert rows(full) == [(UP, "1", "long")]
    (batch,) = assemble([relation("id", "a", "b"), *transaction(10, Update(1, None, False, ["1", UNCHANGED, "y"]))])
    assert [(each.row, each.columns) for each in batch.missing[0]] == [(0, ("a",))]
    (batch,) = assemble([relation("id", "a", "b"), *transaction(10, Update(1, None, False, ["1", "x", UNCHANGED]))])
    assert batch.missing == [[]], "no record is made of b"


def test_rows_are_decoded_by_the_columns_that_the_table_had_then() -> None:
    (batch,) = assemble(
        [
            relation("id", "a"),
            *transaction(10, Insert(1, ["1", "x"])),
            relation("a", "id", "new"),
            *transaction(20, Insert(1, ["y", "2", "z"])),
        ]
    )
    assert [list(changes.columns) for changes in batch.batch.tables] == [["id", "a"], ["a", "id", "new"]]
    read = [row for changes in batch.batch.tables for row in zip(*changes.rows.columns["id"].to_pylist(), strict=True)]
    assert read == [("1",), ("2",)]


def test_columns_that_change_within_a_transaction_make_two_parts_of_it() -> None:
    (batch,) = assemble(
        [
            relation("id", "a"),
            Begin(10, 0, 1),
            Insert(1, ["1", "x"]),
            relation("id", "a", "b"),
            Insert(1, ["2", "y", "z"]),
            Commit(10, 15, 0),
        ]
    )
    spans = [(span.first, span.rows, span.last) for changes in batch.batch.tables for span in changes.spans]
    assert spans == [(0, 1, False), (1, 1, True)]


def test_a_key_column_that_is_gone_is_a_broken_contract() -> None:
    with pytest.raises(InvalidError) as error:
        assemble([relation("nr", "a")])
    assert error.value.reason is Reason.CONTRACT_BROKEN


def test_a_truncated_table_is_reported_and_read_no_further() -> None:
    batches = assemble(
        [
            relation("id", "a"),
            relation("id", "a", oid=2, table="u"),
            *transaction(10, Insert(1, ["1", "x"]), Insert(2, ["1", "x"])),
            *transaction(20, Truncate((1,), cascade=False, restart_identity=False), Insert(1, ["2", "y"])),
            *transaction(30, Insert(1, ["3", "y"]), Insert(2, ["2", "y"])),
        ],
        request(),
        request("public.u"),
    )
    (batch,) = batches
    assert batch.batch.emptied == ("public.t",)
    assert [(each.table, len(each)) for each in batch.batch.tables] == [("public.t", 1), ("public.u", 2)]
    assert batch.batch.position == 35


def test_texts_take_the_form_of_a_cast_also_of_a_domain() -> None:
    types = (25, 16, 1042, 17, 869, 90_000)
    changes = only(
        assemble(
            [
                TypeName(90_000, "pg_catalog", "bool"),
                relation("id", "b", "c", "r", "i", "d", types=types),
                *transaction(10, Insert(1, ["1 ", "t", "ab  ", "\\x00ff", "10.0.0.1", "f"])),
            ],
            request(columns=("id", "b", "c", "r", "i", "d")),
        )
    )
    assert rows(changes) == [(UP, "1 ", "true", "ab", "00ff", "10.0.0.1/32", "false")]


def test_a_transaction_larger_than_a_batch_is_given_in_marked_parts() -> None:
    limits = AssemblyLimits(batch_rows=2, transaction_rows=3)
    inserts = [Insert(1, [str(number), "x"]) for number in range(8)]
    batches = assemble([relation("id", "a"), *transaction(10, *inserts)], limits=limits)
    spans = [span for batch in batches for changes in batch.batch.tables for span in changes.spans]
    assert [(span.first, span.rows, span.last) for span in spans] == [(0, 3, False), (3, 3, False), (6, 2, True)]
    assert [batch.batch.position for batch in batches] == [0, 0, 15], "nothing of it may be confirmed before its end"


def test_a_transaction_that_fits_is_one_batch_whatever_was_before_it() -> None:
    limits = AssemblyLimits(batch_rows=2, transaction_rows=3)
    messages = [relation("id", "a"), *transaction(10, Insert(1, ["0", "x"]))]
    messages += transaction(20, *[Insert(1, [str(number), "x"]) for number in range(1, 4)])
    batches = assemble(messages, limits=limits)
    spans = [(span.commit, span.rows, span.last) for b in batches for c in b.batch.tables for span in c.spans]
    assert spans == [(10, 1, True), (20, 3, True)]


CELL = st.sampled_from(["0", "1", "2"])
CHANGE = st.one_of(
    st.builds(lambda oid, key, a: Insert(oid, [key, a]), st.sampled_from([1, 2]), CELL, CELL),
    st.builds(lambda oid, old, key: Update(oid, [old, "x"], False, [key, "y"]), st.sampled_from([1, 2]), CELL, CELL),
    st.builds(lambda oid, key: Delete(oid, [key, None], True), st.sampled_from([1, 2]), CELL),
)
HISTORY = st.lists(st.lists(CHANGE, max_size=7), max_size=6)


def read_all(batches: Iterable[AssembledBatch], table: str) -> list[tuple[int, tuple[Any, ...]]]:
    """Give (transaction, row) of a table, by its spans."""
    read = []
    for changes in (each for batch in batches for each in batch.batch.tables if each.table == table):
        commits = [span.commit for span in changes.spans for _ in range(span.rows)]
        read += list(zip(commits, rows(changes), strict=True))
    return read


@given(HISTORY, st.integers(1, 9), st.integers(1, 9), st.integers(1, 90))
def test_limits_change_no_row_and_no_order(history: list[list[Message]], batch: int, whole: int, size: int) -> None:
    messages: list[Message] = [relation("id", "a"), relation("id", "a", oid=2, table="u")]
    messages += [each for at, changes in enumerate(history, 1) for each in transaction(at * 10, *changes)]
    requests = [request(), request("public.u")]
    limits = AssemblyLimits(batch_rows=batch, transaction_rows=whole, buffered_bytes=size)
    for table in ("public.t", "public.u"):
        expected = read_all(assemble(messages, *requests), table)
        assert read_all(assemble(messages, *requests, limits=limits), table) == expected


@given(HISTORY, st.integers(1, 4), st.data())
def test_reading_again_from_any_span_s_end_gives_the_rest(
    history: list[list[Message]], whole: int, data: st.DataObject
) -> None:
    """After a death of the connector the log is sent from an earlier place, and what is published is skipped."""
    messages: list[Message] = [relation("id", "a"), relation("id", "a", oid=2, table="u")]
    messages += [each for at, changes in enumerate(history, 1) for each in transaction(at * 10, *changes)]
    limits = AssemblyLimits(batch_rows=1, transaction_rows=whole)
    batches = assemble(messages, request(), request("public.u"), limits=limits)
    spans = [span for b in batches for c in b.batch.tables if c.table == "public.t" for span in c.spans]
    done = data.draw(st.integers(0, len(spans)))
    after = START
    if done:
        span = spans[done - 1]
        after = ChangePosition(stream=STREAM, commit=span.commit, rows=span.first + span.rows, part=not span.last)
    everything = read_all(batches, "public.t")
    rest = read_all(assemble(messages, request(after=after), limits=limits), "public.t")
    assert rest == everything[sum(span.rows for span in spans[:done]) :]


def test_a_position_is_read_as_it_was_written_and_is_no_other_program_s() -> None:
    position = ChangePosition(stream=bytes(range(16)), commit=2**63, end=7, rows=3, part=True, read_again=True)
    assert ChangePosition.parse(bytes(position)) == position
    assert len(bytes(position)) <= 128
    for other in (b"", bytes(42), bytes(position)[:-1], b"\x01" + bytes(position)[1:]):
        assert ChangePosition.parse(other) is None


def test_batches_that_wait_hold_no_python_text_for_each_cell() -> None:
    names = ["id", *(f"c{number}" for number in range(20))]
    before = sys.getallocatedblocks()
    inserts = (Insert(1, tuple(f"{row} {name}" for name in names)) for row in range(2_000))
    batches = assemble(transaction(10, relation(*names), *inserts), request(columns=names))
    held = sys.getallocatedblocks() - before
    assert len(only(batches)) == 2_000
    assert json.loads(only(batches).rows.originals[7])["c3"] == "7 c3"
    assert held < 2 * 2_000, f"{held} objects for 2,000 rows of 21 cells"
