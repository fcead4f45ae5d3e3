"""Pool client with certificate renewal: it lasts longer than a certificate.

Certificates live 30 days. In the last ten the next one is requested, authenticated by the one that is still valid, and
new channels replace the old ones; calls under way end on the old channels first. The age is that on the pool's clock: a
machine whose own clock is weeks ahead would ask for the next one too early, be refused, and publish nothing.
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from exchange.client import Identity, PoolClient, renew

__all__ = ["RenewingPoolClient"]

_RENEW_BEFORE = timedelta(days=10)
_DIFFERENCE = timedelta(minutes=5)  # of the clocks, that is told


class RenewingPoolClient(PoolClient):
    """A client under the identity of a folder, which it keeps valid. Thread-safe."""

    def __init__(
        self, folder: Path, gateway: str, clock: Callable[[], datetime], warn: Callable[[str], None] = lambda _: None
    ) -> None:
        """Load the identity.

        Args:
            folder: of the identity.
            gateway: host:port; empty = as enrolment wrote it down.
            clock: of this machine, which is compared with the pool's.
            warn: is told where the two differ.

        Raises:
            InvalidError: CONFIG_INVALID, when there is no usable identity.
        """
        super().__init__(Identity.load(folder), address=gateway or None)
        self._folder = folder
        self._clock = clock
        self._warn = warn
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
            greeting = self.hello()
            now, here = datetime.fromtimestamp(greeting.server_time / 1e6, UTC), self._clock()
            if abs(here - now) > _DIFFERENCE:
                self._warn(
                    f"this machine's clock says {here:%Y-%m-%d %H:%M}, the pool's {now:%Y-%m-%d %H:%M} (UTC); set it, "
                    "and run a time service"
                )
            if datetime.fromtimestamp(greeting.certificate_expires / 1e6, UTC) - now < _RENEW_BEFORE:
                self.reconnect(renew(self.identity, self._folder))
