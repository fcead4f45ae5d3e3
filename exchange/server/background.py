"""Background loops of a process: sequencer, figures, sweeper, erasures, corrections, the schemas topic.

Each loop is a thread that ends with its process. Whatever one turn raises is logged and counted, and the loop goes on:
without it the log would not grow, or grants would stay in force when their time is over, and nothing would show it. Of
an error that is not the pool's own only the type is logged, as its text may contain a statement's values.
"""

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import structlog

from exchange import metrics
from exchange.audit.postgres_log import PostgresLog
from exchange.audit.sequencer import Sequencer
from exchange.authorization.authentications import Authentications
from exchange.authorization.enforcement import Enforcer
from exchange.broker.port import LaneFault
from exchange.control.corrections.upkeep import CorrectionUpkeep
from exchange.control.erasures import ErasureService
from exchange.control.grants.request_clocks import RequestClocks
from exchange.control.grants.service import GrantService
from exchange.kpi.collector import Collector
from exchange.records.append_recovery import AppendRecovery
from exchange.server.clock import microseconds
from exchange.server.schemas_topic import SchemasTopic
from exchange.server.supervision.loop_liveness import LOOPS, LoopStop
from schemas.errors import PoolError, Reason

__all__ = [
    "SequencerProgress",
    "carry_out_erasures",
    "collect_figures",
    "flush_folds",
    "in_thread",
    "send_schemas",
    "sequence",
    "sweep",
    "tell_of_corrections",
]

_log = structlog.get_logger()
_GRACE = 5.0  # seconds for a running turn when the process ends
_SEQUENCER_PERIOD = 1.0  # seconds
_SCHEMAS_PERIOD = 1.0  # seconds, while nothing waits
_SWEEPER_PERIOD = 10.0  # seconds
_ERASURES_PERIOD = 5.0  # seconds
_FIGURES_PERIOD = 2.0  # seconds, while nothing waits
_CORRECTIONS_PERIOD = 5.0  # seconds
_REVIEW_EVERY = 30  # turns of the sweeper
_COUNT_VALID = 10.0  # seconds for which a count of waiting entries is reported


@asynccontextmanager
async def in_thread(name: str, loop: Callable[[threading.Event], None]) -> AsyncIterator[None]:
    """Run a loop in a thread of its own for the duration of the block; `/livez` reports on it meanwhile."""
    stop = LoopStop()
    thread = threading.Thread(target=loop, args=(stop,), name=name, daemon=True)
    thread.start()
    with LOOPS.reporting(name, thread, stop):
        try:
            yield
        finally:
            stop.set()
            await asyncio.to_thread(thread.join, _GRACE)


class SequencerProgress:
    """Progress of the sequencer, read by the metrics when they are scraped: a dead thread cannot set a gauge.

    The age continues to rise from the last successful step, and the number of waiting entries is unknown (NaN) when it
    was not counted lately.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._signed_until = clock()  # what was durable at this moment is signed, as far as is known
        self._counted: tuple[float, int] | None = None

    def update(self, count: int, age: float, *, succeeded: bool) -> None:
        """Store the number of waiting entries, the oldest *age* seconds old, and whether the step before succeeded."""
        now = self._clock()
        self._counted = (now, count)
        # Entries get their index before anything is signed: after a failed step, an empty queue proves nothing.
        self._signed_until = now - age if succeeded else min(self._signed_until, now - age)

    def age(self) -> float:
        """Return the seconds for which an entry may have waited without a signature."""
        return max(0.0, self._clock() - self._signed_until)

    def entries(self) -> float:
        """Return the number of waiting entries; NaN when they were not counted for ten seconds."""
        if self._counted is None or self._clock() - self._counted[0] > _COUNT_VALID:
            return math.nan
        return self._counted[1]


def sequence(
    sequencer: Sequencer,
    log: PostgresLog,
    stop: threading.Event,
    *,
    report: Callable[[PoolError | None], None] = lambda _error: None,
    clock_fault: Callable[[], PoolError | None] = lambda: None,
) -> None:
    """Every second: give durable entries their index, and sign a checkpoint; *report* takes each outcome.

    Nothing is signed while *clock_fault* returns what is wrong with the clock.
    """
    progress = SequencerProgress()
    metrics.UNSEQUENCED_AGE.set_function(progress.age)
    metrics.UNSEQUENCED_ENTRIES.set_function(progress.entries)
    while not stop.is_set():
        succeeded = False
        try:
            _require_clock(clock_fault())
            metrics.CHECKPOINT_SIZE.set(sequencer.step().size)
            succeeded = True
            report(None)
        except PoolError as error:
            report(error)
            metrics.SEQUENCER_FAILURES.labels(error.reason).inc()
            _log.error("sequencer_failed", reason=error.reason, message=error.message)
        except Exception as error:  # noqa: BLE001 - see the module
            metrics.SEQUENCER_FAILURES.labels(Reason.INTERNAL).inc()
            _unexpected("sequence", error)
        try:
            backlog = log.backlog()
            age = 0 if backlog.oldest is None else max(0, microseconds() - backlog.oldest)
            progress.update(backlog.count, age / 1_000_000, succeeded=succeeded)
        except PoolError as error:
            _log.warning("upkeep_failed", task="backlog", reason=error.reason)
        except Exception as error:  # noqa: BLE001 - see the module
            _unexpected("backlog", error)
        stop.wait(_SEQUENCER_PERIOD)


def send_schemas(topic: SchemasTopic, stop: threading.Event) -> None:
    """Send the registry's outbox to the schemas topic: at once while there is something to send, else every second."""
    while not stop.is_set():
        sent = 0
        try:
            sent = topic.step()
        except PoolError as error:
            metrics.SCHEMAS_TOPIC_FAILURES.labels(error.reason).inc()
            _log.warning("schemas_topic_failed", reason=error.reason, message=error.message)
        except Exception as error:  # noqa: BLE001 - see the module
            metrics.SCHEMAS_TOPIC_FAILURES.labels(Reason.INTERNAL).inc()
            _unexpected("schemas", error)
        if not sent:
            stop.wait(_SCHEMAS_PERIOD)


