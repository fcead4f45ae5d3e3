"""One client process with 8 keep-alive connections: sends what is in a file, as fast as the answers come.

python -m tests.bench.registry_client REQUESTS.json    prints one JSON line

The file holds {"port", "connections", "warm", "authority", "token", "requests": [[method, path, body] …]}; every
answer must be a 200. With an authority's file it speaks TLS, with a token it sends that; connections stand before the
time is taken.
"""

import asyncio
import json
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEAD = b"HTTP/1.1 200"


class Connection(asyncio.Protocol):
    """Sends the next request when an answer is whole."""

    def __init__(self, requests: Iterator[bytes], done: asyncio.Event, times: list[float]) -> None:
        self.requests, self.done, self.times = requests, done, times
        self.buffer = b""
        self.needed = 0
        self.sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport

    def next(self) -> None:
        request = next(self.requests, None)
        if request is None:
            self.done.set()
            self.transport.close()
            return
        self.sent = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.needed:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            if not self.buffer.startswith(HEAD):
                raise SystemExit(f"got {self.buffer[:500]!r}")
            at = self.buffer.lower().index(b"content-length: ") + 16
            self.needed = end + 4 + int(self.buffer[at : self.buffer.index(b"\r", at)])
        if len(self.buffer) >= self.needed:
            self.times.append(time.perf_counter() - self.sent)
            self.buffer, self.needed = self.buffer[self.needed :], 0
            self.next()


def rendered(method: str, path: str, body: str | None, token: str = "") -> bytes:
    """Return a request as bytes."""
    sent = (body or "").encode()
    extra = f"Authorization: Bearer {token}\r\n" if token else ""
    extra += f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n" if body is not None else ""
    return f"{method} {path} HTTP/1.1\r\nHost: registry\r\n{extra}\r\n".encode() + sent


async def drive(port: int, count: int, requests: list[bytes], authority: str) -> dict[str, float]:
    """Send everything over some connections; give what it took."""
    loop = asyncio.get_running_loop()
    todo, times = iter(requests), list[float]()
    events = [asyncio.Event() for _ in range(count)]
    connections = [Connection(todo, event, times) for event in events]
    more: dict[str, Any] = {}
    if authority:
        more = {"ssl": ssl.create_default_context(cafile=authority), "server_hostname": "localhost"}
    for connection in connections:
        await loop.create_connection(lambda it=connection: it, "127.0.0.1", port, **more)  # type: ignore[misc]
    started = time.perf_counter()
    for connection in connections:
        connection.next()
    await asyncio.gather(*(event.wait() for event in events))
    seconds = time.perf_counter() - started
    times.sort()
    return {
        "requests": len(times),
        "seconds": seconds,
        "p50": times[len(times) // 2],
        "p99": times[len(times) * 99 // 100],
    }


async def main(given: dict[str, Any]) -> dict[str, float]:
    """Warm up, then measure."""
    requests = [rendered(*one, given["token"]) for one in given["requests"]]
    warm, where = given["warm"], (given["port"], given["connections"])
    if warm:
        await drive(*where, requests[:warm], given["authority"])
    return await drive(*where, requests[warm:], given["authority"])


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))))
