"""A database made by the migrations is the one that the rooms' metadata describe."""

import os
import subprocess

import pytest
import sqlalchemy as sa

from exchange import migrations
from exchange.server.embedded_postgres import EmbeddedPostgres
from schemas.errors import InvalidError
from tests.kit.world import postgres

pytestmark = pytest.mark.postgres


def dump(url: sa.URL) -> list[str]:
    """Return the statements of a schema, without alembic's own table, in a fixed order."""
    binary = EmbeddedPostgres.binaries() / "bin" / "pg_dump"
    done = subprocess.run(
        [str(binary), "--schema-only", "--no-owner", "--exclude-table=alembic_version", url.database or ""],
        env={
            "PATH": os.environ["PATH"],
            "PGHOST": str(url.query["host"]),
            "PGUSER": url.username or "",
            "PGPASSWORD": url.password or "",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    statements = done.stdout.split(";\n")
    return sorted(one.strip() for one in statements if "restrict" not in one and one.strip())


def test_migrations_and_metadata_give_the_same_schema(postgres_server: sa.URL) -> None:
    with postgres.fresh_database(postgres_server) as made, postgres.fresh_database(postgres_server) as migrated:
        engine = sa.create_engine(made)
        for metadata in migrations.METADATA:
            metadata.create_all(engine)
        engine.dispose()
        other = sa.create_engine(migrated)
        migrations.upgrade(other)
        migrations.check(other)
        other.dispose()
        assert dump(migrated) == dump(made)


def test_a_database_of_another_revision_is_refused(engine: sa.Engine) -> None:
    with pytest.raises(InvalidError, match="pool migrate"):
        migrations.check(engine)


def test_migrating_twice_changes_nothing(engine: sa.Engine) -> None:
    migrations.upgrade(engine)
    before = sa.inspect(engine).get_table_names()
    migrations.upgrade(engine)
    assert sa.inspect(engine).get_table_names() == before
