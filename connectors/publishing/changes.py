"""Change publisher: a database's log of changes into the pool, several tables over one log.

    1. open every table's lane; send again what was signed before and not acknowledged, byte for byte
    2. tables without a position (new ones, another mapping, a restored pool) are published whole, from one snapshot, by
       the publisher of portions: unchanged rows are not sent, missing ones are voided. Then the log is kept from there
    3. read the log; each table's changes are sent by a thread of its own, whole transactions at a time
    4. confirm to the database what the pool has acknowledged of all tables, and nothing else

Each batch states its position in the log as its source position, and enters the ledger before it is sent. So after a
crash the ledger, or the pool where the ledger was lost, says from where on each table goes on, and nothing is published
twice or left out. Of every change one of four things becomes, and they balance:

    changes read = published + voided + quarantined + unchanged

A table that was emptied at once (TRUNCATE) stops; the others go on. Its keys are not voided until a person says that
they are really gone (`run --resnapshot`).
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from connectors.port import ChangeBatch, ChangeSource, Pool
from connectors.publishing.change_snapshot import SnapshotLostError, SnapshotTableSource
from connectors.publishing.change_table import ChangePublication, ChangeTable
from connectors.publishing.change_worker import ChangeWorkers, Flight
from connectors.publishing.publication import Signer
from connectors.publishing.publisher import Publisher
from connectors.retry import Backoff
from connectors.state.ledger import RunReport
from schemas.errors import ConflictError, PoolError, Reason, UnavailableError

__all__ = ["ChangePublisher"]


class ChangePublisher:
    """All tables of one connector that are read from one log. Its threads end with `run`."""

    def __init__(
        self,
        publications: Sequence[ChangePublication],
        source: ChangeSource,
        pool: Pool,
        *,
        sign: Signer,
        stop: threading.Event,
        progress: Callable[[RunReport], None] = lambda _: None,
        notify: Callable[[str], None] = lambda _: None,
        clock: Callable[[], datetime],
    ) -> None:
        self.source = source
        self._pool = pool
        self._sign = sign
        self._stop = stop
        self._progress = progress
        self._notify = notify
        self._clock = clock
        self._tables = {
            each.table: ChangeTable(each, pool, sign, stop, notify, progress, clock) for each in publications
        }
        limits = publications[0].limits
        self._backoff = Backoff(
            give_up_after=limits.give_up_after, stop=stop, monotonic=time.monotonic, base=limits.backoff
        )

    def run(self, *, once: bool = False, resnapshot: Collection[str] = ()) -> list[RunReport]:
        """Publish changes until stopped, or with `once` those that are committed now; return a report a table.

        Args:
            once: end behind the last change that is committed now.
            resnapshot: tables that are read whole again; all of them also begin the log again.

        Raises:
            PoolError: see `connectors.retry`; SOURCE_CHANGED, DELETE_GUARD, QUARANTINE_LIMIT and CONTRACT_BROKEN need a
                person.
        """
        again = set(resnapshot)
        reports: list[RunReport] = []
        while not self._stop.is_set():
            try:
                self._open(again)
                reports += self._snapshot(again)
                again.clear()
                if not self._stop.is_set():
                    self._stream(once=once)
            except SnapshotLostError as error:
                self._fail(UnavailableError(Reason.SOURCE_UNAVAILABLE, error.message))
            except UnavailableError as error:
                self._fail(error)
            except PoolError as error:
                for table in self._tables.values():
                    table.fail(error)
                raise
            else:
                break
        reports += [table.close() for table in self._tables.values() if table.groups is not None]
        self._check_stopped()
        return reports

    def _fail(self, error: UnavailableError) -> None:
        for table in self._tables.values():
            table.fail(error)
        self._notify(error.message)
        self._backoff.wait_or_raise(error)

    # -- 1 and 2: lanes and snapshot ---------------------------------------------------------------------------

    def _open(self, again: set[str]) -> None:
        for table in self._tables.values():
            table.open()
        fresh = again >= set(self._tables)
        adopt = any(table.position is not None for table in self._tables.values())
        wanted = [table.request() for name, table in self._tables.items() if name in again or not table.stopped]
        kept = self.source.prepare(wanted, adopt=adopt, fresh=fresh)
        for name, table in self._tables.items():
            if name in again or (name not in kept and not table.stopped):
                table.position, table.stopped = None, ""
            elif table.position is not None and table.position.stream != self.source.stream:
                raise ConflictError(
                    Reason.SOURCE_CHANGED,
                    f"what was published of {name} came from another database than the one that is configured now; "
                    "name the former one, or publish this one whole with `run --resnapshot all`",
                )

    def _snapshot(self, again: set[str]) -> list[RunReport]:
        pending = {name: table for name, table in self._tables.items() if table.position is None and not table.stopped}
        if not pending:
            return []
        reports = []
        with self.source.snapshot(list(pending)) as snapshot:
            for name, table in pending.items():
                why = "as was asked for" if name in again else "it has no position in the log"
                self._notify(f"{name} is read whole: {why}")
                reports += self._publish_portion(table, SnapshotTableSource(snapshot.portions[name]))
                if self._stop.is_set():
                    return reports
            snapshot.keep_log()
            for table in pending.values():
                table.start_at(snapshot.position)
        for table in pending.values():
            table.open()
        return reports

    def _publish_portion(self, table: "ChangeTable", source: "SnapshotTableSource") -> list[RunReport]:
        publisher = Publisher(
            table.publication,
            source,
            self._pool,
            table.ledger,
            sign=self._sign,
            limits=table.limits,
            stop=self._stop,
            progress=self._progress,
            notify=self._notify,
            clock=self._clock,
        )
        return publisher.run()

    def _check_stopped(self) -> None:
        stopped = {name: table.stopped for name, table in self._tables.items() if table.stopped}
        if stopped:
            raise ConflictError(
                Reason.SOURCE_CHANGED,
                "; ".join(f"{name} {why}" for name, why in stopped.items())
                + ". Nothing was voided, and no later change of it is published. Look at the table; then `run "
                "--resnapshot` with its resource publishes it as it is, with --accept-deletes if rows are really gone",
            )

    # -- 3 and 4: stream ---------------------------------------------------------------------------------------

    def _stream(self, *, once: bool) -> None:
        active = {name: table for name, table in self._tables.items() if not table.stopped}
        for name in self._tables.keys() - active.keys():
            self._notify(f"{name} is not published: it {self._tables[name].stopped}")
        if not active:
            return
        flights: deque[Flight] = deque()
        with ChangeWorkers(active) as workers:
            for batch in self.source.read([table.request() for table in active.values()], once=once):
                if batch is not None:
                    self._hand_out(batch, workers, flights)
                    self._backoff.reset()
                self._confirm(flights)
                workers.check()
                if self._stop.is_set():
                    break
            workers.finish(lambda: self._confirm(flights))
        for table in active.values():
            table.ledger.set_meta(last_success=table.ledger.now())

    def _hand_out(self, batch: ChangeBatch, workers: ChangeWorkers, flights: deque[Flight]) -> None:
        flight = Flight(batch.position, len(batch.tables))
        flights.append(flight)
        for changes in batch.tables:
            while not workers.offer(changes, flight):
                self._confirm(flights)
                workers.check()
                if self._stop.is_set():
                    return  # what was not handed out is read again
        for name in batch.emptied:
            self._tables[name].stop(f"was emptied at once (TRUNCATE) before {batch.position:X}")
            self._notify(f"{name} {self._tables[name].stopped}: it stops, the other tables go on")

    def _confirm(self, flights: deque[Flight]) -> None:
        position = None
        while flights and flights[0].done:
            position = flights.popleft().position
        self.source.confirm(position)
