# ruff: noqa: S101, D102, PT017 - tests, which assert, whose names are their sentences, and which need no pytest
"""Conformance suite of change sources: what the publisher of changes relies on.

class TestOurLog(ChangeSourceSuite):
def make_source(self):
return OurLog(self.database, self.notes)      # table public.item, columns id and name, key id

def commit(self, *changes):
self.database.run(changes)                    # one transaction
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TypeAlias

from connectors.port import ChangeBatch, ChangeOperation, ChangePosition, ChangeRequest, ChangeSource, RowChunk
from schemas.errors import ConflictError, PoolError, Reason, UnavailableError

__all__ = ["TABLE", "Change", "ChangeSourceSuite"]

TABLE = "public.item"
Change: TypeAlias = tuple[str, str, str | None]
"""put, id, name · delete, id · move, id, new id · truncate. An empty text and None are different names."""

_Stated: TypeAlias = tuple[ChangeOperation, str | None, str | None]
_UP, _DELETE = ChangeOperation.UPSERT, ChangeOperation.DELETE


class ChangeSourceSuite:
    """The promises of a change source. Override the methods that raise NotImplementedError.

    Attributes:
        part_rows: a transaction with more rows of a table than these is given in parts.
    """

    part_rows = 20

    def make_source(self) -> ChangeSource:
        """Build a source of the database; called again, that of another process of the same connector."""
        raise NotImplementedError

    def commit(self, *changes: Change) -> None:
        """Change the table in one transaction."""
        raise NotImplementedError

    def roll_back(self, *changes: Change) -> None:
        """Change the table in a transaction that is rolled back."""
        raise NotImplementedError

    def lose_log(self) -> None:
        """Remove what is kept of the log for this connector, as an administrator would."""
        raise NotImplementedError

    def make_unreachable(self) -> None:
        """Make the database unreachable."""
        raise NotImplementedError

    # -- snapshot and hand-over ----------------------------------------------------------------------------------

    def test_keeps_no_log_before_the_first_snapshot(self) -> None:
        with self._prepared() as (_, kept):
            assert kept == frozenset()

    def test_a_snapshot_states_what_was_committed_before_it_and_the_log_what_came_after(self) -> None:
        self.commit(("put", "1", "a"), ("put", "2", "b"))
        with self._prepared() as (source, _):
            with source.snapshot([TABLE]) as snapshot:
                self.commit(("put", "3", "c"), ("delete", "1", None))
                portion = snapshot.portions[TABLE]
                assert portion.stable
                for _ in range(2):
                    assert _rows(portion.chunks()) == [("1", "a"), ("2", "b")]
                assert _rows(portion.chunks(["id"])) == [("1",), ("2",)]
                snapshot.keep_log()
                snapshot.keep_log()
                position = snapshot.position
            assert position.stream == source.stream
            self.commit(("put", "4", "d"))
            assert _stated(source, position) == [(_UP, "3", "c"), (_DELETE, "1", None), (_UP, "4", "d")]

    def test_a_snapshot_that_is_not_kept_leaves_nothing(self) -> None:
        with self._prepared() as (source, _), source.snapshot([TABLE]):
            pass
        with self._prepared() as (_, kept):
            assert kept == frozenset()

    def test_the_log_is_kept_for_the_next_process(self) -> None:
        position = self._begin()
        self.commit(("put", "1", "a"))
        with self._prepared() as (source, kept):
            assert kept == {TABLE}
            assert source.stream == position.stream
            assert _stated(source, position) == [(_UP, "1", "a")]

    # -- changes -------------------------------------------------------------------------------------------------

    def test_states_changes_in_the_order_of_commit(self) -> None:
        position = self._begin()
        self.commit(("put", "1", "a"), ("put", "1", "b"), ("delete", "1", None), ("put", "1", "c"))
        self.commit(("put", "2", ""), ("put", "3", None))
        self.commit(("delete", "2", None))
        with self._prepared() as (source, _):
            assert _stated(source, position) == [
                (_UP, "1", "a"),
                (_UP, "1", "b"),
                (_DELETE, "1", None),
                (_UP, "1", "c"),
                (_UP, "2", ""),
                (_UP, "3", None),
                (_DELETE, "2", None),
            ]

    def test_a_deleted_row_has_its_key_alone(self) -> None:
        self.commit(("put", "1", "secret"))
        position = self._begin()
        self.commit(("delete", "1", None))
        with self._prepared() as (source, _):
            (batch,) = _batches(source, position)
            (changes,) = batch.tables
            assert b"secret" not in changes.rows.originals[0]
            assert changes.rows.columns["name"].to_pylist() == [None]

    def test_a_changed_key_is_a_delete_and_an_upsert(self) -> None:
        self.commit(("put", "1", "a"))
        position = self._begin()
        self.commit(("move", "1", "2"))
        with self._prepared() as (source, _):
            assert _stated(source, position) == [(_DELETE, "1", None), (_UP, "2", "a")]

    def test_what_was_rolled_back_is_not_stated(self) -> None:
        position = self._begin()
        self.roll_back(("put", "1", "a"))
        self.commit(("put", "2", "b"))
        with self._prepared() as (source, _):
            assert _stated(source, position) == [(_UP, "2", "b")]

    def test_each_transaction_is_a_span_with_rising_numbers(self) -> None:
        position = self._begin()
        for number in range(5):
            self.commit(("put", str(number), "a"), ("put", str(number), "b"))
        with self._prepared() as (source, _):
            spans = [span for batch in _batches(source, position) for table in batch.tables for span in table.spans]
        assert [(span.first, span.rows, span.last) for span in spans] == [(0, 2, True)] * 5
        commits = [span.commit for span in spans]
        assert commits == sorted(set(commits))
        assert commits[0] > position.commit
        assert all(span.end > span.commit for span in spans)
        times = [span.committed_at for span in spans]
        assert times == sorted(times)

    def test_a_transaction_that_is_too_large_comes_in_parts_that_say_so(self) -> None:
        position = self._begin()
        self.commit(*(("put", str(number), "a") for number in range(2 * self.part_rows + 5)))
        with self._prepared() as (source, _):
            spans = [span for batch in _batches(source, position) for table in batch.tables for span in table.spans]
        assert [(span.first, span.rows, span.last) for span in spans] == [
            (0, self.part_rows, False),
            (self.part_rows, self.part_rows, False),
            (2 * self.part_rows, 5, True),
        ]
        assert len({span.commit for span in spans}) == 1
        part = replace(position, commit=spans[0].commit, end=0, rows=self.part_rows, part=True)
        with self._prepared() as (source, _):
            assert len(_stated(source, part)) == self.part_rows + 5, "it goes on behind the published part"

    def test_an_emptied_table_is_named_and_nothing_of_it_follows(self) -> None:
        position = self._begin()
        self.commit(("put", "1", "a"))
        self.commit(("truncate", "", None))
        self.commit(("put", "2", "b"))
        with self._prepared() as (source, _):
            batches = _batches(source, position)
        assert [table for batch in batches for table in batch.emptied] == [TABLE]
        assert [row for batch in batches for row in _changes(batch)] == [(_UP, "1", "a")]

    # -- position and confirmation -------------------------------------------------------------------------------

    def test_what_is_not_confirmed_is_stated_again_and_what_is_published_is_not(self) -> None:
        position = self._begin()
        self.commit(("put", "1", "a"))
        self.commit(("put", "2", "b"))
        with self._prepared() as (source, _):
            batches = _batches(source, position)
        first = batches[0].tables[0].spans[0]
        after = replace(position, commit=first.commit, end=first.end)
        with self._prepared() as (source, _):
            assert _stated(source, position) == [(_UP, "1", "a"), (_UP, "2", "b")]
        with self._prepared() as (source, _):
            assert _stated(source, after) == [(_UP, "2", "b")]

    def test_what_is_confirmed_need_not_be_kept_and_the_rest_is(self) -> None:
        position = self._begin()
        self.commit(("put", "1", "a"))
        with self._prepared() as (source, _):
            for batch in source.read([_request(position)], once=True):
                if batch is not None:
                    source.confirm(batch.position)
            source.confirm(None)
        self.commit(("put", "2", "b"))
        with self._prepared() as (source, kept):
            assert kept == {TABLE}
            assert _stated(source, position)[-1] == (_UP, "2", "b")

    def test_says_that_nothing_came_where_nothing_comes(self) -> None:
        position = self._begin()
        with self._prepared() as (source, _):
            stream = source.read([_request(position)])
            while next(stream) is not None:
                pass
            self.commit(("put", "1", "a"))
            while (batch := next(stream)) is None or not batch.tables:
                pass
            assert _changes(batch) == [(_UP, "1", "a")]

    # -- faults --------------------------------------------------------------------------------------------------

    def test_a_log_that_is_gone_is_a_conflict_until_it_is_begun_again(self) -> None:
        self._begin()
        self.lose_log()
        with closing(self.make_source()) as source:
            try:
                source.prepare([_request(None)], adopt=True, fresh=False)
            except ConflictError as error:
                assert error.reason is Reason.SOURCE_CHANGED
            else:
                raise AssertionError("expected SOURCE_CHANGED: changes may be missing")
            assert source.prepare([_request(None)], adopt=True, fresh=True) == frozenset()

    def test_raises_unavailable_when_it_cannot_be_reached(self) -> None:
        self.make_unreachable()
        with closing(self.make_source()) as source:
            try:
                source.prepare([_request(None)], adopt=False, fresh=False)
            except UnavailableError:
                return
            except PoolError as error:
                raise AssertionError(f"expected UnavailableError, got {type(error).__name__}") from error
        raise AssertionError("expected UnavailableError")

    def _begin(self) -> ChangePosition:
        """Keep the log from now on; return the position."""
        with self._prepared() as (source, _), source.snapshot([TABLE]) as snapshot:
            snapshot.keep_log()
            return snapshot.position

    @contextmanager
    def _prepared(self) -> Iterator[tuple[ChangeSource, frozenset[str]]]:
        with closing(self.make_source()) as source:
            yield source, source.prepare([_request(None)], adopt=False, fresh=False)


def _request(after: ChangePosition | None) -> ChangeRequest:
    return ChangeRequest(table=TABLE, after=after, key=("id",), columns=frozenset({"id", "name"}))


def _batches(source: ChangeSource, after: ChangePosition) -> list[ChangeBatch]:
    return [batch for batch in source.read([_request(after)], once=True) if batch is not None]


def _stated(source: ChangeSource, after: ChangePosition) -> list[_Stated]:
    return [row for batch in _batches(source, after) for row in _changes(batch)]


def _changes(batch: ChangeBatch) -> list[_Stated]:
    stated: list[_Stated] = []
    for table in batch.tables:
        assert table.table == TABLE
        assert len(table) == len(table.rows) == sum(span.rows for span in table.spans)
        names, ids = table.rows.columns["name"].to_pylist(), table.rows.columns["id"].to_pylist()
        stated += [(ChangeOperation(each), ids[at], names[at]) for at, each in enumerate(table.operations)]
    return stated


def _rows(chunks: Iterator[RowChunk]) -> list[tuple[str | None, ...]]:
    rows: list[tuple[str | None, ...]] = []
    for chunk in chunks:
        columns: Sequence[list[str | None]] = [column.to_pylist() for column in chunk.columns.values()]
        rows += list(zip(*columns, strict=True))
    return sorted(rows, key=lambda row: row[0] or "")
