"""HTTP connections within bounds, on real sockets: headers, slow callers, early answers, connections of an address."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvicorn

from exchange.api.admission import http_protocol
from exchange.api.admission.http_protocol import MAX_HEADERS, BoundedProtocol
from exchange.api.admission.http_server import BoundedServer, connection_limiter
from tests.kit.patience import PATIENCE

Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Read the body where the path says so; answer with as much as the path says."""
    path = scope["path"]
    if path.startswith("/read"):
        while (await receive()).get("more_body"):
            pass
    body = b"x" * (50_000_000 if path == "/large" else 4)
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def serve(test: Callable[[int], Coroutine[Any, Any, None]], per_source: int = 100) -> None:
    async def main() -> None:
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            application, log_config=None, access_log=False, lifespan="off", ws="none", http=BoundedProtocol
        )
        server = BoundedServer(config, "test", connection_limiter(1000, per_source))
        serving = asyncio.create_task(server._serve([bound]))
        while not server.started:  # noqa: ASYNC110 - uvicorn reports it by this flag alone
            await asyncio.sleep(0.01)
        try:
            await test(bound.getsockname()[1])
        finally:
            server.should_exit = server.force_exit = True
            await serving
            for connection in list(server.server_state.connections):
                connection.transport.abort()  # type: ignore[union-attr]
            await asyncio.sleep(0.05)

    asyncio.run(main())


async def ask(peer: Peer, request: bytes) -> bytes:
    """Send a request; return the status line and what follows, up to the end of its four bytes."""
    peer[1].write(request)
    head = await asyncio.wait_for(peer[0].readuntil(b"\r\n\r\n"), PATIENCE)
    if b" 200 " in head:
        assert await peer[0].readexactly(4) == b"xxxx"
    return head


async def ended(peer: Peer) -> bytes:
    """Return what comes until the connection is closed."""
    try:
        found = await asyncio.wait_for(peer[0].read(), PATIENCE)
    except ConnectionError:
        found = b""
    peer[1].close()
    return found


def test_headers_have_a_size_and_a_connection_goes_on_below_it() -> None:
    async def test(port: int) -> None:
        peer = await asyncio.open_connection("127.0.0.1", port)
        fits = b"GET / HTTP/1.1\r\nX: " + b"x" * (MAX_HEADERS - 100) + b"\r\n\r\n"
        assert b" 200 " in await ask(peer, fits)
        assert b" 200 " in await ask(peer, fits)
        too_large = b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEADERS + b"\r\n\r\n"
        assert b" 431 " in await ask(peer, too_large)
        await ended(peer)
        many = await asyncio.open_connection("127.0.0.1", port)
        assert b" 431 " in await ask(many, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000)
        await ended(many)

    serve(test)


def test_trailers_and_chunk_extensions_count_as_headers() -> None:
    async def test(port: int) -> None:
        head = b"POST /read HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        for more in (b"4\r\nbody\r\n0\r\n" + b"T: x\r\n" * 200_000, b"4;" + b"e=1;" * 400_000):
            peer = await asyncio.open_connection("127.0.0.1", port)
            assert b" 431 " in await ask(peer, head + more)
            await ended(peer)

    serve(test)


def test_who_drips_headers_or_line_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEADERS_SECONDS", 0.3)

    async def test(port: int) -> None:
        for first, drip in ((b"", b""), (b"GET / HTTP/1.1\r\n", b"X"), (b"GET / HTTP/1.1\r\n\r\n", b"\r\n")):
            peer = await asyncio.open_connection("127.0.0.1", port)
            peer[1].write(first)

            async def keep_on(peer: Peer = peer, drip: bytes = drip) -> None:
                while drip and not peer[1].is_closing():
                    peer[1].write(drip)
                    await asyncio.sleep(0.05)

            dripping = asyncio.create_task(keep_on())
            await ended(peer)
            await dripping

    serve(test)


@pytest.mark.parametrize("asked", [b"", b"Connection: close\r\n"])
@pytest.mark.parametrize("rest", [b"after", b""])
def test_an_answer_before_the_whole_body_arrives_and_says_that_the_connection_ends(asked: bytes, rest: bytes) -> None:
    """A client that took the connection for usable would have its next request reset."""

    async def test(port: int) -> None:
        peer = await asyncio.open_connection("127.0.0.1", port)
        assert b"connection: close" not in await ask(peer, b"POST /read HTTP/1.1\r\nContent-Length: 5\r\n\r\nwhole")
        head = await ask(peer, b"POST / HTTP/1.1\r\n" + asked + b"Content-Length: 10\r\n\r\nfirst")
        assert b" 200 " in head
        assert b"connection: close" in head
        peer[1].write(rest)
        assert await ended(peer) == b""  # not a second answer, and no reset before the first was read

    serve(test)


def test_what_cannot_be_parsed_after_an_early_answer_has_none() -> None:
    async def test(port: int) -> None:
        peer = await asyncio.open_connection("127.0.0.1", port)
        head = await ask(peer, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n")
        assert b"connection: close" in head
        peer[1].write(b"ZZZ no size of a chunk\r\n\r\n")
        assert await ended(peer) == b""

    serve(test)


def test_who_does_not_read_its_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "_STALLED_SECONDS", 0.3)

    async def test(port: int) -> None:
        peer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        peer[1].write(b"GET /large HTTP/1.1\r\n\r\n")
        while not peer[1].is_closing():
            await asyncio.sleep(0.05)
            peer[1].write(b"\r\n")

    serve(test)


def test_an_address_has_so_many_connections_and_gives_them_back() -> None:
    async def served(port: int) -> bool:
        peer = await asyncio.open_connection("127.0.0.1", port)
        try:
            peer[1].write(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            return b" 200 " in await peer[0].read()
        except ConnectionError:
            return False
        finally:
            peer[1].close()

    async def test(port: int) -> None:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        for peer in held:
            assert b" 200 " in await ask(peer, b"GET / HTTP/1.1\r\n\r\n")
        assert not await served(port)
        held[0][1].close()
        while not await served(port):  # noqa: ASYNC110 - the server says nowhere else when a place is free
            await asyncio.sleep(0.02)
        for peer in held:
            peer[1].close()

    serve(test, per_source=5)


def test_what_all_connections_throw_away_in_a_second_is_bounded() -> None:
    discarded = http_protocol._Discarded()
    assert sum(discarded.add(64 * 1024, 10.0 + number / 10_000) for number in range(2_000)) == 512  # 32 MiB
    assert discarded.add(64 * 1024, 11.5)
