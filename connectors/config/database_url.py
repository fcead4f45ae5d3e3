"""Database addresses: SQLAlchemy's form, and the usual one without a driver, for which the driver is chosen.

    postgresql://user@host/name      postgresql+psycopg2://…      also postgres://
    mysql://, mariadb://             …+pymysql
    oracle://                        oracle+oracledb://

`lint` names what is not installed, and how to install it. No driver is asked to connect.
"""

from contextlib import suppress

import sqlalchemy as sa

from schemas.errors import InvalidError, Reason

__all__ = ["parse_database_url"]

_USUAL_FORMS = {
    "postgres": "postgresql+psycopg2",
    "postgresql": "postgresql+psycopg2",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "oracle": "oracle+oracledb",
}
_PACKAGES = {  # module of a driver → what to install
    "psycopg2": "'exchange-pool[postgresql]'",
    "pymysql": "'exchange-pool[mysql]'",
    "MySQLdb": "mysqlclient",
    "cx_Oracle": "cx_Oracle",
}
_EXAMPLE = "postgresql://user@host/database"


def parse_database_url(text: str) -> sa.URL:
    """Return an address whose database and driver SQLAlchemy knows, and whose driver is installed.

    Raises:
        InvalidError: CONFIG_INVALID; the message never holds the address.
    """
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError) as error:  # ValueError: a port that is no number
        raise _invalid(f"expected a database address such as {_EXAMPLE}") from error
    usual = url.set(drivername=_USUAL_FORMS.get(url.drivername, url.drivername))
    try:
        return _installed(usual)
    except ModuleNotFoundError as error:
        if url.drivername in ("postgresql", "mysql", "mariadb"):  # another driver, which SQLAlchemy would take
            with suppress(ModuleNotFoundError):
                return _installed(url)
        module = (error.name or "").partition(".")[0]
        raise _invalid(
            f"the driver {module} of {url.drivername[:40]} is not installed; run pip install "
            f"{_PACKAGES.get(module, module)}"
        ) from error


def _installed(url: sa.URL) -> sa.URL:
    """Return the address; raise ModuleNotFoundError if its driver is not installed."""
    try:
        dialect = url.get_dialect()
    except sa.exc.NoSuchModuleError as error:
        raise _invalid(
            f"no database is known by the name {url.drivername[:40]!r}; expected an address such as {_EXAMPLE}; there "
            "are also mysql, mariadb, oracle, sqlite, and those whose SQLAlchemy dialect is installed"
        ) from error
    dialect.import_dbapi()
    return url


def _invalid(message: str) -> InvalidError:
    return InvalidError(Reason.CONFIG_INVALID, message)
