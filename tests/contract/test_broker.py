"""The broker's contract on memory and PostgreSQL. (Kafka's is with its integration tests.)"""

from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa

from exchange.broker.memory import MemoryBroker, MemoryLog
from exchange.broker.postgres.broker import PostgresBroker, metadata
from registry.database.connection_pool import create_engine
from registry.database.unit_of_work import PostgresDatabase
from schemas.names import Lane, Topic
from tests.contract.broker.suite import BrokerContract
from tests.kit.cases.broker import KEY, Rig
from tests.kit.world import postgres


class MemoryRig:
    joins_work = False
    erases = True

    def __init__(self) -> None:
        self.log = MemoryLog()

    def broker(self) -> MemoryBroker:
        return MemoryBroker(self.log)

    def operator(self) -> MemoryBroker:
        return self.broker()

    def make_unavailable(self) -> None:
        self.log.down = True

    def fill_disk(self) -> bool:
        self.log.full = True
        return True

    def restore(self) -> None:
        self.log.down = self.log.full = False

    def retain(self, topic: Topic, now: int) -> None:
        self.broker().retain(now)

    def spoil(self, lane: Lane) -> bool:
        return False

    def compact(self, topic: Topic) -> bool:
        self.broker().compact()
        return True


class TestMemory(BrokerContract):
    @pytest.fixture
    def rig(self) -> Rig:
        return MemoryRig()


class PostgresRig:
    """One database. Every adapter has an engine of its own, made as a gateway makes it."""

    joins_work = True
    erases = True

    def __init__(self, server: sa.URL, database: sa.URL) -> None:
        self._database = database
        self._admin = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        self._brokers: list[PostgresBroker] = []
        self._engines: list[sa.Engine] = []

    def broker(self) -> PostgresBroker:
        engine = create_engine(self._database, connections=15)
        self._engines.append(engine)
        broker = PostgresBroker(PostgresDatabase(engine), key=KEY, check_period=timedelta(milliseconds=200))
        self._brokers.append(broker)
        return broker

    def operator(self) -> PostgresBroker:
        return self.broker()

    def make_unavailable(self) -> None:
        name = self._database.database
        self._do(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        self._do(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    def fill_disk(self) -> bool:
        # The server's own error, in the middle of a batch: its first partition has been written by then.
        with sa.create_engine(self._database, poolclass=sa.NullPool).begin() as connection:
            connection.exec_driver_sql(
                "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE 'No space left on device' USING ERRCODE = '53100'; END $$"
            )
            connection.exec_driver_sql(
                "CREATE TRIGGER full_disk BEFORE INSERT ON broker_stretch "
                "FOR EACH ROW WHEN (NEW.partition > 0) EXECUTE FUNCTION full_disk()"
            )
        return True

    def restore(self) -> None:
        self._do(f'ALTER DATABASE "{self._database.database}" ALLOW_CONNECTIONS true')
        with sa.create_engine(self._database, poolclass=sa.NullPool).begin() as connection:
            connection.exec_driver_sql("DROP FUNCTION IF EXISTS full_disk() CASCADE")

    def retain(self, topic: Topic, now: int) -> None:
        self._brokers[0].retain(now)

    def spoil(self, lane: Lane) -> bool:
        with sa.create_engine(self._database, poolclass=sa.NullPool).begin() as connection:
            connection.exec_driver_sql(
                "UPDATE broker_receipt SET runs = '0:1-x' WHERE lane_id = (SELECT id FROM broker_lane WHERE name = %s)",
                (str(lane),),
            )
        return True

    def compact(self, topic: Topic) -> bool:
        self._brokers[0].compact()
        return True

    def close(self) -> None:
        for broker in self._brokers:
            broker.close()
        for engine in self._engines:
            engine.dispose()

    def _do(self, statement: str) -> None:
        with self._admin.connect() as connection:
            connection.exec_driver_sql(statement)


@pytest.fixture(scope="module")
def broker_database(postgres_server: sa.URL) -> Iterator[sa.URL]:
    with postgres.fresh_database(postgres_server) as url:
        engine = create_engine(url, connections=1)
        metadata.create_all(engine)
        engine.dispose()
        yield url


@pytest.mark.postgres
class TestPostgres(BrokerContract):
    @pytest.fixture
    def rig(self, postgres_server: sa.URL, broker_database: sa.URL) -> Iterator[Rig]:
        rig = PostgresRig(postgres_server, broker_database)
        yield rig
        rig.close()
