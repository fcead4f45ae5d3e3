"""The bounds of gRPC calls on a real server: who has a place, what is read of a call, and which calls are ended."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2_grpc

from exchange.access.decision.roles import Standing
from exchange.api.admission import grpc_calls
from exchange.api.admission.grpc_calls import SMALL_MESSAGE, CallBounds, ConnectorAdmission, EnrolmentAdmission
from exchange.api.admission.scheduler import FairScheduler
from schemas.access import Actor, ActorKind, Role
from schemas.errors import Reason, RefusedError, UnavailableError
from schemas.names import ConnectorId
from tests.kit.patience import PATIENCE

WATCH, CHECK = "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/Check"
ECHO, MANY = "/pool.v1.Exchange/Echo", "/pool.v1.Exchange/Many"


class Pool:
    """Knows connectors `department/name`, and which of them are revoked."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()
        self.refusals: Counter[str] = Counter()
        self.looks = 0
        self.identities = SimpleNamespace(standings=self.standings)

    def identify(self, certificate: bytes) -> Actor:
        department, _, name = certificate.decode().partition("/")
        return Actor(
            kind=ActorKind.MACHINE,
            id=ConnectorId(name),
            department=department,
            role=Role.CONNECTOR,
            certificate=certificate.decode(),
        )

    def standings(self, actors: Iterable[Actor]) -> dict[str, Standing]:
        self.looks += 1
        return {
            one.certificate: Standing.REVOKED if one.certificate in self.revoked else Standing.ACTIVE for one in actors
        }

    def require_standing(self, actor: Actor, call: object) -> None:
        del call
        if actor.certificate in self.revoked:
            self.refusals[actor.certificate] += 1
            raise RefusedError(Reason.CERTIFICATE_REVOKED, "revoked")


async def echo(request: bytes, context: Any) -> bytes:
    del context
    return request


async def many(requests: Any, context: Any) -> Any:
    del context
    async for request in requests:
        yield request


class Served:
    """A server, and calls to it."""

    def __init__(self, address: str, pool: Pool) -> None:
        self.address = address
        self.pool = pool
        self.channel = grpc.aio.insecure_channel(address)
        self._readers: set[asyncio.Task[None]] = set()

    def call(self, method: str, who: str) -> Any:
        """Open a call that has sent nothing yet; its answers are read, since its end comes after them."""
        call: Any = self.channel.stream_stream(method)(metadata=(("who", who),))
        self._readers.add(asyncio.create_task(_read(call)))
        return call

    async def code(self, method: str, who: str, message: bytes | None = b"") -> grpc.StatusCode:
        """Make a call with one message, or none, and return how it ended."""
        if message is None:
            call = self.call(method, who)
            await call.done_writing()
        else:
            call = self.channel.unary_stream(method)(message, metadata=(("who", who),))
            await _read(call)
        code: grpc.StatusCode = await asyncio.wait_for(call.code(), PATIENCE)
        return code

    async def held(self, method: str, who: str, count: int, message: bytes | None = None) -> list[Any]:
        """Open calls; return those that stay open."""
        calls = [self.call(method, who) for _ in range(count)]
        for call in calls:
            if message is not None:
                with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # it was refused already
                    await call.write(message)
        assert await self.code(ECHO, "last/one") is grpc.StatusCode.OK  # those before it were decided on
        counts: list[int] = []  # of those that are open; on a busy machine the last refusals may still be on their way
        while len(counts) < 4 or len(set(counts[-4:])) > 1:
            await asyncio.sleep(0.2)
            counts.append(sum(not call.done() for call in calls))
        return [call for call in calls if not call.done()]


async def _read(call: Any) -> None:
    with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        async for _ in call:
            pass


