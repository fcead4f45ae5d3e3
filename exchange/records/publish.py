"""Publish: a batch of records from a connector into the pool.

    (1) form         sizes, marks and packed buffers fit each other
    (2) attributes   what the decision needs: cached for 0.2 s where they let the batch pass, else read now
    (3) decision     may this connector publish this resource
    (4) signature    the connector's key signed the batch's Merkle root
    (5) records      the root is that of the records; each value is canonical Avro of a version of the topic's subject
    (6) pseudonyms   keys become HMACs under the topic's secret; these give the partitions
    (7) decision     again, by the attributes read now: a batch may wait for its turn
    (8) chain        batches acknowledged before keep their receipt; number and previous root of the others fit
    (9) append       broker, receipt, retractions and entry; then, and only then, the acknowledgement; of a batch with
                     retractions after the release window

(1) to (6) are `check`, which runs for several batches side by side; (7) to (9) are `append`, which takes all batches
that are ready. What a gateway leaves that dies within (9): `exchange.records.append_recovery`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from exchange.access.decision.policy import decide
from exchange.authorization.attributes import AttributeProvider, PublisherAttributes
from exchange.authorization.enforcement import Authorized, Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.authorization.restored import RestoreGuard
from exchange.authorization.serving import ServingGuard
from exchange.broker.port import Append, Appended, Broker
from exchange.broker.rules import sequence_gap
from exchange.identity.pseudonyms import partitions
from exchange.records.append_recovery import AppendRecovery
from exchange.records.ports import KeyPseudonymizer, RecordChecker
from exchange.records.receipts import LaneHead, LaneReceipts, Publication
from exchange.records.retractions import has_retraction, retractions_in
from exchange.records.submission import Submission, check_form, merge_keys
from exchange.records.void_leaves import mask_void_leaves, void_leaves
from registry.database.unit_of_work import Database, UnitOfWork
from schemas.access import Action, Actor, Allow, Deny
from schemas.errors import ConflictError, InvalidError, Reason
from schemas.failpoints import reached
from schemas.names import ConnectorId, Lane, Topic
from schemas.record import NO_ROOT, Receipt, batch_statement

__all__ = ["CheckedBatch", "PublishService"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedBatch:
    """A batch that passed (1) to (6)."""

    submission: Submission
    authorized: Authorized
    append: Append
    schema_ids: tuple[int, ...]
    signing_key: bytes  # that verified its signature
    void_leaves: bytes = b""  # masked, see `exchange.records.void_leaves`

    @property
    def sequence(self) -> int:
        """Number of the batch."""
        return self.append.sequence

    @property
    def retracts(self) -> bool:
        """Whether a retraction is among its records: acknowledge it when the release window has passed."""
        return has_retraction(self.append.marks, self.append.valid)

    def publication(self, appended: Appended) -> Publication:
        """Return what the batch's entry and receipt state once the broker has appended it."""
        return Publication(
            authorized=self.authorized,
            appended=appended,
            schema_ids=self.schema_ids,
            keys=self.append.keys,
            void_leaves=self.void_leaves,
            retractions=retractions_in(self.append, appended),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """What (3) and (4) say of a batch by some attributes."""

    attributes: PublisherAttributes
    decision: Allow | Deny
    is_signed: bool

    @property
    def passes(self) -> bool:
        return self.is_signed and isinstance(self.decision, Allow)


class PublishService:
    """The publish side of the pool."""

    def __init__(
        self,
        *,
        pool_id: str,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        broker: Broker,
        checker: RecordChecker,
        pseudonymizer: KeyPseudonymizer,
        receipts: LaneReceipts,
        recovery: AppendRecovery,
        restored: RestoreGuard,
        serving: ServingGuard,
        clock: Callable[[], int],
    ) -> None:
        self._pool_id = pool_id
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._broker = broker
        self._checker = checker
        self._pseudonymizer = pseudonymizer
        self._receipts = receipts
        self._recovery = recovery
        self._restored = restored
        self._serving = serving
        self._clock = clock
        self._partition_counts: dict[Topic, int] = {}  # never changes for a topic

    def check(self, actor: Actor, call: RequestContext, submission: Submission) -> CheckedBatch:
        """Do steps (1) to (6).

        Raises:
            InvalidError: what was sent is wrong; RowsRefusedError where single rows are.
            RefusedError: the connector may not publish this.
        """
        # (1) Before anything costs: a hostile batch must not reach the hashes.
        check_form(submission)
        topic = submission.topic
        lane = Lane(actor.department, ConnectorId(actor.id), topic)
        # (2) Cached attributes can let a batch pass, for (7) decides again; they never refuse one.
        cached = self._attributes.recent(actor, topic)
        verdict = None if cached is None else self._judge(actor, lane, submission, cached)
        if verdict is None or not verdict.passes:
            verdict = self._judge(actor, lane, submission, self._attributes.current(actor, topic))
        # (3) An invented topic is not named: each name would make an entry of its own.
        resource = str(topic) if verdict.attributes.resource else ""
        authorized = self._enforcer.admit(actor, Action.PUBLISH, resource, call, verdict.decision)
        # (4) Before (5): what is not signed costs no hashes.
        signing_key = verdict.attributes.signing_key
        if signing_key is None:
            raise InvalidError(Reason.NOT_FOUND, "the connector has no key to sign batches with; enrol it again")
        if not verdict.is_signed:
            raise InvalidError(
                Reason.SIGNATURE_INVALID,
                "the batch's signature does not fit; expected Ed25519 by the connector's enrolled key over pool, "
                "lane, sequence, count, root and previous root",
            )
        # (5)
        values = list(submission.values)
        checked = self._checker.check(topic, submission, values)
        # (6)
        keys = merge_keys(submission.marks, checked.keys, submission.void_keys)
        pseudonyms = self._pseudonymizer.pseudonyms(topic, keys)
        append = Append(
            lane=lane,
            sequence=submission.sequence,
            digest=submission.root,
            source_position=submission.source_position,
            recorded_at=self._clock(),
            marks=submission.marks,
            keys=pseudonyms,
            partitions=partitions(pseudonyms, self._partition_count(topic)),
            values=[value or None for value in values] if len(submission.void_keys) else values,
            valid=submission.valid,
            leaves=checked.leaves,
        )
        return CheckedBatch(
            submission=submission,
            authorized=authorized,
            append=append,
            schema_ids=checked.schema_ids,
            signing_key=signing_key,
            void_leaves=self._void_leaves(lane, submission),
        )

    def _void_leaves(self, lane: Lane, submission: Submission) -> bytes:
        """Return the masked leaf hashes of a batch's voids: without them nobody could verify the stored batch."""
        if not len(submission.void_keys):
            return b""
        leaves = void_leaves(submission.marks, submission.void_keys, submission.valid)
        return b"".join(mask_void_leaves(self._pseudonymizer, lane, submission.sequence, leaves))

    def append(self, batches: Sequence[CheckedBatch]) -> list[Receipt]:
        """Do steps (7) to (9) for consecutive batches of one lane, in one transaction of the broker.

        Where one of them retracts, wait for the release window before the receipts are sent (`CheckedBatch.retracts`).

        Raises:
            ConflictError: see `Broker.append`; PREVIOUS_ROOT_MISMATCH.
            RefusedError: the connector may not publish this any more.
            InvalidError: SIGNATURE_INVALID, its key was replaced meanwhile; REQUEST_INVALID, of several lanes.
            UnavailableError: nothing of it is acknowledged; ask `AppendRecovery.resume`. LOG_BEHIND while the log is
                not signed.
        """
        if not batches:
            return []
        self._restored.require_accept()
        self._serving.require()
        lane = batches[0].append.lane
        # Before all else: (7) and (8) are about the first batch's lane.
        if any(batch.append.lane != lane for batch in batches):
            raise InvalidError(Reason.REQUEST_INVALID, f"got batches of {lane} and of others; expected one lane")
        # (7)
        self._decide_again(batches)
        # (8)
        acknowledged = self._acknowledged(lane, batches)
        new = batches[len(acknowledged) :]
        if not new:
            return acknowledged
        self._check_chain(lane, new)
        # (9)
        by_sequence = {batch.sequence: batch for batch in new}
        written: dict[int, Receipt] = {}

        def write_receipts(work: UnitOfWork | None, appended: Sequence[Appended]) -> None:
            publications = [by_sequence[one.sequence].publication(one) for one in appended]
            if work is not None:
                written.update(self._receipts.write(work, publications))
                return
            try:
                with self._database.begin() as own:
                    receipts = self._receipts.write(own, publications)
            except ConflictError as error:
                # This gateway was stopped after the broker's commit for so long that a sweeper wrote the receipts.
                if error.reason is not Reason.ALREADY_EXISTS:
                    raise
            else:
                written.update(receipts)

        recorded_at = self._clock()
        appended = self._broker.append([replace(one.append, recorded_at=recorded_at) for one in new], write_receipts)
        reached("after_entry")
        self._receipts.cache_head(lane, LaneHead(new[-1].sequence, new[-1].submission.root))
        return acknowledged + [
            written.get(one.sequence) or self._recovery.receipt(batch.publication(one))
            for batch, one in zip(new, appended, strict=True)
        ]

    def _judge(self, actor: Actor, lane: Lane, submission: Submission, attributes: PublisherAttributes) -> _Verdict:
        """Decide, and verify the signature over the root, by these attributes."""
        actor = attributes.in_zone(actor)
        return _Verdict(
            attributes=attributes,
            decision=decide(actor, Action.PUBLISH, standing=attributes.standing, resource=attributes.resource),
            is_signed=self._is_signed(attributes.signing_key, lane, submission),
        )

    def _is_signed(self, signing_key: bytes | None, lane: Lane, submission: Submission) -> bool:
        statement = batch_statement(
            self._pool_id, lane, submission.sequence, len(submission.marks), submission.root, submission.previous_root
        )
        try:
            ed25519.Ed25519PublicKey.from_public_bytes(signing_key or b"").verify(submission.signature, statement)
        except (InvalidSignature, ValueError):  # or no key
            return False
        return True

    def _decide_again(self, batches: Sequence[CheckedBatch]) -> None:
        """Decide by current attributes: between its check and its turn a batch may wait as long as its peer likes."""
        authorized, topic = batches[0].authorized, batches[0].append.lane.topic
        attributes = self._attributes.current(authorized.actor, topic)
        actor = attributes.in_zone(authorized.actor)
        decision = decide(actor, Action.PUBLISH, standing=attributes.standing, resource=attributes.resource)
        self._enforcer.admit(actor, Action.PUBLISH, str(topic), authorized.call, decision)
        if any(batch.signing_key != attributes.signing_key for batch in batches):
            raise InvalidError(
                Reason.SIGNATURE_INVALID,
                "the connector's signing key was replaced after the batch was signed; sign it with the new one",
            )

    def _acknowledged(self, lane: Lane, batches: Sequence[CheckedBatch]) -> list[Receipt]:
        """Return the receipts of the leading batches that were acknowledged before: brokers keep only the latest."""
        head = self._receipts.cached_head(lane)
        if head is not None and batches[0].sequence > head.sequence:
            return []
        acknowledged: list[Receipt] = []
        with self._database.read() as reader:
            for batch in batches:
                receipt = self._receipts.get(reader, lane, batch.sequence)
                if receipt is None:
                    break
                if batch.submission.root != receipt.root:
                    raise ConflictError(
                        Reason.SEQUENCE_CONFLICT,
                        f"got another batch {batch.sequence} than the one that was accepted under this number; "
                        "resume the lane",
                        details={"sequence": str(batch.sequence), "accepted_digest": receipt.root.hex()},
                    )
                acknowledged.append(receipt)
        return acknowledged

    def _check_chain(self, lane: Lane, batches: Sequence[CheckedBatch]) -> None:
        """Check each batch's number and previous root against the one before it; the broker finds duplicates."""
        head = self._receipts.cached_head(lane)
        first = batches[0]
        if head is None or first.sequence != head.sequence + 1:
            head = self._read_head(lane, first.sequence)
        for batch in batches:
            if batch.sequence == head.sequence + 1:
                if batch.submission.previous_root != head.root:
                    raise ConflictError(
                        Reason.PREVIOUS_ROOT_MISMATCH,
                        f"batch {batch.sequence} names another previous root than that of batch {head.sequence}; "
                        "resume the lane and chain to its last batch",
                    )
                head = LaneHead(batch.sequence, batch.submission.root)

    def _read_head(self, lane: Lane, sequence: int) -> LaneHead:
        """Return the lane's head: from the receipts, or from the broker where those are behind it.

        The lane is not taken over for it, so that a number too high costs no other gateway its producer.

        Raises:
            ConflictError: SEQUENCE_GAP, the number is too high.
        """
        with self._database.read() as reader:
            receipt = self._receipts.last(reader, lane)
        state = self._broker.peek_lane(lane)
        head = LaneHead(receipt.sequence, receipt.root) if receipt else LaneHead(0, NO_ROOT)
        if state is not None and state.receipts[-1].sequence > head.sequence:
            head = LaneHead(state.receipts[-1].sequence, state.receipts[-1].digest)
        if sequence > head.sequence + 1:
            raise sequence_gap(lane, sequence, head.sequence + 1)
        if state is not None:
            self._recovery.catch_up(state.receipts)
        return head

    def _partition_count(self, topic: Topic) -> int:
        count = self._partition_counts.get(topic)
        if count is None:
            count = self._partition_counts[topic] = self._broker.topic(topic).partitions
        return count
