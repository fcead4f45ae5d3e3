"""Stub gateways over gRPC without TLS: they say what a test tells them to say, true or not."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric import ed25519

from exchange.client import Identity, PoolClient
from schemas.proto.pool.v1 import exchange_pb2_grpc as stubs


class PlaintextClient(PoolClient):
    """The real client, but for TLS."""

    def _connect(self, address: str) -> grpc.Channel:
        return grpc.insecure_channel(address)


@contextmanager
def serving(servicer: stubs.ExchangeServicer) -> Iterator[str]:
    """Serve a stub; give its address."""
    server = grpc.server(ThreadPoolExecutor(2))
    stubs.add_ExchangeServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]  # generated
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield address
    finally:
        server.stop(None).wait()


def identity(gateway: str, **changed: Any) -> Identity:
    """Return an identity whose keys no TLS looks at."""
    return Identity(
        **{
            "pool_id": "pool",
            "department": "019a0000-0000-7000-8000-000000000001",
            "connector": "source",
            "gateway": gateway,
            "certificate": b"",
            "key": b"",
            "authority": b"",
            "signing_key": ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))),
            **changed,
        }
    )
