"""gRPC server interceptor for admission control: who may have a call open, on every service, health included.

    identity     the certificate of the connection; at the enrolment listener there is none
    place        in all, by source, department and certificate (`exchange.api.admission.concurrency`)
    rate         at the enrolment listener: calls of one source
    message      a call with one request message: read after the place was taken, 2 of a department at once, within
                 10 s, and up to the limit of its method
    delay        a department, or a source at the enrolment listener, that has had many calls refused gets its next
                 refusals later, and a connector whose calls have failed many times is served later: calls are accepted
                 one after another, method by method, and the others' calls would wait behind the attempts
    standing     health and reflection ask nothing of the pool, so the interceptor asks whether the certificate is still
                 good; and all open calls of one that is revoked are ended, within a second

A call with one request is served as one with a stream of requests: gRPC would otherwise read the message, of up to
12 MiB, before any code of the pool is asked. On the wire there is no difference.

A certificate that is known to be revoked keeps a few places at the exchange's own methods, where the enforcer refuses
it and writes the entry.
"""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

import grpc
import structlog
from google.protobuf.message import DecodeError

from exchange import metrics
from exchange.access.decision.roles import Standing
from exchange.api.admission.concurrency import ALL, ConcurrencyLimiter, Exceeded, Place
from exchange.api.admission.late_answers import LateAnswers
from exchange.api.admission.scheduler import FairScheduler, flow_of_source
from exchange.api.admission.standings import PERIOD, Standings
from exchange.api.admission.token_bucket import TokenBucket
from exchange.api.problems import as_pool_error, rpc_status
from exchange.api.statuses import STATUS, peer_certificate, refuse_zero
from exchange.authorization.authentications import Interface, Origin
from exchange.authorization.request_context import RequestContext
from exchange.identity.failure_limiter import source_of
from exchange.pool import Pool
from schemas.access import Actor
from schemas.errors import InvalidError, PoolError, Reason, RefusedError, UnavailableError
from schemas.identifiers import random_id

__all__ = ["SMALL_MESSAGE", "Admission", "CallBounds", "ConnectorAdmission", "EnrolmentAdmission"]

_log = structlog.get_logger()
SMALL_MESSAGE: Final = 64 * 1024
"""Bytes of a message of all methods but `Publish`, whose batches are larger."""
_MESSAGE_SECONDS = 10.0
_REFUSAL_SECONDS = 20.0  # by which a refusal is late, on average
_DELAY_SECONDS = 10.0  # by which the calls after many failures are late, on average
_REFUSALS, _REFUSALS_A_SECOND = 200, 20.0  # of one department, which are not delayed: at once, and then a second
_FAILURES, _FAILURES_A_SECOND = 200, 20.0  # of one connector's calls, likewise
_SOURCE_REFUSALS, _SOURCE_REFUSALS_A_SECOND = 20, 2.0  # of one source at the enrolment listener, likewise
_DELAYED_SHARE = 2  # at most one of so many calls is delayed
_RECEIVING = 2  # messages of one department, or one source, that are being received
_AUXILIARY_SHARE = 8  # of all places, one in so many is for health and reflection
_AUXILIARY_CAPS = {"certificate": 8, "department": 32}
_REVOKED_CAPS = {"certificate": 8, "department": 32}
_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs lack it
_OWN = ("/pool.v1.",)  # services whose methods ask the enforcer


@dataclass(eq=False, slots=True)
class OpenCall:
    """A call that has a place.

    Attributes:
        key: whose messages are received one after the other: a department or a source.
        actor: who calls; None at the enrolment listener.
        task: that runs it.
        ended: why it was ended before its own end.
    """

    key: str
    actor: Actor | None
    task: asyncio.Task[Any] | None = None
    ended: PoolError | None = None

    def end(self, error: PoolError) -> None:
        """End the call with an error."""
        if self.ended is None and self.task is not None and not self.task.done():
            self.ended = error
            self.task.cancel()


