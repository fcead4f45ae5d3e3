"""Publisher: a source into the pool. Read → map → publish → record as published, in this order.

One run over what the source has:

    1. greet the pool, fetch the contract, compile the mapping for it
    2. resume the lane; reconcile the ledger with its last batch at the pool
    3. send again what was signed before and not acknowledged, byte for byte
    4. for each portion: key scan → delete guard → rows → voids → balance → `confirm`

A source position is recorded with its receipt, never before. Every row has one of three outcomes, and they balance:

    rows read = published + quarantined + unchanged

Voids are sent last, and only if every key of the portion could be read: an unreadable key may be any of the missing
ones. Voids are counted separately, since no row corresponds to them.

**A restored pool.** Its last batch is an earlier one of this ledger. What the lost batches published or voided is
published or voided again, and nothing else; their receipts are kept. A lane whose last batch no receipt proves is a
conflict, which needs a person.

**A lost ledger.** The pool returns the sequence, the root and the source position. The rows up to that position, in
a portion that still exists unchanged, are recorded again without being published; others are published again and
marked `unknown`, since it is no longer known whether they were. Keys that left the source meanwhile cannot be voided.
"""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from connectors.port import Pool, Portion, Replaces, ResumablePortion, RowChunk, SnapshotSource
from connectors.publishing.key_scan import KeyScan, Reached
from connectors.publishing.lane import Lane, LaneSession
from connectors.publishing.outbox import OutboundRecord, RecordGroup, SourcePosition, mark_of
from connectors.publishing.publication import Limits, Publication, Signer
from connectors.publishing.record_encoding import RecordEncoder
from connectors.publishing.second_pass import RunCounters, SecondPass
from connectors.state.ledger import Ledger, RunReport
from connectors.state.quarantine import Quarantine
from schemas.errors import InvalidError, PoolError, Reason, UnavailableError
from schemas.record import Operation

__all__ = ["PORTION_COLUMNS", "Publisher"]

PORTION_COLUMNS = "portion_columns"
"""Name in the ledger: the columns of the latest portions, as JSON, portion → columns; of a quarantined line of CSV they
name the type of each cell."""
_KEPT_COLUMNS = 50  # portions
_MAX_VOIDS = 5_000  # of a batch


