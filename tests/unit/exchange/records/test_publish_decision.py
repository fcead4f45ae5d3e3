"""Between its check and its turn a batch may wait for as long as its peer likes: it is decided upon again."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from exchange.access.decision.parties import DepartmentProfile
from exchange.access.decision.policy import Resource
from exchange.access.decision.roles import Standing
from exchange.audit.ledger import AuditLedger
from exchange.audit.memory import MemoryAudit
from exchange.audit.store import EntryQuery
from exchange.authorization.attributes import PublisherAttributes
from exchange.authorization.enforcement import Authorized, Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.authorization.restored import RestoreGuard
from exchange.authorization.serving import ServingGuard
from exchange.broker.memory import MemoryBroker, MemoryLog
from exchange.broker.port import Append, Appended, CommitHook
from exchange.erasure.retractions import MemoryRetractions
from exchange.records.append_recovery import AppendRecovery
from exchange.records.publish import CheckedBatch, PublishService
from exchange.records.receipts import LaneReceipts
from exchange.records.submission import CheckedRecords, Submission
from registry.database.unit_of_work import MemoryDatabase, MemoryUnitOfWork, UnitOfWork
from schemas.access import Action, Actor, ActorKind, Role
from schemas.errors import ConflictError, InvalidError, PoolError, Reason, RefusedError
from schemas.names import ConnectorId, Lane, Topic
from schemas.record import NO_ROOT, Packed
from tests.kit.cases.broker import batch
from tests.kit.world.publisher import Publisher

DEPARTMENT = "01890000-0000-7000-8000-000000000001"
TOPIC = Topic.parse("permits.v1")
LANE = Lane(DEPARTMENT, ConnectorId("source"), TOPIC)
ACTOR = Actor(kind=ActorKind.MACHINE, id="source", department=DEPARTMENT, role=Role.CONNECTOR, certificate="a1")
CALL = RequestContext(trace="1" * 32)
NOW = 1_800_000_000_000_000
KEY = ed25519.Ed25519PrivateKey.generate()
STANDS = PublisherAttributes(
    standing=Standing.ACTIVE,
    resource=Resource(topic=TOPIC, provider=DEPARTMENT, published=True, zone="default"),
    signing_key=b"k" * 32,
    publisher=DepartmentProfile(id=DEPARTMENT),
)


class Accepting:
    def check(self, _: object, __: object, values: Sequence[bytes]) -> CheckedRecords:
        return CheckedRecords(keys=values, schema_ids=(7,), leaves=())


class Hashes:
    def pseudonyms(self, _: object, keys: Sequence[bytes]) -> list[bytes]:
        return [hashlib.sha256(key).digest()[:16] for key in keys]


class Pool:
    def __init__(self, broker: MemoryBroker | None = None) -> None:
        self.now = STANDS
        self.recently: PublisherAttributes | None = None  # what is still remembered; None = as now
        self.db = MemoryDatabase()
        self.audit = MemoryAudit(self.db)
        self.broker = broker or MemoryBroker()
        self.broker.create_topic(TOPIC)
        ledger = AuditLedger(self.audit, process="gateway@1")
        ledger.open(self.db)
        shared: Any = {
            "database": self.db,
            "enforcer": Enforcer(self.db, ledger, pool_id="pool", clock=lambda: NOW),
            "attributes": self,  # what publish asks of them
            "broker": self.broker,
            "receipts": LaneReceipts(ledger=ledger, store=self.audit, retractions=MemoryRetractions(), signer=KEY),
            "serving": ServingGuard(),
            "clock": lambda: NOW,
        }
        self.recovery = AppendRecovery(**shared)
        self.publishing = PublishService(
            pool_id="pool",
            checker=Accepting(),
            pseudonymizer=Hashes(),  # type: ignore[arg-type]  # what publish asks of it
            recovery=self.recovery,
            restored=RestoreGuard(),
            **shared,
        )

    def current(self, *_: object) -> PublisherAttributes:
        return self.now

    def recent(self, *_: object) -> PublisherAttributes | None:
        return self.recently

    def append(self, checked: CheckedBatch) -> int:
        return len(self.publishing.append([checked]))


def checked(sequence: int, previous_root: bytes = b"") -> CheckedBatch:
    """A batch that passed its checks while everything stood."""
    append = batch(LANE, sequence, range(3))
    submission = Submission(
        topic=TOPIC,
        sequence=sequence,
        marks=append.marks,
        values=Packed.of(append.values),
        void_keys=Packed(b"", b""),
        valid=b"",
        root=append.digest,
        previous_root=previous_root or (NO_ROOT if sequence == 1 else batch(LANE, sequence - 1, range(3)).digest),
        signature=b"",
        source_position=b"",
    )
    authorized = Authorized(
        pool_id="pool",
        actor=ACTOR,
        action=Action.PUBLISH,
        resource=str(TOPIC),
        call=CALL,
        grant=None,
        clock=lambda: NOW,
    )
    return CheckedBatch(
        submission=submission,
        authorized=authorized,
        append=append,
        schema_ids=(7,),
        signing_key=STANDS.signing_key or b"",
    )


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        (replace(STANDS, standing=Standing.REVOKED), RefusedError),
        (replace(STANDS, standing=Standing.DEPARTMENT_INACTIVE), RefusedError),
        (replace(STANDS, resource=replace(STANDS.resource, published=False)), RefusedError),  # type: ignore[type-var]
        (replace(STANDS, signing_key=b"n" * 32), InvalidError),
        (replace(STANDS, signing_key=None), InvalidError),
    ],
)
def test_what_changed_while_a_batch_waited_counts(changed: PublisherAttributes, error: type[PoolError]) -> None:
    pool = Pool()
    assert pool.append(checked(1)) == 1
    waiting = checked(2)
    pool.now = changed
    with pytest.raises(error):
        pool.append(waiting)
    state = pool.broker.resume(LANE)
    assert state is not None
    assert state.receipts[-1].sequence == 1
    assert len(pool.audit.find(EntryQuery(action=str(Action.PUBLISH), decision="allow"))) == 1
    pool.now = STANDS
    assert pool.append(waiting) == 1


ENROLLED = replace(STANDS, signing_key=KEY.public_key().public_bytes_raw())
CHANGES = [
    replace(ENROLLED, standing=Standing.REVOKED),
    replace(ENROLLED, resource=None),
    replace(ENROLLED, signing_key=b"n" * 32),
    replace(ENROLLED, signing_key=None),
]


def signed() -> Submission:
    batch = Publisher("pool", DEPARTMENT, "source", str(TOPIC), KEY).batch(Packed.of([b"one", b"two"]))
    names = [each.name for each in fields(Submission) if each.name != "topic"]
    return Submission(topic=TOPIC, **{name: getattr(batch, name) for name in names})


@pytest.mark.parametrize("before", CHANGES)
def test_nobody_is_refused_for_what_was_so_a_moment_ago(before: PublisherAttributes) -> None:
    pool = Pool()
    pool.recently, pool.now = before, ENROLLED
    assert pool.append(pool.publishing.check(ACTOR, CALL, signed())) == 1
    assert not pool.audit.find(EntryQuery(action=str(Action.PUBLISH), decision="deny"))


@pytest.mark.parametrize("since", CHANGES)
def test_nothing_is_appended_for_what_was_so_a_moment_ago(since: PublisherAttributes) -> None:
    pool = Pool()
    pool.recently, pool.now = ENROLLED, since
    passed = pool.publishing.check(ACTOR, CALL, signed())
    with pytest.raises(PoolError):
        pool.append(passed)
    assert pool.broker.resume(LANE) is None
    pool.recently = None
    with pytest.raises(PoolError):
        pool.publishing.check(ACTOR, CALL, signed())


def test_a_denial_behind_the_check_is_entered() -> None:
    pool = Pool()
    pool.now = replace(STANDS, standing=Standing.REVOKED)
    with pytest.raises(RefusedError) as refused:
        pool.append(checked(1))
    assert refused.value.reason is Reason.CERTIFICATE_REVOKED
    assert len(pool.audit.find(EntryQuery(action=str(Action.PUBLISH), decision="deny"))) == 1


def test_a_batch_out_of_order_costs_the_gateway_that_has_the_lane_nothing() -> None:
    """At another gateway: a number too high, far or near, and a right one with another chain."""
    log = MemoryLog()
    owner, other = Pool(MemoryBroker(log)), Pool(MemoryBroker(log))
    for sequence in (1, 2, 3):
        owner.append(checked(sequence))
    for wrong, reason in (
        (checked(5), Reason.SEQUENCE_GAP),
        (checked(9_000), Reason.SEQUENCE_GAP),
        (checked(4, b"x" * 32), Reason.PREVIOUS_ROOT_MISMATCH),
    ):
        with pytest.raises(ConflictError) as refused:
            other.append(wrong)
        assert refused.value.reason is reason
    assert owner.append(checked(4)) == 1, "another gateway has taken the lane over"
    assert other.append(checked(5)) == 1
    with pytest.raises(ConflictError) as refused:
        owner.append(checked(6))
    assert refused.value.reason is Reason.LANE_FENCED


def test_a_gap_names_the_number_that_is_expected_and_writes_no_entry_of_what_another_is_about_to() -> None:
    log = MemoryLog()
    owner, other = Pool(MemoryBroker(log)), Pool(MemoryBroker(log))
    owner.append(checked(1))
    with pytest.raises(ConflictError) as refused:
        other.append(checked(3))
    assert refused.value.details["expected"] == "2"
    assert other.audit.find(EntryQuery(action=str(Action.PUBLISH))) == []


def test_a_batch_is_never_answered_with_the_receipt_of_another_lane() -> None:
    """A stream may mix topics, and two batches of voids have one root where their keys are the same."""
    pool = Pool()
    for sequence in (1, 2):
        pool.append(checked(sequence))
    there = Topic.parse("licences.v1")
    pool.broker.create_topic(there)
    twin = replace(checked(2), append=replace(checked(2).append, lane=replace(LANE, topic=there)))
    with pytest.raises(InvalidError) as refused:
        pool.publishing.append([checked(1), twin])
    assert refused.value.reason is Reason.REQUEST_INVALID


def test_a_gateway_that_stopped_behind_the_broker_s_commit_returns_the_receipts_that_a_sweeper_wrote(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = Pool()
    real = pool.broker.append

    def append(batches: Sequence[Append], commit_hook: CommitHook) -> list[Appended]:
        def late(work: UnitOfWork | None, appended: Sequence[Appended]) -> None:
            assert pool.recovery.catch_up(appended) == len(batches)  # on another gateway, meanwhile
            commit_hook(work, appended)

        return real(batches, late)

    monkeypatch.setattr(pool.broker, "append", append)
    receipts = pool.publishing.append([checked(1), checked(2)])
    entries = [json.loads(found.leaf) for found in pool.audit.find(EntryQuery(action=str(Action.PUBLISH)))]
    assert {receipt.entry_id for receipt in receipts} == {entry["id"] for entry in entries}
    assert [entry["data"]["recovered"] for entry in entries] == [True, True]


def test_receipts_of_a_transaction_that_is_not_committed_are_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool()
    real = pool.db.begin

    @contextmanager
    def conflict() -> Iterator[MemoryUnitOfWork]:
        with real() as work:
            yield work
            monkeypatch.setattr(pool.db, "begin", real)
            raise ConflictError(Reason.ALREADY_EXISTS, "found when the transaction was committed")

    real_append = pool.broker.append

    def append(batches: Sequence[Append], commit_hook: CommitHook) -> list[Appended]:
        monkeypatch.setattr(pool.db, "begin", conflict)
        return real_append(batches, commit_hook)

    monkeypatch.setattr(pool.broker, "append", append)
    (receipt,) = pool.publishing.append([checked(1)])
    (stored,) = pool.audit.find(EntryQuery(action=str(Action.PUBLISH)))
    assert json.loads(stored.leaf)["id"] == receipt.entry_id, "the receipt names an entry that is in the log"
