"""The in-memory pool for connectors that run as processes of their own, and can be killed like processes.

The pool is in the test's process and answers over a socket; what it has appended survives any connector. `Killer` sends
SIGKILL at the n-th call, before it is handled or after it is handled and before it is answered, or after some
milliseconds, which hits what no call shows: a transaction in the middle, a file half written.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connectors import cli
from connectors.port import Sink
from connectors.publishing.publication import Limits
from connectors.sinks.files import FileSink
from connectors.sinks.sql import SqlSink
from connectors.sources.postgres import horizon
from connectors.sources.sql_table import SqlSource
from connectors.state.ledger import Ledger
from connectors.subscribing.subscriber import Subscriber, SubscriptionConfig
from schemas.connector_report import ConnectorReport, ReportAnswer
from schemas.errors import PoolError
from schemas.names import Topic
from schemas.record import Batch, Receipt
from tests.kit.patience import PATIENCE
from tests.kit.twins.pool_twin import CASE, PURPOSE, PoolTwin, TwinClient
from tests.kit.world.changing_tables import ChangingTables, with_limits
from tests.kit.world.cursor_table import CursorTable
from tests.kit.world.department import Department, now

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.kit.twins.pool_twin_process"])


@dataclass
class Killer:
    """When the connector dies; `calls` counts what it asked for."""

    at_call: int = 0
    before: bool = False
    after_seconds: float = 0.0
    calls: int = 0
    pid: int = 0
    signal: int = signal.SIGKILL

    def struck(self, *, before: bool) -> bool:
        if self.at_call and self.calls == self.at_call and before == self.before:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, self.signal)
            return self.signal == signal.SIGKILL
        return False


class TwinServer:
    """Answers one connector at a time."""

    def __init__(self, twin: PoolTwin, folder: Path, client: TwinClient) -> None:
        self.twin = twin
        self.address = str(folder / "twin.sock")
        self.killer = Killer()
        self.error: BaseException | None = None
        self.client = client  # whose machine calls
        self._listener = Listener(self.address, "AF_UNIX")
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError), Client(self.address, "AF_UNIX") as last:
            last.send(None)
        self._thread.join(PATIENCE)
        self._listener.close()

    def run(self, target: Any, *arguments: Any, killer: Killer | None = None) -> int:
        """Run a connector to its end, or to its death; give its exit code."""
        self.killer = killer or Killer()
        process = CONTEXT.Process(target=target, args=(self.address, *arguments))
        process.start()
        self.killer.pid = process.pid or 0
        if self.killer.after_seconds:
            process.join(self.killer.after_seconds)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.killer.pid, signal.SIGKILL)
        process.join(60)
        code = process.exitcode
        process.close()
        if self.error is not None:
            raise self.error
        assert code is not None, "the connector hangs"
        return code

    def _accept(self) -> None:
        while True:
            connection = self._listener.accept()
            with connection:
                if not self._serve(connection):
                    return

    def _serve(self, connection: Connection) -> bool:
        with contextlib.suppress(EOFError, ConnectionError):
            while (asked := connection.recv()) is not None:
                name, arguments, keywords = asked
                self.killer.calls += 1
                if self.killer.struck(before=True):
                    return True
                try:
                    answer: object = getattr(self.client, name)(*arguments, **keywords)
                except PoolError as error:
                    answer = error
                except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
                    self.error = error
                    return True
                if self.killer.struck(before=False):
                    return True
                connection.send(answer)
            return False
        return True


class RemotePool:
    """The port in the connector's process, by name of the call; several batches are under way at a time."""

    def __init__(self, address: str) -> None:
        self._connection = Client(address, "AF_UNIX")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            self._connection.send((name, arguments, keywords))
            return self._answer()

        return call

    def report(self, report: ConnectorReport) -> ReportAnswer | None:
        """Take none, as an earlier pool: one thread calls at a time here, and the calls are counted."""
        del report
        return None

    def publish(self, topic: Topic, batches: Iterable[Batch], *, in_flight: int = 4) -> Iterator[Receipt]:
        waiting: deque[Batch] = deque()
        for batch in batches:
            self._connection.send(("take", (topic, batch), {}))
            waiting.append(batch)
            if len(waiting) >= in_flight:
                waiting.popleft()
                yield self._answer()
        for _ in range(len(waiting)):
            yield self._answer()

    def _answer(self) -> Any:
        answer = self._connection.recv()
        if isinstance(answer, PoolError):
            raise answer
        return answer


def publish(address: str, folder: str, key: bytes) -> None:
    """A source connector, as a process."""
    department = Department(Path(folder), key=Ed25519PrivateKey.from_private_bytes(key))
    department.limits = replace(Limits(batch_rows=7, give_up_after=1, backoff=0.001), accept_deletes=True)
    department.pool = RemotePool(address)
    department.publish()


def publish_changes(address: str, folder: str, url: str, key: bytes) -> None:
    """A connector that reads a database's log, as a process."""
    tables = ChangingTables(Path(folder), _url(url), key=Ed25519PrivateKey.from_private_bytes(key))
    tables.limits = replace(tables.limits, batch_rows=7, accept_deletes=True)
    tables.settings = with_limits(tables.settings, batch_rows=7, transaction_rows=9)
    tables.pool = RemotePool(address)
    tables.publish()


def publish_table(address: str, folder: str, url: str, key: bytes, mode: str) -> None:
    """A connector that reads a table whole, or by its cursor and whole every few seconds, as a process."""
    horizon.MARGIN = 0
    table = CursorTable(Path(folder), _url(url), table={"table": "item", "page": 5})
    table.settings = replace(table.settings, whole=every_few_seconds)
    table.department.key = Ed25519PrivateKey.from_private_bytes(key)
    table.department.limits = replace(table.department.limits, accept_deletes=True, give_up_after=1, in_flight=2)
    table.department.pool = RemotePool(address)
    if mode == "snapshot":
        table.department.publish(lambda _: SqlSource(table.url, **table.table))
    else:
        table.fresh = mode == "whole"
        table.publish()


def every_few_seconds(last: datetime | None, moment: datetime) -> bool:
    """Return whether some seconds have gone by."""
    return last is None or moment - last >= timedelta(seconds=3)


def draw(address: str, folder: str, form: str) -> None:
    """A sink connector, as a process."""
    path = Path(folder)
    ledger = Ledger(path / "sink" / "ledger.sqlite3", clock=now)
    sink: Sink = FileSink(path / "out", "g-1")
    if form != "jsonl":
        sink = SqlSink(_url(form), "household", "g-1", create_table=True)
    Subscriber(
        SubscriptionConfig(grant="g-1", purpose=PURPOSE, case=CASE, batch_rows=13),
        sink,
        RemotePool(address),
        ledger,
        stop=threading.Event(),
        give_up_after=1,
    ).run(once=True)
    sink.close()
    ledger.close()


class RemoteRenewingPool(RemotePool):
    """Stands for `connectors.runtime.renewing_client.RenewingPoolClient` in the command line."""

    def __init__(self, address: str, key: Ed25519PrivateKey) -> None:
        super().__init__(address)
        self.sign = key.sign

    def refresh(self) -> None:
        """Do nothing: the in-memory pool's certificates do not expire."""


def command(address: str, key: bytes, *arguments: str) -> None:
    """`pool-connect`, as a process."""
    cli._connect = lambda *_: RemoteRenewingPool(address, Ed25519PrivateKey.from_private_bytes(key))  # type: ignore[assignment,return-value]
    sys.argv = ["pool-connect", *arguments]
    cli.main()


def _url(text: str) -> Any:
    import sqlalchemy as sa

    return sa.make_url(text)
