"""Storage of a process: connection pools, unit of work and broker; the embedded PostgreSQL where none is configured."""

from dataclasses import dataclass

import sqlalchemy as sa

from exchange import migrations
from exchange.broker.port import Broker
from exchange.config import Config
from exchange.server.assembly.process_keys import ProcessKeys, absent
from exchange.server.brokers import open_broker
from exchange.server.embedded_postgres import EmbeddedPostgres
from exchange.server.key_files import RECORDS_KEY, records_tagged
from exchange.server.roles import Role
from exchange.server.supervision.startup_retry import retry_until_available
from registry.database.connection_pool import create_engine
from registry.database.unit_of_work import PostgresDatabase
from schemas.errors import InvalidError, Reason

__all__ = ["Storage", "open_database", "open_storage"]

_CONNECTIONS = 24  # threads of one process that hold connections to PostgreSQL at once
_AUTOCOMMIT_CONNECTIONS = 16  # more, for single reads: as many as the registry's threads, and some


@dataclass(frozen=True, slots=True)
class Storage:
    """Connections of a process, and what is written through them."""

    engine: sa.Engine
    autocommit: sa.Engine
    database: PostgresDatabase
    broker: Broker


def open_database(config: Config, *, own: bool) -> tuple[EmbeddedPostgres | None, sa.URL]:
    """Return the address of the database, and its server where this process started one.

    Args:
        config: names the database; where it names none, the embedded one in the data folder is meant.
        own: start the embedded one; otherwise another process has started it.
    """
    url = config.database_url
    if url is not None:
        return None, sa.make_url(url)
    embedded = EmbeddedPostgres(config.folder)
    if own:
        return embedded, embedded.start()
    return None, sa.make_url(embedded.url_file.read_text().strip())


def open_storage(config: Config, keys: ProcessKeys, url: sa.URL, roles: frozenset[Role]) -> Storage:
    """Connect to the database, and to the broker where the process is a gateway.

    Raises:
        InvalidError: CONFIG_INVALID, the database has another version, or stored records have no tags.
        UnavailableError: the database or the broker does not answer within the start-up timeout.
    """
    engine = create_engine(url, connections=_CONNECTIONS)
    autocommit = create_engine(url, connections=_AUTOCOMMIT_CONNECTIONS, autocommit=True)
    retry_until_available(lambda: migrations.check(engine))
    database = PostgresDatabase(engine, autocommit, accountable=True)
    if Role.GATEWAY not in roles:
        return Storage(engine, autocommit, database, absent("the broker of records", roles))
    _check_records_tagged(config)
    broker = retry_until_available(lambda: open_broker(config, keys.secrets.named_key(RECORDS_KEY), database))
    return Storage(engine, autocommit, database, broker)


def _check_records_tagged(config: Config) -> None:
    """Refuse to start while stored records of before have no tags: every read of them would be refused."""
    file = records_tagged(config.folder)
    if not file.exists():
        raise InvalidError(
            Reason.CONFIG_INVALID,
            f"{file} is missing: stored records have not had their first tags, or not all of them; run `pool migrate`. "
            "Where it ran on another machine, copy the file from there",
        )
