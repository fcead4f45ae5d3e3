"""gRPC client of the pool, with mutual TLS: each call of the port as a message, each reply as a value.

Several addresses of gateways may be given (`exchange.client.gateways`). A client lasts longer than a certificate:
`reconnect` exchanges the channels under it, and calls under way end on the old ones.
"""

import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc
from typing_extensions import override

from exchange.client.errors import from_rpc_error
from exchange.client.gateways import Gateways, secure_channel
from exchange.client.identity import Identity
from exchange.client.messages import FetchResult, Hello, LaneHead, Subscription
from exchange.client.port import Pool
from exchange.client.publishing import PublishStream, receipt_of
from exchange.client.receipts import verify_receipt
from exchange.client.reporting import answer_of, report_to_wire, totals_to_wire
from exchange.client.unreachable import explain_unreachable
from schemas.connector_report import ConnectorReport, ReconciliationTotals, ReportAnswer
from schemas.errors import CorruptError, PoolError, Reason, UnavailableError
from schemas.identifiers import random_id
from schemas.names import ConnectorId, Lane, Topic
from schemas.proto.pool.v1 import exchange_pb2 as wire
from schemas.record import NO_ROOT, Batch, Packed, Receipt

__all__ = ["PROGRAM", "PoolClient"]

PROGRAM = "exchange-pool/0.1.0"
_RESERVED = 5.0  # seconds beyond a long poll's own wait before the call is given up


