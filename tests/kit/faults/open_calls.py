"""gRPC calls of one connector, or of nobody, that stay open: what a caller may do who does not play by the rules."""

import asyncio
import threading
from contextlib import suppress
from typing import Any

import grpc

from exchange.client import Identity
from tests.kit.patience import PATIENCE


class OpenCalls:
    """Calls of one connector, or of nobody, that stay open: each sends one message, if any, and never ends its stream.

    They live in an event loop of their own.
    """

    def __init__(self, address: str, authority: bytes, identity: Identity | None) -> None:
        self._credentials = (
            grpc.ssl_channel_credentials(authority)
            if identity is None
            else grpc.ssl_channel_credentials(authority, identity.key, identity.certificate)
        )
        self._address = address
        self._channels: list[grpc.aio.Channel] = []
        self._calls: list[Any] = []
        self._readers: set[asyncio.Future[None]] = set()
        self.ended: list[grpc.StatusCode] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def open(
        self, method: str, calls: int, *, first: bytes | None = None, channels: int = 4, read: bool = True
    ) -> None:
        """Open calls; return when each is under way. What is not read stays with the server, beyond small windows."""
        asyncio.run_coroutine_threadsafe(self._open(method, calls, first, channels, read), self._loop).result(PATIENCE)

    async def _open(self, method: str, calls: int, first: bytes | None, channels: int, read: bool) -> None:
        options = (("grpc.use_local_subchannel_pool", 1),)
        fresh = [grpc.aio.secure_channel(self._address, self._credentials, options) for _ in range(channels)]
        self._channels += fresh
        for number in range(calls):
            call: Any = fresh[number % channels].stream_stream(method)()
            call.add_done_callback(lambda call: asyncio.ensure_future(self._note(call)))
            self._calls.append(call)
            if read:
                self._readers.add(asyncio.ensure_future(_read(call)))  # its end comes after its answers
            if first is not None:
                with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    await call.write(first)

    async def _note(self, call: Any) -> None:
        code = await call.code()
        # The client's own, for a call that ended while its message was being written.
        self.ended.append(grpc.StatusCode.RESOURCE_EXHAUSTED if code is grpc.StatusCode.INTERNAL else code)

    @property
    def running(self) -> int:
        return len(self._calls) - len(self.ended)

    def close(self) -> None:
        """Cancel every call."""

        async def end() -> None:
            for call in self._calls:
                call.cancel()
            await asyncio.gather(*(channel.close() for channel in self._channels))

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


async def _read(call: Any) -> None:
    with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        async for _ in call:
            pass
