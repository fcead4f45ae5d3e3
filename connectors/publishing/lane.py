"""Lane of a publication: fetch the contract, reconcile the ledger with the pool, send batches until their receipts.

Both publishers, of portions and of changes, build their records in their own way and send them over this one:

    open    greet the pool, fetch the contract, compile the mapping, reconcile the ledger with the lane's last batch
    send    publish what is unacknowledged and what a supply yields, until every receipt has arrived; a broken stream is
            resumed, refused rows are quarantined, a batch that is too large is halved

**A restored pool.** Its last batch is an earlier one of this ledger. The keys of the lost batches lose their digests,
so that the next pass publishes or voids them again, and nothing else; their receipts are kept. A lane whose last batch
no receipt proves is a conflict, which needs a person.

**A lost ledger.** The pool returns the sequence, the root and the source position of its last batch.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import Event
from time import monotonic
from typing import Protocol

from connectors.mapping.contract import Contract, parse_contract
from connectors.mapping.mapping import ColumnMapping
from connectors.port import Pool, Reject, RejectCode
from connectors.publishing.earlier_contracts import EarlierContracts
from connectors.publishing.outbox import OutboundRecord, Outbox, RecordGroup
from connectors.publishing.publication import Limits, Publication, Signer
from connectors.retry import Backoff, is_retryable
from connectors.state.ledger import LaneCheckpoint, Ledger
from exchange.client.messages import BatchRefusedError, LaneHead
from registry.avro.parser import parse
from registry.codec.codec import Engine, engine_for
from schemas.errors import (
    ConflictError,
    CorruptError,
    InvalidError,
    PoolError,
    Reason,
    RefusedError,
    UnavailableError,
)
from schemas.names import ConnectorId
from schemas.names import Lane as LaneName
from schemas.record import NO_ROOT

__all__ = ["Lane", "LaneSession", "SendCounters", "earlier_schemas", "fetch_earlier_contracts"]

_MAX_EARLIER = 4  # schemas


class SendCounters(Protocol):
    """What is told of each receipt and each refusal."""

    def count_acknowledged(self, records: int, voids: int) -> None:
        """Count a receipt."""
        ...

    def count_refused(self, records: Sequence[OutboundRecord], rejects: Sequence[Reject]) -> None:
        """Count records that the pool refused, with why, one each."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneSession:
    """The state of one run that depends on the pool.

    Attributes:
        outbox: with the batches that are unacknowledged.
        contract, engine, mapping: of the topic's latest schema.
        fingerprint: see `Publication.fingerprint`.
        earlier: contracts of before, of which the ledger may have digests.
        head: source position of the lane's last batch at the pool; empty where it has none.
        recovered: that position, where the ledger was lost and nothing was published since; else empty.
        recovered_at: sequence number of that batch.
        batch_rows: limit of a batch.
        ends: a row that is gone ends the validity of its record, and does not retract it.
    """

    outbox: Outbox
    contract: Contract
    engine: Engine
    mapping: ColumnMapping
    fingerprint: bytes
    earlier: EarlierContracts
    head: bytes
    recovered: bytes
    recovered_at: int
    batch_rows: int
    ends: bool


class _SetBackError(UnavailableError):
    """The pool was restored while a portion was sent: the lane is resumed again."""


