"""Names of fields that cannot be columns are refused before anything is made in a target."""

from pathlib import Path

import pyarrow as pa
import pytest
import sqlalchemy as sa

from connectors.sinks.field_names import require_names
from connectors.sinks.files import FileSink
from connectors.sinks.sql import SqlSink
from schemas.errors import ConflictError, Reason


def schema(*names: str) -> pa.Schema:
    return pa.schema([pa.field(name, pa.string()) for name in names])


def test_a_name_of_ours_never_meets_a_name_of_theirs(tmp_path: Path) -> None:
    file = tmp_path / "t.db"
    for sink in (
        FileSink(tmp_path / "out", "g"),
        SqlSink(sa.make_url(f"sqlite:///{file}"), "t", "g", create_table=True),
    ):
        with pytest.raises(ConflictError, match="_Record_Key") as error:
            sink.prepare(schema("id", "_Record_Key"))
        assert error.value.reason is Reason.CONTRACT_BROKEN
        sink.close()
    assert list(tmp_path.iterdir()) == [], "nothing was made"


@pytest.mark.parametrize(
    ("url", "names", "word"),
    [
        ("postgresql+psycopg2://u@h/d", ["a" * 64], "63 bytes at most"),
        ("postgresql+psycopg2://u@h/d", ["ID", "id"], ""),
        ("mariadb+pymysql://u@h/d", ["a" * 65], "64 bytes at most"),
        ("mariadb+pymysql://u@h/d", ["ID", "id"], "one column: ID, id"),
        ("sqlite://", ["ID", "id"], "one column: ID, id"),
        ("sqlite://", ["a" * 200], ""),
    ],
)
def test_a_database_says_which_names_it_has_no_column_for(url: str, names: list[str], word: str) -> None:
    sink = SqlSink(sa.make_url(url), "t", "g")
    if word:
        with pytest.raises(ConflictError, match=word):
            sink.check(schema(*names))
    else:
        sink.check(schema(*names))
    sink.close()


def test_the_longest_name_is_counted_in_bytes() -> None:
    require_names(schema("a" * 63), longest=63)
    with pytest.raises(ConflictError):
        require_names(schema("王" * 22), longest=63)
