"""gRPC channels to the gateways of a pool under one identity, with failover from one address to the next.

Where several addresses are given, the next one is used after a gateway has not answered: the call that failed is not
repeated here (its caller alone knows whether it may be), the calls after it go to the next address. So a gateway that
died, hangs or is stopped costs one failed call.
"""

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import grpc

from exchange.client.identity import Identity
from schemas.errors import PoolError, Reason
from schemas.proto.pool.v1 import exchange_pb2_grpc as stubs

__all__ = ["Gateway", "Gateways", "secure_channel"]

_MESSAGE_LIMIT = 96 * 1024 * 1024  # bytes; a fetch's reply is bounded by the pool, this only guards memory


class Gateway(NamedTuple):
    """One address of the pool: its number in the list, and the generated stub over its channel."""

    number: int
    stub: Any


class Gateways:
    """The channels of one identity. Thread-safe."""

    def __init__(self, channels: Sequence[grpc.Channel]) -> None:
        """Take over open channels, in the order in which they are tried."""
        self._channels = channels
        self._gateways = [
            Gateway(number, stubs.ExchangeStub(channel))  # type: ignore[no-untyped-call]  # generated
            for number, channel in enumerate(channels)
        ]
        self._current = 0
        self._lock = threading.Lock()

    def current(self) -> Gateway:
        """Return the gateway that calls go to now."""
        return self._gateways[self._current]

    def fail_over(self, failed: Gateway, error: PoolError) -> None:
        """Select the next address if the gateway did not answer, unless another thread has selected it already."""
        if error.reason is Reason.GATEWAY_UNAVAILABLE:
            with self._lock:
                if self._current == failed.number:
                    self._current = (failed.number + 1) % len(self._gateways)

    def close(self) -> None:
        """Close the channels; calls under way end as unavailable."""
        for channel in self._channels:
            channel.close()


def secure_channel(identity: Identity, address: str) -> grpc.Channel:
    """Open a channel to one gateway, with mutual TLS."""
    return grpc.secure_channel(
        address,
        grpc.ssl_channel_credentials(identity.authority, identity.key, identity.certificate),
        options=[
            ("grpc.max_receive_message_length", _MESSAGE_LIMIT),
            ("grpc.max_send_message_length", _MESSAGE_LIMIT),
            # A peer that is stopped, or a lost host, is noticed within 30 s, not by a TCP timeout.
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.use_local_subchannel_pool", 1),
        ],
    )