class Lane:
    """The lane of one publication: one connector, one topic, one ledger. Used by one thread."""

    def __init__(
        self,
        publication: Publication,
        pool: Pool,
        ledger: Ledger,
        *,
        sign: Signer,
        limits: Limits,
        stop: Event,
        notify: Callable[[str], None],
        clock: Callable[[], datetime],
    ) -> None:
        self.publication = publication
        self.pool = pool
        self.ledger = ledger
        self.limits = limits
        self.backoff = Backoff(give_up_after=limits.give_up_after, stop=stop, monotonic=monotonic, base=limits.backoff)
        self._sign = sign
        self._stop = stop
        self._notify = notify
        self._clock = clock
        self._recovered = b""
        self._recovered_at = -1

    def open(self) -> LaneSession:
        """Greet the pool, fetch the contract and reconcile the ledger with the lane.

        Raises:
            ConflictError: CONFIG_INVALID, another lane's ledger; SEQUENCE_CONFLICT, the pool has lost batches.
            CorruptError: SIGNATURE_INVALID, the pool names another receipt key.
            InvalidError: CONTRACT_BROKEN, CONFIG_INVALID.
            UnavailableError: the pool is away.
        """
        hello = self.pool.hello()
        topic = self.publication.topic
        lane = LaneName(hello.department, ConnectorId(hello.connector), topic)
        owner = f"{hello.pool_id} {lane}"
        known = self.ledger.meta("lane")
        former = (
            f"{hello.pool_id} {LaneName(self.limits.succeeds, lane.connector, topic)}" if self.limits.succeeds else ""
        )
        if known not in ("", owner, former):
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
        engine = engine_for(parse(text))
        mapping = ColumnMapping(
            contract,
            engine,
            self.publication.columns,
            null_values=self.publication.null_values,
            unknown_columns=self.publication.unknown_columns,
        )
        earlier = earlier_schemas(self.ledger.meta, schema_id)
        lane_head = self.pool.resume(topic)
        if known == former != "":
            self._take_over(lane_head)
        on_delete = self._on_delete(lane_head)
        head, recovered = self._reconcile_checkpoint(lane_head)
        self.ledger.set_meta(
            lane=owner,
            receipt_key=key,
            schema_id=str(schema_id),
            contracts=json.dumps([*earlier, schema_id]),
            certificate_expires=str(hello.certificate_expires),
            clock_difference=f"{hello.server_time / 1e6 - self._clock().timestamp():.1f}",
        )
        return LaneSession(
            outbox=Outbox(self.ledger, hello.pool_id, lane, self._sign),
            contract=contract,
            engine=engine,
            mapping=mapping,
            fingerprint=self.publication.fingerprint(contract.semantic_hash),
            earlier=fetch_earlier_contracts(self.pool, earlier, contract),
            head=head,
            recovered=recovered,
            recovered_at=self._recovered_at,
            batch_rows=min(self.limits.batch_rows, hello.max_batch_records),
            ends=on_delete == "end",
        )

    def _take_over(self, head: LaneHead) -> None:
        """Go on with the ledger of a department that has merged into ours, in a lane that has no batch yet."""
        if head.sequence:
            raise ConflictError(
                Reason.CONFIG_INVALID,
                f"the ledger {self.ledger.path} is of {self.limits.succeeds}, and this connector has published by "
                "itself already; go on without it, or under another name",
            )
        self.ledger.take_over()
        self._notify(f"goes on with what {self.limits.succeeds} has published, in a lane of its own")

    def _on_delete(self, head: LaneHead) -> str:
        """Return what becomes of the record of a row that is gone: what the configuration states, or did once.

        Where none states it, records end where the resource keeps history, and else are retracted. A lane that has
        batches goes on as it began: before this was decided by the resource, every void was a retraction.
        """
        stated = self.publication.on_delete or self.ledger.meta("on_delete")
        chosen = stated or ("end" if head.keeps_history and not head.sequence else "retract")
        if not stated:
            what = "ends, and stays in the history" if chosen == "end" else "is retracted"
            self._notify(f"the record of a row that is gone {what}; `on_delete` states it otherwise")
        self.ledger.set_meta(on_delete=chosen)
        return chosen

    def _reconcile_checkpoint(self, head: LaneHead) -> tuple[bytes, bytes]:
        """Compare the ledger with the lane at the pool; return `LaneSession.head` and `LaneSession.recovered`."""
        own = self.ledger.checkpoint()
        root = head.root or NO_ROOT
        known = {(each.sequence, each.root) for each in self.ledger.outbox()}
        if own is not None:
            known.add((own.sequence, own.root))
        if (head.sequence, root) in known:
            # A recovered position is valid only until something else is published.
            untouched = own is not None and own.sequence == self._recovered_at
            return head.source_position, self._recovered if untouched else b""
        if own is not None and head.sequence < own.sequence and self._is_set_back(head.sequence, root):
            count = self.ledger.set_back(
                LaneCheckpoint(sequence=head.sequence, root=root, position=head.source_position, complete=own.complete)
            )
            self.ledger.set_meta(set_back_at=self.ledger.now())
            self._notify(
                f"the pool was set back from batch {own.sequence} of this lane to {head.sequence}, as after a restore: "
                f"{count} keys of the lost batches are published again where the source has them, and voided where not"
            )
            return head.source_position, b""
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
        self._recovered, self._recovered_at = head.source_position, head.sequence
        return head.source_position, self._recovered

    def _is_set_back(self, sequence: int, root: bytes) -> bool:
        """Return whether the lane's last batch at the pool is an earlier one of this ledger, by its receipt.

        A lane without any batch proves nothing: it may be that of another pool.
        """
        return sequence > 0 and root == self.ledger.receipt_root(sequence)

    def send(self, outbox: Outbox, supply: Iterator[RecordGroup], counters: SendCounters | None = None) -> None:
        """Publish what is unacknowledged and what the supply yields, until every receipt has arrived.

        Raises:
            PoolError: see `connectors.retry`; what the supply raises.
        """
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
                self.backoff.wait_or_raise(error)
                if self._stop.is_set():
                    raise
                self._reconcile_after_break(outbox, counters)
            else:
                if not len(outbox):
                    return
                self.backoff.wait_or_raise(
                    UnavailableError(Reason.GATEWAY_UNAVAILABLE, "the gateway ended the stream before its receipts")
                )

    def _stream(self, outbox: Outbox, counters: SendCounters | None) -> None:
        topic, in_flight = self.publication.topic, self.limits.in_flight
        for receipt in self.pool.publish(topic, outbox.stream(), in_flight=in_flight):
            records, voids = outbox.acknowledge(receipt)
            self.backoff.reset()
            if counters is not None:
                counters.count_acknowledged(records, voids)

    def _reconcile_after_break(self, outbox: Outbox, counters: SendCounters | None) -> None:
        """Count what the pool appended of a broken stream: no receipt will arrive for it any more.

        Raises:
            ConflictError: SEQUENCE_CONFLICT, when another process has written to the lane meanwhile.
        """
        while True:
            try:
                head = self.pool.resume(self.publication.topic)
            except UnavailableError as error:
                self.backoff.wait_or_raise(error)
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

    def _handle_refusal(self, outbox: Outbox, error: BatchRefusedError, counters: SendCounters | None) -> None:
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
            rows,
            [
                Reject(line=row.line, code=code, field=field, message=message, original=_original_of(row))
                for row, (code, field, message) in zip(rows, faults, strict=True)
            ],
        )


def _original_of(record: OutboundRecord) -> bytes:
    return record.original() if callable(record.original) else record.original


def earlier_schemas(meta: Callable[[str], str], current: int) -> list[int]:
    """Return the ids of other schemas of which a ledger may have digests, the latest last.

    Args:
        meta: reads a value of the ledger by its name.
        current: id of the topic's latest schema.
    """
    stored = meta("contracts")
    ids: list[int] = json.loads(stored) if stored else []
    if not ids and (last := meta("schema_id")):  # a ledger of an earlier program names the last one
        ids = [int(last)]
    return [each for each in ids if each != current][-_MAX_EARLIER:]


def fetch_earlier_contracts(pool: Pool, ids: Sequence[int], current: Contract) -> EarlierContracts:
    """Return the contracts of these schemas, of which one that the pool does not show is left out."""
    found: list[tuple[Contract, Engine]] = []
    for schema_id in reversed(ids):
        try:
            text = pool.schema(schema_id=schema_id)[1]
            contract = parse_contract(schema_id, text)
            if contract.semantic_hash != current.semantic_hash:
                found.append((contract, engine_for(parse(text))))
        except (InvalidError, RefusedError):  # its rows are published again, no more
            continue
    return EarlierContracts(found)
