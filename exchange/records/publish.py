"""Publish: a batch of records from a connector into the pool.

    (1) form        sizes, marks and packed buffers fit each other
    (2) decision    may this connector publish this resource, now
    (3) proof       the connector's key signed the Merkle root, and the root is that of the records
    (4) schema      every value is canonical Avro of a version of this topic's subject, and keeps its rules
    (5) pseudonyms  keys become HMACs under the topic's key; from them follow the partitions
    (6) append      broker, receipt and entry; then, and only then, the acknowledgement

(1) to (5) are `check`, which runs for several batches side by side; (6) is `append`, which takes all that are ready.

If the gateway dies after the broker's commit and before the entry's, records are visible without an entry. The
sweeper (`sweep`, at start and every 10 s, on any gateway) finds them by comparing the broker's lanes with the
receipts, and writes the missing entry, marked `recovered`. A publish entry may thus trail visibility; a release
entry never does.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from exchange.access.decision.policy import decide
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Authorized, Enforcer, Writer
from exchange.authorization.request_context import RequestContext
from exchange.broker.port import Append, Appended, Broker, LaneFault
from exchange.broker.rules import sequence_gap
from exchange.records.submission import Records, Submission, check_form, merge_keys
from registry.database.unit_of_work import Database, UnitOfWork
from schemas.access import Action, Actor, ActorKind, Allow, Role
from schemas.audit import AuditEntry, publish_data
from schemas.errors import ConflictError, InvalidError, PoolError, Reason
from schemas.failpoints import reached
from schemas.names import ConnectorId, Lane, Topic
from schemas.record import NO_ROOT, Receipt, batch_statement, receipt_statement

__all__ = ["Checked", "PublishService"]

_SETTLED = 15_000_000  # microseconds after which a missing entry is taken for one that nobody will write
_RECOVERY = RequestContext(trace="0" * 32, client="sweeper")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A batch that passed (1) to (5)."""

    submission: Submission
    passage: Authorized
    append: Append
    schema_ids: tuple[int, ...]
    signing_key: bytes  # that verified its signature

    @property
    def sequence(self) -> int:
        """Number of the batch."""
        return self.append.sequence


class Receipts(Protocol):
    """What publishing needs of the receipts' store."""

    def put(self, work: UnitOfWork, receipts: Sequence[tuple[Receipt, Sequence[bytes]]]) -> None:
        """Store receipts, each with the pseudonyms of its records' keys."""
        ...

    def get(self, work: UnitOfWork, lane: Lane, sequence: int) -> Receipt | None:
        """Return a receipt."""
        ...

    def last(self, work: UnitOfWork, lane: Lane) -> Receipt | None:
        """Return the lane's receipt with the highest sequence."""
        ...


class BatchCheck(Protocol):
    """Root and schema, steps (3) and (4), for the records of one batch, perhaps in a worker process."""

    def __call__(
        self, topic: Topic, records: Records, values: Sequence[bytes]
    ) -> tuple[Sequence[bytes], tuple[int, ...]]:
        """Return the key bytes of the records that have a value, in order, and the schema ids among them.

        Args:
            topic: of the batch.
            records: whose form was checked.
            values: their values, one by one.

        Raises:
            RowsRefusedError: some rows do not keep the schema.
            InvalidError: SIGNATURE_INVALID, the root is not the records'; SCHEMA_UNKNOWN, a frame names a schema that
                is none of this topic's.
        """
        ...


