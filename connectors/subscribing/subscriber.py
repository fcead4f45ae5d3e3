"""Subscriber: the pool into a sink. Read the sink's position → fetch → decode → write → acknowledge.

The sink stores rows and position in one transaction, so a crash at any point is safe: what was fetched and not
written is fetched again, what was written and not acknowledged is acknowledged with the next release. The position
that the pool stores is for its operators; the sink's is the one that counts, except for a target that is empty.

After a restore of the pool a position from before is refused; so is one of a grant whose renewal shows something else.
The subscriber then fetches from the beginning, and only once that is answered tells the sink that everything in it
counts as withdrawn until it comes again.

Records that the target rejects go to the quarantine, which is another database. They are stored there before the sink
commits: after a crash in between they are added a second time, which changes nothing, and they are never lost.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from connectors.port import DecodedRelease, Pool, Reject, RejectedRecord, Sink
from connectors.retry import Backoff
from connectors.state.ledger import Ledger, RunReport
from connectors.state.quarantine import Quarantine
from connectors.subscribing.nanoseconds import as_deliverable, deliverable_schema
from exchange.client.messages import FetchResult
from registry.avro.parser import parse
from registry.codec.codec import Engine, engine_for
from schemas.errors import ConflictError, CorruptError, PoolError, Reason, UnavailableError
from schemas.record import FRAME_SIZE, frame

__all__ = ["BEGINNING", "Subscriber", "SubscriptionConfig"]

BEGINNING = b"\0"
"""Position of the grant's beginning, on the wire (docs/reference/wire.md)."""

