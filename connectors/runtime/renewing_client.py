"""Pool client with certificate renewal: it lasts longer than a certificate.

Certificates live 30 days. In the last ten the next one is requested, authenticated by the one that is still valid, and
new channels replace the old ones; calls under way end on the old channels first.
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from exchange.client import Identity, PoolClient, renew

__all__ = ["RenewingPoolClient"]

_RENEW_BEFORE = timedelta(days=10)


class RenewingPoolClient(PoolClient):
    """A client under the identity of a folder, which it keeps valid. Thread-safe."""

    def __init__(self, folder: Path, gateway: str, clock: Callable[[], datetime]) -> None:
        """Load the identity.

        Args:
            folder: of the identity.
            gateway: host:port; empty = as enrolment wrote it down.
            clock: of the certificate's age.

        Raises:
            InvalidError: CONFIG_INVALID, when there is no usable identity.
        """
        super().__init__(Identity.load(folder), address=gateway or None)
        self._folder = folder
        self._clock = clock
        self._renewal = threading.Lock()

    def sign(self, statement: bytes) -> bytes:
        """Return the Ed25519 signature of a statement; the signing key stays when the certificate is renewed."""
        return self.identity.signing_key.sign(statement)

    def refresh(self) -> None:
        """Renew the certificate if it is time.

        Raises:
            RefusedError: the certificate is revoked.
            UnavailableError: the pool does not answer.
        """
        with self._renewal:
            expires = datetime.fromtimestamp(self.hello().certificate_expires / 1e6, UTC)
            if expires - self._clock() < _RENEW_BEFORE:
                self.reconnect(renew(self.identity, self._folder))
