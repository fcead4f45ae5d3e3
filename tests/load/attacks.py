"""Clients of the department that attacks: `python -m tests.load.attacks ROW SETTINGS.json`, at the lowest priority.

Each row repeats what it does until the process is killed, through as many connections and certificates as it has.
"""

import asyncio
import json
import os
import ssl
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import httpx

from exchange.client import Identity
from schemas.proto.pool.v1 import enrolment_pb2
from schemas.proto.pool.v1 import exchange_pb2 as wire

MIB = 1024 * 1024
_FETCH, _ENROL = "/pool.v1.Exchange/Fetch", "/pool.v1.Enrolment/Enrol"
_HELLO = "/pool.v1.Exchange/Hello"
_WATCH = "/grpc.health.v1.Health/Watch"
_REFLECT = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 * MIB))


class Attacker:
    """What the attacking department has: connectors, accounts, addresses."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.identities = [Identity.load(Path(folder)) for folder in settings["connectors"]]
        self.revoked = Identity.load(Path(settings["revoked"]))
        self.addresses, self.accounts = settings["addresses"], settings["accounts"]
        self.authority = Path(settings["authority"])
        self.grant, self.topic = settings["grant"], settings["topic"]

    def channels(self, number: int, identity: Identity | None = None, address: str = "gateway") -> list[Any]:
        """Return connections of their own, of the connectors in turn; without a certificate at other listeners."""
        made = []
        for index in range(number):
            who = identity or self.identities[index % len(self.identities)]
            credentials = (
                grpc.ssl_channel_credentials(who.authority, who.key, who.certificate)
                if address == "gateway"
                else grpc.ssl_channel_credentials(self.authority.read_bytes())
            )
            made.append(grpc.aio.secure_channel(self.addresses[address], credentials, _OPTIONS))
        return made

    def http(self, account: str, listener: str = "http") -> httpx.AsyncClient:
        """Return a client of the control API or the registry, as an account."""
        return httpx.AsyncClient(
            base_url=f"https://{self.addresses[listener]}",
            verify=str(self.authority),
            headers={"authorization": self.accounts[account]},
            timeout=120,
            limits=httpx.Limits(max_connections=64),
        )

    def fetch(self, case: str = "STANDING-1") -> bytes:
        """Return the largest fetch there is, from the beginning."""
        return wire.FetchRequest(
            header=wire.RequestHeader(purpose="eligibility", case_number=case), grant_id=self.grant, position=b"\x00"
        ).SerializeToString()


async def bodies(attacker: Attacker) -> None:
    """S1: chunked bodies without an end, at every HTTP listener, of nobody."""
    tls = ssl.create_default_context(cafile=str(attacker.authority))
    chunk = b"10000\r\n%s\r\n" % (b"x" * 65_536)

    async def send(listener: str) -> None:
        host, port = attacker.addresses[listener].rsplit(":", 1)
        plain = listener == "metrics"
        reader, writer = await asyncio.open_connection(host, int(port), ssl=None if plain else tls)
        try:
            head = "POST /v1/requests HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            for _ in range(400 * MIB // 65_536):
                writer.write(chunk)
                await writer.drain()
            await reader.read()
        finally:
            writer.transport.abort()

    await _always(*(lambda one=one: send(one) for one in ("http", "registry", "metrics") for _ in range(8)))


async def enrolments(attacker: Attacker) -> None:
    """S2: messages of 11 MiB at the enrolment listener."""
    message = enrolment_pb2.EnrolRequest(token="x" * 11 * MIB).SerializeToString()
    channels = attacker.channels(16, address="enrolment")
    await _always(*(lambda one=one: one.unary_unary(_ENROL)(message, timeout=30) for one in channels for _ in range(4)))


async def watches(attacker: Attacker) -> None:
    """S3: health and reflection streams of a revoked connector, and of good ones, as many as are taken."""
    channels = attacker.channels(8, attacker.revoked) + attacker.channels(8)

    async def hold(channel: Any, method: str) -> None:
        call = channel.stream_stream(method)()
        try:
            await call.write(b"")
            async for _ in call:
                pass
        finally:
            call.cancel()

    streams = [(channel, method) for channel in channels for method in (_WATCH, _REFLECT, _FETCH) for _ in range(42)]
    await _always(*(lambda one=one: hold(*one) for one in streams), pause=0.5)


async def fetches(attacker: Attacker) -> None:
    """S5: 200 fetches at once under one grant, from the beginning again and again, and small calls in between."""
    channels, request = attacker.channels(16), attacker.fetch()
    hello = wire.HelloRequest(header=wire.RequestHeader()).SerializeToString()
    calls = [lambda one=channels[index % 16]: one.unary_unary(_FETCH)(request, timeout=120) for index in range(200)]
    calls += [lambda one=channels[index % 16]: one.unary_unary(_HELLO)(hello, timeout=120) for index in range(32)]
    await _always(*calls)


async def unread(attacker: Attacker) -> None:
    """S9: fetches whose answers nobody takes."""
    channels, request = attacker.channels(32), attacker.fetch()

    async def ask(channel: Any) -> None:
        call = channel.stream_stream(_FETCH)()
        try:
            await call.write(request)
            await call.done_writing()
            await asyncio.sleep(20)
        finally:
            call.cancel()

    await _always(*(lambda one=channels[index % 32]: ask(one) for index in range(400)))


async def denials(attacker: Attacker) -> None:
    """S6: an account that may not, naming another resource each time; a connector with a case of its own each time."""
    number = count()
    channels = attacker.channels(8)
    async with attacker.http("catalogue_editor") as http:

        async def ask() -> None:
            await http.post(f"/v1/grants/{next(number):032x}/approval")

        async def fetch(channel: Any) -> None:
            await channel.unary_unary(_FETCH)(attacker.fetch(f"OTHER-{next(number)}"), timeout=120)

        await _always(*[ask] * 32, *(lambda one=one: fetch(one) for one in channels for _ in range(4)))


async def lists(attacker: Attacker) -> None:
    """G1, G4: lists of every kind, requests with long texts, schemas."""
    number = count()
    async with (
        attacker.http("sharing_office_head") as head,
        attacker.http("catalogue_editor") as editor,
        attacker.http("catalogue_editor", "registry") as registry,
    ):
        paths = ("/v1/grants", "/v1/catalogue", "/v1/departments", "/v1/audit/entries?limit=1000", "/v1/purposes")

        async def request() -> None:
            body = {"topic": attacker.topic, "fields": ["permit_no"], "purpose": "eligibility", "case": "STANDING-1"}
            body |= {
                "legal_basis": "x" * 2_000,
                "not_before": "2026-01-01T00:00:00Z",
                "expires": "2036-01-01T00:00:00Z",
            }
            await head.post("/v1/requests", json=body)

        async def register() -> None:
            fields = [{"name": f"f{one}", "type": "string"} for one in range(1_000)]
            schema = json.dumps({"type": "record", "name": f"R{next(number)}", "fields": fields})
            await registry.post(f"/subjects/load-{next(number)}/versions", json={"schema": schema})

        calls: list[Callable[[], Awaitable[Any]]] = [
            partial(who.get, one) for one in paths for who in (head, editor) for _ in range(3)
        ]
        calls += (
            [request] * 8 + [register] * 8 + [lambda: registry.get("/subjects"), lambda: registry.get("/schemas")] * 4
        )
        await _always(*calls)


async def everything(attacker: Attacker) -> None:
    """All rows at once."""
    await asyncio.gather(*(row(attacker) for name, row in ROWS.items() if name != "all"))


Attack = Callable[[Attacker], Coroutine[Any, Any, None]]
ROWS: dict[str, Attack] = {
    "S1": bodies,
    "S2": enrolments,
    "S3": watches,
    "S5": fetches,
    "S9": unread,
    "S6": denials,
    "G1/G4": lists,
    "all": everything,
}


async def _always(*calls: Callable[[], Awaitable[Any]], pause: float = 0.0) -> None:
    """Repeat each of these calls, all at the same time; whatever comes of them."""

    async def repeat(call: Callable[[], Awaitable[Any]]) -> None:
        while True:
            refused = True
            with suppress(
                grpc.aio.AioRpcError, grpc.aio.UsageError, httpx.HTTPError, OSError, asyncio.InvalidStateError
            ):
                await call()
                refused = False
            await asyncio.sleep(max(pause, 0.01 if refused else 0.0))

    await asyncio.gather(*(repeat(one) for one in calls))


def main() -> None:
    """Attack until killed."""
    os.nice(19)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # every other process that wakes takes the core at once
    attacker = Attacker(json.loads(Path(sys.argv[2]).read_text()))
    asyncio.run(ROWS[sys.argv[1]](attacker))


if __name__ == "__main__":
    main()
