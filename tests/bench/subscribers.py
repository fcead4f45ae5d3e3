"""1,000 idle long polls on one gateway: its memory, and how long one record takes to wake them all."""

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import psutil

from schemas.names import Topic
from schemas.proto.pool.v1 import exchange_pb2 as wire
from schemas.proto.pool.v1 import exchange_pb2_grpc as stubs
from tests.bench.report import Row
from tests.bench.workload import batches, encoded
from tests.kit.world.publisher import Publisher

if TYPE_CHECKING:
    from tests.bench.__main__ import Bench

_CHANNELS = 20
_DEPARTMENTS = 10
_WAIT = 55.0  # seconds of one long poll
_TARGET = 300  # MB that the gateway may take


def measure(bench: "Bench", count: int) -> list[Row]:
    """Make *count* grants, let each be polled, publish one record, and see who wakes when."""
    offices = [office for office, _ in bench.consumers(_DEPARTMENTS)]
    with ThreadPoolExecutor(2) as threads:
        grants = list(threads.map(lambda number: bench.ask_masked(offices[number % _DEPARTMENTS]), range(count)))
    print(f"subscribers: {count} grants are in force", file=sys.stderr, flush=True)
    return asyncio.run(_measure(bench, grants))


async def _measure(bench: "Bench", grants: list[str]) -> list[Row]:
    assert bench.world.process is not None
    process = psutil.Process(bench.world.process.pid)
    credentials = [
        grpc.ssl_channel_credentials(identity.authority, identity.key, identity.certificate)
        for _, identity in bench.consumers(_DEPARTMENTS)
    ]
    options = (("grpc.use_local_subchannel_pool", 1),)
    channels = [  # the number of a grant leads to a channel of its own department
        grpc.aio.secure_channel(bench.world.addresses["gateway"], credentials[number % _DEPARTMENTS], options)
        for number in range(_CHANNELS)
    ]
    calls = [stubs.ExchangeStub(channel) for channel in channels]  # type: ignore[no-untyped-call]
    header = wire.RequestHeader(purpose="eligibility", case_number="STANDING-1")

    async def poll(number: int, position: bytes, wait: float) -> tuple[bytes, int]:
        request = wire.FetchRequest(
            header=header, grant_id=grants[number], position=position, max_records=16_384, wait_ms=int(wait * 1000)
        )
        reply = await calls[number % _CHANNELS].Fetch(request, timeout=wait + 60)
        return reply.next_position, len(reply.view.record_keys) // 16

    # The first record of a cluster waits two seconds for Kafka's own topics, which is no part of a wave.
    await asyncio.to_thread(_publish_one, bench)
    # Bring the first one to the end of the topic; the others take over its scan position through their own grant.
    places = []
    for number in range(len(grants)):
        position, released = b"", 1
        while released:
            position, released = await poll(number, position, 0.0)
        places.append(position)
    before = process.memory_info().rss / 1e6
    polls = [asyncio.create_task(poll(number, places[number], _WAIT)) for number in range(len(grants))]
    await asyncio.sleep(20)
    idle = process.memory_info().rss / 1e6
    used = bench.processors()
    started = time.monotonic()
    await asyncio.to_thread(_publish_one, bench)
    woken = [await each for each in asyncio.as_completed(polls)]
    seconds = time.monotonic() - started
    used = {name: after - used[name] for name, after in bench.processors().items()}
    for channel in channels:
        await channel.close()
    got = sum(1 for _, released in woken if released == 1)
    if got != len(grants):
        raise RuntimeError(f"{got} of {len(grants)} subscribers got the one record")
    print(f"subscribers: {idle:,.0f} MB idle, all woken in {seconds:.2f} s", file=sys.stderr, flush=True)
    return [
        Row(
            name=f"{len(grants)} idle subscribers, gateway's resident memory",
            ours=idle,
            baseline=_TARGET,
            ratio=idle / _TARGET,
            unit="MB",
            spread="one run",
            notes=f"baseline = the limit; {before:,.0f} MB before they came",
        ),
        Row(
            name=f"wake: one record wakes {len(grants)} subscribers, each with its own grant, decision and entry",
            ours=1000 * seconds,
            baseline=1000 * seconds,
            ratio=1.0,
            unit="ms",
            spread="one run",
            notes="from the publish call to the last answer; no baseline; CPU: "
            + ", ".join(f"{name} {value:.2f} s" for name, value in used.items()),
        ),
    ]


def _publish_one(bench: "Bench") -> None:
    identity = bench.source
    topic = Topic.parse("population.v1")
    publisher = Publisher(identity.pool_id, identity.department, identity.connector, str(topic), identity.signing_key)
    with bench.world.client(identity) as pool:
        schema_id, _ = pool.schema(topic)
        standing = pool.resume(topic)
        publisher.sequence, publisher.root = standing.sequence, standing.root
        from registry.codec.framing import add_frames

        one = batches(1)[0]
        list(pool.publish(topic, [publisher.batch(add_frames(schema_id, encoded(one)))]))
