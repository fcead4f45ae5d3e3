"""The pool, in memory, as a connector sees it: what `exchange.client.PoolClient` promises, kept by 300 lines.

It checks what the real one checks: schema, signature, chain, sequence, duplicates by digest, conflicts; it keeps
marks, keys and source positions, and delivers through views made of two plain functions. Faults are injected by
`fail`: a function that is called before and after each thing that changes something, and may raise or kill.
"""

import io
import itertools
import json
import struct
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import fastavro
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from exchange.client.messages import BatchRefusedError, FetchResult, Hello, LaneHead, RowRefusal, Subscription
from registry.avro.parser import parse
from registry.codec.codec import Engine, engine_for
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError
from schemas.merkle import root_of
from schemas.names import ConnectorId, Lane, Topic
from schemas.record import (
    MAX_BATCH_BYTES,
    MAX_BATCH_RECORDS,
    NO_ROOT,
    Batch,
    Mark,
    Operation,
    Packed,
    Receipt,
    Run,
    Seen,
    batch_statement,
    leaf_hashes,
    receipt_statement,
    unframe,
)

POOL_ID = "pool-twin"
Record = dict[str, Any]


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


@dataclass(frozen=True)
class View:
    """A grant: which rows, which fields."""

    topic: Topic
    schema_id: int
    fields: tuple[str, ...]
    rows: Callable[[Record], bool]


def nothing(_: str) -> None:
    """No fault."""


