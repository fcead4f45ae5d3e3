"""A source into the pool: read → map → publish → remember, in this order and no other.

One pass over what the source has:

    1. greet the pool, take the contract, compile the mapping against it
    2. ask where the lane stands; hold the ledger against the answer
    3. send again what was signed before and not acknowledged, byte for byte
    4. for each portion: survey its keys → delete guard → rows → voids → balance → `done`

A place is remembered with its receipt in hand, never before. Every row ends in one of three ways, and they add up:

    rows read = published + quarantined + unchanged

Voids go out last, and only if every key of the portion could be read: a key that nobody can read may be any of the
missing ones. Voids have a count of their own, since no row stands for them.

**A lost ledger.** The pool gives the sequence, the root and the source position back. The rows up to that position, in
a portion that is still there and equal, are learnt again without being published; others are published again and
marked `unknown`, since nobody can tell any more whether they were. Keys that left the source meanwhile cannot be
voided.
"""

import hashlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from connectors.mapping.contract import Contract, contract
from connectors.mapping.mapping import Column, Mapping
from connectors.port import Pool, Portion, Reject, RejectCode, Replaces, Source
from connectors.publishing.key_scan import KeyScan
from connectors.publishing.outbox import Group, Outbox, Place, Row, mark_of
from connectors.publishing.second_pass import SecondPass, Tally
from connectors.retry import Backoff, again
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

