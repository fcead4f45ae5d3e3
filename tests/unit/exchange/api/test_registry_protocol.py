"""The registry's connections: what one turn of the event loop writes goes out at once, in order, before an end."""

import asyncio
from typing import Any, cast

from exchange.api.registry_protocol import _CoalescingTransport


class Recording:
    """Keeps what reaches the real transport."""

    def __init__(self) -> None:
        self.calls: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def close(self) -> None:
        self.calls.append("closed")

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

    assert run(use) == []
