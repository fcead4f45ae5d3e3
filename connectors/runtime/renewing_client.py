"""The way to the pool that lasts longer than a certificate.

Certificates live 30 days. In their last ten the next one is asked for, with the one that is still good, and a new
connection takes the place of the old one; calls under way end on the old one first.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from typing_extensions import override

from connectors.port import Pool
from exchange.client import Fetched, Hello, Identity, PoolClient, Standing, Subscription, renew
from schemas.names import Topic
from schemas.record import Batch, Receipt

__all__ = ["RenewingPoolClient"]

_RENEW_BEFORE = timedelta(days=10)


class RenewingPoolClient(Pool):
    """`connectors.port.Pool` over a client that is replaced when its certificate is. Thread-safe."""

    def __init__(self, folder: Path, gateway: str, clock: Callable[[], datetime]) -> None:
        """Load the identity.

        Args:
            folder: of the identity.
            gateway: host:port; empty = as enrolment wrote it down.
            clock: of the certificate's age.

        Raises:
            InvalidError: CONFIG_INVALID, when there is no usable identity.
        """
        self._folder = folder
        self._gateway = gateway or None
        self._clock = clock
        self._lock = threading.Lock()
        self.identity = Identity.load(folder)
        self._client = PoolClient(self.identity, address=self._gateway)

    def sign(self, statement: bytes) -> bytes:
        """Return the Ed25519 signature of a statement; the signing key stays when the certificate is renewed."""
        return self.identity.signing_key.sign(statement)

    def refresh(self) -> None:
        """Renew the certificate if it is time.

        Raises:
            RefusedError: the certificate is revoked.
            UnavailableError: the pool does not answer.
        """
        with self._lock:
            expires = datetime.fromtimestamp(self._client.hello().certificate_expires / 1e6, UTC)
            if expires - self._clock() < _RENEW_BEFORE:
                self.identity = renew(self.identity, self._folder)
                self._client = PoolClient(self.identity, address=self._gateway)

    @override
    def hello(self) -> Hello:
        return self._client.hello()

    @override
    def schema(self, topic: Topic | None = None, schema_id: int | None = None) -> tuple[int, str]:
        return self._client.schema(topic, schema_id)

    @override
    def resume(self, topic: Topic) -> Standing:
        return self._client.resume(topic)

    @override
    def publish(self, topic: Topic, batches: Iterable[Batch], *, in_flight: int = 4) -> Iterator[Receipt]:
        return self._client.publish(topic, batches, in_flight=in_flight)

    @override
    def describe(self, grant_id: str, *, purpose: str = "", case: str = "") -> Subscription:
        return self._client.describe(grant_id, purpose=purpose, case=case)

    @override
    def fetch(
        self,
        grant_id: str,
        *,
        position: bytes = b"",
        purpose: str,
        case: str,
        max_records: int = 10_000,
        max_bytes: int = 4 * 1024 * 1024,
        wait: float = 0.0,
    ) -> Fetched:
        return self._client.fetch(
            grant_id,
            position=position,
            purpose=purpose,
            case=case,
            max_records=max_records,
            max_bytes=max_bytes,
            wait=wait,
        )

    @override
    def commit(self, grant_id: str, position: bytes, *, purpose: str, case: str) -> str:
        return self._client.commit(grant_id, position, purpose=purpose, case=case)
