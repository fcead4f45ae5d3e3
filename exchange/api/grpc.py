"""gRPC servicer of the exchange: certificate → actor, message → value, error → status. No rule is implemented here.

The loop is asyncio, so that an idle long poll costs a coroutine; every call into the pool runs in a thread, in the turn
of its department (`exchange.api.admission.scheduler`). A publish stream has several batches in flight: they are checked
concurrently, and all that are ready join the next append, so that the slower the broker commits, the larger its
transactions become (group commit).
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import structlog

from exchange import metrics
from exchange.api.admission.publish_backpressure import (
    MAX_STREAMS,
    MemoryBudget,
    PendingBatch,
    ReceivedBatch,
    StreamQuota,
    StreamWindow,
    on_check_done,
)
from exchange.api.admission.reply_budget import Reservation
from exchange.api.admission.scheduler import FairScheduler, flow_of, flow_of_source
from exchange.api.connectors import ReportLimiter, report_from_wire, report_to_reply, totals_from_wire
from exchange.api.fetch_reply import encoded_reply
from exchange.api.problems import as_pool_error, rpc_status
from exchange.api.record_polls import RecordPolls, measured, require_window
from exchange.api.statuses import STATUS, peer_certificate
from exchange.authorization.authentications import Interface, Origin
from exchange.authorization.release_window import RELEASE_WINDOW
from exchange.authorization.request_context import RequestContext
from exchange.identity.failure_limiter import source_of
from exchange.pool import Pool
from exchange.records.group_fetch import FetchCall
from exchange.records.publish import CheckedBatch
from exchange.records.submission import RowsRefusedError, Submission
from exchange.records.traffic.counts import TRAFFIC
from schemas.access import Actor
from schemas.errors import PoolError, Reason, RefusedError, UnavailableError
from schemas.failpoints import reached
from schemas.identifiers import random_id
from schemas.names import Topic
from schemas.proto.pool.v1 import exchange_pb2 as wire
from schemas.proto.pool.v1 import exchange_pb2_grpc as stubs
from schemas.record import MAX_BATCH_BYTES, MAX_BATCH_RECORDS, Packed, Receipt
from schemas.status import code_of

__all__ = ["ExchangeServicer"]

_log = structlog.get_logger()
_T = TypeVar("_T")


class ExchangeServicer(stubs.ExchangeServicer):
    """Implements `pool.v1.Exchange` with a `Pool`.

    Args:
        pool: behind it.
        scheduler: of the process.
        polls: of the process.
        max_pending_bytes: memory of all publish streams.
    """

    def __init__(self, pool: Pool, scheduler: FairScheduler, polls: RecordPolls, *, max_pending_bytes: int) -> None:
        self._pool = pool
        self._scheduler = scheduler
        self._polls = polls
        self._publishing: Counter[tuple[str, str]] = Counter()
        self._budget = MemoryBudget(max_pending_bytes)
        self._reports = ReportLimiter()

    async def Hello(self, request: wire.HelloRequest, context: Any) -> wire.HelloReply:  # noqa: N802 - gRPC's name
        """Return the pool's greeting."""
        return await self._answer(context, "Hello", request.header, self._hello)

    def _hello(self, actor: Actor, call: RequestContext) -> wire.HelloReply:
        greeting = self._pool.hello(actor, call)
        return wire.HelloReply(
            pool_id=greeting.pool_id,
            server_version=greeting.version,
            capabilities=[
                wire.CAPABILITY_PUBLISH,
                wire.CAPABILITY_FETCH,
                wire.CAPABILITY_WITHDRAWALS,
                wire.CAPABILITY_REPORT,
                wire.CAPABILITY_PLACES,
            ],
            department=actor.department,
            connector=actor.id,
            receipt_public_key=greeting.receipt_public_key,
            server_time=greeting.server_time,
            certificate_expires=greeting.certificate_expires,
            max_batch_records=MAX_BATCH_RECORDS,
            max_batch_bytes=MAX_BATCH_BYTES,
        )

    async def Schema(self, request: wire.SchemaRequest, context: Any) -> wire.SchemaReply:  # noqa: N802
        """Return a schema by id or topic."""

        def answer(actor: Actor, call: RequestContext) -> wire.SchemaReply:
            if request.WhichOneof("which") == "schema_id":
                schema_id, text = self._pool.schema_by_id(actor, call, request.schema_id)
            else:
                schema_id, text = self._pool.latest_schema(actor, call, Topic.parse(request.topic))
            return wire.SchemaReply(schema_id=schema_id, schema=text)

        return await self._answer(context, "Schema", request.header, answer)

    async def Resume(self, request: wire.ResumeRequest, context: Any) -> wire.ResumeReply:  # noqa: N802
        """Return a lane's last receipt."""

        def answer(actor: Actor, call: RequestContext) -> wire.ResumeReply:
            topic = Topic.parse(request.topic)
            receipt = self._pool.recovery.resume(actor, call, topic)
            keeps_history = self._pool.recovery.keeps_history(topic)
            if receipt is None:
                return wire.ResumeReply(keeps_history=keeps_history)
            return wire.ResumeReply(
                keeps_history=keeps_history,
                sequence=receipt.sequence,
                root=receipt.root,
                source_position=receipt.source_position,
                receipt=_to_wire(receipt),
            )

        return await self._answer(context, "Resume", request.header, answer)

    async def Describe(self, request: wire.DescribeRequest, context: Any) -> wire.DescribeReply:  # noqa: N802
        """Return what a grant delivers."""

        def answer(actor: Actor, call: RequestContext) -> wire.DescribeReply:
            terms = self._pool.fetching.describe(actor, call, request.grant_id)
            return wire.DescribeReply(
                grant_id=terms.grant.id,
                grant_version=terms.grant.version,
                topic=str(terms.grant.topic),
                view_schema_id=terms.schema_id,
                view_schema=terms.schema_text,
                position=terms.position,
                not_before=int(terms.grant.not_before.timestamp() * 1e6),
                expires=int(terms.grant.expires.timestamp() * 1e6),
                state=terms.grant.state,
                withdrawals=terms.grant.withdrawals,
                row_filter=terms.row_filter,
                provider=terms.grant.provider,
            )

        return await self._answer(context, "Describe", request.header, answer)

    async def Commit(self, request: wire.CommitRequest, context: Any) -> wire.CommitReply:  # noqa: N802
        """Store the consumer's acknowledgement."""

        def answer(actor: Actor, call: RequestContext) -> wire.CommitReply:
            entry_id = self._pool.fetching.commit(actor, call, request.grant_id, request.position)
            return wire.CommitReply(entry_id=entry_id)

        return await self._answer(context, "Commit", request.header, answer)

    async def Report(self, request: wire.ReportRequest, context: Any) -> wire.ReportReply:  # noqa: N802
        """Store what a connector states of itself."""

        def answer(actor: Actor, call: RequestContext) -> wire.ReportReply:
            self._reports.take(actor)
            return report_to_reply(self._pool.connectors.report(actor, call, report_from_wire(request)))

        return await self._answer(context, "Report", request.header, answer)

    async def Reconciled(self, request: wire.ReconciledRequest, context: Any) -> wire.ReconciledReply:  # noqa: N802
        """Record what a connector states of a reconciliation."""

        def answer(actor: Actor, call: RequestContext) -> wire.ReconciledReply:
            self._reports.take(actor)
            entry_id = self._pool.connectors.reconciled(actor, call, totals_from_wire(request))
            return wire.ReconciledReply(entry_id=entry_id)

        return await self._answer(context, "Reconciled", request.header, answer)

    async def Fetch(self, request: wire.FetchRequest, context: Any) -> bytes:  # noqa: N802
        """Release records; wait for the first one (long poll). Return a `FetchReply` as it stands on the wire."""
        call = _call(request.header)
        held: Reservation | None = None
        try:
            with measured("Fetch"):
                one = FetchCall(
                    actor=await self._actor(context),
                    call=call,
                    grant_id=request.grant_id,
                    position=request.position,
                    max_records=request.max_records,
                    max_bytes=request.max_bytes,
                )
                encode = partial(encoded_reply, places=request.places)
                answer, held = await self._polls.fetch(one, encode, wait=request.wait_ms / 1000)
                reached("before_release")
                require_window(answer.release)
        except BaseException as error:
            if held is not None:
                held.release()
            if isinstance(error, Exception):
                await self._abort(context, call, error)
            raise
        # Called when gRPC has written the answer, or its call has ended.
        context.add_done_callback(lambda _: held.release())
        return answer.encoded

    async def Publish(  # noqa: N802
        self, requests: AsyncIterator[wire.PublishRequest], context: Any
    ) -> AsyncIterator[wire.PublishReply]:
        """Append a lane's batches and return their receipts or refusals; see the module."""
        call = RequestContext(trace=random_id())
        try:
            actor = await self._actor(context)
            self._open_stream(actor)
        except Exception as error:
            await self._abort(context, call, error)
            raise
        # Bounded by the window, so that the end of the stream always fits.
        queue: asyncio.Queue[PendingBatch | None] = asyncio.Queue()
        window = StreamWindow()
        quota = self._budget.open_stream((actor.department, actor.id))
        checks: set[asyncio.Task[CheckedBatch]] = set()
        reader = asyncio.create_task(self._read(quota.read(requests), actor, queue, window, checks))
        try:
            ended = False
            while not ended:
                group = [await queue.get()]
                while not queue.empty() and group[-1] is not None:
                    group.append(queue.get_nowait())
                ended = group[-1] is None
                batches = [item for item in group if item is not None]
                window.release(len(batches), sum(item.size for item in batches))
                async for reply in self._append(actor, batches, quota):
                    yield reply
                quota.release(sum(item.weight for item in batches))
                del group, batches  # not to be referenced until the next ones arrive
            await reader
        except Exception as error:
            await self._abort(context, call, error)
            raise
        finally:
            reader.cancel()
            for check in tuple(checks):
                check.cancel()
            quota.close(partial(self._close_stream, actor))

    def _open_stream(self, actor: Actor) -> None:
        """Limit the streams of a connector: each may have pending batches, and counts in the gateway's own limit."""
        connector = (actor.department, actor.id)
        if self._publishing[connector] >= MAX_STREAMS:
            raise UnavailableError(
                Reason.OVERLOADED,
                f"got another stream of a connector that has {MAX_STREAMS} open; expected one a topic: end the others",
                retry_after=5.0,
            )
        self._publishing[connector] += 1

    def _close_stream(self, actor: Actor) -> None:
        self._publishing[actor.department, actor.id] -= 1

    async def _read(
        self,
        batches: AsyncIterator[ReceivedBatch],
        actor: Actor,
        queue: asyncio.Queue[PendingBatch | None],
        window: StreamWindow,
        checks: set[asyncio.Task[CheckedBatch]],
    ) -> None:
        """Start the check of each batch on arrival, as far as the window allows."""
        try:
            async for received in batches:
                await window.acquire(received.size)
                check = asyncio.create_task(self._check(actor, received.request))
                checks.add(check)
                check.add_done_callback(partial(on_check_done, checks))
                queue.put_nowait(PendingBatch(received.request.sequence, check, received.size, received.weight))
                del received, check  # not to be referenced until the next one arrives
        finally:
            queue.put_nowait(None)

    async def _check(self, actor: Actor, request: wire.PublishRequest) -> CheckedBatch:
        submission = Submission(
            topic=Topic.parse(request.topic),
            sequence=request.sequence,
            marks=request.plain.marks,
            values=Packed(request.plain.values.offsets, request.plain.values.values),
            void_keys=Packed(request.plain.void_keys.offsets, request.plain.void_keys.values),
            valid=request.plain.valid,
            root=request.root,
            previous_root=request.previous_root,
            signature=request.signature,
            source_position=request.source_position,
        )
        try:
            return await self._run(actor, self._pool.publishing.check, actor, _call(request.header), submission)
        except PoolError as error:
            TRAFFIC.batch_refused(request.topic, error.reason)
            raise

    async def _append(
        self, actor: Actor, batches: list[PendingBatch], quota: StreamQuota
    ) -> AsyncIterator[wire.PublishReply]:
        """Append the batches before the first invalid one together; refuse that one; try those after it.

        Those after a refused batch have too high a number: the broker refuses them as out of order.
        """
        ready: list[CheckedBatch] = []
        for pending in batches:
            try:
                ready.append(await pending.check)
            except PoolError as error:
                async for reply in self._append_ready(actor, ready, quota):
                    yield reply
                ready = []
                yield wire.PublishReply(sequence=pending.sequence, refusal=_refusal(error))
        async for reply in self._append_ready(actor, ready, quota):
            yield reply

    async def _append_ready(
        self, actor: Actor, ready: list[CheckedBatch], quota: StreamQuota
    ) -> AsyncIterator[wire.PublishReply]:
        if not ready:
            return
        try:
            with measured("Publish"):
                receipts = await quota.run_to_completion(self._run(actor, self._pool.publishing.append, ready))
                await _wait_for_releases(ready)
            _count_published(ready)
            for receipt in receipts:
                reached("before_response")
                yield wire.PublishReply(sequence=receipt.sequence, receipt=_to_wire(receipt))
        except PoolError as error:
            if error.reason is Reason.LANE_FENCED or isinstance(error, UnavailableError):
                raise  # the stream ends: the connector resumes, here or at another gateway
            if error.reason is Reason.SEQUENCE_GAP:
                for checked in ready:  # the others come after the gap as well, and each attempt costs a query
                    TRAFFIC.batch_refused(str(checked.append.lane.topic), error.reason)
                    yield wire.PublishReply(sequence=checked.sequence, refusal=_refusal(error))
                return
            if len(ready) == 1:
                TRAFFIC.batch_refused(str(ready[0].append.lane.topic), error.reason)
                yield wire.PublishReply(sequence=ready[0].sequence, refusal=_refusal(error))
                return
            # One of the group is invalid and nothing was appended: each is appended separately.
            for checked in ready:
                async for reply in self._append_ready(actor, [checked], quota):
                    yield reply

    async def _answer(
        self, context: Any, method: str, header: wire.RequestHeader, work: Callable[[Actor, RequestContext], _T]
    ) -> _T:
        call = _call(header)
        try:
            with measured(method):
                actor = await self._actor(context)
                return await self._run(actor, work, actor, call)
        except Exception as error:
            await self._abort(context, call, error)
            raise

    async def _actor(self, context: Any) -> Actor:
        try:
            return self._pool.identify(peer_certificate(context))
        except RefusedError as error:
            source = source_of(context.peer())
            origin = Origin(Interface.GRPC, source)
            await self._scheduler.run(flow_of_source(source), self._pool.authentications.failed, origin, error.reason)
            raise

    async def _run(self, actor: Actor, work: Callable[..., _T], *arguments: Any) -> _T:
        return await self._scheduler.run(flow_of(actor), work, *arguments)

    async def _abort(self, context: Any, call: RequestContext, error: Exception) -> None:
        pool_error = as_pool_error(error)
        if pool_error is not error:
            # Type and location, never the text: a library's message may contain a record's values.
            _log.error("call_failed", trace=call.trace, error=type(error).__name__, at=_location(error))
        status = rpc_status(pool_error)
        await context.abort(
            STATUS[status.code], pool_error.message, (("grpc-status-details-bin", status.SerializeToString()),)
        )


