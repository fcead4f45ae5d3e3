"""A connector's files are read beside its run, wherever they lie."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from connectors.state.read_only import open_read_only


@pytest.mark.parametrize("name", ["plain", "50%25 done", "why?", "no #1", "社保 局"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    file = tmp_path / name / "ledger.sqlite3"
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as sql:
        sql.execute("CREATE TABLE kept (x)")
    with closing(open_read_only(file)) as sql:
        assert sql.execute("SELECT count(*) FROM kept").fetchone() == (0,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            sql.execute("DROP TABLE kept")


def test_nothing_is_made_where_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        open_read_only(tmp_path / "absent.sqlite3")
    assert not list(tmp_path.iterdir())
