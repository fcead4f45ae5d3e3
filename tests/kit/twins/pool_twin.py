"""In-memory adapter of the pool's port: what `exchange.client.PoolClient` promises, in 350 lines.

It passes the same contract suite as a served pool (`tests/contract/pool_suite.py`): form, provider, signature, root,
schema, chain, duplicates by digest, conflicts; grants with consumer, state, purpose and case; positions bound to their
grant. Views are made of two plain functions. Faults are injected by `fail`: a function that is called before and after
each thing that changes something, and may raise or kill.

It does not mask, count a quota, expire receipts or look at `max_bytes`.
"""

import hashlib
import io
import itertools
import json
import struct
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import fastavro
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from typing_extensions import override

from exchange.client import BatchRefusedError, FetchResult, Hello, LaneHead, Pool, RowRefusal, Subscription
from exchange.records.submission import Submission, check_form, check_root
from registry.avro.parser import parse
from registry.codec.codec import Engine, engine_for
from schemas.connector_report import ConnectorReport, ReconciliationTotals, ReportAnswer, check_report, check_totals
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError
from schemas.names import ConnectorId, Lane, Topic
from schemas.record import (
    MAX_BATCH_BYTES,
    MAX_BATCH_RECORDS,
    NO_ROOT,
    Batch,
    Mark,
    OffsetRange,
    Packed,
    Receipt,
    batch_statement,
    frame,
    receipt_statement,
    unframe,
)

POOL_ID = "pool-twin"
PROVIDER = "d-1"
CONSUMER = "d-2"
PURPOSE = "eligibility"
CASE = "STANDING-1"
Record = dict[str, Any]
_BEGINNING = b"\x00"
_POSITION = struct.Struct("<8sQ")
_DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True)
class StoredRecord:
    """One record as the pool keeps it."""

    key: bytes
    mark: Mark
    value: Record | None
    schema_id: int
    lane: Lane
    sequence: int
    recorded_at: int


@dataclass
class LaneLog:
    receipts: dict[int, Receipt] = field(default_factory=dict)
    position: bytes = b""
    root: bytes = NO_ROOT

    @property
    def sequence(self) -> int:
        return max(self.receipts, default=0)


@dataclass
class Grant:
    """Which rows and fields who may fetch, and why."""

    topic: Topic
    schema_id: int
    fields: tuple[str, ...]
    rows: Callable[[Record], bool]
    consumer: str
    state: str
    expires: int
    committed: bytes = b""


def nothing(_: str) -> None:
    """No fault."""