class PoolTwin:
    """Shared by the clients of all departments."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.fail: Callable[[str], None] = nothing
        self.schemas: dict[int, str] = {}
        self.latest: dict[str, int] = {}
        self.topics: dict[str, list[StoredRecord]] = {}
        self.lanes: dict[Lane, LaneLog] = {}
        self.views: dict[str, View] = {}
        self.commits: dict[str, bytes] = {}
        self.refuses: Callable[[Record], str] = lambda _: ""  # a record → why it is refused, beside the schema
        self.receipt_key = Ed25519PrivateKey.from_private_bytes(bytes(32))
        self._clock = itertools.count(1_800_000_000_000_000)
        self._engines: dict[int, Engine] = {}

    def publish_schema(self, topic: str, schema: Record) -> int:
        """Register a schema as the latest of a topic."""
        number = self._register(schema)
        self.latest[topic] = number
        self.topics.setdefault(topic, [])
        return number

    def grant(self, grant_id: str, topic: str, fields: tuple[str, ...], rows: Callable[[Record], bool]) -> None:
        """Let a consumer draw some fields of some rows."""
        schema = json.loads(self.schemas[self.latest[topic]])
        kept = [each for each in schema["fields"] if each["name"] in fields]
        view = {"type": "record", "name": "View", "fields": kept}
        self.views[grant_id] = View(Topic.parse(topic), self._register(view), fields, rows)

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


class TwinClient:
    """`connectors.port.Pool` over the twin."""

    def __init__(self, pool: PoolTwin, department: str, connector: ConnectorId, public: Ed25519PublicKey) -> None:
        self.pool = pool
        self.department = department
        self.connector = connector
        self._public = public

    def hello(self) -> Hello:
        self.pool.fail("hello")
        return Hello(
            pool_id=POOL_ID,
            department=self.department,
            connector=self.connector,
            server_time=self.pool.now(),
            certificate_expires=self.pool.now() + 86_400_000_000,
            receipt_public_key=self.pool.receipt_key.public_key().public_bytes_raw(),
            max_batch_records=MAX_BATCH_RECORDS,
            max_batch_bytes=MAX_BATCH_BYTES,
        )

    def schema(self, topic: Topic | None = None, schema_id: int | None = None) -> tuple[int, str]:
        self.pool.fail("schema")
        number = schema_id if schema_id is not None else self.pool.latest.get(str(topic))
        if number not in self.pool.schemas:
            raise InvalidError(Reason.SCHEMA_UNKNOWN, f"no schema {number}; register one")
        return number, self.pool.schemas[number]

    def resume(self, topic: Topic) -> LaneHead:
        self.pool.fail("resume")
        with self.pool.lock:
            lane = self.pool.lanes.get(Lane(self.department, self.connector, topic), LaneLog())
            return LaneHead(sequence=lane.sequence, root=lane.root, source_position=lane.position)

    def publish(self, topic: Topic, batches: Iterable[Batch], *, in_flight: int = 4) -> Iterator[Receipt]:
        """Draws up to *in_flight* batches ahead, in a thread of its own, as the real client does."""
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
        """Append one batch, or give the receipt that it got before."""
        pool = self.pool
        pool.fail("before append")
        with pool.lock:
            lane = pool.lanes.setdefault(Lane(self.department, self.connector, topic), LaneLog())
            if batch.sequence in lane.receipts:
                known = lane.receipts[batch.sequence]
                if known.root != batch.root:
                    raise ConflictError(Reason.SEQUENCE_CONFLICT, f"batch {batch.sequence} has another digest")
                return known
            if batch.sequence != lane.sequence + 1:
                raise ConflictError(Reason.SEQUENCE_GAP, f"got {batch.sequence}, expected {lane.sequence + 1}")
            if batch.previous_root != lane.root:
                raise ConflictError(Reason.PREVIOUS_ROOT_MISMATCH, "another batch stands before this one")
            self._verify(batch)
            stored = self._decode(topic, batch)
            pool.fail("between check and append")
            log = pool.topics[str(topic)]
            run = Run(partition=0, first=len(log), last=len(log) + len(stored) - 1)
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
        pool.fail("after append")
        return receipt

    def _verify(self, batch: Batch) -> None:
        if not 0 < len(batch) <= MAX_BATCH_RECORDS or len(batch.values.values) > MAX_BATCH_BYTES:
            raise _refused(batch, Reason.BATCH_TOO_LARGE, ())
        if len(batch.source_position) > 128:
            raise _refused(batch, Reason.REQUEST_INVALID, ())
        root = root_of(leaf_hashes(batch.marks, batch.values.checked(), batch.void_keys, batch.valid))
        statement = batch_statement(POOL_ID, batch.lane, batch.sequence, len(batch), root, batch.previous_root)
        try:
            self._public.verify(batch.signature, statement)
        except InvalidSignature as error:
            raise _refused(batch, Reason.SIGNATURE_INVALID, ()) from error
        if root != batch.root or batch.lane != Lane(self.department, self.connector, batch.lane.topic):
            raise _refused(batch, Reason.SIGNATURE_INVALID, ())

    def _decode(self, topic: Topic, batch: Batch) -> list[StoredRecord]:
        pool, now = self.pool, self.pool.now()
        void_keys = iter(batch.void_keys)
        marks = [Mark.of(byte) for byte in batch.marks]
        values = list(batch.values)
        datums = [unframe(value) for value in values if value]
        numbers = {number for number, _ in datums}
        if not numbers <= {pool.latest[str(topic)]}:
            raise _refused(batch, Reason.SCHEMA_UNKNOWN, ())
        number = pool.latest[str(topic)]
        checked = pool.engine(number).check([datum for _, datum in datums])
        places = [index for index, value in enumerate(values) if value]
        if isinstance(checked, list):
            raise _refused(
                batch,
                Reason.RECORD_INVALID,
                tuple(
                    RowRefusal(index=places[each.index], reason=each.reason, field=each.field, message=each.message)
                    for each in checked
                ),
            )
        records = iter(_records(pool.schemas[number], [datum for _, datum in datums]))
        keys = iter(checked.keys)
        stored = []
        for mark, value in zip(marks, values, strict=True):
            if (mark.operation is Operation.VOID) != (not value):
                raise _refused(batch, Reason.RECORD_INVALID, ())
            key, record = (next(keys), next(records)) if value else (next(void_keys), None)
            stored.append(
                StoredRecord(
                    key=key,
                    mark=mark,
                    value=record,
                    schema_id=number,
                    lane=batch.lane,
                    sequence=batch.sequence,
                    recorded_at=now,
                )
            )
        bad = [
            RowRefusal(index=index, reason=Reason.RECORD_INVALID, field="", message=why)
            for index, each in enumerate(stored)
            if each.value is not None and (why := pool.refuses(each.value))
        ]
        if bad:
            raise _refused(batch, Reason.RECORD_INVALID, tuple(bad[:100]))
        return stored

    def describe(self, grant_id: str, *, purpose: str = "", case: str = "") -> Subscription:
        self.pool.fail("describe")
        view = self._view(grant_id)
        return Subscription(
            grant_id=grant_id,
            version=1,
            topic=view.topic,
            schema_id=view.schema_id,
            schema_text=self.pool.schemas[view.schema_id],
            position=self.pool.commits.get(grant_id, b""),
            not_before=0,
            expires=self.pool.now() + 86_400_000_000,
            state="active",
            withdrawals=True,
            row_filter="",
        )

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
    ) -> FetchResult:
        pool, view = self.pool, self._view(grant_id)
        pool.fail("before fetch")
        position = position or pool.commits.get(grant_id, b"")
        start = struct.unpack("<Q", position)[0] if position else 0
        with pool.lock:
            log = pool.topics[str(view.topic)]
            page = log[start : start + max_records]
            end = start + len(page)
            caught_up = end == len(log)
        delivered: list[tuple[bytes, bytes, int]] = []
        schema = fastavro.parse_schema(json.loads(pool.schemas[view.schema_id]))
        for each in page:
            record_key = uuid.uuid5(uuid.NAMESPACE_OID, f"{grant_id} {each.key.hex()}").bytes
            if each.value is not None and view.rows(each.value):
                buffer = io.BytesIO()
                fastavro.schemaless_writer(buffer, schema, {name: each.value[name] for name in view.fields})
                framed = struct.pack(">bI", 0, view.schema_id) + buffer.getvalue()
                delivered.append((record_key, framed, each.recorded_at))
            elif each.value is None or each.mark.seen is not Seen.FIRST:
                delivered.append((record_key, b"", each.recorded_at))
        pool.fail("after fetch")
        return FetchResult(
            schema_id=view.schema_id,
            values=Packed.of(value for _, value, _ in delivered),
            record_keys=b"".join(key for key, _, _ in delivered),
            recorded_at=struct.pack(f"<{len(delivered)}q", *(at for _, _, at in delivered)),
            next_position=struct.pack("<Q", end),
            entry_id=str(uuid.uuid4()) if delivered else "",
            scanned=len(page),
            caught_up=caught_up,
        )

    def commit(self, grant_id: str, position: bytes, *, purpose: str, case: str) -> str:
        self.pool.fail("commit")
        self._view(grant_id)
        self.pool.commits[grant_id] = position
        return str(uuid.uuid4())

    def _view(self, grant_id: str) -> View:
        if grant_id not in self.pool.views:
            raise RefusedError(Reason.GRANT_UNKNOWN, "no such grant")
        return self.pool.views[grant_id]


def _draw(drawn: Iterator[Batch], waiting: list[Batch], failure: list[BaseException]) -> None:
    try:
        batch = next(drawn, None)
    except BaseException as error:  # noqa: BLE001 - raised again in the caller's own thread
        failure.append(error)
        return
    if batch is not None:
        waiting.append(batch)


def _records(schema: str, datums: list[bytes]) -> list[Record]:
    parsed = fastavro.parse_schema(json.loads(schema))
    return [fastavro.schemaless_reader(io.BytesIO(datum), parsed) for datum in datums]  # type: ignore[misc]


def _refused(batch: Batch, reason: Reason, rows: tuple[RowRefusal, ...]) -> BatchRefusedError:
    return BatchRefusedError(reason, "the batch is refused", sequence=batch.sequence, rows=rows, details={})