_BEGINS_AGAIN = {
    Reason.TOPIC_GENERATION_CHANGED: "the pool was restored from a backup",
    Reason.GRANT_VIEW_CHANGED: "the grant was renewed with another view",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionConfig:
    """What is fetched, and for which purpose.

    Attributes:
        grant: its id.
        purpose: of the purpose catalogue; in every entry of the audit log.
        case: business case, where the grant requires one.
        batch_rows: of a fetch.
        wait: seconds of a long poll.
    """

    grant: str
    purpose: str
    case: str = ""
    batch_rows: int = 5_000
    wait: float = 20.0


class Subscriber:
    """One subscription of one connector. Used by one thread."""

    def __init__(
        self,
        config: SubscriptionConfig,
        sink: Sink,
        pool: Pool,
        ledger: Ledger,
        *,
        stop: threading.Event,
        give_up_after: float = 1800.0,
        backoff: float = 0.5,
        progress: Callable[[RunReport], None] = lambda _: None,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.config = config
        self.sink = sink
        self.pool = pool
        self.ledger = ledger
        self.quarantine = Quarantine(ledger)
        self._stop = stop
        self._progress = progress
        self._notify = notify
        self._engines: dict[int, Engine] = {}
        self._prepared: pa.Schema | None = None
        self._backoff = Backoff(give_up_after=give_up_after, stop=stop, monotonic=time.monotonic, base=backoff)

    def run(self, *, once: bool) -> RunReport:
        """Fetch until the end of the topic (`once`), or until stopped.

        Raises:
            PoolError: see `connectors.retry`; RefusedError when the grant does not allow it (any more).
        """
        run = self.ledger.begin_run(self.config.grant)
        try:
            run = self._fetch_all(run, once=once)
        except PoolError as error:
            self.ledger.end_run(replace(run, outcome=error.reason.value))
            raise
        run = replace(run, outcome="stopped" if self._stop.is_set() else "done")
        self.ledger.end_run(run)
        return run

    def _fetch_all(self, run: RunReport, *, once: bool) -> RunReport:
        position: bytes | None = None
        while not self._stop.is_set():
            try:
                if position is None:
                    position = self._start()
                wait = 0.0 if once else self.config.wait
                result = self._fetch(position, wait) or self._fetch_again(wait)
                if result.next_position != position:
                    run = self._store(run, result, position)
                    position = result.next_position
                    self._progress(replace(run, outcome="drawing"))
                self._backoff.reset()
                if once and result.caught_up:
                    break
            except UnavailableError as error:
                self._notify(error.message)
                position = None  # whether the target has stored it, only the target knows
                self._backoff.wait_or_raise(error)
        return run

    def _fetch(self, position: bytes, wait: float) -> FetchResult | None:
        """Return what follows a position; None where the pool begins again: see `_BEGINS_AGAIN`."""
        try:
            return self.pool.fetch(
                self.config.grant,
                position=position,
                purpose=self.config.purpose,
                case=self.config.case,
                max_records=self.config.batch_rows,
                wait=wait,
            )
        except ConflictError as error:
            if error.reason not in _BEGINS_AGAIN or position == BEGINNING:
                raise
            self._notify(f"{_BEGINS_AGAIN[error.reason]}: the target is filled again from the beginning")
            return None

    def _fetch_again(self, wait: float) -> FetchResult:
        """Begin again: the target's records count as withdrawn until they come again."""
        result = self._fetch(BEGINNING, wait)
        if result is None:  # never, of the beginning
            raise CorruptError(Reason.INTERNAL, "the pool refuses the beginning of the grant")
        self.sink.begin_again()
        self.ledger.set_meta(begun_again=self.ledger.now())
        return result

    def _start(self) -> bytes:
        subscription = self.pool.describe(self.config.grant, purpose=self.config.purpose, case=self.config.case)
        self._engines[subscription.schema_id] = engine_for(parse(subscription.schema_text))
        self._prepare(subscription.schema_id)
        self.ledger.set_meta(
            grant=self.config.grant,
            grant_version=str(subscription.version),
            grant_expires=str(subscription.expires),
            grant_state=subscription.state,
        )
        position = self.sink.position()
        if not position and self.ledger.meta("begun"):
            raise ConflictError(
                Reason.POSITION_INVALID,
                f"the target has no position, but {self.config.grant} was stored in it before: it was emptied or "
                "replaced. Restore the old one; to go on from the position that was acknowledged to the pool, delete "
                f"{self.ledger.path}",
            )
        return position

    def _store(self, run: RunReport, result: FetchResult, before: bytes) -> RunReport:
        """Write one release, quarantine what the target rejects, acknowledge."""
        release = self._decode(result)
        quarantine = partial(self._quarantine_rejected, run, release)
        # Before the sink commits: after a crash in between, what is closed too early is delivered again.
        self.quarantine.close_overtaken(self.config.grant, release.keys, release.recorded_at)
        written = self.sink.write(release, before, result.next_position, quarantine)
        if not self.ledger.meta("begun"):
            self.ledger.set_meta(begun=self.ledger.now())
        self.pool.commit(self.config.grant, result.next_position, purpose=self.config.purpose, case=self.config.case)
        self.ledger.set_meta(
            last_success=self.ledger.now(), last_entry=result.entry_id or self.ledger.meta("last_entry")
        )
        return replace(
            run,
            read=run.read + len(release),
            published=run.published + written.upserted,
            voided=run.voided + written.withdrawn,
            unchanged=run.unchanged + written.stale,
            quarantined=run.quarantined + len(written.rejected),
        )

    def _decode(self, result: FetchResult) -> DecodedRelease:
        values = list(result.values)
        self._prepare(result.schema_id)
        header = frame(result.schema_id, b"")
        keys, times = result.keys(), result.times()
        if not len(keys) == len(times) == len(values):
            raise CorruptError(
                Reason.INTERNAL,
                f"got {len(values)} records with {len(keys)} keys and {len(times)} times in one release",
            )
        if any(value and not value.startswith(header) for value in values):
            raise CorruptError(
                Reason.INTERNAL, f"got values that are not framed with the view's schema {result.schema_id}"
            )
        return DecodedRelease(
            keys=keys,
            recorded_at=times,
            withdrawn=[not value for value in values],
            records=as_deliverable(
                self._engines[result.schema_id].decode([value[FRAME_SIZE:] for value in values if value])
            ),
            values=values,
            entry_id=result.entry_id,
        )

    def _prepare(self, schema_id: int) -> None:
        """Prepare the target for a view's schema, once a schema."""
        engine = self._engines.get(schema_id)
        if engine is None:
            engine = engine_for(parse(self.pool.schema(schema_id=schema_id)[1]))
            self._engines[schema_id] = engine
        schema = deliverable_schema(engine.schema)
        if self._prepared != schema:
            self.sink.prepare(schema)
            self._prepared = schema

    def _quarantine_rejected(self, run: RunReport, release: DecodedRelease, rejected: Sequence[RejectedRecord]) -> None:
        rejects = [
            Reject(
                line=release.recorded_at[each.index],
                code=each.code,
                field=each.field,
                message=each.message,
                original=release.keys[each.index] + release.values[each.index],
            )
            for each in rejected
        ]
        self.quarantine.add(self.config.grant, run.id, rejects)
