"""Table of a change publisher: its lane, its ledger, and where it is in the log."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from connectors.port import ChangePosition, ChangeRequest, Pool
from connectors.publishing.change_groups import ChangeGroups
from connectors.publishing.lane import Lane, LaneSession
from connectors.publishing.publication import Limits, Publication, Signer
from connectors.publishing.second_pass import RunCounters
from connectors.state.ledger import Ledger, RunReport
from connectors.state.quarantine import Quarantine
from schemas.errors import PoolError

__all__ = ["ChangePublication", "ChangeTable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePublication:
    """One table whose changes are published: where to, its ledger, and its limits."""

    table: str
    publication: Publication
    ledger: Ledger
    limits: Limits


class ChangeTable:
    """One table: its lane, its ledger, and where it is in the log."""

    def __init__(
        self,
        config: ChangePublication,
        pool: Pool,
        sign: Signer,
        stop: threading.Event,
        notify: Callable[[str], None],
        progress: Callable[[RunReport], None],
        clock: Callable[[], datetime],
    ) -> None:
        self.name = config.table
        self.publication, self.ledger, self.limits = config.publication, config.ledger, config.limits
        self.lane = Lane(
            self.publication, pool, self.ledger, sign=sign, limits=self.limits, stop=stop, notify=notify, clock=clock
        )
        self.position: ChangePosition | None = None
        self.stopped = ""
        self.groups: ChangeGroups | None = None
        self.session: LaneSession
        self._notify = notify
        self._progress = progress

    def open(self) -> None:
        """Open the lane, send what is unacknowledged, and find the position."""
        self.session = self.lane.open()
        self.lane.send(self.session.outbox, iter(()))
        self.stopped = self.ledger.meta("change_stopped")
        self.position = self._find_position()
        if self.position is None:
            return
        if self.groups is None:
            run = self.ledger.begin_run(self.name)
            counters = RunCounters(
                run, Quarantine(self.ledger), self.limits.quarantine_share, self._progress, deletes_are_rows=True
            )
        else:
            counters = self.groups.counters
        self.groups = ChangeGroups(
            session=self.session,
            ledger=self.ledger,
            counters=counters,
            position=self.position,
            ends=self.session.ends,
            batch_rows=self.session.batch_rows,
            batch_bytes=self.limits.batch_bytes,
        )

    def start_at(self, position: ChangePosition) -> None:
        """Register that the table is published as it was at a position."""
        fingerprint = self.session.fingerprint.hex()
        self.ledger.set_meta(change_start=bytes(position).hex(), change_fingerprint=fingerprint, change_stopped="")

    def stop(self, why: str) -> None:
        """Register that no later change is published until a person has looked."""
        self.stopped = why
        self.ledger.set_meta(change_stopped=why)

    def request(self) -> ChangeRequest:
        """Return what to read of the log."""
        sources = self.session.mapping.source_columns()
        return ChangeRequest(
            table=self.name,
            after=self.groups.position if self.groups is not None else self.position,
            key=[sources[each] for each in self.session.contract.key if each in sources],
            columns=frozenset(sources.values()),
        )

    def close(self) -> RunReport:
        """Write and return the report."""
        if self.groups is None:
            raise RuntimeError("the table has no position")
        counters = self.groups.counters
        counters.finish("stopped" if self.stopped else "done")
        self.ledger.end_run(counters.run)
        self.groups = None
        return counters.run

    def fail(self, error: PoolError) -> None:
        """Write the report of a run that an error ended."""
        if self.groups is not None:
            self.ledger.end_run(replace(self.groups.counters.run, outcome=error.reason.value))
            self.groups = None

    def _find_position(self) -> ChangePosition | None:
        """Return the position after what the pool has; None where the table has to be read whole."""
        checkpoint = self.ledger.checkpoint()
        last = ChangePosition.parse(checkpoint.position) if checkpoint is not None else None
        if self.session.recovered and last is not None:
            self.start_at(last)  # the ledger was lost; the pool knows the position
        start = ChangePosition.parse(bytes.fromhex(self.ledger.meta("change_start")))
        if start is None:
            return None
        if self.ledger.meta("change_fingerprint") != self.session.fingerprint.hex():
            self._notify(f"{self.name}: the contract or the mapping has changed since it was read whole")
            return None
        later = last is not None and last.stream == start.stream and last.commit >= start.commit
        return last if later else start