class PoolTwin:
    """Shared by the clients of all departments."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.grown = threading.Condition(self.lock)
        self.fail: Callable[[str], None] = nothing
        self.schemas: dict[int, str] = {}
        self.latest: dict[str, int] = {}
        self.versions: dict[str, set[int]] = {}
        self.providers: dict[str, str] = {}
        self.latest_alone: set[str] = set()  # topics that keep no history
        self.topics: dict[str, list[StoredRecord]] = {}
        self.lanes: dict[Lane, LaneLog] = {}
        self.issued: set[bytes] | None = None  # positions of this generation, once the pool was restored
        self.grants: dict[str, Grant] = {}
        self.reports: dict[tuple[str, str], list[ConnectorReport]] = {}  # by department and connector, all of them
        self.takes_reports = True
        self.totals: list[ReconciliationTotals] = []
        self.refuses: Callable[[Record], str] = lambda _: ""  # a record → why it is refused, beside the schema
        self.receipt_key = Ed25519PrivateKey.from_private_bytes(bytes(32))
        self._clock = itertools.count(1_800_000_000_000_000)
        self._engines: dict[int, Engine] = {}

    def publish_schema(self, topic: str, schema: Record, *, provider: str = PROVIDER) -> int:
        """Register a schema as the latest of a topic."""
        number = self._register(schema)
        self.latest[topic] = number
        self.versions.setdefault(topic, set()).add(number)
        self.topics.setdefault(topic, [])
        self.providers[topic] = provider
        return number

    def grant(
        self,
        grant_id: str,
        topic: str,
        fields: tuple[str, ...],
        rows: Callable[[Record], bool],
        *,
        consumer: str = CONSUMER,
        state: str = "active",
    ) -> None:
        """Let a consumer fetch some fields of some rows, for `PURPOSE` and `CASE`."""
        schema = json.loads(self.schemas[self.latest[topic]])
        kept = [each for each in schema["fields"] if each["name"] in fields]
        view = {"type": "record", "name": "View", "fields": kept}
        self.grants[grant_id] = Grant(
            topic=Topic.parse(topic),
            schema_id=self._register(view),
            fields=fields,
            rows=rows,
            consumer=consumer,
            state=state,
            expires=self.now() + _DAY,
        )

    def records(self, topic: str) -> list[StoredRecord]:
        """Return what was published, in order."""
        return list(self.topics[topic])

    def state(self, topic: str) -> dict[bytes, Record]:
        """Fold a topic: key → its record now."""
        state: dict[bytes, Record] = {}
        for each in self.topics[topic]:
            if each.value is None:
                state.pop(each.key, None)
            else:
                state[each.key] = each.value
        return state

    def client(self, department: str, connector: str, key: Ed25519PrivateKey) -> "TwinClient":
        """Return what a connector calls."""
        return TwinClient(self, department, ConnectorId(connector), key.public_key())

    def back_up(self) -> tuple[dict[Lane, LaneLog], dict[str, list[StoredRecord]]]:
        """Return lanes and records as they are now."""
        with self.lock:
            lanes = {lane: replace(log, receipts=dict(log.receipts)) for lane, log in self.lanes.items()}
            return lanes, {topic: list(log) for topic, log in self.topics.items()}

    def restore(self, backup: tuple[dict[Lane, LaneLog], dict[str, list[StoredRecord]]]) -> None:
        """Set lanes and records back; positions that were given before are of an earlier generation."""
        with self.lock:
            self.lanes, self.topics = backup
            self.issued = set()

    def engine(self, schema_id: int) -> Engine:
        if schema_id not in self._engines:
            self._engines[schema_id] = engine_for(parse(self.schemas[schema_id]))
        return self._engines[schema_id]

    def now(self) -> int:
        return next(self._clock)

    def _register(self, schema: Record) -> int:
        text = json.dumps(schema)
        for number, known in self.schemas.items():
            if known == text:
                return number
        self.schemas[len(self.schemas) + 1] = text
        return len(self.schemas)


class TwinClient(Pool):
    """The port, over the pool in memory."""

    def __init__(self, pool: PoolTwin, department: str, connector: ConnectorId, public: Ed25519PublicKey) -> None:
        self.pool = pool
        self.department = department
        self.connector = connector
        self._public = public

    @override
    def hello(self) -> Hello:
        self.pool.fail("hello")
        return Hello(
            pool_id=POOL_ID,
            department=self.department,
            connector=self.connector,
            server_time=self.pool.now(),
            certificate_expires=self.pool.now() + _DAY,
            receipt_public_key=self.pool.receipt_key.public_key().public_bytes_raw(),
            max_batch_records=MAX_BATCH_RECORDS,
            max_batch_bytes=MAX_BATCH_BYTES,
        )

    @override
    def schema(self, topic: Topic | None = None, schema_id: int | None = None) -> tuple[int, str]:
        self.pool.fail("schema")
        if schema_id is None:
            if str(topic) not in self.pool.latest:
                raise InvalidError(Reason.SUBJECT_UNKNOWN, f"no schema of {topic}; register one")
            schema_id = self.pool.latest[str(topic)]
        if schema_id not in self.pool.schemas:
            raise InvalidError(Reason.SCHEMA_UNKNOWN, f"no schema {schema_id}; register one")
        return schema_id, self.pool.schemas[schema_id]

    @override
    def report(self, report: ConnectorReport) -> ReportAnswer | None:
        if not self.pool.takes_reports:
            return None
        check_report(report)
        with self.pool.lock:
            self.pool.reports.setdefault((self.department, self.connector), []).append(report)
        return ReportAnswer(next=60)

    @override
    def reconciled(self, totals: ReconciliationTotals) -> str:
        if not self.pool.takes_reports:
            return ""
        check_totals(totals)
        with self.pool.lock:
            self.pool.totals.append(totals)
        return str(uuid.uuid4())

    # -- publish -----------------------------------------------------------------------------------------------

    @override
    def resume(self, topic: Topic) -> LaneHead:
        self.pool.fail("resume")
        self._check_provider(topic)
        with self.pool.lock:
            lane = self.pool.lanes.get(self._lane(topic), LaneLog())
            return LaneHead(
                sequence=lane.sequence,
                root=lane.root,
                source_position=lane.position,
                keeps_history=str(topic) not in self.pool.latest_alone,
            )

    @override
    def publish(self, topic: Topic, batches: Iterable[Batch], *, in_flight: int = 4) -> Iterator[Receipt]:
        # Draws up to *in_flight* batches ahead, in a thread of its own, as the real client does.
        waiting: list[Batch] = []
        drawn = iter(batches)
        failure: list[BaseException] = []
        ended = False
        while True:
            while len(waiting) < in_flight and not ended:
                thread = threading.Thread(target=_draw, args=(drawn, waiting, failure))
                before = len(waiting)
                thread.start()
                thread.join()
                ended = len(waiting) == before
            if not waiting:
                break
            yield self.take(topic, waiting.pop(0))
        if failure:
            raise failure[0]

    def take(self, topic: Topic, batch: Batch) -> Receipt:
        """Append one batch, or give the receipt that it got before. The order of the checks is the real pool's."""
        pool = self.pool
        pool.fail("before append")
        with pool.lock:
            try:
                stored = self._checked(topic, batch)
            except _RowsError as error:
                raise _refused(batch, error, error.rows) from error
            except InvalidError as error:
                raise _refused(batch, error, ()) from error
            lane = pool.lanes.setdefault(self._lane(topic), LaneLog())
            if batch.sequence in lane.receipts:
                known = lane.receipts[batch.sequence]
                if known.root != batch.root:
                    raise ConflictError(Reason.SEQUENCE_CONFLICT, f"batch {batch.sequence} has another digest")
                return known
            if batch.sequence != lane.sequence + 1:
                raise ConflictError(Reason.SEQUENCE_GAP, f"got {batch.sequence}, expected {lane.sequence + 1}")
            if batch.previous_root != lane.root:
                raise ConflictError(Reason.PREVIOUS_ROOT_MISMATCH, "another batch is before this one")
            pool.fail("between check and append")
            log = pool.topics[str(topic)]
            run = OffsetRange(partition=0, first=len(log), last=len(log) + len(stored) - 1)
            log.extend(stored)
            receipt = Receipt(
                lane=batch.lane,
                sequence=batch.sequence,
                root=batch.root,
                runs=(run,),
                entry_id=str(uuid.uuid4()),
                leaf_hash=bytes(32),
                source_position=batch.source_position,
            )
            receipt = replace(receipt, signature=pool.receipt_key.sign(receipt_statement(receipt)))
            lane.receipts[batch.sequence] = receipt
            lane.root, lane.position = batch.root, batch.source_position
            pool.grown.notify_all()
        pool.fail("after append")
        return receipt

    def _checked(self, topic: Topic, batch: Batch) -> list[StoredRecord]:
        submission = Submission(
            topic=topic,
            sequence=batch.sequence,
            marks=batch.marks,
            values=batch.values,
            void_keys=batch.void_keys,
            valid=batch.valid,
            root=batch.root,
            previous_root=batch.previous_root,
            signature=batch.signature,
            source_position=batch.source_position,
        )
        check_form(submission)
        self._check_provider(topic)
        statement = batch_statement(
            POOL_ID, self._lane(topic), batch.sequence, len(batch), batch.root, batch.previous_root
        )
        try:
            self._public.verify(batch.signature, statement)
        except InvalidSignature as error:
            raise InvalidError(Reason.SIGNATURE_INVALID, "the enrolled key has not signed this batch") from error
        values = list(batch.values)
        check_root(submission, values)
        return self._decoded(topic, batch, values)

    def _decoded(self, topic: Topic, batch: Batch, values: Sequence[bytes]) -> list[StoredRecord]:
        pool, now = self.pool, self.pool.now()
        framed = {index: unframe(value) for index, value in enumerate(values) if value}
        decoded: dict[int, tuple[int, bytes, Record]] = {}
        refused: list[RowRefusal] = []
        for number in {number for number, _ in framed.values()}:
            if number not in pool.versions[str(topic)]:
                raise InvalidError(Reason.SCHEMA_UNKNOWN, f"schema {number} is none of {topic}'s")
            datums = {index: datum for index, (schema_id, datum) in framed.items() if schema_id == number}
            indices = list(datums)
            checked = pool.engine(number).check(list(datums.values()))
            if isinstance(checked, list):
                refused += [
                    RowRefusal(index=indices[each.index], reason=each.reason, field=each.field, message=each.message)
                    for each in checked
                ]
                continue
            schema = fastavro.parse_schema(json.loads(pool.schemas[number]))
            for (index, datum), key in zip(datums.items(), checked.keys, strict=True):
                record: Record = fastavro.schemaless_reader(io.BytesIO(datum), schema)  # type: ignore[assignment]
                decoded[index] = number, key, record
        refused += [
            RowRefusal(index=index, reason=Reason.RECORD_INVALID, field="", message=why)
            for index, (_, _, record) in decoded.items()
            if (why := pool.refuses(record))
        ]
        if refused:
            raise _RowsError(tuple(sorted(refused, key=lambda row: row.index)[:100]))
        void_keys = iter(batch.void_keys)
        stored = []
        for index, byte in enumerate(batch.marks):
            number, key, value = decoded[index] if index in decoded else (0, next(void_keys), None)
            stored.append(
                StoredRecord(
                    key=key,
                    mark=Mark.of(byte),
                    value=value,
                    schema_id=number,
                    lane=batch.lane,
                    sequence=batch.sequence,
                    recorded_at=now,
                )
            )
        return stored

    def _lane(self, topic: Topic) -> Lane:
        return Lane(self.department, self.connector, topic)

    def _check_provider(self, topic: Topic) -> None:
        if str(topic) not in self.pool.topics:
            raise RefusedError(Reason.RESOURCE_UNKNOWN, "no such resource")
        if self.pool.providers[str(topic)] != self.department:
            raise RefusedError(Reason.NOT_PROVIDER, f"{topic} is another department's")

    # -- fetch -------------------------------------------------------------------------------------------------

    @override
    def describe(self, grant_id: str, *, purpose: str = "", case: str = "") -> Subscription:
        self.pool.fail("describe")
        grant = self._held(grant_id)
        if purpose or case:
            _refuse(*_declaration(purpose, case))
        if grant.state == "submitted":
            raise RefusedError(Reason.GRANT_NOT_ACTIVE, "the grant is submitted")
        return Subscription(
            grant_id=grant_id,
            version=1,
            topic=grant.topic,
            schema_id=grant.schema_id,
            schema_text=self.pool.schemas[grant.schema_id],
            position=grant.committed or _token(grant_id, 0),
            not_before=0,
            expires=grant.expires,
            state=grant.state,
            withdrawals=True,
            row_filter="",
            provider=self.pool.providers[str(grant.topic)],
        )

    @override
    def fetch(
        self,
        grant_id: str,
        *,
        position: bytes = b"",
        purpose: str,
        case: str,
        max_records: int = 10_000,
        max_bytes: int = 4 * 1024 * 1024,
        wait: float = 0.0,
        places: bool = False,
    ) -> FetchResult:
        del places  # no grant of the twin tells them
        pool, grant = self.pool, self._admitted(grant_id, purpose, case)
        pool.fail("before fetch")
        if position == _BEGINNING:
            start = 0
        else:
            token = position or grant.committed
            if pool.issued is not None and token not in pool.issued:
                raise ConflictError(Reason.TOPIC_GENERATION_CHANGED, "the topic was restored since; start again")
            start = offset_of(grant_id, token) if token else 0
        with pool.lock:
            log = pool.topics[str(grant.topic)]
            pool.grown.wait_for(lambda: len(log) > start, timeout=wait)
            page = log[start : start + max_records]
            end = start + len(page)
            caught_up = end == len(log)
        delivered: list[tuple[bytes, bytes, int]] = []
        shown = {each.key: each.value is not None and grant.rows(each.value) for each in log[:start]}
        schema = fastavro.parse_schema(json.loads(pool.schemas[grant.schema_id]))
        for each in page:
            record_key = uuid.uuid5(uuid.NAMESPACE_OID, f"{grant_id} {each.key.hex()}").bytes
            if each.value is not None and grant.rows(each.value):
                buffer = io.BytesIO()
                fastavro.schemaless_writer(buffer, schema, {name: each.value[name] for name in grant.fields})
                delivered.append((record_key, frame(grant.schema_id, buffer.getvalue()), each.recorded_at))
                shown[each.key] = True
            elif shown.pop(each.key, False):
                delivered.append((record_key, b"", each.recorded_at))
        pool.fail("after fetch")
        if pool.issued is not None:
            pool.issued.add(_token(grant_id, end))
        return FetchResult(
            schema_id=grant.schema_id,
            values=Packed.of(value for _, value, _ in delivered),
            record_keys=b"".join(key for key, _, _ in delivered),
            recorded_at=struct.pack(f"<{len(delivered)}q", *(at for _, _, at in delivered)),
            next_position=_token(grant_id, end),
            entry_id=str(uuid.uuid4()) if delivered else "",
            caught_up=caught_up,
        )

    @override
    def commit(self, grant_id: str, position: bytes, *, purpose: str, case: str) -> str:
        self.pool.fail("commit")
        grant = self._admitted(grant_id, purpose, case)
        offset_of(grant_id, position)
        grant.committed = position
        return str(uuid.uuid4())

    def _held(self, grant_id: str) -> Grant:
        grant = self.pool.grants.get(grant_id)
        if grant is None:
            raise RefusedError(Reason.GRANT_UNKNOWN, "no such grant")
        if grant.consumer != self.department:
            raise RefusedError(Reason.GRANT_OTHER_CONSUMER, "the grant belongs to another department")
        return grant

    def _admitted(self, grant_id: str, purpose: str, case: str) -> Grant:
        grant = self._held(grant_id)
        _refuse(
            (grant.state == "suspended", Reason.GRANT_SUSPENDED),
            (grant.state != "active", Reason.GRANT_NOT_ACTIVE),
            (self.pool.now() >= grant.expires, Reason.GRANT_EXPIRED),
            *_declaration(purpose, case),
        )
        return grant


