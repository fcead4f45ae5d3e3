"""The publish stream at the gRPC door: how many at once, how large a group, and what stands behind a gap."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from exchange.api import grpc as door
from exchange.api.waiting import STREAMS
from schemas.access import Actor, ActorKind, Role
from schemas.errors import ConflictError, Reason
from schemas.names import ConnectorId, Lane, Topic
from schemas.proto.pool.v1 import exchange_pb2 as wire
from schemas.proto.pool.v1 import exchange_pb2_grpc as stubs
from schemas.record import Receipt

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
        self.checked = threading.Semaphore(0)

    def check(self, _: Actor, __: object, submission: Any) -> Any:
        self.checked.release()
        return SimpleNamespace(sequence=submission.sequence, append=SimpleNamespace(keys=[b""]))

    def append(self, ready: Sequence[Any]) -> list[Receipt]:
        self.groups.append([each.sequence for each in ready])
        self.first.set()
        assert self.go.wait(20)
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
    monkeypatch.setattr(door, "peer_certificate", lambda _: b"")
    return Publishing()


def play(publishing: Publishing, scene: Scene) -> None:
    """Serve the door in this process and run the scene with a stub of it."""

    async def run() -> None:
        pool: Any = SimpleNamespace(publishing=publishing, identify=lambda _: ACTOR)
        with ThreadPoolExecutor(4) as threads:
            server = grpc.aio.server()
            servicer = door.ExchangeServicer(pool, threads, None, max_queued=64)  # type: ignore[arg-type]  # no fetch
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
        held = [stub.Publish() for _ in range(STREAMS)]
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
