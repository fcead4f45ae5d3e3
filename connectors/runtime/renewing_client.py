"""Pool client with certificate renewal: it lasts longer than a certificate, and longer than a grant.

Certificates live 30 days. In the last ten the next one is requested, authenticated by the one that is still valid, and
new channels replace the old ones; calls under way end on the old channels first. The age is that on the pool's clock: a
machine whose own clock is weeks ahead would ask for the next one too early, be refused, and publish nothing.

A grant that was renewed is refused with the id of its renewal, and the calls go on under that one: from the same
position, with the same record keys. So a configuration names the grant that it began with, as long as it is renewed.
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from typing_extensions import override

from exchange.client import FetchResult, Identity, PoolClient, Subscription, renew
from schemas.errors import Reason, RefusedError

__all__ = ["RenewingPoolClient"]

_RENEW_BEFORE = timedelta(days=10)
_DIFFERENCE = timedelta(minutes=5)  # of the clocks, that is told
_MOST_RENEWALS = 100  # that are followed in one call

_Answer = TypeVar("_Answer")


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
        self._renewed: dict[str, str] = {}  # grant that a configuration names → its renewal

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

    @override
    def describe(self, grant_id: str, *, purpose: str = "", case: str = "") -> Subscription:
        describe = super().describe
        return self._under(grant_id, lambda current: describe(current, purpose=purpose, case=case))

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
        places: bool = False,
    ) -> FetchResult:
        fetch = super().fetch
        return self._under(
            grant_id,
            lambda current: fetch(
                current,
                position=position,
                purpose=purpose,
                case=case,
                max_records=max_records,
                max_bytes=max_bytes,
                wait=wait,
                places=places,
            ),
        )

    @override
    def commit(self, grant_id: str, position: bytes, *, purpose: str, case: str) -> str:
        commit = super().commit
        return self._under(grant_id, lambda current: commit(current, position, purpose=purpose, case=case))

    def _under(self, grant_id: str, call: Callable[[str], _Answer]) -> _Answer:
        """Return what a call under a grant, or under its renewal, answers."""
        for _ in range(_MOST_RENEWALS):
            current = self._renewed.get(grant_id, grant_id)
            try:
                return call(current)
            except RefusedError as error:
                renewal = error.details.get("grant", "")
                if error.reason is not Reason.GRANT_RENEWED or renewal in {"", current}:
                    raise
                self._renewed[grant_id] = renewal
                self._warn(f"the grant {current} was renewed: {grant_id} goes on under {renewal}")
        return call(grant_id)