def _declaration(purpose: str, case: str) -> tuple[tuple[bool, Reason], ...]:
    return (
        (not purpose, Reason.PURPOSE_MISSING),
        (purpose != PURPOSE, Reason.PURPOSE_MISMATCH),
        (not case, Reason.CASE_MISSING),
        (case != CASE, Reason.CASE_MISMATCH),
    )


def _refuse(*denials: tuple[bool, Reason]) -> None:
    for denied, reason in denials:
        if denied:
            raise RefusedError(reason, f"the grant does not allow it: {reason}")


class _RowsError(InvalidError):
    def __init__(self, rows: tuple[RowRefusal, ...]) -> None:
        super().__init__(Reason.RECORD_INVALID, f"got {len(rows)} or more records that do not keep the schema")
        self.rows = rows


def _refused(batch: Batch, error: InvalidError, rows: tuple[RowRefusal, ...]) -> BatchRefusedError:
    return BatchRefusedError(error.reason, error.message, sequence=batch.sequence, rows=rows, details={})


def _tag(grant_id: str) -> bytes:
    return hashlib.sha256(grant_id.encode()).digest()[:8]


def _token(grant_id: str, offset: int) -> bytes:
    return _POSITION.pack(_tag(grant_id), offset)


def offset_of(grant_id: str, token: bytes) -> int:
    """Return how many records of the topic are before a position."""
    if len(token) != _POSITION.size or token[:8] != _tag(grant_id):
        raise InvalidError(Reason.POSITION_INVALID, "got no position of this grant")
    offset: int = _POSITION.unpack(token)[1]
    return offset


def _draw(batches: Iterator[Batch], into: list[Batch], failure: list[BaseException]) -> None:
    try:
        batch = next(batches, None)
    except BaseException as error:  # noqa: BLE001 - raised again in the caller's own thread
        failure.append(error)
        return
    if batch is not None:
        into.append(batch)
