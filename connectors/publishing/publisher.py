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

import hashlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from connectors.mapping.contract import Contract, parse_contract
from connectors.mapping.mapping import Column, ColumnMapping
from connectors.port import Pool, Portion, Reject, RejectCode, Replaces, Source
from connectors.publishing.key_scan import KeyScan
from connectors.publishing.outbox import OutboundRecord, Outbox, RecordGroup, SourcePosition, mark_of
from connectors.publishing.second_pass import RunCounters, SecondPass
from connectors.retry import Backoff, is_retryable
from connectors.state.ledger import LaneCheckpoint, Ledger, RunReport
from connectors.state.quarantine import Quarantine
from exchange.client.messages import BatchRefusedError
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from schemas.errors import ConflictError, CorruptError, InvalidError, PoolError, Reason, UnavailableError
from schemas.names import ConnectorId, Lane, Topic
from schemas.record import NO_ROOT, Operation

__all__ = ["Limits", "Publication", "Publisher", "Signer"]

Signer = Callable[[bytes], bytes]
"""Bytes → their Ed25519 signature, 64 bytes."""

_MAX_VOIDS = 5_000  # of a batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a batch, and of what may be quarantined or missing before a publication stops.

    Attributes:
        batch_rows, batch_bytes: of a batch.
        in_flight: unanswered batches.
        quarantine_share: of the rows read (after the first 1,000); more of them quarantined stop the portion.
        delete_share: of the published keys; more of them missing stop the portion before anything is published.
        delete_floor: so few missing keys never stop it, unless none is left.
        accept_deletes: a person has checked that the missing keys are deleted.
        give_up_after: seconds of failing without success.
        backoff: seconds; the maximum of the first delay.
    """

    batch_rows: int = 5_000
    batch_bytes: int = 4 * 1024 * 1024
    in_flight: int = 8
    quarantine_share: float = 0.05
    delete_share: float = 0.02
    delete_floor: int = 10
    accept_deletes: bool = False
    give_up_after: float = 1800.0
    backoff: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A published resource, and how its columns become records."""

    topic: Topic
    columns: dict[str, Column]
    null_values: tuple[str, ...] = ()
    unknown_columns: str = "stop"
    on_duplicate: str = "quarantine"  # or "last"
    source_format: str = ""  # all else that changes what a row means: encoding, delimiter, header

    def fingerprint(self, semantic_hash: bytes) -> bytes:
        """Return 8 bytes that change when the records made of the same rows may change."""
        # A ledger stores it: another spelling of the same inputs would have every portion read again.
        inputs = {
            "columns": {name: str(column) for name, column in sorted(self.columns.items())},
            "null_values": sorted(self.null_values),
            "on_duplicate": self.on_duplicate,
            "form": self.source_format,
            "contract": semantic_hash.hex(),
        }
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).digest()[:8]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """The state of one run that depends on the pool."""

    outbox: Outbox
    contract: Contract
    mapping: ColumnMapping
    fingerprint: bytes
    recovered: SourcePosition
    batch_rows: int


class _SetBackError(UnavailableError):
    """The pool was restored while a portion was sent: the lane is resumed again."""


