"""Tags cover every column, and no two rows have the same message."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from registry.database.row_tags import (
    RowTags,
    classification,
    columns_of,
    derived,
    hashed,
    key_text,
    proven,
    tag_columns,
    tagged,
    untagged,
)
from schemas.errors import CorruptError, Reason
from tests.kit.row_tags import row_tags

TABLE = sa.Table(
    "thing",
    sa.MetaData(),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("who", sa.Text),
    sa.Column("what", sa.Text),
    sa.Column("at", sa.DateTime(timezone=True)),
    sa.Column("state", sa.Text, nullable=False, server_default="new", info={"absent": "new"}),
    sa.Column("body", sa.Text, info=hashed()),
    sa.Column("seen", sa.Integer, info=untagged("nobody decides by it")),
    *tag_columns(),
    info=tagged("things"),
)
NOW = datetime(2026, 10, 1, tzinfo=UTC)


def a_row(**changes: Any) -> dict[str, Any]:
    row = {"id": "a", "who": "x", "what": "y", "at": NOW, "state": "old", "body": "text", "seen": 1}
    return row_tags().new(TABLE, {**row, **changes})


@pytest.mark.parametrize(
    "change",
    [
        {"id": "b"},
        {"who": "y"},
        {"who": None},
        {"who": "xy", "what": ""},
        {"what": "x", "who": "y"},
        {"at": NOW + timedelta(microseconds=1)},
        {"state": "new"},
        {"body": "Text"},
        {"body": None},
        {"row_version": 7},
        {"tag": None},
        {"tag": bytes(32)},
        {"who": b"x"},
        {"who": 1},
        {"who": True},
    ],
    ids=str,
)
def test_any_other_column_is_refused_and_reported(change: dict[str, Any]) -> None:
    refused: list[tuple[str, str]] = []
    tags = row_tags(refused)
    assert tags.checked(TABLE, a_row())["who"] == "x"
    changed = {**a_row(), **change}
    with pytest.raises(CorruptError) as caught:
        tags.checked(TABLE, changed)
    assert caught.value.reason is Reason.ROW_FORGED
    assert refused == [("thing", key_text(TABLE, changed))]
    assert [row["id"] for row in tags.valid(TABLE, [changed, a_row(id="c")])] == ["c"]


def test_another_key_or_family_gives_another_tag() -> None:
    row = a_row()
    for other in (RowTags(lambda _: bytes(32)), RowTags(lambda family: b"k" * 32 + family.encode()[::-1])):
        with pytest.raises(CorruptError):
            other.checked(TABLE, row)


def test_a_key_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32"):
        RowTags(lambda _: b"short").tag(TABLE, a_row())


def test_a_column_that_came_later_changes_no_tag_while_it_is_null_or_as_it_was_before() -> None:
    former = sa.Table(
        "thing", sa.MetaData(), sa.Column("id", sa.Text, primary_key=True), *tag_columns(), info=tagged("things")
    )
    row = row_tags().new(former, {"id": "a"})
    later = {**row, "who": None, "what": None, "at": None, "state": "new", "body": None, "seen": 5}
    assert row_tags().holds(TABLE, later)
    assert not row_tags().holds(TABLE, {**later, "state": "old"})


def test_the_hash_of_a_long_text_stands_for_it_where_a_statement_leaves_the_text_out() -> None:
    row = a_row()
    text = row.pop("body")
    assert row_tags().holds(TABLE, {**row, "body_sha256": hashlib.sha256(text.encode()).digest()})
    assert not row_tags().holds(TABLE, {**row, "body_sha256": hashlib.sha256(b"other").digest()})
    assert "sha256(convert_to(t.body, 'UTF8')) AS body_sha256" in columns_of(TABLE, "t.", without_text=True)


def test_a_column_that_nobody_decides_by_may_change() -> None:
    assert row_tags().holds(TABLE, {**a_row(), "seen": 2})


def test_a_distrusted_row_is_refused_though_its_tag_is_right() -> None:
    tags = row_tags()
    tags.distrust([("thing", '["a"]')])
    assert not tags.holds(TABLE, a_row())
    assert tags.holds(TABLE, a_row(id="b"))


def test_the_next_version_is_higher_and_a_row_that_is_made_again_is_above_all_before() -> None:
    tags = row_tags()
    first = tags.new(TABLE, {"id": "a"})
    second = {**first, **tags.next(TABLE, first, {"who": "z"})}
    assert second["row_version"] == first["row_version"] + 1
    assert tags.holds(TABLE, second)
    later = RowTags(lambda _: bytes(32), clock=lambda: (second["row_version"] + 1) * 1_000)
    assert later.new(TABLE, {"id": "a"})["row_version"] > second["row_version"]


def test_a_table_says_how_its_rows_are_protected() -> None:
    for info in (tagged("x"), proven("y"), derived("z")):
        assert classification(sa.Table("t", sa.MetaData(), info=info)) is not None
    assert classification(sa.Table("t", sa.MetaData())) is None


@given(st.lists(st.tuples(st.text(), st.text()), min_size=2, max_size=2, unique=True))
def test_two_rows_never_have_one_tag(rows: list[tuple[str, str]]) -> None:
    one, two = (row_tags().tag(TABLE, {"id": "a", "who": who, "what": what, "row_version": 1}) for who, what in rows)
    assert one != two