def sweep(
    recovery: AppendRecovery,
    grants: GrantService,
    stop: threading.Event,
    *,
    clocks: RequestClocks,
    measure: Sequence[tuple[str, Callable[[], object]]] = (),
    by_clock: Sequence[tuple[str, Callable[[], object]]] = (),
    clock_fault: Callable[[], PoolError | None] = lambda: None,
) -> None:
    """Every 10 s: write missing receipts, expire grants, and do what else is given by name; every 5 min: review grants.

    With the reviews go the clocks of requests: what has run out is recorded. No grant is expired or suspended, no reply
    late, and nothing of *by_clock* done, by a clock that is not trusted: that could not be undone when it is back.
    """
    turns = 0
    while not stop.is_set():
        tasks: list[tuple[str, Callable[[], object]]] = [
            ("sweep", partial(recover_receipts, recovery)),
            *measure,
        ]
        if clock_fault() is None:
            tasks += [("expire", grants.expire), *by_clock]
            if turns % _REVIEW_EVERY == 0:
                tasks += [("review", grants.review_unmasked), ("clocks", clocks.run)]
        for name, task in tasks:
            try:
                task()
            except PoolError as error:
                _log.warning("upkeep_failed", task=name, reason=error.reason)
            except Exception as error:  # noqa: BLE001 - see the module
                _unexpected(name, error)
        turns += 1
        stop.wait(_SWEEPER_PERIOD)


def carry_out_erasures(erasures: ErasureService, stop: threading.Event) -> None:
    """Every 5 s: carry out what was confirmed. A thread of its own, since a large table takes minutes."""
    while not stop.is_set():
        try:
            erasures.carry_out()
        except PoolError as error:
            _log.warning("upkeep_failed", task="erasures", reason=error.reason)
        except Exception as error:  # noqa: BLE001 - see the module
            _unexpected("erasures", error)
        stop.wait(_ERASURES_PERIOD)


def collect_figures(collector: Collector, stop: threading.Event) -> None:
    """Read signed entries into the figures of supervision: at once while there are some, else every two seconds."""
    while not stop.is_set():
        taken = 0
        try:
            taken = collector.step()
        except PoolError as error:
            _log.warning("upkeep_failed", task="figures", reason=error.reason)
        except Exception as error:  # noqa: BLE001 - see the module
            _unexpected("figures", error)
        if not taken:
            stop.wait(_FIGURES_PERIOD)


def tell_of_corrections(corrections: CorrectionUpkeep, stop: threading.Event) -> None:
    """Every 5 s: tell who received the old value of what is corrected. A thread of its own, since it reads records."""
    while not stop.is_set():
        try:
            corrections.notify()
        except PoolError as error:
            _log.warning("upkeep_failed", task="corrections", reason=error.reason)
        except Exception as error:  # noqa: BLE001 - see the module
            _unexpected("corrections", error)
        stop.wait(_CORRECTIONS_PERIOD)


def flush_folds(authentications: Authentications, enforcer: Enforcer, stop: threading.Event) -> None:
    """Every 10 s, in each process that serves calls: write the folded entries whose minute is over."""
    while not stop.wait(_SWEEPER_PERIOD):
        for name, flush in (("authentications", authentications.flush), ("flush", enforcer.flush)):
            try:
                flush()
            except PoolError as error:
                _log.warning("upkeep_failed", task=name, reason=error.reason)
            except Exception as error:  # noqa: BLE001 - see the module
                _unexpected(name, error)


def recover_receipts(recovery: AppendRecovery) -> None:
    """Write missing receipts; log and count them, and the lanes that cannot be read."""
    faults = 0

    def report(fault: LaneFault) -> None:
        nonlocal faults
        faults += 1
        _log.error("lane_unreadable", lane=fault.name, reason=fault.error.reason, message=fault.error.message)

    try:
        written = recovery.sweep(report)
    finally:
        metrics.LANES_UNREADABLE.set(faults)
    if written:
        metrics.RECOVERED_RECEIPTS.inc(written)
        _log.warning("receipts_recovered", count=written)


def _require_clock(fault: PoolError | None) -> None:
    if fault is not None:
        raise fault


def _unexpected(task: str, error: Exception) -> None:
    _log.error("upkeep_failed", task=task, error=type(error).__name__)