class Publisher:
    """One publication of one connector. Used by one thread."""

    def __init__(
        self,
        publication: Publication,
        source: Source,
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
        self._sign = sign
        self._stop = stop
        self._progress = progress
        self._notify = notify
        self._clock = clock
        self._recovered: SourcePosition | None = None
        self._recovered_at = -1
        self._backoff = Backoff(
            give_up_after=limits.give_up_after, stop=stop, monotonic=time.monotonic, base=limits.backoff
        )

    def run(self) -> list[RunReport]:
        """Publish what the source has now; return the report of each portion.

        Raises:
            PoolError: see `connectors.retry`; DELETE_GUARD, QUARANTINE_LIMIT and CONTRACT_BROKEN need a person.
        """
        while not self._stop.is_set():
            try:
                session = self._open_session()
                self._send(session.outbox, iter(()))
                runs = []
                for portion in self.source.portions(session.fingerprint):
                    run = self._run_portion(session, portion)
                    runs.append(run)
                    if run.outcome != "done":
                        break
                self.ledger.set_meta(last_success=self.ledger.now())
            except UnavailableError as error:
                self._notify(error.message)
                self._backoff.wait_or_raise(error)
            else:
                return runs
        return []

    # -- 1 and 2: contract and lane ----------------------------------------------------------------------------

    def _open_session(self) -> _Session:
        hello = self.pool.hello()
        topic = self.publication.topic
        lane = Lane(hello.department, ConnectorId(hello.connector), topic)
        owner = f"{hello.pool_id} {lane}"
        if self.ledger.meta("lane") not in ("", owner):
            raise ConflictError(
                Reason.CONFIG_INVALID,
                f"the ledger {self.ledger.path} belongs to another lane; give this connector a state folder of its own",
            )
        key = hello.receipt_public_key.hex()
        if self.ledger.meta("receipt_key") not in ("", key):
            raise CorruptError(
                Reason.SIGNATURE_INVALID,
                f"the pool names the receipt key {key}; the receipts in {self.ledger.path} were signed with "
                f"{self.ledger.meta('receipt_key')}. Ask the pool's operator, through another channel, whether it was "
                "replaced. If it was, move the ledger to your archive, where it still proves what you gave until now: "
                "the next run begins another one. If it was not, another server answers in the pool's place",
            )
        schema_id, text = self.pool.schema(topic)
        contract = parse_contract(schema_id, text)
        mapping = ColumnMapping(
            contract,
            engine_for(parse(text)),
            self.publication.columns,
            null_values=self.publication.null_values,
            unknown_columns=self.publication.unknown_columns,
        )
        recovered = self._reconcile_checkpoint(topic)
        self.ledger.set_meta(
            lane=owner,
            receipt_key=key,
            schema_id=str(schema_id),
            certificate_expires=str(hello.certificate_expires),
            clock_difference=f"{hello.server_time / 1e6 - self._clock().timestamp():.1f}",
        )
        return _Session(
            outbox=Outbox(self.ledger, hello.pool_id, lane, self._sign),
            contract=contract,
            mapping=mapping,
            fingerprint=self.publication.fingerprint(contract.semantic_hash),
            recovered=recovered,
            batch_rows=min(self.limits.batch_rows, hello.max_batch_records),
        )

    def _reconcile_checkpoint(self, topic: Topic) -> SourcePosition:
        """Compare the ledger with the lane at the pool; return the source position that a lost ledger recovers."""
        head, own = self.pool.resume(topic), self.ledger.checkpoint()
        root = head.root or NO_ROOT
        known = {(each.sequence, each.root) for each in self.ledger.outbox()}
        if own is not None:
            known.add((own.sequence, own.root))
        if (head.sequence, root) in known:
            # A recovered position is valid only until something else is published.
            recovered = self._recovered if own is not None and own.sequence == self._recovered_at else None
            return recovered or SourcePosition()
        if own is not None and head.sequence < own.sequence and self._is_set_back(head.sequence, root):
            count = self.ledger.set_back(
                LaneCheckpoint(sequence=head.sequence, root=root, position=head.source_position, complete=own.complete)
            )
            self.ledger.set_meta(set_back_at=self.ledger.now())
            self._notify(
                f"the pool was set back from batch {own.sequence} of this lane to {head.sequence}, as after a restore: "
                f"{count} keys of the lost batches are published again where the source has them, and voided where not"
            )
            return SourcePosition()
        if own is not None and head.sequence < own.sequence:
            raise ConflictError(
                Reason.SEQUENCE_CONFLICT,
                f"the pool's last batch of this lane is {head.sequence}, but this connector has a receipt for "
                f"{own.sequence}: the pool has lost batches. Ask its operator; to publish everything again, delete "
                f"{self.ledger.path}",
            )
        lost = head.sequence > 0
        if lost:
            self._notify(
                f"the pool has batch {head.sequence} of this lane, which is not in the ledger: the ledger was lost or "
                "is old. Records of which it is unknown whether they were published are published again, marked so"
            )
        self.ledger.reset_to(
            LaneCheckpoint(sequence=head.sequence, root=root, position=head.source_position, complete=not lost),
            discard_digests=lost,
        )
        if lost:
            self.ledger.set_meta(ledger_lost_at=self.ledger.now())
        self._recovered, self._recovered_at = SourcePosition.parse(head.source_position), head.sequence
        return self._recovered or SourcePosition()

    def _is_set_back(self, sequence: int, root: bytes) -> bool:
        """Return whether the lane's last batch at the pool is an earlier one of this ledger, by its receipt.

        A lane without any batch proves nothing: it may be that of another pool.
        """
        return sequence > 0 and root == self.ledger.receipt_root(sequence)

    # -- 3: send -----------------------------------------------------------------------------------------------

    def _send(self, outbox: Outbox, supply: Iterator[RecordGroup], counters: RunCounters | None = None) -> None:
        """Publish what is unacknowledged and what the supply yields, until every receipt has arrived."""
        # The first group is built before a stream is opened: a portion without changes never opens one.
        first = next(supply, None)
        if first is None and not len(outbox):
            return
        outbox.set_supply(itertools.chain([first] if first is not None else [], supply))
        while True:
            try:
                self._stream(outbox, counters)
            except BatchRefusedError as error:
                self._handle_refusal(outbox, error, counters)
            except PoolError as error:
                if not is_retryable(error) or error.reason in (Reason.SOURCE_UNAVAILABLE, Reason.SOURCE_CHANGED):
                    raise
                self._backoff.wait_or_raise(error)
                if self._stop.is_set():
                    raise
                self._reconcile_after_break(outbox, counters)
            else:
                if not len(outbox):
                    return
                self._backoff.wait_or_raise(
                    UnavailableError(Reason.GATEWAY_UNAVAILABLE, "the gateway ended the stream before its receipts")
                )

    def _stream(self, outbox: Outbox, counters: RunCounters | None) -> None:
        topic, in_flight = self.publication.topic, self.limits.in_flight
        for receipt in self.pool.publish(topic, outbox.stream(), in_flight=in_flight):
            records, voids = outbox.acknowledge(receipt)
            self._backoff.reset()
            if counters is not None:
                counters.count_acknowledged(records, voids)
                self._progress(counters.run)

    def _reconcile_after_break(self, outbox: Outbox, counters: RunCounters | None) -> None:
        """Count what the pool appended of a broken stream: no receipt will arrive for it any more.

        Raises:
            ConflictError: SEQUENCE_CONFLICT, when another process has written to the lane meanwhile.
        """
        while True:
            try:
                head = self.pool.resume(self.publication.topic)
            except UnavailableError as error:
                self._backoff.wait_or_raise(error)
                if self._stop.is_set():
                    raise
                continue
            proven = outbox.reconcile(head.sequence, head.root or NO_ROOT)
            if proven is not None:
                if counters is not None:
                    counters.count_acknowledged(*proven)
                return
            own = self.ledger.checkpoint()
            set_back = own is not None and head.sequence < own.sequence
            if set_back and self._is_set_back(head.sequence, head.root or NO_ROOT):
                raise _SetBackError(
                    Reason.GATEWAY_UNAVAILABLE, "the pool was set back to an earlier batch; the run begins again"
                )
            raise ConflictError(
                Reason.SEQUENCE_CONFLICT,
                f"the pool's last batch of this lane is {head.sequence}, which this process did not send: another one "
                "publishes as the same connector. Stop one of them",
            )

    def _handle_refusal(self, outbox: Outbox, error: BatchRefusedError, counters: RunCounters | None) -> None:
        """Quarantine the rows that the pool names, or split a batch that is too large; raise any other refusal.

        A batch that was found on disk is dropped: the next pass over its portion reads its rows again.
        """
        if counters is None:
            outbox.take_back(error.sequence, ())
            return
        if error.reason is Reason.BATCH_TOO_LARGE and not error.rows:
            if outbox.split(error.sequence):
                return
            bad, faults = [0], [(RejectCode.TOO_LARGE, "", error.message)]
        elif error.rows:
            bad = [row.index for row in error.rows]
            faults = [(RejectCode.TYPE, row.field, f"the pool refused it: {row.message}") for row in error.rows]
        else:
            raise error
        rows = outbox.take_back(error.sequence, bad)
        if rows is None:
            return
        counters.count_refused(
            [
                Reject(line=row.line, code=code, field=field, message=message, original=row.original)
                for row, (code, field, message) in zip(rows, faults, strict=True)
            ]
        )

    # -- 4: one portion ----------------------------------------------------------------------------------------

    def _run_portion(self, session: _Session, portion: Portion) -> RunReport:
        run = self.ledger.begin_run(portion.name)
        counters = RunCounters(run, self.quarantine, self.limits.quarantine_share)
        try:
            self._publish_portion(session, portion, counters)
        except PoolError as error:
            self.ledger.end_run(replace(counters.run, outcome=error.reason.value))
            raise
        self.ledger.end_run(counters.run)
        if counters.run.outcome == "done":
            self.quarantine.close_resolved(portion.name, run.id)
            portion.confirm()
        return counters.run

    def _publish_portion(self, session: _Session, portion: Portion, counters: RunCounters) -> None:
        bound = session.mapping.bind(portion.columns)
        scope = self.ledger.scope_id(portion.name if portion.replaces is Replaces.SAME_NAME else "")
        with KeyScan(self.ledger, scope if portion.replaces is Replaces.SAME_NAME else None) as key_scan:
            for chunk in portion.chunks(bound.key_columns):
                key_scan.add(bound.keys(chunk), len(chunk.rejects))
                self._progress(replace(counters.run, outcome="scanning keys", read=key_scan.rows))
                if self._stop.is_set():
                    break
            voids = 0
            if portion.replaces is not Replaces.NOTHING and not self._stop.is_set():
                voids = self._check_delete_guard(key_scan, portion)
            second_pass = SecondPass(
                portion=portion,
                bound=bound,
                contract=session.contract,
                engine=engine_for(parse(session.contract.text)),
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
            )
            self._send(session.outbox, second_pass.groups(), counters)
            if self._stop.is_set():
                counters.finish("stopped")
                return
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
                self._send(session.outbox, self._voids(key_scan, second_pass.end_position(), scope), counters)
            counters.finish("stopped" if self._stop.is_set() else "done")

    def _recovered_rows(self, session: _Session, portion: Portion) -> int:
        checkpoint = self.ledger.checkpoint()
        untouched = checkpoint is not None and checkpoint.sequence == self._recovered_at
        return session.recovered.covered_rows(portion.identity, session.fingerprint) if untouched else 0

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

    def _voids(self, key_scan: KeyScan, position: SourcePosition, scope: int) -> Iterator[RecordGroup]:
        checkpoint = self.ledger.checkpoint()
        complete = checkpoint is not None and checkpoint.complete
        mark = mark_of(Operation.VOID, published=True, complete=complete)
        for keys in key_scan.missing_keys():
            if self._stop.is_set():
                return
            for start in range(0, len(keys), _MAX_VOIDS):
                page = keys[start : start + _MAX_VOIDS]
                records = [OutboundRecord(mark, key, b"", b"", 0, key) for key in page]
                yield RecordGroup(records=records, position=position, scope=scope)
