"""gRPC servicer of the exchange: certificate → actor, message → value, error → status. No rule is implemented here.

The loop is asyncio, so that an idle long poll costs a coroutine; every call into the pool runs in a thread, in the turn
of its department (`exchange.api.admission.scheduler`). A publish stream has several batches in flight: they are checked
concurrently, and all that are ready join the next append, so that the slower the broker commits, the larger its
transactions become (group commit).
"""

import asyncio
import re
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import structlog

from exchange import metrics
from exchange.api.admission.reply_budget import ReplyBudget, Reservation, weight_of
from exchange.api.admission.scheduler import FairScheduler, flow_of, flow_of_source
from exchange.api.long_poll import FetchGroups, TopicGrowth
from exchange.api.problems import as_pool_error, rpc_status
from exchange.api.publish_backpressure import (
    MAX_STREAMS,
    MemoryBudget,
    PendingBatch,
    ReceivedBatch,
    StreamQuota,
    StreamWindow,
    on_check_done,
)
from exchange.api.statuses import STATUS, peer_certificate
from exchange.authorization.authentications import Interface, Origin
from exchange.authorization.release_window import RELEASE_WINDOW
from exchange.authorization.request_context import RequestContext
from exchange.identity.failure_limiter import source_of
from exchange.pool import Pool
from exchange.records.group_fetch import FetchCall, Outcome
from exchange.records.publish import CheckedBatch
from exchange.records.reading.scan import MAX_ANSWER_BYTES
from exchange.records.release import Release
from exchange.records.submission import RowsRefusedError, Submission
from exchange.records.traffic.counts import TRAFFIC
from schemas.access import Actor
from schemas.errors import InvalidError, PoolError, Reason, RefusedError, UnavailableError
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
_WOKEN_BYTES = 1024 * 1024  # of the answer of a poll that had to wait
_REREAD = 5.0  # seconds after which a poll reads again without a wake-up, in case one was lost


class ExchangeServicer(stubs.ExchangeServicer):
    """Implements `pool.v1.Exchange` with a `Pool`.

    Args:
        pool: behind it.
        scheduler: of the process.
        topic_growth: of the topics that are polled.
        max_polls: long polls of one department, on one topic, that wait to be fetched.
        max_pending_bytes: memory of all publish streams.
        max_reply_bytes: memory of all answers of fetches.
    """

    def __init__(
        self,
        pool: Pool,
        scheduler: FairScheduler,
        topic_growth: TopicGrowth,
        *,
        max_polls: int,
        max_pending_bytes: int,
        max_reply_bytes: int,
    ) -> None:
        self._pool = pool
        self._scheduler = scheduler
        self._topic_growth = topic_growth
        self._publishing: Counter[tuple[str, str]] = Counter()
        self._budget = MemoryBudget(max_pending_bytes)
        self._replies = ReplyBudget(max_reply_bytes)
        self._groups = FetchGroups(self._fetch_together, self._fetch, scheduler.run, max_waiting=max_polls)

    async def Hello(self, request: wire.HelloRequest, context: Any) -> wire.HelloReply:  # noqa: N802 - gRPC's name
        """Return the pool's greeting."""
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
        """Return a lane's last receipt."""

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
        """Store the consumer's acknowledgement."""

        def answer(actor: Actor, call: RequestContext) -> wire.CommitReply:
            entry_id = self._pool.fetching.commit(actor, call, request.grant_id, request.position)
            return wire.CommitReply(entry_id=entry_id)

        return await self._answer(context, "Commit", request.header, answer)

    async def Fetch(self, request: wire.FetchRequest, context: Any) -> wire.FetchReply:  # noqa: N802
        """Release records; wait for the first one (long poll)."""
        call = _call(request.header)
        held: Reservation | None = None
        try:
            with _measured("Fetch"):
                released, held = await self._poll(await self._actor(context), call, request)
                reply = _release(released)
                reached("before_release")
                _check_window(released)
        except BaseException as error:
            if held is not None:
                held.release()
            if isinstance(error, Exception):
                await self._abort(context, call, error)
            raise
        # Called when gRPC has written the answer, or its call has ended.
        context.add_done_callback(lambda _: held.release())
        metrics.RECORDS_RELEASED.inc(len(released))
        return reply

    async def _poll(
        self, actor: Actor, call: RequestContext, request: wire.FetchRequest
    ) -> tuple[Release, Reservation]:
        """Fetch; without records, wait for the topic to grow and fetch again, until the poll's time is over.

        Return the release, and the memory that is reserved for it.
        """
        deadline = time.monotonic() + min(request.wait_ms / 1000, _LONGEST_WAIT)
        first = FetchCall(
            actor=actor,
            call=call,
            grant_id=request.grant_id,
            position=request.position,
            max_records=request.max_records,
            max_bytes=request.max_bytes,
        )
        largest = weight_of(min(request.max_bytes or MAX_ANSWER_BYTES, MAX_ANSWER_BYTES))
        released, held = await self._held(actor, largest, self._run(actor, self._fetch, first))
        if len(released) or time.monotonic() >= deadline:
            return released, held
        topic = await self._run(actor, self._pool.fetching.topic_of, actor, call, request.grant_id)
        # What woke a poll is little. Nothing is reserved for it, so its answers are small ones.
        woken = replace(first, max_bytes=min(request.max_bytes or _WOKEN_BYTES, _WOKEN_BYTES))
        while True:
            # Before the read, so that records appended after it change the version.
            version = self._topic_growth.watched(topic)
            if version is None:
                version = await self._run(actor, self._topic_growth.version, topic)
            woken = replace(woken, position=released.next_position)
            released, held = await self._held(actor, 0, self._groups.fetch(topic, woken))
            left = deadline - time.monotonic()
            if len(released) or left <= 0:
                return released, held
            if released.caught_up:
                await self._topic_growth.wait(topic, version, min(left, _REREAD))

    async def _held(
        self, actor: Actor, weight: int, fetch: Coroutine[Any, Any, Release]
    ) -> tuple[Release, Reservation]:
        """Reserve memory, then fetch; return the release, and what is held of it."""
        try:
            held = await self._replies.reserve(flow_of(actor), weight)
        except BaseException:
            fetch.close()
            raise
        try:
            released = await fetch
        except BaseException:
            held.release()
            raise
        held.settle(weight_of(len(released.values.values), len(released)) if len(released) else 0)
        return released, held

    def _fetch_together(self, calls: Sequence[FetchCall]) -> Iterator[Mapping[int, Outcome]]:
        return self._pool.fetching_together.fetch(calls)

    def _fetch(self, one: FetchCall) -> Release:
        return self._pool.fetching.fetch(
            one.actor, one.call, one.grant_id, one.position, one.max_records, one.max_bytes
        )

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
            with _measured("Publish"):
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
            with _measured(method):
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


def _count_published(appended: Sequence[CheckedBatch]) -> None:
    metrics.RECORDS_PUBLISHED.inc(sum(len(checked.append.keys) for checked in appended))
    for checked in appended:
        TRAFFIC.published(checked.append.lane.topic, len(checked.append.keys), len(checked.submission.void_keys))


def _call(header: wire.RequestHeader) -> RequestContext:
    # A trace id of digits alone could hold an identity number; one that is made at random has letters.
    usable = _TRACE.fullmatch(header.trace_id) and not header.trace_id.isdecimal()
    trace = header.trace_id if usable else random_id()
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
        caught_up=released.caught_up,
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
