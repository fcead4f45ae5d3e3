"""A registry that is served, for the tests of its API."""

import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
import sqlalchemy as sa
import uvicorn
from confluent_kafka.schema_registry import SchemaRegistryClient

from exchange.api.registry.protocol import RegistryProtocol
from registry.postgres import tables
from registry.rest.app import create
from tests.kit.cases.registry import Subjects, postgres_store
from tests.kit.patience import PATIENCE
from tests.kit.world import postgres
from tests.kit.world.changing_tables import execute, slots
from tests.kit.world.registry_served import Confluent, RecordingAccessControl, World, identify


@pytest.fixture(scope="module")
def served(postgres_server: sa.URL) -> Iterator[World]:
    with postgres.fresh_database(postgres_server) as url:
        engine = sa.create_engine(url, pool_size=10)
        tables.metadata.create_all(engine)
        store = postgres_store(engine)
        subjects = Subjects(store, governed=lambda subject: subject.startswith("governed"), strict=False)
        access = RecordingAccessControl(database=subjects.database)
        # The protocol by name: without it asyncio leaves Nagle's algorithm on, and every answer waits 40 ms.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.bind(("127.0.0.1", 0))
        app = create(subjects.services, access, subjects.database, identify=identify)
        server = uvicorn.Server(uvicorn.Config(app, http=RegistryProtocol, log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        with httpx.Client(base_url=base, timeout=PATIENCE) as http:
            yield World(base, subjects, access, http)
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()
        engine.dispose()


@pytest.fixture
def world(served: World) -> World:
    served.access.denied.clear()
    served.access.entries.clear()
    return served


@pytest.fixture
def confluent(world: World) -> Iterator[Confluent]:
    """Makes Confluent's clients, each with caches of its own."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(SchemaRegistryClient({"url": world.url}))


@pytest.fixture
def subject() -> str:
    return f"s{uuid.uuid4().hex}-value"


@pytest.fixture(scope="module")
def logical_server() -> Iterator[sa.URL]:
    """A server of the module's own, with wal_level=logical."""
    with postgres.logical_cluster() as url:
        yield url


@pytest.fixture
def source(logical_server: sa.URL) -> Iterator[sa.URL]:
    """An empty database of it; slots that a test has left are dropped."""
    with postgres.fresh_database(logical_server) as url:
        try:
            yield url
        finally:
            for name in slots(url):
                execute(url, f"SELECT pg_drop_replication_slot('{name}')")