class Admission(Protocol):
    """Decides on the calls of one listener."""

    @asynccontextmanager
    def admit(self, method: str, context: Any) -> AsyncIterator[OpenCall]:
        """Have a call open within the block.

        Raises:
            PoolError: it may not be open.
        """


class CallBounds(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    """The interceptor; *admission* decides."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._wrapped: dict[str, Any] = {}
        # By caller, as long as one of its messages is received: callers come and go.
        self._receiving: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Return the handler of a method, within bounds."""
        method: str = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:  # no such method
                return None
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Any) -> Any:
        serializer = partial(_serialize, handler.response_serializer)
        if not handler.request_streaming and not handler.response_streaming:
            return grpc.stream_unary_rpc_method_handler(partial(self._unary, method, handler), None, serializer)
        if not handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(partial(self._answers, method, handler), None, serializer)
        if not handler.response_streaming:
            return grpc.stream_unary_rpc_method_handler(
                partial(self._requests, method, handler), handler.request_deserializer, serializer
            )
        return grpc.stream_stream_rpc_method_handler(
            partial(self._stream, method, handler), handler.request_deserializer, serializer
        )

    async def _unary(self, method: str, handler: Any, requests: Any, context: Any) -> Any:
        del requests

        async def run(call: OpenCall) -> Any:
            return await handler.unary_unary(await self._message(call, handler, context), context)

        return await self._run(method, context, run)

    async def _answers(self, method: str, handler: Any, requests: Any, context: Any) -> None:
        del requests

        async def run(call: OpenCall) -> None:
            await _answer(handler.unary_stream, await self._message(call, handler, context), context)

        await self._run(method, context, run)

    async def _requests(self, method: str, handler: Any, requests: Any, context: Any) -> Any:
        return await self._run(method, context, lambda _: handler.stream_unary(requests, context))

    async def _stream(self, method: str, handler: Any, requests: Any, context: Any) -> None:
        await self._run(method, context, lambda _: _answer(handler.stream_stream, requests, context))

    async def _run(self, method: str, context: Any, work: Callable[[OpenCall], Awaitable[Any]]) -> Any:
        call: OpenCall | None = None
        try:
            async with self._admission.admit(method, context) as call:
                call.task = asyncio.current_task()
                return await work(call)
        except asyncio.CancelledError:
            if call is None or call.ended is None or call.task is None:
                raise
            call.task.uncancel()
            metrics.CALLS_ENDED.labels(call.ended.reason).inc()
            with suppress(grpc.aio.UsageError):  # the handler was ending it already
                await _abort(context, call.ended)
            raise
        except PoolError as error:
            await _abort(context, error)

    def _receiver(self, key: str) -> asyncio.Semaphore:
        found = self._receiving.get(key)
        if found is None:
            found = self._receiving[key] = asyncio.Semaphore(_RECEIVING)
        return found

    async def _message(self, call: OpenCall, handler: Any, context: Any) -> Any:
        """Read the one message of a call.

        Raises:
            InvalidError: REQUEST_INVALID, there is none, it is too large, no protobuf, or did not come in time.
        """
        try:
            async with self._receiver(call.key), asyncio.timeout(_MESSAGE_SECONDS):
                raw = await context.read()
        except TimeoutError as error:
            metrics.ADMISSION_REFUSED.labels("grpc", "slow_message").inc()
            raise InvalidError(
                Reason.REQUEST_INVALID, f"got no message within {_MESSAGE_SECONDS:.0f} s; expected one with the call"
            ) from error
        if raw is _EOF:
            raise InvalidError(Reason.REQUEST_INVALID, "got a call without a message; expected one")
        if len(raw) > SMALL_MESSAGE:
            size = len(raw)
            del raw  # the error's traceback would keep it
            metrics.ADMISSION_REFUSED.labels("grpc", "message").inc()
            raise InvalidError(
                Reason.REQUEST_INVALID, f"got a message of {size} bytes; expected {SMALL_MESSAGE} at most"
            )
        try:
            message = handler.request_deserializer(raw)
        except DecodeError as error:
            raise InvalidError(
                Reason.REQUEST_INVALID, f"got a message of {len(raw)} bytes that is not the method's; expected protobuf"
            ) from error
        if b"\0" in raw:
            refuse_zero(message)
        return message


