"""A connector that goes on publishing while a test breaks something, and remembers what was acknowledged."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from exchange.client import PoolClient
from schemas.errors import PoolError
from schemas.names import Topic
from schemas.record import Batch
from tests.kit.patience import PATIENCE, wait_for
from tests.kit.world.publisher import Publisher, framed
from tests.kit.world.world import Office, World


class PublishLoad:
    """Publishes numbered permits (`tests.torture.clerks.SCHEMA`), a batch at a time, and repeats what failed.

    Attributes:
        acknowledged: numbers of the permits that have a receipt.
        refusals: reasons of the failed attempts.
    """

    def __init__(self, world: World, provider: Office, topic: Topic, *, size: int = 20) -> None:
        self._world = world
        self._topic = topic
        self._size = size
        self._identity = provider.enrol("load")
        self._publisher = Publisher(self._identity.pool_id, provider.id, "load", str(topic), self._identity.signing_key)
        self._stop = threading.Event()
        self._next = 0
        self._schema: tuple[int, str] | None = None
        self._pending: tuple[range, Batch] | None = None  # signed, and not acknowledged yet
        self.acknowledged: list[int] = []
        self.refusals: list[str] = []

    @contextmanager
    def running(self) -> Iterator["PublishLoad"]:
        """Publish until the block ends."""
        self._stop.clear()
        self.refusals.clear()
        thread = threading.Thread(target=self._run, name="load", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def wait_for_more(self, what: str) -> None:
        """Wait until something new was acknowledged."""
        before = len(self.acknowledged)
        wait_for(lambda: len(self.acknowledged) > before, what)

    def _run(self) -> None:
        with self._world.client(self._identity) as pool:
            while not self._stop.is_set():
                try:
                    self._schema = self._schema or pool.schema(self._topic)
                except PoolError:
                    time.sleep(0.1)
                    continue
                if self._pending is None:
                    numbers = range(self._next, self._next + self._size)
                    self._next = numbers.stop
                    rows = [
                        {"permit_no": f"p{n}", "version": 1, "district": "东城", "note": "注" * 200} for n in numbers
                    ]
                    self._pending = numbers, self._publisher.batch(framed(*self._schema, rows))
                numbers, batch = self._pending
                if self._deliver(pool, batch):
                    self.acknowledged += numbers
                    self._pending = None

    def _deliver(self, pool: PoolClient, batch: Batch) -> bool:
        """Send one batch until it is acknowledged, by its receipt or by the lane's head; False when told to stop."""
        while not self._stop.is_set():
            try:
                list(pool.publish(self._topic, [batch]))
            except PoolError as error:
                self.refusals.append(str(error.reason))
                time.sleep(0.1)
            else:
                return True
            try:
                if pool.resume(self._topic).sequence >= batch.sequence:
                    return True
            except PoolError as error:
                self.refusals.append(str(error.reason))
                time.sleep(0.1)
        return False
