"""Addresses of databases: the usual forms work, and what is not installed is named before a run needs it."""

import builtins
from typing import Any

import pytest

from connectors.config.database_url import parse_database_url
from connectors.config.lint import parse_config
from schemas.errors import InvalidError, Reason


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        ("postgresql://user@host/name", "postgresql+psycopg2"),
        ("postgres://user@host/name", "postgresql+psycopg2"),
        ("postgresql+psycopg2://user@host/name", "postgresql+psycopg2"),
        ("mysql://user@host/name", "mysql+pymysql"),
        ("mariadb://user@host/name?charset=utf8mb4", "mariadb+pymysql"),
        ("sqlite:///register.db", "sqlite"),
    ],
)
def test_the_usual_form_of_an_address_works(text: str, driver: str) -> None:
    url = parse_database_url(text)
    assert url.drivername == driver
    assert url.render_as_string().partition(":")[2] == text.partition(":")[2]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("oracle://user@host/name", "driver oracledb of oracle is not installed; run pip install oracledb"),
        ("mssql://user@host/name", "driver pyodbc of mssql is not installed; run pip install pyodbc"),
        ("postgresql+asyncpg://user@host/name", "run pip install asyncpg"),
        ("postgresq://user@host/name", "no database is known by the name 'postgresq'"),
        ("postgresql+psycopg9://user@host/name", "no database is known by the name 'postgresql+psycopg9'"),
        ("postgresql://user@host:port/name", "expected a database address such as"),
        ("register.db", "expected a database address such as"),
    ],
)
def test_an_address_that_cannot_be_used_says_what_to_do(text: str, word: str) -> None:
    with pytest.raises(InvalidError) as error:
        parse_database_url(text)
    assert error.value.reason is Reason.CONFIG_INVALID
    assert word in error.value.message
    assert "user@host/name" not in error.value.message


def test_a_missing_driver_names_the_extra_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] in ("psycopg2", "psycopg"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InvalidError, match=r"pip install 'exchange-pool\[postgresql\]'"):
        parse_database_url("postgresql://user@host/name")


def test_lint_reports_it_at_its_line() -> None:
    found = parse_config(
        "version: 1\nconnector: c\nexchange: { identity: i }\nsource:\n  kind: sql\n  url: mssql://reader@db/x\n"
        "publish:\n  - resource: r.v1\n    table: t\n"
    )
    assert isinstance(found, list)
    assert (found[0].line, found[0].column) == (6, 3)
    assert "pip install pyodbc" in found[0].message