class ConnectorAdmission:
    """The listener of mutual TLS: bounds by source, department and certificate.

    Args:
        pool: knows certificates and their standing.
        scheduler: of calls.
        limit: calls in all.
    """

    def __init__(self, pool: Pool, scheduler: FairScheduler, limit: int) -> None:
        self._pool = pool
        self._scheduler = scheduler
        shares = {"source": 3.0, "department": 1.0, "certificate": 0.75}
        self._calls = ConcurrencyLimiter(limit, shares)
        self._auxiliary = ConcurrencyLimiter(max(8, limit // _AUXILIARY_SHARE), shares, _AUXILIARY_CAPS)
        self._revoked = ConcurrencyLimiter(max(8, limit // _AUXILIARY_SHARE), shares, _REVOKED_CAPS)
        self._refusals = TokenBucket(_REFUSALS_A_SECOND, _REFUSALS, time.monotonic)
        self._failures = TokenBucket(_FAILURES_A_SECOND, _FAILURES, time.monotonic)
        self._slowed: dict[str, float] = {}  # certificate → until when; those that failed too often
        self._late = LateAnswers(limit // _DELAYED_SHARE)
        self._looks = ThreadPoolExecutor(1, thread_name_prefix="standings")
        self._standings = Standings(pool.identities.standings, self._looks, time.monotonic)
        self._open: dict[str, set[OpenCall]] = {}
        self._watch: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def admit(self, method: str, context: Any) -> AsyncIterator[OpenCall]:
        """Have a call open within the block; see `Admission`."""
        actor = await self._actor(context)
        async with self.admit_actor(actor, source_of(context.peer()), own=method.startswith(_OWN)) as call:
            yield call

    @asynccontextmanager
    async def admit_actor(self, actor: Actor, source: str, *, own: bool = True) -> AsyncIterator[OpenCall]:
        """Have a call of a connector open within the block, whichever listener it came to; see `Admission`.

        Args:
            actor: whom the certificate identifies.
            source: of the connection.
            own: the enforcer is asked for it.

        Raises:
            PoolError: it may not be open.
        """
        try:
            place = await self._place(actor, source, own=own)
        except PoolError:
            if self._refusals.take(actor.department):
                await self._late.wait(_REFUSAL_SECONDS)
            raise
        with place:
            await self._late.wait(self._slowed_for(actor.certificate))
            call = OpenCall(actor.department, actor)
            calls = self._open.setdefault(actor.certificate, set())
            calls.add(call)
            try:
                yield call
            except Exception:
                if self._failures.take(actor.certificate):
                    self._slowed[actor.certificate] = time.monotonic() + _DELAY_SECONDS
                raise
            finally:
                calls.discard(call)
                if not calls:
                    self._open.pop(actor.certificate, None)

    async def _place(self, actor: Actor, source: str, *, own: bool) -> Place:
        revoked = self._standings.known(actor) not in {None, Standing.ACTIVE}
        limiter = self._revoked if revoked else self._calls if own else self._auxiliary
        place = _place(limiter, "grpc", source=source, department=actor.department, certificate=actor.certificate)
        try:
            if not own and await self._standings.current(actor) is not Standing.ACTIVE:
                await self._refuse(actor)
        except BaseException:
            place.release()
            raise
        return place

    def _slowed_for(self, certificate: str) -> float:
        """Return the seconds until a call of a certificate is served."""
        wait = self._slowed.get(certificate, 0.0) - time.monotonic()
        if wait <= 0:
            self._slowed.pop(certificate, None)
        return max(0.0, wait)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """End the calls of certificates that are no longer good, within the block."""
        watch = asyncio.create_task(self._end_revoked())
        try:
            yield
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            self._looks.shutdown(wait=False, cancel_futures=True)

    async def _end_revoked(self) -> None:
        while True:
            await asyncio.sleep(PERIOD)
            try:
                actors = [next(iter(calls)).actor for calls in self._open.values() if calls]
                bad = await self._standings.refresh([actor for actor in actors if actor is not None])
                for certificate in bad:
                    await self._end(certificate)
            except Exception as error:  # noqa: BLE001 - the next turn tries again
                _log.error("standings_failed", error=type(error).__name__)

    async def _end(self, certificate: str) -> None:
        calls = self._open.get(certificate)
        actor = next(iter(calls)).actor if calls else None
        if not calls or actor is None:
            return
        try:
            await self._refuse(actor)
        except PoolError as error:
            for call in tuple(calls):
                call.end(error)

    async def _actor(self, context: Any) -> Actor:
        try:
            return self._pool.identify(peer_certificate(context))
        except RefusedError as error:
            source = source_of(context.peer())
            origin = Origin(Interface.GRPC, source)
            await self._scheduler.run(flow_of_source(source), self._pool.authentications.failed, origin, error.reason)
            raise

    async def _refuse(self, actor: Actor) -> None:
        """Refuse an actor that is not in standing, with an entry; return where it is after all."""
        call = RequestContext(trace=random_id())
        await asyncio.get_running_loop().run_in_executor(self._looks, self._pool.require_standing, actor, call)


class EnrolmentAdmission:
    """The listener without client certificates: bounds by source.

    Args:
        limit: calls in all.
        per_minute: calls of one source.
    """

    def __init__(self, limit: int, per_minute: int) -> None:
        self._calls = ConcurrencyLimiter(limit, {"source": 1.0})
        self._rate = TokenBucket(per_minute / 60, per_minute / 2, time.monotonic)
        self._refusals = TokenBucket(_SOURCE_REFUSALS_A_SECOND, _SOURCE_REFUSALS, time.monotonic)
        self._late = LateAnswers(limit)

    @asynccontextmanager
    async def admit(self, method: str, context: Any) -> AsyncIterator[OpenCall]:
        """Have a call open within the block; see `Admission`."""
        del method
        source = source_of(context.peer())
        wait = self._rate.take(source)
        if wait:
            metrics.ADMISSION_REFUSED.labels("enrolment", "rate").inc()
            if self._refusals.take(source):
                await self._late.wait(_REFUSAL_SECONDS)
            raise UnavailableError(
                Reason.OVERLOADED, "got too many calls from your address; wait, then try again", retry_after=wait
            )
        with _place(self._calls, "enrolment", source=source):
            yield OpenCall(source, None)


def _place(limiter: ConcurrencyLimiter, listener: str, **keys: str) -> Place:
    try:
        return limiter.acquire(**keys)
    except Exceeded as exceeded:
        metrics.ADMISSION_REFUSED.labels(listener, f"calls_{exceeded.kind}").inc()
        raise UnavailableError(Reason.OVERLOADED, _MESSAGES[exceeded.kind], retry_after=1.0) from exceeded


_MESSAGES: Mapping[str, str] = {
    ALL: "this gateway has as many open calls as it may have; try again",
    "source": "your address has more open calls than it may have now; end some of them, then try again",
    "department": "your department has more open calls than it may have now; end some of them, then try again",
    "certificate": "this connector has more open calls than it may have now; end some of them, then try again",
}


def _serialize(serializer: Callable[[Any], bytes], reply: Any) -> bytes:
    """Serialize an answer; bytes are one that was serialized before, in a thread."""
    return reply if isinstance(reply, bytes) else serializer(reply)


async def _answer(behaviour: Callable[[Any, Any], Any], request: Any, context: Any) -> None:
    """Run a handler that answers with a stream: a generator, or a coroutine that writes."""
    if inspect.isasyncgenfunction(behaviour):
        async with aclosing(behaviour(request, context)) as replies:
            async for reply in replies:
                await context.write(reply)
    else:
        await behaviour(request, context)


async def _abort(context: Any, error: PoolError) -> None:
    status = rpc_status(as_pool_error(error))
    await context.abort(STATUS[status.code], status.message, (("grpc-status-details-bin", status.SerializeToString()),))
