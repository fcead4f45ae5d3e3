"""The publish stream at the gRPC service: how many at once, how large a group, and what stands behind a gap."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY

from exchange.api import grpc as servicers
from exchange.api.admission.publish_backpressure import FLOW_CONTROL, MAX_STREAMS
from exchange.api.admission.scheduler import FairScheduler
from schemas.access import Actor, ActorKind, Role
from schemas.errors import ConflictError, Reason
from schemas.names import ConnectorId, Lane, Topic
from schemas.proto.pool.v1 import exchange_pb2 as wire
from schemas.proto.pool.v1 import exchange_pb2_grpc as stubs
from schemas.record import Receipt
from tests.kit.patience import PATIENCE

TOPIC = Topic.parse("permits.v1")
ACTOR = Actor(
    kind=ActorKind.MACHINE,
    id="source",
    department="01890000-0000-7000-8000-000000000001",
    role=Role.CONNECTOR,
    certificate="a1",
)


class Publishing:
    """Checks nothing; notes each group that is appended, and refuses what comes behind a gap."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.first = threading.Event()
        self.go = threading.Event()
        self.gap_from: int | None = None
        self.slow: str | None = None
        self.checked = threading.Semaphore(0)
        self.checks: Counter[str] = Counter()

    def check(self, actor: Actor, _: object, submission: Any) -> Any:
        self.checks[actor.id] += 1
        self.checked.release()
        append = SimpleNamespace(keys=[b""], lane=SimpleNamespace(topic=TOPIC))
        return SimpleNamespace(
            who=actor.id, sequence=submission.sequence, append=append, submission=submission, retracts=False
        )

    def append(self, ready: Sequence[Any]) -> list[Receipt]:
        self.groups.append([each.sequence for each in ready])
        self.first.set()
        assert (self.slow is not None and ready[0].who != self.slow) or self.go.wait(20)
        if self.gap_from is not None and ready[0].sequence >= self.gap_from:
            raise ConflictError(Reason.SEQUENCE_GAP, "got a later batch than the next one")
        return [
            Receipt(
                lane=Lane(ACTOR.department, ConnectorId(ACTOR.id), TOPIC),
                sequence=each.sequence,
                root=bytes(32),
                runs=(),
                entry_id="e",
                leaf_hash=bytes(32),
                source_position=b"",
            )
            for each in ready
        ]


Scene = Callable[[Any], Coroutine[Any, Any, None]]


@pytest.fixture
def publishing(monkeypatch: pytest.MonkeyPatch) -> Publishing:
    who = dict.get
    monkeypatch.setattr(
        servicers, "peer_certificate", lambda context: who(dict(context.invocation_metadata()), "who", "")
    )
    return Publishing()


def play(publishing: Publishing, scene: Scene, *, waiting: int = 1 << 30) -> None:
    """Serve the service in this process and run the scene with a stub of it."""

    async def run() -> None:
        pool: Any = SimpleNamespace(publishing=publishing, identify=lambda who: replace(ACTOR, id=who or ACTOR.id))
        with ThreadPoolExecutor(4) as threads:
            server = grpc.aio.server(options=FLOW_CONTROL)
            scheduler = FairScheduler(threads, slots=4, share=4, contended=4, limit=64)
            no_fetch: Any = None
            servicer = servicers.ExchangeServicer(pool, scheduler, no_fetch, max_pending_bytes=waiting)
            stubs.add_ExchangeServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                try:
                    await asyncio.wait_for(scene(stubs.ExchangeStub(channel)), 30)  # type: ignore[no-untyped-call]
                finally:
                    publishing.go.set()
                    await server.stop(None)

    asyncio.run(run())


async def batches(numbers: Sequence[int]) -> AsyncIterator[wire.PublishRequest]:
    for number in numbers:
        yield wire.PublishRequest(topic=str(TOPIC), sequence=number)


def test_what_waits_joins_the_next_append_and_no_more_than_may_wait(publishing: Publishing) -> None:
    async def scene(stub: Any) -> None:
        call = stub.Publish(batches(range(1, 41)))
        assert await asyncio.to_thread(lambda: all(publishing.checked.acquire(timeout=20) for _ in range(17)))
        publishing.go.set()
        assert [reply.sequence async for reply in call if reply.HasField("receipt")] == list(range(1, 41))

    play(publishing, scene)
    assert [number for group in publishing.groups for number in group] == list(range(1, 41))
    assert 8 <= max(map(len, publishing.groups)) <= 16


def test_what_stands_behind_a_gap_is_refused_with_it_in_one_look(publishing: Publishing) -> None:
    publishing.gap_from = 5

    async def scene(stub: Any) -> None:
        call = stub.Publish(batches([5, *range(6, 14)]))
        await asyncio.to_thread(publishing.first.wait, 20)
        assert await asyncio.to_thread(lambda: all(publishing.checked.acquire(timeout=20) for _ in range(9)))
        publishing.go.set()
        refused = [reply.refusal.reason async for reply in call if reply.HasField("refusal")]
        assert refused == ["sequence_gap"] * 9

    play(publishing, scene)
    assert len(publishing.groups) < 9, "those behind the first one stood together"
    assert sorted(number for group in publishing.groups for number in group) == list(range(5, 14)), "each asked once"


