"""The database's schema over time (alembic). Migration happens by command alone; a start only checks.

Every room with tables keeps its own `metadata`; together they are what the newest revision must give, which a test
proves on a real database.
"""

from importlib import resources

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import exc as sa_exc

from exchange.access.grants import postgres as access
from exchange.access.predicates import postgres as predicates
from exchange.audit import tables as audit
from exchange.broker.postgres import tables as broker
from exchange.corrections import postgres as corrections
from exchange.deadlines import tables as deadlines
from exchange.duties import postgres as duties
from exchange.erasure import tables as erasure
from exchange.hub.store import tables as hub
from exchange.identity import postgres_proposals as identity
from exchange.kpi import postgres as kpi
from exchange.requests import postgres as requests
from exchange.violations import postgres as violations
from registry.database.errors import unavailable
from registry.postgres import tables as registry
from schemas.errors import InvalidError, Reason

__all__ = ["METADATA", "check", "revision", "upgrade"]

METADATA: tuple[sa.MetaData, ...] = (
    access.metadata,
    audit.metadata,
    broker.metadata,
    corrections.metadata,
    deadlines.metadata,
    duties.metadata,
    erasure.metadata,
    hub.metadata,
    identity.metadata,
    requests.metadata,
    kpi.metadata,
    predicates.metadata,
    registry.metadata,
    violations.metadata,
)


def upgrade(engine: sa.Engine) -> None:
    """Bring the database to the newest revision, in one transaction."""
    with engine.begin() as connection:
        # Two operators at once: the second waits, and finds nothing left to do.
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('exchange-pool-migration'))"))
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def revision(engine: sa.Engine) -> str | None:
    """Return the revision that the database is at; None of one that holds no pool.

    Raises:
        UnavailableError: it does not answer.
    """
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except sa_exc.SQLAlchemyError as error:
        raise unavailable(error) from error


def check(engine: sa.Engine) -> None:
    """Check that the database is at the revision that this code knows.

    Raises:
        InvalidError: CONFIG_INVALID, when it is older or newer.
        UnavailableError: it does not answer.
    """
    found = revision(engine)
    expected = ScriptDirectory.from_config(_config()).get_current_head()
    if found != expected:
        raise InvalidError(
            Reason.CONFIG_INVALID,
            f"the database is at revision {found or 'none'}, this program at {expected}; run `pool migrate`, or the "
            "program that fits",
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(resources.files("exchange.migrations")))
    return config