class PublishService:
    """The publish side of the pool."""

    def __init__(
        self,
        *,
        pool_id: str,
        database: Database,
        enforcer: Enforcer,
        ledger: Writer,
        receipts: Receipts,
        broker: Broker,
        attributes: AttributeProvider,
        pseudonyms: Callable[[Topic, Sequence[bytes]], list[bytes]],
        partitions: Callable[[Sequence[bytes], int], list[int]],
        check_records: BatchCheck,
        sign: Callable[[bytes], bytes],
        clock: Callable[[], int],
    ) -> None:
        self._pool_id = pool_id
        self._database = database
        self._enforcer = enforcer
        self._ledger = ledger
        self._receipts = receipts
        self._broker = broker
        self._attributes = attributes
        self._pseudonyms = pseudonyms
        self._partitions_of = partitions
        self._check_records = check_records
        self._sign = sign
        self._clock = clock
        self._partitions: dict[Topic, int] = {}
        self._roots: dict[Lane, tuple[int, bytes]] = {}  # last sequence and root that this gateway appended
        self._lock = threading.Lock()

    def check(self, actor: Actor, call: RequestContext, submission: Submission) -> Checked:
        """Do steps (1) to (5).

        Raises:
            InvalidError: what was sent is wrong; RowsRefusedError where single rows are.
            RefusedError: the connector may not publish this.
        """
        # (1) Before anything costs: a hostile batch must not reach the hashes.
        check_form(submission)
        topic = submission.topic
        lane = Lane(actor.department, ConnectorId(actor.id), topic)
        # (2) As of a moment ago, where that lets it pass: the append decides as of now.
        for attributes in self._attributes.publishers(actor, topic):
            decision = decide(actor, Action.PUBLISH, standing=attributes.standing, resource=attributes.resource)
            signed = self._signed(attributes.signing_key, lane, submission)
            if signed and isinstance(decision, Allow):
                break
        # An invented topic is not named: each name would make an entry of its own.
        resource = str(topic) if attributes.resource else ""
        passage = self._enforcer.admit(actor, Action.PUBLISH, resource, call, decision)
        # (3) Signature first: what nobody has signed costs no hashes.
        if attributes.signing_key is None:
            raise InvalidError(Reason.NOT_FOUND, "the connector has no key to sign batches with; enrol it anew")
        if not signed:
            raise InvalidError(
                Reason.SIGNATURE_INVALID,
                "the batch's signature does not fit; expected Ed25519 by the connector's enrolled key over pool, "
                "lane, sequence, count, root and previous root",
            )
        # The rest of (3), and (4)
        values = list(submission.values)
        value_keys, schema_ids = self._check_records(topic, submission, values)
        # (5)
        keys = merge_keys(submission.marks, value_keys, submission.void_keys)
        pseudonyms = self._pseudonyms(topic, keys)
        append = Append(
            lane=lane,
            sequence=submission.sequence,
            digest=submission.root,
            source_position=submission.source_position,
            recorded_at=self._clock(),
            marks=submission.marks,
            keys=pseudonyms,
            partitions=self._partitions_of(pseudonyms, self._partition_count(topic)),
            values=[value or None for value in values] if len(submission.void_keys) else values,
            valid=submission.valid,
        )
        return Checked(
            submission=submission,
            passage=passage,
            append=append,
            schema_ids=schema_ids,
            signing_key=attributes.signing_key,
        )

    def append(self, batches: Sequence[Checked]) -> list[Receipt]:
        """Do step (6) for consecutive batches of one lane, in one transaction of the broker.

        Raises:
            ConflictError: see `Broker.append`; PREVIOUS_ROOT_MISMATCH.
            RefusedError: the connector may not publish this any more.
            InvalidError: SIGNATURE_INVALID, its key was replaced meanwhile; REQUEST_INVALID, of several lanes.
            UnavailableError: nothing of it is acknowledged; ask `resume`.
        """
        if not batches:
            return []
        lane = batches[0].append.lane
        # Before all else: what is decided, looked up and chained here is the first one's.
        if any(checked.append.lane != lane for checked in batches):
            raise InvalidError(Reason.REQUEST_INVALID, f"got batches of {lane} and of others; expected one lane")
        self._decide_again(batches)
        known = self._acknowledged(lane, batches)
        fresh = batches[len(known) :]
        if not fresh:
            return known
        self._check_chain(lane, fresh)
        sealed: dict[int, Receipt] = {}
        by_sequence = {checked.sequence: checked for checked in fresh}

        def seal(work: UnitOfWork | None, appended: Sequence[Appended]) -> None:
            items = [(by_sequence[one.sequence], one) for one in appended]
            if work is not None:
                sealed.update(self._seal(work, items))
                return
            try:
                with self._database.begin() as own:
                    sealed.update(self._seal(own, items))
            except ConflictError as error:
                # This gateway was stopped after the broker's commit for so long that a sweeper wrote the receipt.
                if error.reason is not Reason.ALREADY_EXISTS:
                    raise

        recorded_at = self._clock()
        appended = self._broker.append([replace(one.append, recorded_at=recorded_at) for one in fresh], seal)
        reached("after_entry")
        with self._lock:
            self._roots[lane] = (fresh[-1].sequence, fresh[-1].submission.root)
        return known + [
            sealed.get(one.sequence) or self._known(checked.passage, one, checked)
            for checked, one in zip(fresh, appended, strict=True)
        ]

    def _decide_again(self, batches: Sequence[Checked]) -> None:
        """Decide as of now: between its check and its turn a batch may wait as long as its peer likes."""
        passage, topic = batches[0].passage, batches[0].append.lane.topic
        attributes = self._attributes.publisher(passage.actor, topic)
        decision = decide(passage.actor, Action.PUBLISH, standing=attributes.standing, resource=attributes.resource)
        self._enforcer.admit(passage.actor, Action.PUBLISH, str(topic), passage.call, decision)
        if any(checked.signing_key != attributes.signing_key for checked in batches):
            raise InvalidError(
                Reason.SIGNATURE_INVALID,
                "the connector's signing key was replaced after the batch was signed; sign it with the new one",
            )

    def resume(self, actor: Actor, call: RequestContext, topic: Topic) -> Receipt | None:
        """Take the actor's lane of this topic over and give its last receipt; None if there is none.

        Raises:
            RefusedError: the connector may not publish this.
        """
        resource = self._attributes.resource(topic)
        decision = decide(actor, Action.RESUME, standing=self._attributes.standing(actor), resource=resource)
        passage = self._enforcer.admit(actor, Action.RESUME, str(topic) if resource else "", call, decision)
        lane = Lane(actor.department, ConnectorId(actor.id), topic)
        state = self._broker.resume(lane)
        with self._lock:
            self._roots.pop(lane, None)
        with self._database.begin() as work:
            sequence = state.receipts[-1].sequence if state else 0
            self._ledger.write(work, [passage.entry({"lane": str(lane), "sequence": sequence})])
        if state is None:
            return None
        # All that the broker remembers, not the last alone: a broker forgets a lane's older batches as it goes on, and
        # a batch that is forgotten before the sweeper comes would never get its entry.
        self._catch_up(state.receipts)
        return self._known(replace(passage, action=Action.PUBLISH), state.receipts[-1], None)

    def sweep(self, report: Callable[[LaneFault], None]) -> int:
        """Write the entries of what was appended by a gateway that died before it wrote them; give their number.

        *report* is told of each lane whose receipts the broker cannot read.

        Raises:
            PoolError: of the first lane that failed, when all others are done.
        """
        settled = self._clock() - _SETTLED  # of a later one, its gateway is most likely about to write it
        written, failed = 0, None
        for state in self._broker.lanes():
            if isinstance(state, LaneFault):
                report(state)
                continue
            try:
                written += self._catch_up([one for one in state.receipts if one.recorded_at <= settled])
            except PoolError as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return written

    def _catch_up(self, appended: Sequence[Appended]) -> int:
        """Write the entries that are missing; give their number."""
        with self._database.begin() as work:
            missing = [one for one in appended if self._receipts.get(work, one.lane, one.sequence) is None]
        for one in missing:
            self._known(_recovery_passage(self._pool_id, one.lane, self._clock), one, None)
        return len(missing)

    def _signed(self, signing_key: bytes | None, lane: Lane, submission: Submission) -> bool:
        statement = batch_statement(
            self._pool_id, lane, submission.sequence, len(submission.marks), submission.root, submission.previous_root
        )
        try:
            ed25519.Ed25519PublicKey.from_public_bytes(signing_key or b"").verify(submission.signature, statement)
        except (InvalidSignature, ValueError):  # or no key
            return False
        return True

    def _check_chain(self, lane: Lane, batches: Sequence[Checked]) -> None:
        """Hold each batch's number and previous root against what is before it; duplicates are the broker's to find."""
        with self._lock:
            last = self._roots.get(lane)
        first = batches[0]
        if last is None or first.sequence != last[0] + 1:
            last = self._last_root(lane, first.sequence)
        for checked in batches:
            if checked.sequence == last[0] + 1:
                got = checked.submission.previous_root
                if got != last[1]:
                    raise ConflictError(
                        Reason.PREVIOUS_ROOT_MISMATCH,
                        f"batch {checked.sequence} names another previous root than that of batch {last[0]}; ask "
                        "where the lane stands and chain to that",
                    )
                last = (checked.sequence, checked.submission.root)

    def _acknowledged(self, lane: Lane, batches: Sequence[Checked]) -> list[Receipt]:
        """Return the receipts of the leading batches that were acknowledged before: brokers keep only the latest."""
        with self._lock:
            last = self._roots.get(lane)
        if last is not None and batches[0].sequence > last[0]:
            return []
        known: list[Receipt] = []
        with self._database.begin() as work:
            for checked in batches:
                receipt = self._receipts.get(work, lane, checked.sequence)
                if receipt is None:
                    break
                if checked.submission.root != receipt.root:
                    raise ConflictError(
                        Reason.SEQUENCE_CONFLICT,
                        f"got another batch {checked.sequence} than the one that was accepted under this number; ask "
                        "where the lane stands",
                        details={"sequence": str(checked.sequence), "accepted_digest": receipt.root.hex()},
                    )
                known.append(receipt)
        return known

    def _last_root(self, lane: Lane, sequence: int) -> tuple[int, bytes]:
        """Return the lane's last sequence and root: from the receipts, or the broker where those trail it.

        The lane is not taken over for it, so that a number too high costs no other gateway its producer.
        """
        with self._database.begin() as work:
            receipt = self._receipts.last(work, lane)
        state = self._broker.peek_lane(lane)
        last = (receipt.sequence, receipt.root) if receipt else (0, NO_ROOT)
        if state is not None and state.receipts[-1].sequence > last[0]:
            last = (state.receipts[-1].sequence, state.receipts[-1].digest)
        if sequence > last[0] + 1:
            raise sequence_gap(lane, sequence, last[0] + 1)
        if state is not None:
            self._catch_up(state.receipts)
        return last

    def _seal(self, work: UnitOfWork, items: Sequence[tuple[Checked, Appended]]) -> dict[int, Receipt]:
        entries = [
            checked.passage.entry(
                publish_data(
                    lane=str(one.lane),
                    sequence=one.sequence,
                    count=one.count,
                    schema_ids=checked.schema_ids,
                    root=checked.submission.root,
                    runs=one.runs,
                )
            )
            for checked, one in items
        ]
        leaves = self._ledger.write(work, entries)
        receipts = {
            one.sequence: self._receipt(one, entry, leaf, root=checked.submission.root)
            for (checked, one), entry, leaf in zip(items, entries, leaves, strict=True)
        }
        self._receipts.put(work, [(receipts[one.sequence], checked.append.keys) for checked, one in items])
        return receipts

    def _known(self, passage: Authorized, appended: Appended, checked: Checked | None) -> Receipt:
        """Return the receipt of a batch that had been appended before; write it where its gateway died first."""
        while True:
            try:
                with self._database.begin() as work:
                    receipt = self._receipts.get(work, appended.lane, appended.sequence)
                    return receipt or self._recover(work, passage, appended, checked)
            except ConflictError as error:
                if error.reason is not Reason.ALREADY_EXISTS:
                    raise
                # Another gateway was faster: the next look finds what it has written.

    def _recover(
        self, work: UnitOfWork, passage: Authorized, appended: Appended, checked: Checked | None = None
    ) -> Receipt:
        entry = passage.entry(
            publish_data(
                lane=str(appended.lane),
                sequence=appended.sequence,
                count=appended.count,
                schema_ids=checked.schema_ids if checked else (),
                root=checked.submission.root if checked else appended.digest,
                runs=appended.runs,
                recovered=True,
            )
        )
        leaf = self._ledger.write(work, [entry])[0]
        root = checked.submission.root if checked else appended.digest
        receipt = self._receipt(appended, entry, leaf, root=root)
        self._receipts.put(work, [(receipt, checked.append.keys if checked else ())])
        return receipt

    def _receipt(self, appended: Appended, entry: AuditEntry, leaf: bytes, *, root: bytes) -> Receipt:
        receipt = Receipt(
            lane=appended.lane,
            sequence=appended.sequence,
            root=root,
            runs=appended.runs,
            entry_id=entry.id,
            leaf_hash=leaf,
            source_position=appended.source_position,
        )
        return replace(receipt, signature=self._sign(receipt_statement(receipt)))

    def _partition_count(self, topic: Topic) -> int:
        count = self._partitions.get(topic)
        if count is None:
            count = self._partitions[topic] = self._broker.topic(topic).partitions
        return count


def _recovery_passage(pool_id: str, lane: Lane, clock: Callable[[], int]) -> Authorized:
    return Authorized(
        pool_id=pool_id,
        actor=Actor(kind=ActorKind.MACHINE, id=lane.connector, department=lane.department, role=Role.CONNECTOR),
        action=Action.PUBLISH,
        resource=str(lane.topic),
        call=_RECOVERY,
        grant=None,
        clock=clock,
    )