def test_a_connector_has_a_few_streams_and_an_ended_one_frees_its_place(publishing: Publishing) -> None:
    async def scene(stub: Any) -> None:
        publishing.go.set()
        held = [stub.Publish() for _ in range(MAX_STREAMS)]
        for number, each in enumerate(held, 1):
            await each.write(wire.PublishRequest(topic=str(TOPIC), sequence=number))
            assert (await each.read()).HasField("receipt")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Publish(batches([99])).read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await held[0].done_writing()
        assert await held[0].read() == grpc.aio.EOF
        again = stub.Publish(batches([100]))
        assert (await again.read()).HasField("receipt")
        for each in held[1:]:
            each.cancel()

    play(publishing, scene)


MEGABYTE = 1 << 20


async def large(numbers: Sequence[int], drawn: list[int]) -> AsyncIterator[wire.PublishRequest]:
    """Batches that weigh two megabytes each, as weight goes."""
    for number in numbers:
        drawn.append(number)
        yield wire.PublishRequest(
            topic=str(TOPIC), sequence=number, plain=wire.PlainRecords(values=wire.Packed(values=bytes(MEGABYTE)))
        )


def waits() -> float:
    return REGISTRY.get_sample_value("pool_publish_waiting_bytes") or 0.0


def test_what_a_gateway_holds_of_all_streams_is_bounded_and_nobody_is_shut_out(publishing: Publishing) -> None:
    """Two connectors whose appends stand still, with all their streams; a third one publishes as ever meanwhile."""
    publishing.slow = "slow"

    async def scene(stub: Any) -> None:
        metadata = (("who", "slow"),)
        sent: list[list[int]] = [[] for _ in range(3)]
        calls = [stub.Publish(large(range(1, 31), drawn), metadata=metadata) for drawn in sent]
        # Half of 32 MB, and at most one batch more for each of the streams.
        assert await asyncio.to_thread(lambda: all(publishing.checked.acquire(timeout=20) for _ in range(8)))
        quick = stub.Publish(large(range(1, 21), []), metadata=(("who", "quick"),))
        assert [reply.sequence async for reply in quick if reply.HasField("receipt")] == list(range(1, 21))
        assert 8 <= publishing.checks["slow"] <= 11
        assert 16 * MEGABYTE <= waits() <= 23 * MEGABYTE
        # Beside what was read, a window of four batches for each stream, and one batch that is being written.
        assert sum(map(len, sent)) <= 11 + 3 * (4 + 2), "the gateway reads no further, and so the connector cannot send"
        publishing.go.set()
        for call in calls:
            assert len([reply async for reply in call if reply.HasField("receipt")]) == 30
        assert publishing.checks["slow"] == 90, "nothing was refused, only delayed"
        assert waits() == 0

    play(publishing, scene, waiting=32 * MEGABYTE)


def test_a_stream_that_is_cut_off_leaves_nothing_held(publishing: Publishing) -> None:
    async def scene(stub: Any) -> None:
        call = stub.Publish(large(range(1, 31), []))
        assert await asyncio.to_thread(lambda: all(publishing.checked.acquire(timeout=20) for _ in range(8)))
        assert waits() >= 16 * MEGABYTE
        call.cancel()
        publishing.go.set()
        for _ in range(int(100 * PATIENCE)):
            if not waits():
                break
            await asyncio.sleep(0.01)
        assert waits() == 0
        again = stub.Publish(large(range(31, 41), []))
        assert [reply.sequence async for reply in again if reply.HasField("receipt")] == list(range(31, 41))

    play(publishing, scene, waiting=32 * MEGABYTE)


def test_what_a_cut_off_stream_appends_is_counted_until_it_is_done(
    publishing: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread holds the batches and a place among the gateway's threads, whether somebody waits for it or not."""
    monkeypatch.setattr(servicers, "MAX_STREAMS", 3)

    async def scene(stub: Any) -> None:
        for number in range(1, 4):
            call = stub.Publish(large([number], []))
            assert await asyncio.to_thread(publishing.checked.acquire, timeout=20)
            for _ in range(int(100 * PATIENCE)):
                if len(publishing.groups) == number:
                    break
                await asyncio.sleep(0.01)
            call.cancel()
        await asyncio.sleep(0.1)
        assert len(publishing.groups) == 3
        assert waits() >= 6 * MEGABYTE
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Publish(batches([99])).read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        publishing.go.set()
        for _ in range(int(100 * PATIENCE)):
            if not waits():
                break
            await asyncio.sleep(0.01)
        assert waits() == 0
        assert (await stub.Publish(batches([100])).read()).HasField("receipt")

    play(publishing, scene)
