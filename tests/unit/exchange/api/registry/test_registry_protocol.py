"""The registry's connections: what one turn of the event loop writes goes out at once, in order, before an end."""

import asyncio
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from exchange.api.admission.http_protocol import client_certificate
from exchange.api.registry.protocol import RegistryProtocol, _CoalescingTransport


class Recording:
    """Keeps what reaches the real transport."""

    def __init__(self) -> None:
        self.calls: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def close(self) -> None:
        self.calls.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.calls

    def get_extra_info(self, name: str) -> str:
        return f"extra {name}"


def run(use: Any) -> list[bytes | str]:
    recording = Recording()

    async def main() -> None:
        await use(_CoalescingTransport(cast("asyncio.Transport", recording)))
        await asyncio.sleep(0)

    asyncio.run(main())
    return recording.calls


def test_a_head_and_a_body_are_one_write() -> None:
    async def use(transport: _CoalescingTransport) -> None:
        transport.write(b"head")
        transport.write(b"body")
        await asyncio.sleep(0)
        transport.write(b"next")

    assert run(use) == [b"headbody", b"next"]


def test_what_is_pending_goes_out_before_the_end() -> None:
    async def use(transport: _CoalescingTransport) -> None:
        transport.write(b"head")
        transport.write(b"body")
        transport.close()

    assert run(use) == [b"headbody", "closed"]


def test_all_else_is_the_real_transport_s() -> None:
    async def use(transport: _CoalescingTransport) -> None:
        assert transport.get_extra_info("peername") == "extra peername"
        assert not transport.is_closing()

    assert run(use) == []


class Connection(Recording):
    """A connection behind TLS, or without it."""

    def __init__(self, certificate: bytes | None) -> None:
        super().__init__()
        self.certificate = certificate

    def getpeercert(self, *, binary_form: bool) -> bytes | None:
        assert binary_form
        return self.certificate

    def get_extra_info(self, name: str) -> Any:
        return {"ssl_object": self if self.certificate else None, "peername": ("127.0.0.1", 1)}.get(name)


@pytest.mark.parametrize("certificate", [None, b"certificate"])
def test_only_behind_tls_is_a_response_held_until_the_end_of_the_turn(certificate: bytes | None) -> None:
    seen = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(client_certificate(scope))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"body"})

    async def main() -> list[bytes | str]:
        config = uvicorn.Config(application, log_config=None, access_log=False, lifespan="off", http=RegistryProtocol)
        config.load()
        protocol: Any = RegistryProtocol(
            config=config, server_state=ServerState(), app_state={}, _loop=asyncio.get_running_loop()
        )
        connection = Connection(certificate)
        protocol.connection_made(connection)
        protocol.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(5):
            await asyncio.sleep(0)
        return connection.calls

    written = asyncio.run(main())
    assert seen == [certificate]
    assert len(written) == (1 if certificate else 2)
    assert b"".join(one for one in written if isinstance(one, bytes)).endswith(b"\r\n\r\nbody")