_VOIDS = 5_000  # of a batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one batch may hold, and what stops a publication.

    Attributes:
        batch_rows, batch_bytes: of a batch.
        in_flight: unanswered batches.
        quarantine_share: of the rows read (after the first 1,000); more of them quarantined stop the portion.
        delete_share: of the published keys; more of them missing stop the portion before anything is published.
        delete_floor: so few missing keys never stop it, unless none is left.
        accept_deletes: a person has looked and says yes.
        give_up_after: seconds of failing without success.
        backoff: seconds; the first delay is at most this.
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
    """What is published, and how its columns become records."""

    topic: Topic
    columns: dict[str, Column]
    null_values: tuple[str, ...] = ()
    unknown_columns: str = "stop"
    on_duplicate: str = "quarantine"  # or "last"
    form: str = ""  # whatever else changes what a row means: encoding, delimiter, header

    def fingerprint(self, meaning: bytes) -> bytes:
        """Return 8 bytes that change when the records made of the same rows may change."""
        told = {
            "columns": {name: str(column) for name, column in sorted(self.columns.items())},
            "null_values": sorted(self.null_values),
            "on_duplicate": self.on_duplicate,
            "form": self.form,
            "contract": meaning.hex(),
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).digest()[:8]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """What one pass has agreed with the pool."""

    outbox: Outbox
    contract: Contract
    mapping: Mapping
    fingerprint: bytes
    recovered: Place
    batch_rows: int


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
        say: Callable[[str], None] = lambda _: None,
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
        self._say = say
        self._clock = clock
        self._recovered: Place | None = None
        self._recovered_at = -1
        self._backoff = Backoff(
            give_up_after=limits.give_up_after, stop=stop, monotonic=time.monotonic, base=limits.backoff
        )

    def run(self) -> list[RunReport]:
        """Publish what the source has now; give the balance of each portion.

        Raises:
            PoolError: see `connectors.retry`; DELETE_GUARD, QUARANTINE_LIMIT and CONTRACT_BROKEN want a person.
        """
        while not self._stop.is_set():
            try:
                session = self._agree()
                self._send(session.outbox, iter(()))
                runs = []
                for portion in self.source.read(session.fingerprint):
                    run = self._publish(session, portion)
                    runs.append(run)
                    if run.outcome != "done":
                        break
                self.ledger.note(last_success=self.ledger.now())
            except UnavailableError as error:
                self._say(error.message)
                self._backoff.failed(error)
            else:
                return runs
        return []

    # -- 1 and 2: agree with the pool --------------------------------------------------------------------------

    def _agree(self) -> _Session:
        hello = self.pool.hello()
        topic = self.publication.topic
        lane = Lane(hello.department, ConnectorId(hello.connector), topic)
        of = f"{hello.pool_id} {lane}"
        if self.ledger.fact("lane") not in ("", of):
            raise ConflictError(
                Reason.CONFIG_INVALID,
                f"the ledger {self.ledger.path} belongs to another lane; give this connector a state folder of its own",
            )
        key = hello.receipt_public_key.hex()
        if self.ledger.fact("receipt_key") not in ("", key):
            raise CorruptError(
                Reason.SIGNATURE_INVALID,
                f"the pool names the receipt key {key}; the receipts in {self.ledger.path} were signed with "
                f"{self.ledger.fact('receipt_key')}. Ask the pool's operator, by another way, whether it was replaced. "
                "If it was, move the ledger to your archive, where it goes on proving what you gave until now: the "
                "next run begins another one. If it was not, another one answers in the pool's place",
            )
        schema_id, text = self.pool.schema(topic)
        agreed = contract(schema_id, text)
        mapping = Mapping(
            agreed,
            engine_for(parse(text)),
            self.publication.columns,
            null_values=self.publication.null_values,
            unknown_columns=self.publication.unknown_columns,
        )
        recovered = self._stand(topic)
        self.ledger.note(
            lane=of,
            receipt_key=key,
            schema_id=str(schema_id),
            certificate_expires=str(hello.certificate_expires),
            clock_difference=f"{hello.server_time / 1e6 - self._clock().timestamp():.1f}",
        )
        return _Session(
            outbox=Outbox(self.ledger, hello.pool_id, lane, self._sign),
            contract=agreed,
            mapping=mapping,
            fingerprint=self.publication.fingerprint(agreed.meaning),
            recovered=recovered,
            batch_rows=min(self.limits.batch_rows, hello.max_batch_records),
        )

    def _stand(self, topic: Topic) -> Place:
        """Hold the ledger against the pool's standing; give the place that a lost ledger takes over."""
        pool, own = self.pool.resume(topic), self.ledger.standing()
        root = pool.root or NO_ROOT
        known = {(each.sequence, each.root) for each in self.ledger.outbox()}
        if own is not None:
            known.add((own.sequence, own.root))
        if (pool.sequence, root) in known:
            # What a lost ledger took over holds only until something else is published.
            recovered = self._recovered if own is not None and own.sequence == self._recovered_at else None
            return recovered or Place()
        if own is not None and pool.sequence < own.sequence:
            raise ConflictError(
                Reason.SEQUENCE_CONFLICT,
                f"the pool stands at batch {pool.sequence}, this connector has a receipt for {own.sequence}: the pool "
                f"has lost batches. Ask its operator; to publish everything again, delete {self.ledger.path}",
            )
        lost = pool.sequence > 0
        if lost:
            self._say(
                f"the pool stands at batch {pool.sequence}, of which this connector knows nothing: its ledger was "
                "lost or is old. What cannot be told apart is published again, marked as possibly known"
            )
        self.ledger.stand(
            LaneCheckpoint(sequence=pool.sequence, root=root, position=pool.source_position, complete=not lost),
            forget=lost,
        )
        if lost:
            self.ledger.note(ledger_lost_at=self.ledger.now())
        self._recovered, self._recovered_at = Place.of(pool.source_position), pool.sequence
        return self._recovered or Place()

    # -- 3: send -----------------------------------------------------------------------------------------------

    def _send(self, outbox: Outbox, supply: Iterator[Group], tally: Tally | None = None) -> None:
        """Publish what is unacknowledged and what the supply gives, until every receipt is there."""
        # The first group is made before a stream is opened: a portion without changes never opens one.
        first = next(supply, None)
        if first is None and not len(outbox):
            return
        outbox.offer(itertools.chain([first] if first is not None else [], supply))
        while True:
            try:
                self._stream(outbox, tally)
            except BatchRefusedError as error:
                self._refused(outbox, error, tally)
            except PoolError as error:
                if not again(error) or error.reason in (Reason.SOURCE_UNAVAILABLE, Reason.SOURCE_CHANGED):
                    raise
                self._backoff.failed(error)
                if self._stop.is_set():
                    raise
                self._ask(outbox, tally)
            else:
                if not len(outbox):
                    return
                self._backoff.failed(
                    UnavailableError(Reason.GATEWAY_UNAVAILABLE, "the gateway ended the stream before its receipts")
                )

    def _stream(self, outbox: Outbox, tally: Tally | None) -> None:
        topic, in_flight = self.publication.topic, self.limits.in_flight
        for receipt in self.pool.publish(topic, outbox.stream(), in_flight=in_flight):
            records, voids = outbox.acknowledge(receipt)
            self._backoff.succeeded()
            if tally is not None:
                tally.acknowledged(records, voids)
                self._progress(tally.run)

    def _ask(self, outbox: Outbox, tally: Tally | None) -> None:
        """After a broken stream, see what of it arrived, and count it: no receipt will come for it any more.

        Raises:
            ConflictError: SEQUENCE_CONFLICT, when another process has written to the lane meanwhile.
        """
        while True:
            try:
                standing = self.pool.resume(self.publication.topic)
            except UnavailableError as error:
                self._backoff.failed(error)
                if self._stop.is_set():
                    raise
                continue
            proven = outbox.explains(standing.sequence, standing.root or NO_ROOT)
            if proven is not None:
                if tally is not None:
                    tally.acknowledged(*proven)
                return
            raise ConflictError(
                Reason.SEQUENCE_CONFLICT,
                f"the pool stands at batch {standing.sequence}, which this process did not send: another one publishes "
                "as the same connector. Stop one of them",
            )

    def _refused(self, outbox: Outbox, error: BatchRefusedError, tally: Tally | None) -> None:
        """Quarantine the rows that the pool names, or halve a batch that is too large; anything else stops.

        A batch that was found on disk is dropped: its portion is read again, and states its rows once more.
        """
        if tally is None:
            outbox.refuse(error.sequence, ())
            return
        if error.reason is Reason.BATCH_TOO_LARGE and not error.rows:
            if outbox.halve(error.sequence):
                return
            bad, faults = [0], [(RejectCode.TOO_LARGE, "", error.message)]
        elif error.rows:
            bad = [row.index for row in error.rows]
            faults = [(RejectCode.TYPE, row.field, f"the pool refused it: {row.message}") for row in error.rows]
        else:
            raise error
        rows = outbox.refuse(error.sequence, bad)
        if rows is None:
            return
        tally.refused(
            [
                Reject(line=row.line, code=code, field=field, message=message, original=row.original)
                for row, (code, field, message) in zip(rows, faults, strict=True)
            ]
        )

    # -- 4: one portion ----------------------------------------------------------------------------------------

    def _publish(self, session: _Session, portion: Portion) -> RunReport:
        run = self.ledger.begin(portion.name)
        tally = Tally(run, self.quarantine, self.limits.quarantine_share)
        try:
            self._account(session, portion, tally)
        except PoolError as error:
            self.ledger.end(replace(tally.run, outcome=error.reason.value))
            raise
        self.ledger.end(tally.run)
        if tally.run.outcome == "done":
            self.quarantine.settle(portion.name, run.id)
            portion.done()
        return tally.run

    def _account(self, session: _Session, portion: Portion, tally: Tally) -> None:
        bound = session.mapping.bind(portion.columns)
        scope = self.ledger.scope(portion.name if portion.replaces is Replaces.SAME_NAME else "")
        with KeyScan(self.ledger, scope if portion.replaces is Replaces.SAME_NAME else None) as survey:
            for changes in portion.changes(bound.key_columns):
                survey.count(bound.keys(changes), len(changes.rejects))
                self._progress(replace(tally.run, outcome="surveying", read=survey.rows))
                if self._stop.is_set():
                    break
            voids = 0
            if portion.replaces is not Replaces.NOTHING and not self._stop.is_set():
                voids = self._guard(survey, portion)
            reading = SecondPass(
                portion=portion,
                bound=bound,
                contract=session.contract,
                engine=engine_for(parse(session.contract.text)),
                survey=survey,
                ledger=self.ledger,
                tally=tally,
                place=Place(identity=portion.identity, fingerprint=session.fingerprint),
                recovered=self._recovered_rows(session, portion),
                scope=scope,
                keep_last=self.publication.on_duplicate == "last",
                batch_rows=session.batch_rows,
                batch_bytes=self.limits.batch_bytes,
                stop=self._stop,
            )
            self._send(session.outbox, reading.groups(), tally)
            if self._stop.is_set():
                tally.end("stopped")
                return
            if not voids:
                self.ledger.note(voids_held="0")
            elif survey.unreadable:
                self._say(
                    f"{portion.name}: {voids} keys are missing, but {survey.unreadable} rows have keys that cannot be "
                    "read and may be these; no void is sent until they can"
                )
                self.ledger.note(voids_held=str(voids))
            else:
                self.ledger.note(voids_held="0")
                self._send(session.outbox, self._voids(survey, reading.after(), scope), tally)
            tally.end("stopped" if self._stop.is_set() else "done")

    def _recovered_rows(self, session: _Session, portion: Portion) -> int:
        standing = self.ledger.standing()
        untouched = standing is not None and standing.sequence == self._recovered_at
        return session.recovered.covers(portion.identity, session.fingerprint) if untouched else 0

    def _guard(self, survey: KeyScan, portion: Portion) -> int:
        """Count the keys that are missing.

        Raises:
            InvalidError: DELETE_GUARD, when they are too many to be believed.
        """
        missing, known = survey.missing(), survey.known()
        limit = max(self.limits.delete_share * known, self.limits.delete_floor)
        if missing and not self.limits.accept_deletes and (missing > limit or missing == known):
            raise InvalidError(
                Reason.DELETE_GUARD,
                f"{portion.name} lacks {missing} of {known} published keys; the limit is "
                f"{self.limits.delete_share:.1%}. Nothing was published. If they are really gone, run again with "
                "--accept-deletes",
                details={"missing": str(missing), "known": str(known)},
            )
        return missing

    def _voids(self, survey: KeyScan, place: Place, scope: int) -> Iterator[Group]:
        complete = bool((standing := self.ledger.standing()) and standing.complete)
        mark = mark_of(Operation.VOID, published=True, complete=complete)
        for keys in survey.lacking():
            if self._stop.is_set():
                return
            for start in range(0, len(keys), _VOIDS):
                page = keys[start : start + _VOIDS]
                rows = [Row(mark, key, b"", b"", 0, key) for key in page]
                yield Group(rows=rows, place=place, scope=scope)
