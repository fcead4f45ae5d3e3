"""A server that takes no writes, as after a failover, is away for the moment: nobody is told of a driver's error."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from exchange.audit.postgres_log import PostgresLog
from registry.database.unit_of_work import PostgresDatabase, connection_of
from schemas.errors import Reason, UnavailableError
from tests.kit.cases.audit import LogWorld, postgres_world
from tests.kit.row_tags import entry_tags

pytestmark = pytest.mark.postgres


def standby(database: sa.URL) -> sa.Engine:
    """Connect to the database as to a standby: every transaction is read-only."""
    return sa.create_engine(database, connect_args={"options": "-c default_transaction_read_only=on"})


def test_a_write_is_refused_as_unavailable_and_may_be_repeated(database: sa.URL) -> None:
    engine = standby(database)
    try:
        with pytest.raises(UnavailableError) as caught, PostgresDatabase(engine).begin() as work:
            connection_of(work).execute(sa.text("CREATE TABLE t (a int)"))
    finally:
        engine.dispose()
    assert caught.value.reason is Reason.DATABASE_UNAVAILABLE
    assert caught.value.retry_after


def test_the_sequencer_waits_for_a_server_that_writes(engine: sa.Engine, database: sa.URL, tmp_path: Path) -> None:
    with postgres_world(engine) as world:
        log = LogWorld(world, tmp_path / "log")
        sequencer = log.sequencer()
        sequencer.step()
        log.fill(world.ledger(), 3)
        passive = standby(database)
        sequencer._log = PostgresLog(passive, entry_tags())
        with pytest.raises(UnavailableError) as caught:
            sequencer.step()
        passive.dispose()
        assert caught.value.reason is Reason.DATABASE_UNAVAILABLE
        sequencer._log = world.log
        assert sequencer.step().size == 3
