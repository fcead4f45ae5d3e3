"""HTTP protocol of the registry's connections: one write per response.

uvicorn writes the head and the body of a response one after the other, and behind TLS each write is a record and a
packet of its own. There what is written in one turn of the event loop is written at once, at the end of the turn. A
short response then takes a quarter less processor time. Without TLS (`serve --dev`, on loopback) a second write costs
less than holding the first one back.
"""

import asyncio
from typing import Any

from exchange.api.admission.http_protocol import BoundedProtocol

__all__ = ["RegistryProtocol"]


class RegistryProtocol(BoundedProtocol):
    """HTTP/1.1 with short answers in one packet."""

    def connection_made(self, transport: Any) -> None:
        """Take over a connection that has just been made."""
        super().connection_made(transport)
        if transport.get_extra_info("ssl_object") is not None:
            self.transport = _CoalescingTransport(transport)


class _CoalescingTransport:
    """A transport whose writes of one turn of the event loop become one; all else goes to the real one."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._call_soon = asyncio.get_running_loop().call_soon
        self._pending: list[bytes] = []
        self.is_closing = transport.is_closing  # asked for each response: an attribute of its own is found faster

    def write(self, data: bytes) -> None:
        """Write at the end of this turn."""
        if not self._pending:
            self._call_soon(self._flush)
        self._pending.append(data)

    def close(self) -> None:
        """Close the connection after what is pending is written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._pending:
            pending, self._pending = self._pending, []
            self._transport.write(b"".join(pending))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
