"""Checks of PostgreSQL tables that are read by statements: what the catalogue tells before a row is read.

A pass would find the same, later and in the words of the database's error. Tables whose changes are read from the log
have checks of their own (`connectors.runtime.change_streams`); other databases are checked by reading a sample.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from connectors.config.config import ConnectorConfig
from connectors.config.source_models import SqlSourceConfig
from connectors.port import Pool
from connectors.runtime import assembly
from connectors.sources.postgres.catalogue import read_table
from connectors.sources.postgres.connection import open_sql, translate_errors
from connectors.sources.postgres.readiness import Finding, check_read_right, check_time_zones
from schemas.names import Topic

__all__ = ["check_tables"]


def check_tables(config: ConnectorConfig, pool: Pool) -> Iterator[Finding]:
    """Check the right to read, and what times without a zone mean; nothing where the database is not PostgreSQL.

    Raises:
        PoolError: the database does not answer, or the configuration names what the contract lacks.
    """
    source = config.source
    sections = [each for each in config.publish if each.mode != "cdc" and each.table]
    if not isinstance(source, SqlSourceConfig) or not sections:
        return
    address = source.address()
    if address.get_backend_name() != "postgresql":
        return
    with translate_errors("connect to the database"), closing(open_sql(address)) as sql:
        schema, user = _schema_and_user(sql)
        for section in sections:
            table = section.table if "." in section.table else f"{schema}.{section.table}"
            found = read_table(sql, table, "")
            if found is None:
                continue  # the sample says that it is not there
            yield from check_read_right(found, user=user)
            mapping = assembly.column_mapping(section, pool.schema(Topic.parse(section.resource)))
            yield from check_time_zones(found, mapping.zoneless())


def _schema_and_user(sql: Any) -> tuple[str, str]:
    with sql.cursor() as cursor:
        cursor.execute("SELECT coalesce(current_schema(), 'public'), current_user")
        schema, user = cursor.fetchone()
    return schema, user
