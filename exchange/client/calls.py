"""The calls, over gRPC with mutual TLS, to one gateway at a time.

Where several addresses are given, the next one is tried after a gateway has not answered: the call that failed is
not repeated here (only its caller knows whether it may be), the calls after it go to the next address. So a gateway
that died, hangs or is stopped costs one failed call.
"""

import threading
from collections.abc import Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc

from exchange.client.errors import from_rpc_error
from exchange.client.identity import Identity
from exchange.client.messages import Fetched, Hello, Standing, Subscription
from exchange.client.publishing import PublishStream, receipt_of
from exchange.client.receipts import verify_receipt
from schemas.errors import CorruptError, PoolError, Reason, UnavailableError
from schemas.identifiers import random_id
from schemas.names import ConnectorId, Lane, Topic
from schemas.proto.pool.v1 import exchange_pb2 as wire
from schemas.proto.pool.v1 import exchange_pb2_grpc as stubs
from schemas.record import NO_ROOT, Batch, Packed, Receipt

__all__ = ["PoolClient"]

VERSION = "exchange-pool/0.1.0"
_MESSAGE_LIMIT = 96 * 1024 * 1024  # bytes; a fetch's reply is bounded by the pool, this only guards memory
_RESERVED = 5.0  # seconds beyond a long poll's own wait before the call is given up


