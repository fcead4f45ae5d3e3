"""Tables of SQLite, which stores any value in any column: what cannot be read is one row, and its table goes on."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.mapping.mapping import Column
from connectors.port import RejectCode
from connectors.sources.sql_table import SqlSource
from schemas.errors import InvalidError, Reason
from tests.kit.world.department import Department, only

Open = Callable[..., SqlSource]


@pytest.fixture
def url(tmp_path: Path) -> sa.URL:
    return sa.make_url(f"sqlite:///{tmp_path / 'register.db'}")


@pytest.fixture
def source(url: sa.URL) -> Iterator[Open]:
    made: list[SqlSource] = []

    def open_(*statements: str, table: str = "t", **how: Any) -> SqlSource:
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            for each in statements:
                connection.exec_driver_sql(each)
        engine.dispose()
        made.append(SqlSource(url, table, **how))
        return made[-1]

    yield open_
    for each in made:
        each.close()


def texts(source: SqlSource, name: str) -> list[str | None]:
    return [text for chunk in source.open().chunks() for text in chunk.columns[name].to_pylist()]


@pytest.fixture
def department(tmp_path: Path) -> Department:
    made = Department(tmp_path)
    made.limits = replace(made.limits, quarantine_share=1.0)
    return made


HOUSEHOLDS = "CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, amount NUMERIC, since DATE, note TEXT)"


def test_a_value_that_does_not_fit_its_column_is_one_row_s_fault(department: Department, source: Open) -> None:
    statements = [
        HOUSEHOLDS,
        "INSERT INTO t VALUES ('1', 1.5, '2023-02-09', NULL), ('2', 2, '2023/02/09', NULL), ('3', 'abc', NULL, NULL)",
        "INSERT INTO t VALUES ('4', 1e-7, NULL, NULL), ('5', 0.1, '2023-02-09', CAST(X'cdf5' AS TEXT))",
        "INSERT INTO t VALUES ('6', 3, '', NULL)",
    ]
    run = only(department.publish(lambda _: source(*statements)))
    assert (run.read, run.published, run.quarantined) == (6, 2, 4)
    assert sorted(department.state()) == ["1", "6"]
    codes = {each.line: (each.field, each.code) for each in department.quarantined()}
    assert codes == {
        2: ("since", RejectCode.TYPE),
        3: ("amount", RejectCode.TYPE),
        4: ("amount", RejectCode.PRECISION_LOSS),
        5: ("note", RejectCode.ENCODING),
    }


def test_a_column_that_is_not_mapped_may_hold_anything(department: Department, source: Open) -> None:
    statements = [
        HOUSEHOLDS,
        "ALTER TABLE t ADD COLUMN due DATETIME",
        "ALTER TABLE t ADD COLUMN paid NUMERIC",
        "INSERT INTO t VALUES ('1', 1, NULL, NULL, 'soon', 'abc')",
    ]
    department.columns = {name: Column(exclude=True) for name in ("due", "paid")}
    assert only(department.publish(lambda _: source(*statements))).published == 1


def test_a_key_that_is_no_text_hides_no_row_after_it(source: Open) -> None:
    rows = "('a', 1), (CAST(X'6bff' AS TEXT), 2), ('l', 3), ('z', 4)"
    opened = source("CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, n INT)", f"INSERT INTO t VALUES {rows}", page=2)
    chunks = list(opened.open().chunks(["id"]))
    assert [text for chunk in chunks for text in chunk.columns["id"].to_pylist()] == ["a", "l", "z"]
    assert [(each.line, each.field) for chunk in chunks for each in chunk.rejects] == [(2, "id")]


@pytest.mark.parametrize(
    ("kind", "literal", "text"),
    [
        ("REAL", "1.5e-12", "1.5e-12"),
        ("NUMERIC", "1.5e-12", "0.0000000000015"),
        ("DECIMAL(30,10)", "0.1", "0.1"),
        ("BOOLEAN", "1", "true"),
        ("BOOLEAN", "7", "7"),
        ("DATETIME", "'2023-02-09 10:00:00.5'", "2023-02-09 10:00:00.5"),
        ("BLOB", "x'00ff'", "00ff"),
        ("BLOB", "x''", "\\x"),
        ("BLOB", "'ab'", "6162"),
        ("BLOB", "''", "\\x"),
        ("BIGINT", "9223372036854775807", "9223372036854775807"),
        ("JSON", '\'{"b":1.10,"a":2}\'', '{"b":1.10,"a":2}'),
    ],
)
def test_a_stored_value_is_written_exactly(source: Open, kind: str, literal: str, text: str) -> None:
    opened = source(f"CREATE TABLE t (id INTEGER PRIMARY KEY, v {kind})", f"INSERT INTO t VALUES (1, {literal})")
    assert texts(opened, "v") == [text]


@pytest.mark.parametrize(
    ("table", "fits"),
    [
        ("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", True),
        ("CREATE TABLE t (id integer, v TEXT, PRIMARY KEY (id))", True),
        ("CREATE TABLE t (id TEXT PRIMARY KEY, v TEXT) WITHOUT ROWID", True),
        ("CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, v TEXT)", True),
        ("CREATE TABLE t (id INT PRIMARY KEY, v TEXT)", False),
        ("CREATE TABLE t (id TEXT PRIMARY KEY, v TEXT)", False),
        ("CREATE TABLE t (id INTEGER, v TEXT, PRIMARY KEY (id, v))", False),
    ],
)
def test_a_primary_key_that_cannot_be_null_is_accepted(source: Open, table: str, fits: bool) -> None:
    opened = source(table, "INSERT INTO t VALUES ('1', 'x')")
    if fits:
        assert texts(opened, "v") == ["x"]
        return
    with pytest.raises(InvalidError, match="may be null"):
        opened.open()


PEOPLE = [
    "CREATE TABLE p (id INT, town TEXT, name TEXT)",
    "INSERT INTO p VALUES (1, 'a:b', '王'), (2, 'a', '李'), (3, 'b', '张'), (4, 'b', '100% :x')",
    "CREATE VIEW v AS SELECT id, name, town FROM p",
]


@pytest.mark.parametrize("page", [1, 2, 100])
def test_a_view_is_read_by_the_key_that_its_owner_names(source: Open, page: int) -> None:
    opened = source(*PEOPLE, table="v", key=("id",), page=page)
    assert texts(opened, "name") == ["王", "李", "张", "100% :x"]
    chunks = list(opened.open().chunks(["id"]))
    assert [len(chunk) for chunk in chunks] == [page] * (4 // page) + [4 % page] * (page > 4)
    with pytest.raises(InvalidError, match="under `key:`"):
        source(table="v").open()


def test_a_query_is_read_as_it_stands(source: Open) -> None:
    query = (
        "SELECT p.id AS id, p.name || ':' || q.town AS label FROM p JOIN p q ON q.id = p.id WHERE p.name LIKE '%:x';"
    )
    opened = source(*PEOPLE, table="", query=query, key=("id",))
    assert texts(opened, "label") == ["100% :x:b"]
    assert texts(source(table="", query="SELECT id, name FROM p WHERE town = 'a:b'", key=("id",)), "name") == ["王"]
    with pytest.raises(InvalidError, match="no column nr"):
        source(table="", query="SELECT id FROM p", key=("nr",)).open()


def test_a_condition_chooses_rows(source: Open) -> None:
    opened = source(*PEOPLE, table="v", key=("id",), where="name LIKE '100%' OR town = 'a:b'")
    assert texts(opened, "id") == ["1", "4"]
    paged = source(
        "CREATE TABLE t (id INTEGER PRIMARY KEY)",
        "INSERT INTO t VALUES (1), (2), (3), (4)",
        page=1,
        where="id <> 2 OR 0",
    )
    assert texts(paged, "id") == ["1", "3", "4"]


@pytest.mark.parametrize("page", [1, 2, 100])
def test_a_key_that_is_none_stops_before_anything_is_published(department: Department, source: Open, page: int) -> None:
    statements = [
        "CREATE TABLE p (id TEXT, amount NUMERIC, since TEXT, note TEXT)",
        "INSERT INTO p VALUES ('1', 1, NULL, NULL), ('2', 1, NULL, NULL), ('2', 2, NULL, NULL), ('2', 3, NULL, NULL)",
        "INSERT INTO p VALUES (NULL, 1, NULL, NULL), ('3', 1, NULL, NULL)",
        "CREATE VIEW v AS SELECT * FROM p",
    ]
    with pytest.raises(InvalidError) as error:
        department.publish(lambda _: source(*statements, table="v", key=("id",), page=page))
    assert error.value.reason is Reason.CONFIG_INVALID
    assert "2 rows have the key of a row before them, and 1 have null in it" in error.value.message
    assert department.state() == {}
    run = only(department.publish(lambda _: source(table="v", key=("id",), where="id IN ('1', '3')", page=page)))
    assert (run.read, run.published) == (2, 2)
