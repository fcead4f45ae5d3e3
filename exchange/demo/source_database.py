"""PostgreSQL server of a department of its own, from whose log of changes its connector publishes (`mode: cdc`).

It stands for a department's business system: another server than the pool's, whose owner prepares it by the statements
that `pool-connect setup --print-sql` prints.
"""

import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

import sqlalchemy as sa

from exchange.server.embedded_postgres import EmbeddedPostgres

__all__ = ["SourceDatabase"]

_SETTINGS = {"wal_level": "logical", "max_replication_slots": "10"}


class SourceDatabase:
    """A server with one database, its owner, and a role for the connector that may log in and nothing else."""

    reader = "exchange_reader"

    def __init__(self, folder: Path) -> None:
        self._server = EmbeddedPostgres(folder, _SETTINGS)
        self._engine: sa.Engine | None = None
        self.password = secrets.token_urlsafe(24)

    def start(self) -> sa.URL:
        """Start the server; return the address as the connector's role."""
        url = self._server.start()
        self._engine = sa.create_engine(url, poolclass=sa.NullPool)
        self.execute([f"CREATE ROLE {self.reader} LOGIN PASSWORD '{self.password}'"])
        return url.set(username=self.reader, password=self.password)

    @property
    def engine(self) -> sa.Engine:
        """Return connections of the owner."""
        assert self._engine is not None  # noqa: S101 - tells mypy that the server was started
        return self._engine

    def execute(self, statements: Iterable[str]) -> None:
        """Execute statements as the owner, each by itself."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for each in statements:
                connection.exec_driver_sql(each)

    def slots(self) -> Sequence[str]:
        """Return the names of the replication slots."""
        with self.engine.connect() as connection:
            return list(connection.execute(sa.text("SELECT slot_name FROM pg_replication_slots")).scalars())

    def stop(self) -> None:
        """Stop the server."""
        self._server.stop()
