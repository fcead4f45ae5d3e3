"""The pool into a sink: ask the sink where it stands → fetch → decode → write (set aside, commit) → acknowledge.

The sink stores rows and position in one transaction, so the order of crashes does not matter: what was fetched and not
written is fetched again, what was written and not acknowledged is acknowledged with the next release. The pool's own
record of the position only tells its operators how far the consumer is; the sink's is the one that counts, except
for a target that has nothing yet.

Records that the target refuses go to the quarantine, which is another database. They are there before the sink
commits: a crash in between sets them aside a second time, which changes nothing, and never loses them.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

import pyarrow as pa

from connectors.port import Delivered, Pool, Reject, Sink, Undelivered
from connectors.retry import Backoff
from connectors.state.ledger import Ledger, RunReport
from connectors.state.quarantine import Quarantine
from exchange.client.messages import Fetched
from registry.avro.parser import parse
from registry.codec.codec import Engine, engine_for
from schemas.errors import ConflictError, CorruptError, PoolError, Reason, UnavailableError
from schemas.record import FRAME_SIZE, frame

__all__ = ["Subscriber", "SubscriptionConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionConfig:
    """What is drawn, and why.

    Attributes:
        grant: its id.
        purpose: of the purpose catalogue; stands in every entry of the audit log.
        case: business case, where the grant asks for one.
        batch_rows: of a fetch.
        wait: seconds of a long poll.
        stop_on_refusal: whether a record that the target refuses stops the subscription or is quarantined.
    """

    grant: str
    purpose: str
    case: str = ""
    batch_rows: int = 5_000
    wait: float = 20.0
    stop_on_refusal: bool = False


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
        say: Callable[[str], None] = lambda _: None,
        clock: Callable[[], datetime],
    ) -> None:
        self.config = config
        self.sink = sink
        self.pool = pool
        self.ledger = ledger
        self.quarantine = Quarantine(ledger)
        self._stop = stop
        self._progress = progress
        self._say = say
        self._clock = clock
        self._engines: dict[int, Engine] = {}
        self._prepared: pa.Schema | None = None
        self._backoff = Backoff(give_up_after=give_up_after, stop=stop, monotonic=time.monotonic, base=backoff)

    def run(self, *, once: bool) -> RunReport:
        """Draw until the end of what there is (`once`), or until asked to stop.

        Raises:
            PoolError: see `connectors.retry`; RefusedError when the grant does not allow it (any more).
        """
        run = self.ledger.begin(self.config.grant)
        try:
            run = self._draw(run, once=once)
        except PoolError as error:
            self.ledger.end(replace(run, outcome=error.reason.value))
            raise
        run = replace(run, outcome="stopped" if self._stop.is_set() else "done")
        self.ledger.end(run)
        return run

    def _draw(self, run: RunReport, *, once: bool) -> RunReport:
        position: bytes | None = None
        while not self._stop.is_set():
            try:
                if position is None:
                    position = self._begin()
                fetched = self.pool.fetch(
                    self.config.grant,
                    position=position,
                    purpose=self.config.purpose,
                    case=self.config.case,
                    max_records=self.config.batch_rows,
                    wait=0.0 if once else self.config.wait,
                )
                if fetched.next_position != position:
                    run = self._store(run, fetched, position)
                    position = fetched.next_position
                    self._progress(run)
                self._backoff.succeeded()
                if once and fetched.caught_up:
                    break
            except UnavailableError as error:
                self._say(error.message)
                position = None  # what the target holds now, only the target knows
                self._backoff.failed(error)
        return run

    def _begin(self) -> bytes:
        described = self.pool.describe(self.config.grant, purpose=self.config.purpose, case=self.config.case)
        self._engines[described.schema_id] = engine_for(parse(described.schema_text))
        self._prepare(described.schema_id)
        self.ledger.note(
            grant=self.config.grant,
            grant_version=str(described.version),
            grant_expires=str(described.expires),
            grant_state=described.state,
        )
        position = self.sink.position()
        if not position and self.ledger.fact("begun"):
            raise ConflictError(
                Reason.POSITION_INVALID,
                f"the target has no position, but {self.config.grant} was drawn into it before: it was emptied, or "
                "another one stands in its place. Bring the old one back; to go on from where the pool's own record "
                f"stands, delete {self.ledger.path}",
            )
        return position

    def _store(self, run: RunReport, fetched: Fetched, before: bytes) -> RunReport:
        """Write one release, set aside what the target refuses, acknowledge."""
        delivered = self._decode(fetched)
        set_aside = partial(self._set_aside, run, delivered)
        written = self.sink.write(delivered, before, fetched.next_position, set_aside)
        if not self.ledger.fact("begun"):
            self.ledger.note(begun=self.ledger.now())
        self.pool.commit(self.config.grant, fetched.next_position, purpose=self.config.purpose, case=self.config.case)
        self.ledger.note(last_success=self.ledger.now(), last_entry=fetched.entry_id or self.ledger.fact("last_entry"))
        return replace(
            run,
            read=run.read + len(delivered),
            published=run.published + written.upserted,
            voided=run.voided + written.withdrawn,
            unchanged=run.unchanged + written.stale,
            quarantined=run.quarantined + len(written.refused),
        )

    def _decode(self, fetched: Fetched) -> Delivered:
        values = list(fetched.values)
        self._prepare(fetched.schema_id)
        head = frame(fetched.schema_id, b"")
        keys, times = fetched.keys(), fetched.times()
        if not len(keys) == len(times) == len(values):
            raise CorruptError(
                Reason.INTERNAL,
                f"got {len(values)} records with {len(keys)} keys and {len(times)} times in one release",
            )
        if any(value and not value.startswith(head) for value in values):
            raise CorruptError(
                Reason.INTERNAL, f"got values that are not framed with the view's schema {fetched.schema_id}"
            )
        return Delivered(
            keys=keys,
            recorded_at=times,
            withdrawn=[not value for value in values],
            records=self._engines[fetched.schema_id].decode([value[FRAME_SIZE:] for value in values if value]),
            values=values,
            entry_id=fetched.entry_id,
        )

    def _prepare(self, schema_id: int) -> None:
        """Make the target fit for a view's schema, once a schema."""
        engine = self._engines.get(schema_id)
        if engine is None:
            engine = engine_for(parse(self.pool.schema(schema_id=schema_id)[1]))
            self._engines[schema_id] = engine
        if self._prepared != engine.schema:
            self.sink.prepare(engine.schema)
            self._prepared = engine.schema

    def _set_aside(self, run: RunReport, delivered: Delivered, refused: Sequence[Undelivered]) -> None:
        rejects = [
            Reject(
                line=delivered.recorded_at[each.index],
                code=each.code,
                field="",
                message=each.message,
                original=delivered.keys[each.index] + delivered.values[each.index],
            )
            for each in refused
        ]
        self.quarantine.add(self.config.grant, run.id, rejects)