class PoolClient:
    """A connection to one gateway of several. Thread-safe; one publish stream a lane at a time.

    Args:
        identity: who calls.
        address: host:port of a gateway, or of several, separated by commas; as enrolment wrote it down if not given.
        timeout: seconds of a call.
    """

    def __init__(self, identity: Identity, *, address: str | None = None, timeout: float = 30.0) -> None:
        self.identity = identity
        self.timeout = timeout
        addresses = [each.strip() for each in (address or identity.gateway).split(",")]
        self._channels = [self._connect(each) for each in addresses]
        self._stubs = [stubs.ExchangeStub(each) for each in self._channels]  # type: ignore[no-untyped-call]  # generated
        self._at = 0
        self._lock = threading.Lock()
        self._receipt_key: bytes | None = None  # of the whole pool, so one greeting is enough

    def _connect(self, address: str) -> grpc.Channel:
        identity = self.identity
        return grpc.secure_channel(
            address,
            grpc.ssl_channel_credentials(identity.authority, identity.key, identity.certificate),
            options=[
                ("grpc.max_receive_message_length", _MESSAGE_LIMIT),
                ("grpc.max_send_message_length", _MESSAGE_LIMIT),
                # A peer that is stopped, or a host that is gone, is noticed within 30 s, not by a TCP timeout.
                ("grpc.keepalive_time_ms", 20_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )

    def close(self) -> None:
        """Close the connection; calls under way end as unavailable."""
        for channel in self._channels:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def hello(self) -> Hello:
        """Greet the pool: the cheapest call that proves address, certificates and clock."""
        reply = self._call("Hello", wire.HelloRequest(header=self._header()))
        return Hello(
            pool_id=reply.pool_id,
            department=reply.department,
            connector=reply.connector,
            server_time=reply.server_time,
            certificate_expires=reply.certificate_expires,
            receipt_public_key=reply.receipt_public_key,
            max_batch_records=reply.max_batch_records,
            max_batch_bytes=reply.max_batch_bytes,
        )

    def schema(self, topic: Topic | None = None, schema_id: int | None = None) -> tuple[int, str]:
        """Return (id, Avro text) of the latest schema of a topic, or of an id.

        Raises:
            InvalidError: NOT_FOUND or SCHEMA_UNKNOWN.
        """
        request = wire.SchemaRequest(header=self._header())
        if schema_id is not None:
            request.schema_id = schema_id
        else:
            request.topic = str(topic)
        reply = self._call("Schema", request)
        return reply.schema_id, reply.schema

    def resume(self, topic: Topic) -> Standing:
        """Take the lane of this connector and topic over, and tell where it stands.

        A standing decides what is sent again and what is held to have arrived, so it counts only as far as the receipt
        that comes with it says the same.

        Raises:
            RefusedError: the connector's department does not provide this resource.
            CorruptError: SIGNATURE_INVALID, a standing that no receipt of this lane, signed by the pool, bears out.
        """
        reply = self._call("Resume", wire.ResumeRequest(header=self._header(), topic=str(topic)))
        standing = Standing(
            sequence=reply.sequence, root=reply.root or NO_ROOT, source_position=bytes(reply.source_position)
        )
        if reply.HasField("receipt"):
            receipt = receipt_of(reply.receipt)
            verify_receipt(receipt, self._key())
            lane, proven = receipt.lane, (receipt.sequence, receipt.root, receipt.source_position)
        else:
            lane, proven = None, (0, NO_ROOT, b"")
        told = (standing.sequence, standing.root, standing.source_position)
        if told != proven or lane not in (None, self._lane(topic)):
            raise CorruptError(
                Reason.SIGNATURE_INVALID,
                f"got a standing at batch {standing.sequence} that its receipt ({lane or 'none'}, batch {proven[0]}) "
                "does not bear out; expected the same lane, sequence, root and source position in both. Ask the pool's "
                "operator before publishing on",
            )
        return standing

    def publish(self, topic: Topic, batches: Iterable[Batch], *, in_flight: int = 4) -> Iterator[Receipt]:
        """Send batches and give their receipts, in order; up to *in_flight* are unanswered at a time.

        Closing the iterator early ends the stream; unanswered batches may have been taken: ask `resume`.

        Raises:
            BatchRefusedError: a batch is wrong; those behind it were not taken.
            ConflictError: SEQUENCE_GAP, SEQUENCE_CONFLICT, LANE_FENCED.
            RefusedError: the connector may not publish this.
            UnavailableError: the pool is away or overloaded.
            CorruptError: SIGNATURE_INVALID, a receipt that the pool's key has not signed.
        """
        at = self._at
        key = self._key()
        stream = PublishStream(self._stubs[at].Publish, batches, partial(self._to_wire, topic), in_flight)
        try:
            for receipt in stream.receipts():
                verify_receipt(receipt, key)
                yield receipt
        except UnavailableError as error:
            self._leave(at, error)
            raise

    def describe(self, grant_id: str, *, purpose: str = "", case: str = "") -> Subscription:
        """Return what a grant delivers and where its consumer stands.

        Raises:
            RefusedError: it is not this consumer's, or not active.
        """
        reply = self._call("Describe", wire.DescribeRequest(header=self._header(purpose, case), grant_id=grant_id))
        return Subscription(
            grant_id=reply.grant_id,
            version=reply.grant_version,
            topic=Topic.parse(reply.topic),
            schema_id=reply.view_schema_id,
            schema_text=reply.view_schema,
            position=reply.position,
            not_before=reply.not_before,
            expires=reply.expires,
            state=reply.state,
            withdrawals=reply.withdrawals,
            row_filter=reply.row_filter,
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
    ) -> Fetched:
        """Draw records from *position* on (empty = where the last commit stands); wait up to *wait* seconds.

        Raises:
            RefusedError: the grant does not allow it, now, for this purpose and case.
            GoneError: retention has overtaken the position.
            UnavailableError: try again from the same position; what was released twice is marked in the log.
        """
        request = wire.FetchRequest(
            header=self._header(purpose, case),
            grant_id=grant_id,
            position=position,
            max_records=max_records,
            max_bytes=max_bytes,
            wait_ms=int(wait * 1000),
        )
        reply = self._call("Fetch", request, timeout=self.timeout + wait + _RESERVED)
        view = reply.view
        return Fetched(
            schema_id=view.schema_id,
            values=Packed(view.values.offsets, view.values.values).checked(),
            record_keys=view.record_keys,
            recorded_at=view.recorded_at,
            next_position=reply.next_position,
            entry_id=reply.entry_id,
            scanned=reply.scanned,
            caught_up=reply.caught_up,
        )

    def commit(self, grant_id: str, position: bytes, *, purpose: str, case: str) -> str:
        """Acknowledge everything up to *position* as stored permanently; gives the entry's id.

        Raises:
            RefusedError: the grant does not allow it.
            InvalidError: POSITION_INVALID, a position of another grant.
        """
        request = wire.CommitRequest(header=self._header(purpose, case), grant_id=grant_id, position=position)
        return str(self._call("Commit", request).entry_id)

    def _key(self) -> bytes:
        if self._receipt_key is None:
            self._receipt_key = self.hello().receipt_public_key
        return self._receipt_key

    def _lane(self, topic: Topic) -> Lane:
        return Lane(self.identity.department, ConnectorId(self.identity.connector), topic)

    def _header(self, purpose: str = "", case: str = "") -> wire.RequestHeader:
        return wire.RequestHeader(trace_id=random_id(), purpose=purpose, case_number=case, client_version=VERSION)

    def _call(self, method: str, request: Any, *, timeout: float | None = None) -> Any:
        at = self._at
        try:
            return getattr(self._stubs[at], method)(request, timeout=timeout or self.timeout)
        except grpc.RpcError as error:
            known = from_rpc_error(error)
            self._leave(at, known)
            raise known from error

    def _leave(self, at: int, error: PoolError) -> None:
        """Go on to the next address if the gateway at this one did not answer, and nobody has gone on before."""
        if error.reason is Reason.GATEWAY_UNAVAILABLE:
            with self._lock:
                if self._at == at:
                    self._at = (at + 1) % len(self._stubs)

    def _to_wire(self, topic: Topic, batch: Batch) -> wire.PublishRequest:
        return wire.PublishRequest(
            header=self._header(),
            topic=str(topic),
            sequence=batch.sequence,
            plain=wire.PlainRecords(
                marks=batch.marks,
                values=wire.Packed(offsets=batch.values.offsets, values=batch.values.values),
                void_keys=wire.Packed(offsets=batch.void_keys.offsets, values=batch.void_keys.values),
                valid=batch.valid,
            ),
            root=batch.root,
            previous_root=batch.previous_root,
            signature=batch.signature,
            source_position=batch.source_position,
        )
