"""docs/reference/sql-types.md says of every SQL type what really becomes of its values, and lacks none.

WRITE_SQL_TYPES=1 writes the lines of the page again; look at what has changed before you commit it.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.docs.pages import ROOT
from tests.kit.cases.sql_types import MARIADB, POSTGRESQL, SQLITE
from tests.kit.world import mariadb, postgres
from tests.kit.world.changing_tables import execute, query
from tests.kit.world.sql_type_table import marked, section

# SQLAlchemy does not know each type by name; its columns are read as the text that the database writes.
pytestmark = pytest.mark.filterwarnings("ignore:Did not recognize type:sqlalchemy.exc.SAWarning")

PAGE = ROOT / "docs" / "reference" / "sql-types.md"
MADE = (
    "CREATE DOMAIN flag AS boolean",
    "CREATE DOMAIN code AS char(4)",
    "CREATE TYPE mood AS ENUM ('好', 'bad')",
    "CREATE TYPE pair AS (n int, t text)",
)
WITHOUT_VALUES = {
    # of the catalogue alone: names of objects by their number, places of rows, and what no table of a department has
    "aclitem", "cid", "gtsvector", "int2vector", "oidvector", "pg_brin_bloom_summary", "pg_brin_minmax_multi_summary",
    "pg_dependencies", "pg_mcv_list", "pg_ndistinct", "pg_node_tree", "pg_ddl_command", "refcursor", "tid", "xid",
    "xml",  # a text like json; the server of the tests is built without it
}  # fmt: skip


@pytest.fixture
def postgresql_url(tmp_path: Path) -> Iterator[sa.URL]:
    with postgres.cluster() as server, postgres.fresh_database(server) as url:
        execute(url, *MADE)
        yield url


def compare(database: str, lines: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    head, stated, tail = marked(page, database)
    if os.environ.get("WRITE_SQL_TYPES"):
        PAGE.write_text(head + lines + tail, encoding="utf-8")
        return
    assert stated.splitlines() == lines.splitlines()


@pytest.mark.postgres
def test_of_every_type_of_postgresql_the_page_says_what_arrives(postgresql_url: sa.URL, tmp_path: Path) -> None:
    compare("PostgreSQL", section(postgresql_url, tmp_path / "d", POSTGRESQL))


@pytest.mark.postgres
def test_the_page_lacks_no_type_that_a_table_of_postgresql_may_have(postgresql_url: sa.URL) -> None:
    execute(postgresql_url, f"CREATE TABLE stated ({', '.join(f'c{n} {name}' for n, name in enumerate(POSTGRESQL))})")
    stated = {row[0] for row in query(postgresql_url, "SELECT DISTINCT atttypid::regtype::text FROM pg_attribute "
                                      "WHERE attrelid = 'stated'::regclass AND attnum > 0")}  # fmt: skip
    known = query(
        postgresql_url,
        "SELECT t.oid::regtype::text, t.typname FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace "
        "WHERE nspname = 'pg_catalog' AND typtype IN ('b', 'r', 'm') AND typcategory <> 'A' AND typname !~ '^(reg|_)'",
    )
    assert {name for name, plain in known if plain not in WITHOUT_VALUES} - stated == set()


@pytest.mark.needs_package("mariadb-server-core", program="mariadbd")
def test_of_every_type_of_mariadb_the_page_says_what_arrives(tmp_path: Path) -> None:
    with mariadb.server() as server, mariadb.fresh_database(server) as url:
        execute(url, f"ALTER DATABASE `{url.database}` CHARACTER SET utf8mb4")
        execute(url, "SET GLOBAL sql_mode = ''")
        compare("MariaDB", section(url, tmp_path / "d", MARIADB))


def test_of_every_type_of_sqlite_the_page_says_what_arrives(tmp_path: Path) -> None:
    compare("SQLite", section(sa.make_url(f"sqlite:///{tmp_path / 'register.db'}"), tmp_path / "d", SQLITE))