class PoolClient(Pool):
    """A connection to one gateway of several. Thread-safe; one publish stream a lane at a time.

    Args:
        identity: who calls.
        address: host:port of a gateway, or of several, separated by commas; as enrolment wrote it down if not given.
        timeout: seconds of a call.
    """

    def __init__(self, identity: Identity, *, address: str | None = None, timeout: float = 30.0) -> None:
        self.timeout = timeout
        self._address = address
        self.reconnect(identity)

    def reconnect(self, identity: Identity) -> None:
        """Use new channels under this identity from the next call on, such as after the renewal of its certificate.

        Calls under way keep their channel, which closes with the last of them.
        """
        addresses = [each.strip() for each in (self._address or identity.gateway).split(",")]
        self.identity = identity
        self._gateways = Gateways([self._connect(each) for each in addresses])
        self._receipt_key: bytes | None = None  # of the whole pool, so one greeting is enough

    def _connect(self, address: str) -> grpc.Channel:
        return secure_channel(self.identity, address)

    def close(self) -> None:
        """Close the connection; calls under way end as unavailable."""
        self._gateways.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @override
    def hello(self) -> Hello:
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
            places=wire.CAPABILITY_PLACES in reply.capabilities,
        )

    @override
    def schema(self, topic: Topic | None = None, schema_id: int | None = None) -> tuple[int, str]:
        request = wire.SchemaRequest(header=self._header())
        if schema_id is not None:
            request.schema_id = schema_id
        else:
            request.topic = str(topic)
        reply = self._call("Schema", request)
        return reply.schema_id, reply.schema

    @override
    def resume(self, topic: Topic) -> LaneHead:
        # A lane head decides what is sent again and what counts as arrived. So it is accepted only as far as the
        # receipt that comes with it says the same.
        reply = self._call("Resume", wire.ResumeRequest(header=self._header(), topic=str(topic)))
        head = LaneHead(
            sequence=reply.sequence,
            root=reply.root or NO_ROOT,
            source_position=bytes(reply.source_position),
            keeps_history=reply.keeps_history,
        )
        if reply.HasField("receipt"):
            receipt = receipt_of(reply.receipt)
            verify_receipt(receipt, self._verification_key())
            lane, proven = receipt.lane, (receipt.sequence, receipt.root, receipt.source_position)
        else:
            lane, proven = None, (0, NO_ROOT, b"")
        stated = (head.sequence, head.root, head.source_position)
        if stated != proven or lane not in (None, self._lane(topic)):
            raise CorruptError(
                Reason.SIGNATURE_INVALID,
                f"got batch {head.sequence} as the last one of the lane, which its receipt ({lane or 'none'}, batch "
                f"{proven[0]}) does not confirm; expected the same lane, sequence, root and source position in both. "
                "Ask the pool's operator before publishing on",
            )
        return head

    @override
    def publish(self, topic: Topic, batches: Iterable[Batch], *, in_flight: int = 4) -> Iterator[Receipt]:
        gateways = self._gateways
        gateway = gateways.current()
        key = self._verification_key()
        stream = PublishStream(gateway.stub.Publish, batches, partial(self._to_wire, topic), in_flight, self._explain)
        try:
            for receipt in stream.receipts():
                verify_receipt(receipt, key)
                yield receipt
        except UnavailableError as error:
            gateways.fail_over(gateway, error)
            raise

    @override
    def describe(self, grant_id: str, *, purpose: str = "", case: str = "") -> Subscription:
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
            provider=reply.provider,
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
        request = wire.FetchRequest(
            header=self._header(purpose, case),
            grant_id=grant_id,
            position=position,
            max_records=max_records,
            max_bytes=max_bytes,
            wait_ms=int(wait * 1000),
            places=places,
        )
        reply = self._call("Fetch", request, timeout=self.timeout + wait + _RESERVED)
        view = reply.view
        return FetchResult(
            schema_id=view.schema_id,
            values=Packed(view.values.offsets, view.values.values).checked(),
            record_keys=view.record_keys,
            recorded_at=view.recorded_at,
            next_position=reply.next_position,
            entry_id=reply.entry_id,
            caught_up=reply.caught_up,
            disputed=tuple(view.disputed),
            places=view.places,
            marks=view.marks,
            valid=view.valid,
        )

    @override
    def commit(self, grant_id: str, position: bytes, *, purpose: str, case: str) -> str:
        request = wire.CommitRequest(header=self._header(purpose, case), grant_id=grant_id, position=position)
        return str(self._call("Commit", request).entry_id)

    @override
    def report(self, report: ConnectorReport) -> ReportAnswer | None:
        reply = self._call_if_known("Report", report_to_wire(report, self._header()))
        return None if reply is None else answer_of(reply)

    @override
    def reconciled(self, totals: ReconciliationTotals) -> str:
        reply = self._call_if_known("Reconciled", totals_to_wire(totals, self._header()))
        return "" if reply is None else str(reply.entry_id)

    def _call_if_known(self, method: str, request: Any) -> Any:
        """Return the reply; None where a pool of an earlier version does not know the method."""
        try:
            return self._call(method, request)
        except PoolError as error:
            cause = error.__cause__
            if isinstance(cause, grpc.RpcError) and cause.code() is grpc.StatusCode.UNIMPLEMENTED:
                return None
            raise

    def _verification_key(self) -> bytes:
        key = self._receipt_key
        if key is None:
            key = self._receipt_key = self.hello().receipt_public_key
        return key

    def _lane(self, topic: Topic) -> Lane:
        return Lane(self.identity.department, ConnectorId(self.identity.connector), topic)

    def _header(self, purpose: str = "", case: str = "") -> wire.RequestHeader:
        return wire.RequestHeader(trace_id=random_id(), purpose=purpose, case_number=case, client_version=PROGRAM)

    def _call(self, method: str, request: Any, *, timeout: float | None = None) -> Any:
        gateways = self._gateways
        gateway = gateways.current()
        try:
            return getattr(gateway.stub, method)(request, timeout=timeout or self.timeout)
        except grpc.RpcError as error:
            known = from_rpc_error(error, self._explain)
            gateways.fail_over(gateway, known)
            raise known from error

    def _explain(self) -> str:
        address = (self._address or self.identity.gateway).partition(",")[0].strip()
        return explain_unreachable(self.identity.certificate, address, datetime.now(UTC), os.environ)

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