class Publisher:
    """One publication of one connector. Used by one thread."""

    def __init__(
        self,
        publication: Publication,
        source: SnapshotSource,
        pool: Pool,
        ledger: Ledger,
        *,
        sign: Signer,
        limits: Limits,
        stop: threading.Event,
        progress: Callable[[RunReport], None] = lambda _: None,
        notify: Callable[[str], None] = lambda _: None,
        clock: Callable[[], datetime],
    ) -> None:
        self.publication = publication
        self.source = source
        self.pool = pool
        self.ledger = ledger
        self.quarantine = Quarantine(ledger)
        self.limits = limits
        self._lane = Lane(publication, pool, ledger, sign=sign, limits=limits, stop=stop, notify=notify, clock=clock)
        self._stop = stop
        self._progress = progress
        self._notify = notify
        self._clock = clock

    def run(self) -> list[RunReport]:
        """Publish what the source has now; return the report of each portion.

        Raises:
            PoolError: see `connectors.retry`; DELETE_GUARD, QUARANTINE_LIMIT and CONTRACT_BROKEN need a person.
        """
        while not self._stop.is_set():
            try:
                session = self._lane.open()
                self._lane.send(session.outbox, iter(()))
                runs = []
                for portion in self.source.portions(session.fingerprint):
                    run = self._run_portion(session, portion)
                    runs.append(run)
                    if run.outcome != "done":
                        break
                self.ledger.set_meta(last_success=self.ledger.now())
            except UnavailableError as error:
                self._notify(error.message)
                self._lane.backoff.wait_or_raise(error)
            else:
                return runs
        return []

    def _run_portion(self, session: LaneSession, portion: Portion) -> RunReport:
        run = self.ledger.begin_run(portion.name)
        counters = RunCounters(run, self.quarantine, self.limits.quarantine_share, self._progress)
        try:
            first_run = self._publish_portion(session, portion, counters)
        except PoolError as error:
            self.ledger.end_run(replace(counters.run, outcome=error.reason.value))
            raise
        self.ledger.end_run(counters.run)
        if counters.run.outcome == "done":
            # A part of a table does not state again what was set aside before: the next whole pass does.
            if portion.replaces is not Replaces.NOTHING or portion.identity:
                self.quarantine.close_resolved(portion.name, first_run)
            portion.confirm()
        return counters.run

    def _publish_portion(self, session: LaneSession, portion: Portion, counters: RunCounters) -> int:
        """Publish it, and return the run in which this pass began: an interrupted one is gone on with."""
        bound = session.mapping.bind(portion.columns)
        self._keep_columns(portion)
        scope = self.ledger.scope_id(portion.name if portion.replaces is Replaces.SAME_NAME else "")
        checkpoint = self.ledger.checkpoint()
        with KeyScan(
            self.ledger,
            scope if portion.replaces is Replaces.SAME_NAME else None,
            identity=self._pass_identity(session, portion),
            run=counters.run.id,
        ) as key_scan:
            self._tell_resumed(key_scan.reached, portion)
            for chunk in _unread_keys(key_scan.reached, portion, bound.key_columns):
                key_scan.add(bound.keys(chunk), len(chunk.rejects), chunk.place)
                self._progress(replace(counters.run, outcome="scanning keys", read=key_scan.rows))
                if self._stop.is_set():
                    counters.finish("stopped")
                    return key_scan.reached.first_run
            key_scan.end_keys()
            counters.run = replace(counters.run, total=key_scan.rows)
            voids = 0
            if portion.replaces is not Replaces.NOTHING:
                voids = self._check_delete_guard(key_scan, portion)
            second_pass = SecondPass(
                portion=portion,
                bound=bound,
                encoder=RecordEncoder(session.contract, session.engine),
                earlier=session.earlier,
                key_scan=key_scan,
                ledger=self.ledger,
                counters=counters,
                start=SourcePosition(identity=portion.identity, fingerprint=session.fingerprint),
                recovered=self._recovered_rows(session, portion),
                scope=scope,
                keep_last=self.publication.on_duplicate == "last",
                batch_rows=session.batch_rows,
                batch_bytes=self.limits.batch_bytes,
                stop=self._stop,
                settled=lambda: session.outbox.settled,
                first_sequence=checkpoint.sequence if checkpoint is not None else 0,
            )
            self._lane.send(session.outbox, second_pass.groups(), counters)
            if self._stop.is_set():
                counters.finish("stopped")
                return key_scan.reached.first_run
            if not voids:
                self.ledger.set_meta(voids_held="0")
            elif key_scan.unreadable:
                self._notify(
                    f"{portion.name}: {voids} keys are missing, but {key_scan.unreadable} rows have keys that cannot "
                    "be read and may be these; no void is sent until they can"
                )
                self.ledger.set_meta(voids_held=str(voids))
            else:
                self.ledger.set_meta(voids_held="0")
                voids_of_pass = self._voids(key_scan, second_pass.end_position(), scope, ends=session.ends)
                self._lane.send(session.outbox, voids_of_pass, counters)
            counters.finish("stopped" if self._stop.is_set() else "done")
            key_scan.finished = counters.run.outcome == "done"
            return key_scan.reached.first_run

    def _keep_columns(self, portion: Portion) -> None:
        stored = self.ledger.meta(PORTION_COLUMNS)
        kept: dict[str, list[str]] = json.loads(stored) if stored else {}
        columns = list(portion.columns)
        if kept.get(portion.name) == columns:
            return
        kept.pop(portion.name, None)
        kept[portion.name] = columns
        latest = dict(list(kept.items())[-_KEPT_COLUMNS:])
        self.ledger.set_meta(**{PORTION_COLUMNS: json.dumps(latest, ensure_ascii=False)})

    def _pass_identity(self, session: LaneSession, portion: Portion) -> str:
        """Return what has to be equal for an interrupted pass to go on; empty = it begins again."""
        # The last one of several rows is known by counting them from the beginning.
        if not isinstance(portion, ResumablePortion) or self.publication.on_duplicate == "last":
            return ""
        return f"{portion.pass_identity} {session.fingerprint.hex()}" if portion.pass_identity else ""

    def _tell_resumed(self, reached: Reached, portion: Portion) -> None:
        if reached.place or reached.keys_read:
            what = "rows" if reached.keys_read else "keys"
            self._notify(f"{portion.name}: an interrupted pass goes on behind {reached.rows:,} {what}")

    def _recovered_rows(self, session: LaneSession, portion: Portion) -> int:
        position, checkpoint = SourcePosition.parse(session.recovered), self.ledger.checkpoint()
        if position is None or checkpoint is None or checkpoint.sequence != session.recovered_at:
            return 0  # nothing was lost, or something was published since
        return position.covered_rows(portion.identity, session.fingerprint)

    def _check_delete_guard(self, key_scan: KeyScan, portion: Portion) -> int:
        """Return the number of missing keys.

        Raises:
            InvalidError: DELETE_GUARD, when they are more than the limit.
        """
        missing, published = key_scan.missing_count(), key_scan.published_count()
        limit = max(self.limits.delete_share * published, self.limits.delete_floor)
        if missing and not self.limits.accept_deletes and (missing > limit or missing == published):
            raise InvalidError(
                Reason.DELETE_GUARD,
                f"{portion.name} lacks {missing} of {published} published keys; the limit is "
                f"{self.limits.delete_share:.1%}. Nothing was published. If they are really deleted, run again with "
                "--accept-deletes",
                details={"missing": str(missing), "known": str(published)},
            )
        return missing

    def _voids(self, key_scan: KeyScan, position: SourcePosition, scope: int, *, ends: bool) -> Iterator[RecordGroup]:
        checkpoint = self.ledger.checkpoint()
        complete = checkpoint is not None and checkpoint.complete
        mark = mark_of(Operation.VOID, published=True, complete=complete)
        # When a missing row was deleted is not known; it is no longer valid now.
        ended_at = int(self._clock().timestamp() * 1e6) if ends else 0
        for keys in key_scan.missing_keys():
            if self._stop.is_set():
                return
            for start in range(0, len(keys), _MAX_VOIDS):
                page = keys[start : start + _MAX_VOIDS]
                records = [OutboundRecord(mark, key, b"", b"", 0, key, ended_at) for key in page]
                yield RecordGroup(records=records, position=position, scope=scope)


def _unread_keys(reached: Reached, portion: Portion, columns: Sequence[str]) -> Iterator[RowChunk]:
    """Return what the first pass has not read yet."""
    if reached.keys_read:
        return iter(())
    if reached.place and isinstance(portion, ResumablePortion):
        return portion.chunks_after(reached.place, reached.rows, columns)
    return portion.chunks(columns)