def serve(test: Callable[[Served], Coroutine[Any, Any, None]], monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(
        grpc_calls, "peer_certificate", lambda context: dict(context.invocation_metadata())["who"].encode()
    )

    async def main() -> None:
        pool = Pool()
        with ThreadPoolExecutor(2) as threads:
            admission = ConnectorAdmission(pool, FairScheduler(threads, slots=2, share=2, contended=2, limit=64), limit)  # type: ignore[arg-type]  # a pool of its own
            server = grpc.aio.server(interceptors=[CallBounds(admission)])
            server.add_generic_rpc_handlers(
                (
                    grpc.method_handlers_generic_handler(
                        "pool.v1.Exchange",
                        {
                            "Echo": grpc.unary_unary_rpc_method_handler(echo, bytes, bytes),
                            "Many": grpc.stream_stream_rpc_method_handler(many, bytes, bytes),
                        },
                    ),
                )
            )
            servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs lack it
            health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            served = Served(f"127.0.0.1:{port}", pool)
            try:
                async with admission.watching():
                    await test(served)
            finally:
                await served.channel.close()
                await server.stop(None)

    asyncio.run(main())


def test_open_calls_of_a_revoked_certificate_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(served: Served) -> None:
        watches = await served.held(WATCH, "a/x", 12, b"")
        assert len(watches) == 8  # of health and reflection, for one certificate
        streams = await served.held(MANY, "a/x", 4, b"one")
        others = await served.held(MANY, "a/y", 4)
        served.pool.revoked.add("a/x")
        for call in (*watches, *streams):
            assert await asyncio.wait_for(call.code(), PATIENCE) is grpc.StatusCode.PERMISSION_DENIED
        assert served.pool.refusals["a/x"]
        assert all(not call.done() for call in others)
        assert await served.code(WATCH, "a/x") is grpc.StatusCode.PERMISSION_DENIED
        assert await served.code(CHECK, "a/x") is grpc.StatusCode.PERMISSION_DENIED
        assert await served.code(CHECK, "a/y") is grpc.StatusCode.OK
        # The exchange's own methods refuse for themselves; for that it has a few places.
        assert len(await served.held(MANY, "a/x", 20)) <= 8

    serve(test, monkeypatch, 200)


def test_a_department_has_half_of_the_places_and_a_certificate_a_part_of_these(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(served: Served) -> None:
        first = await served.held(MANY, "a/x", 100)
        assert len(first) == 43  # 43 < 3/4 × 57 free ones no longer holds
        rest = await served.held(MANY, "a/y", 100)
        assert len(first) + len(rest) == 50
        other = await served.held(MANY, "b/x", 100)
        assert 20 <= len(other) <= 25
        for number in range(3):
            assert await served.code(ECHO, f"c/{number}", b"x") is grpc.StatusCode.OK

    serve(test, monkeypatch, 100)


def test_a_department_with_many_refusals_gets_the_next_ones_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_calls, "_REFUSALS", 5)
    monkeypatch.setattr(grpc_calls, "_REFUSALS_A_SECOND", 0.001)
    monkeypatch.setattr(grpc_calls, "_REFUSAL_SECONDS", 10 * PATIENCE)

    async def test(served: Served) -> None:
        open_calls = await served.held(MANY, "a/x", 20)
        served.pool.revoked.add("b/x")
        at_once = [await served.code(WATCH, "b/x") for _ in range(5)]
        assert at_once == [grpc.StatusCode.PERMISSION_DENIED] * 5
        late = await served.held(WATCH, "b/x", 80, b"")
        assert len(late) == 50, "half of the calls; the rest is refused at once, so that the delay takes no memory"
        assert await served.code(ECHO, "a/x", b"x") is grpc.StatusCode.OK
        assert not any(call.done() for call in open_calls)
        for call in late:
            call.cancel()

    serve(test, monkeypatch, 100)


def test_a_connector_whose_calls_fail_many_times_is_served_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_calls, "_FAILURES", 5)
    monkeypatch.setattr(grpc_calls, "_FAILURES_A_SECOND", 0.001)
    monkeypatch.setattr(grpc_calls, "_DELAY_SECONDS", 4.0)

    async def test(served: Served) -> None:
        too_large = b"x" * (SMALL_MESSAGE + 1)
        failed = [await served.code(ECHO, "a/x", too_large) for _ in range(6)]
        assert failed == [grpc.StatusCode.INVALID_ARGUMENT] * 6
        later = served.call(ECHO, "a/x")
        await later.write(b"x")
        await later.done_writing()
        for other in ("a/y", "b/x"):
            assert await served.code(ECHO, other, b"x") is grpc.StatusCode.OK
        assert not later.done()
        assert await asyncio.wait_for(later.code(), PATIENCE) is grpc.StatusCode.OK, "later, but served"

    serve(test, monkeypatch, 100)


def test_a_call_that_sends_no_message_or_a_large_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_calls, "_MESSAGE_SECONDS", 0.3)

    async def test(served: Served) -> None:
        assert await served.code(ECHO, "a/x", b"x" * SMALL_MESSAGE) is grpc.StatusCode.OK
        assert await served.code(ECHO, "a/x", b"x" * (SMALL_MESSAGE + 1)) is grpc.StatusCode.INVALID_ARGUMENT
        assert await served.code(ECHO, "a/x", None) is grpc.StatusCode.INVALID_ARGUMENT
        assert await served.code(CHECK, "a/x", b"\xff\xff") is grpc.StatusCode.INVALID_ARGUMENT, "no protobuf"
        mute = [served.call(ECHO, "a/x") for _ in range(12)]
        assert await asyncio.wait_for(mute[0].code(), PATIENCE) is grpc.StatusCode.INVALID_ARGUMENT
        # More than its department may have received at once; another department's is received at once.
        assert await served.code(ECHO, "b/x", b"x") is grpc.StatusCode.OK
        for call in mute:
            assert await asyncio.wait_for(call.code(), PATIENCE) is grpc.StatusCode.INVALID_ARGUMENT

    serve(test, monkeypatch, 200)


def test_a_source_with_many_refusals_gets_the_next_ones_later_and_another_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grpc_calls, "_SOURCE_REFUSALS", 5)
    monkeypatch.setattr(grpc_calls, "_SOURCE_REFUSALS_A_SECOND", 0.001)
    monkeypatch.setattr(grpc_calls, "_REFUSAL_SECONDS", 10 * PATIENCE)

    async def main() -> None:
        admission = EnrolmentAdmission(16, per_minute=2)

        async def call(source: str) -> str:
            try:
                async with admission.admit("", SimpleNamespace(peer=lambda: f"ipv4:{source}:5")):
                    return "admitted"
            except UnavailableError as error:
                return error.reason

        assert [await call("10.0.0.1") for _ in range(6)] == ["admitted"] + 5 * [Reason.OVERLOADED]
        calls = [asyncio.create_task(call("10.0.0.1")) for _ in range(40)]
        await asyncio.sleep(0)
        assert sum(one.done() for one in calls) == 40 - 16, "so many are late; the rest is refused at once"
        assert await call("10.0.0.2") == "admitted"
        for one in calls:
            one.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(main())


def test_a_source_has_a_rate_at_the_enrolment_listener() -> None:
    async def main() -> Counter[str]:
        admission = EnrolmentAdmission(64, per_minute=60)
        context = SimpleNamespace(peer=lambda: "ipv4:10.0.0.1:5")
        seen: Counter[str] = Counter()
        for _ in range(40):
            try:
                async with admission.admit("", context):
                    seen["admitted"] += 1
            except UnavailableError as error:
                seen[error.reason] += bool(error.retry_after)
        return seen

    seen = asyncio.run(main())
    assert 30 <= seen["admitted"] <= 33
    assert seen[Reason.OVERLOADED] >= 7