def _count_published(appended: Sequence[CheckedBatch]) -> None:
    metrics.RECORDS_PUBLISHED.inc(sum(len(checked.append.keys) for checked in appended))
    for checked in appended:
        TRAFFIC.published(checked.append.lane.topic, len(checked.append.keys), len(checked.submission.void_keys))


def _call(header: wire.RequestHeader) -> RequestContext:
    return RequestContext.declared(
        trace=header.trace_id,
        purpose=header.purpose,
        case=header.case_number,
        client=header.client_version,
        on_behalf_of=header.on_behalf_of,
    )


def _to_wire(receipt: Receipt) -> wire.Receipt:
    return wire.Receipt(
        lane=str(receipt.lane),
        sequence=receipt.sequence,
        root=receipt.root,
        runs=[wire.Run(partition=run.partition, first=run.first, last=run.last) for run in receipt.runs],
        entry_id=receipt.entry_id,
        leaf_hash=receipt.leaf_hash,
        source_position=receipt.source_position,
        signature=receipt.signature,
    )


def _refusal(error: PoolError) -> wire.Refusal:
    rows = error.rows if isinstance(error, RowsRefusedError) else ()
    return wire.Refusal(
        reason=error.reason,
        message=error.message,
        details=error.details,
        rows=[wire.RowError(index=row.index, reason=row.reason, field=row.field, message=row.message) for row in rows],
        code=code_of(error),
        retry_after=error.retry_after or 0.0,
    )


def _location(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f"{trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}"


async def _wait_for_releases(appended: Sequence[CheckedBatch]) -> None:
    """Wait before retractions are acknowledged: what was about to leave of their keys has left by then, or never will.

    Not in a thread of the pool, of which voids of many lanes would take all.
    """
    if any(checked.retracts for checked in appended):
        await asyncio.sleep(RELEASE_WINDOW)
