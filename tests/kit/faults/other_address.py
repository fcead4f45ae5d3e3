"""A TCP relay whose connections come from another address of the loopback: another source, for a pool that counts them.

with from_address("127.0.0.2", "127.0.0.1:7444") as address:
    ... a connection to `address` reaches the target as one from 127.0.0.2 ...
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def from_address(source: str, target: str) -> Iterator[str]:
    """Relay; give the address to connect to."""
    host, port = target.rsplit(":", 1)
    loop = asyncio.new_event_loop()
    bound: list[str] = []
    ready = threading.Event()
    end = asyncio.Event()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):
                while data := await reader.read(65_536):
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.transport.abort()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream, downstream = await asyncio.open_connection(host, int(port), local_addr=(source, 0))
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, downstream), copy(upstream, writer))

    async def main() -> None:
        server = await asyncio.start_server(relay, "127.0.0.1", 0, backlog=1024)
        bound.append(f"localhost:{server.sockets[0].getsockname()[1]}")
        ready.set()
        await end.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the next turn

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield bound[0]
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(30)
        loop.close()
