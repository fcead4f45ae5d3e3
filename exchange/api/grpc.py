"""The gRPC door: certificate → actor, message → value, error → status. No rule lives here.

The loop is asyncio, so that an idle long poll costs a coroutine; every call into the pool runs in a bounded thread
pool. A publish stream keeps several batches in flight: they are checked side by side, and all that are ready join
the next append, so the slower the broker commits, the larger its transactions become (group commit).
"""

import asyncio
import re
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import structlog

from exchange import metrics
from exchange.api.long_poll import TopicGrowth
from exchange.api.problems import as_pool_error, rpc_status
from exchange.api.publish_backpressure import (
    STREAMS,
    MemoryBudget,
    PendingBatch,
    Received,
    StreamQuota,
    StreamWindow,
    settled,
)
from exchange.api.statuses import STATUS, peer_certificate
from exchange.authorization.request_context import RequestContext
from exchange.pool import Pool
from exchange.records.publish import CheckedBatch
from exchange.records.release import Release
from exchange.records.submission import RowsRefusedError, Submission
from schemas.access import Actor
from schemas.errors import InvalidError, PoolError, Reason, UnavailableError
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
_TRACE = re.compile(r"[0-9a-f]{32}")
_LONGEST_WAIT = 60.0  # seconds of one long poll
_REREAD = 5.0  # seconds after which a poll looks again by itself, should a wake-up have been lost


class ExchangeServicer(stubs.ExchangeServicer):
    """Implements `pool.v1.Exchange` over a `Pool`. *waiting* bounds what its publish streams hold, in bytes."""

    def __init__(
        self, pool: Pool, threads: ThreadPoolExecutor, tails: TopicGrowth, *, max_queued: int, waiting: int
    ) -> None:
        self._pool = pool
        self._threads = threads
        self._tails = tails
        self._queued = 0
        self._publishing: Counter[tuple[str, str]] = Counter()
        self._waiting = MemoryBudget(waiting)
        self._max_queued = max_queued

    async def Hello(self, request: wire.HelloRequest, context: Any) -> wire.HelloReply:  # noqa: N802 - gRPC's name
        """Greet."""
        return await self._answer(context, "Hello", request.header, self._hello)

    def _hello(self, actor: Actor, call: RequestContext) -> wire.HelloReply:
        greeting = self._pool.hello(actor, call)
        return wire.HelloReply(
            pool_id=greeting.pool_id,
            server_version=greeting.version,
            capabilities=[wire.CAPABILITY_PUBLISH, wire.CAPABILITY_FETCH, wire.CAPABILITY_WITHDRAWALS],
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
        """Return where a lane stands."""

        def answer(actor: Actor, call: RequestContext) -> wire.ResumeReply:
            receipt = self._pool.recovery.resume(actor, call, Topic.parse(request.topic))
            if receipt is None:
                return wire.ResumeReply()
            return wire.ResumeReply(
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
            )

        return await self._answer(context, "Describe", request.header, answer)

    async def Commit(self, request: wire.CommitRequest, context: Any) -> wire.CommitReply:  # noqa: N802
        """Acknowledge."""

        def answer(actor: Actor, call: RequestContext) -> wire.CommitReply:
            entry_id = self._pool.fetching.commit(actor, call, request.grant_id, request.position)
            return wire.CommitReply(entry_id=entry_id)

        return await self._answer(context, "Commit", request.header, answer)

    async def Fetch(self, request: wire.FetchRequest, context: Any) -> wire.FetchReply:  # noqa: N802
        """Release records; wait for the first one."""
        call = _call(request.header)
        try:
            with _measured("Fetch"):
                released = await self._released(self._actor(context), call, request)
                reply = _release(released)
                reached("before_release")
                _check_window(released)
        except Exception as error:
            await self._abort(context, call, error)
            raise
        metrics.RECORDS_RELEASED.inc(len(released))
        return reply

    async def _released(self, actor: Actor, call: RequestContext, request: wire.FetchRequest) -> Release:
        """Fetch; where there is nothing, wait for the topic to grow and fetch again, until the poll's time is over."""
        give_up = time.monotonic() + min(request.wait_ms / 1000, _LONGEST_WAIT)
        fetch = partial(self._run, self._pool.fetching.fetch, actor, call, request.grant_id)
        released = await fetch(request.position, request.max_records, request.max_bytes)
        if len(released) or time.monotonic() >= give_up:
            return released
        topic = await self._run(self._pool.fetching.topic_of, actor, call, request.grant_id)
        while True:
            # Taken before the read, so that nothing that comes in between is waited for in vain.
            ticket = await self._run(self._tails.ticket, topic)
            released = await fetch(released.next_position, request.max_records, request.max_bytes)
            left = give_up - time.monotonic()
            if len(released) or left <= 0:
                return released
            if released.caught_up:
                await self._tails.grown(topic, ticket, min(left, _REREAD))

    async def Publish(  # noqa: N802
        self, requests: AsyncIterator[wire.PublishRequest], context: Any
    ) -> AsyncIterator[wire.PublishReply]:
        """Take a lane's batches; see the module's text."""
        call = RequestContext(trace=random_id())
        try:
            actor = self._actor(context)
            self._enter(actor)
        except Exception as error:
            await self._abort(context, call, error)
            raise
        # Bounded by the room, so that the end of the stream always fits.
        queue: asyncio.Queue[PendingBatch | None] = asyncio.Queue()
        room = StreamWindow()
        share = self._waiting.stream((actor.department, actor.id))
        checks: set[asyncio.Task[CheckedBatch]] = set()
        reader = asyncio.create_task(self._read(share.reading(requests), actor, queue, room, checks))
        try:
            ended = False
            while not ended:
                group = [await queue.get()]
                while not queue.empty() and group[-1] is not None:
                    group.append(queue.get_nowait())
                ended = group[-1] is None
                batches = [item for item in group if item is not None]
                room.leave(len(batches), sum(item.size for item in batches))
                async for reply in self._append(batches, share):
                    yield reply
                share.give(sum(item.weight for item in batches))
                del group, batches  # not to be held until the next ones come
            await reader
        except Exception as error:
            await self._abort(context, call, error)
            raise
        finally:
            reader.cancel()
            for check in tuple(checks):
                check.cancel()
            share.close(partial(self._leave, actor))

    def _enter(self, actor: Actor) -> None:
        """Let a connector have a few streams at once: what waits in one is memory, and one that idles is a place."""
        who = (actor.department, actor.id)
        if self._publishing[who] >= STREAMS:
            raise UnavailableError(
                Reason.OVERLOADED,
                f"got another stream of a connector that has {STREAMS} open; expected one a topic: end the others",
                retry_after=5.0,
            )
        self._publishing[who] += 1

    def _leave(self, actor: Actor) -> None:
        self._publishing[actor.department, actor.id] -= 1

    async def _read(
        self,
        batches: AsyncIterator[Received],
        actor: Actor,
        queue: asyncio.Queue[PendingBatch | None],
        room: StreamWindow,
        checks: set[asyncio.Task[CheckedBatch]],
    ) -> None:
        """Start the check of each batch as it comes, as far as there is room."""
        try:
            async for received in batches:
                await room.enter(received.size)
                check = asyncio.create_task(self._check(actor, received.request))
                checks.add(check)
                check.add_done_callback(partial(settled, checks))
                queue.put_nowait(PendingBatch(received.request.sequence, check, received.size, received.weight))
                del received, check  # not to be held until the next one comes
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
        return await self._run(self._pool.publishing.check, actor, _call(request.header), submission)

    async def _append(self, batches: list[PendingBatch], share: StreamQuota) -> AsyncIterator[wire.PublishReply]:
        """Append the batches before the first bad one together; refuse that one; try those behind it again.

        Those behind a refused batch have a number too high: the broker refuses them as out of order.
        """
        ready: list[CheckedBatch] = []
        for waiting in batches:
            try:
                ready.append(await waiting.check)
            except PoolError as error:
                async for reply in self._append_ready(ready, share):
                    yield reply
                ready = []
                yield wire.PublishReply(sequence=waiting.sequence, refusal=_refusal(error))
        async for reply in self._append_ready(ready, share):
            yield reply

    async def _append_ready(self, ready: list[CheckedBatch], share: StreamQuota) -> AsyncIterator[wire.PublishReply]:
        if not ready:
            return
        try:
            with _measured("Publish"):
                receipts = await share.finish(self._run(self._pool.publishing.append, ready))
            metrics.RECORDS_PUBLISHED.inc(sum(len(checked.append.keys) for checked in ready))
            for receipt in receipts:
                reached("before_response")
                yield wire.PublishReply(sequence=receipt.sequence, receipt=_to_wire(receipt))
        except PoolError as error:
            if error.reason is Reason.LANE_FENCED or isinstance(error, UnavailableError):
                raise  # the stream ends: the connector resumes, here or at another gateway
            if error.reason is Reason.SEQUENCE_GAP:
                for checked in ready:  # those behind a gap are behind it as well, and each try asks the broker
                    yield wire.PublishReply(sequence=checked.sequence, refusal=_refusal(error))
                return
            if len(ready) == 1:
                yield wire.PublishReply(sequence=ready[0].sequence, refusal=_refusal(error))
                return
            # One of the group is at fault and nothing was appended: each gets its own answer.
            for checked in ready:
                async for reply in self._append_ready([checked], share):
                    yield reply

    async def _answer(
        self, context: Any, method: str, header: wire.RequestHeader, work: Callable[[Actor, RequestContext], _T]
    ) -> _T:
        call = _call(header)
        try:
            with _measured(method):
                return await self._run(work, self._actor(context), call)
        except Exception as error:
            await self._abort(context, call, error)
            raise

    def _actor(self, context: Any) -> Actor:
        return self._pool.identify(peer_certificate(context))

    async def _run(self, work: Callable[..., _T], *arguments: Any) -> _T:
        if self._queued >= self._max_queued:
            raise UnavailableError(
                Reason.OVERLOADED, "this gateway has more calls waiting than it can serve; try again", retry_after=0.5
            )
        self._queued += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        finally:
            self._queued -= 1

    async def _abort(self, context: Any, call: RequestContext, error: Exception) -> None:
        known = as_pool_error(error)
        if known is not error:
            # The type and place, never the text: a library's message may hold a record's values.
            _log.error("call_failed", trace=call.trace, error=type(error).__name__, at=_place(error))
        status = rpc_status(known)
        await context.abort(
            STATUS[status.code], known.message, (("grpc-status-details-bin", status.SerializeToString()),)
        )


@contextmanager
def _measured(method: str) -> Iterator[None]:
    """Count a call by its outcome and measure its time."""
    started = time.monotonic()
    outcome = "ok"
    try:
        yield
    except Exception as error:
        outcome = str(as_pool_error(error).reason)
        raise
    finally:
        metrics.CALLS.labels(method, outcome).inc()
        metrics.CALL_SECONDS.labels(method).observe(time.monotonic() - started)


def _call(header: wire.RequestHeader) -> RequestContext:
    trace = header.trace_id if _TRACE.fullmatch(header.trace_id) else random_id()
    for name, value, limit in (
        ("purpose", header.purpose, 100),
        ("case_number", header.case_number, 200),
        ("client_version", header.client_version, 100),
        ("on_behalf_of", header.on_behalf_of, 100),
    ):
        if len(value) > limit:
            raise InvalidError(Reason.REQUEST_INVALID, f"{name}: got {len(value)} characters; expected {limit} at most")
    return RequestContext(
        trace=trace,
        purpose=header.purpose,
        case=header.case_number,
        client=header.client_version,
        on_behalf_of=header.on_behalf_of or None,
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


def _check_window(released: Release) -> None:
    if time.monotonic() > released.deadline:
        raise UnavailableError(
            Reason.RELEASE_TOO_LATE,
            "the release window passed before the bytes could leave; fetch again from the same position",
            retry_after=0.0,
        )


def _release(released: Release) -> wire.FetchReply:
    view = wire.ViewRecords(
        schema_id=released.schema_id,
        values=wire.Packed(offsets=released.values.offsets, values=released.values.values),
        record_keys=released.record_keys,
        recorded_at=struct.pack(f"<{len(released.recorded_at)}q", *released.recorded_at),
        valid=released.valid,
    )
    return wire.FetchReply(
        view=view,
        next_position=released.next_position,
        entry_id=released.entry_id,
        leaf_hash=released.leaf_hash,
        scanned=released.scanned,
        caught_up=released.caught_up,
    )


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f"{trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}"
