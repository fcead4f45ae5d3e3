"""Last use of accounts: stored once a minute at most, so that a call adds no write of its own."""

import threading
from datetime import datetime, timedelta

import structlog

from exchange.identity.store import IdentityStore
from registry.database.unit_of_work import Database
from schemas.errors import UnavailableError

__all__ = ["LastUse"]

_log = structlog.get_logger()
_STEP = timedelta(minutes=1)


class LastUse:
    """Stores when accounts were last used.

    What it remembers is bounded by the number of accounts: only one that was authenticated is recorded.
    """

    def __init__(self, database: Database, store: IdentityStore) -> None:
        self._database = database
        self._store = store
        self._lock = threading.Lock()
        self._stored: dict[str, datetime] = {}

    def record(self, name: str, at: datetime) -> None:
        """Record that an account was used; a database that does not answer is no reason to refuse the call."""
        with self._lock:
            before = self._stored.get(name)
            if before is not None and at - before < _STEP:
                return
            self._stored[name] = at
        try:
            with self._database.begin() as work:
                self._store.record_use(work, name, at)
        except UnavailableError as error:
            _log.warning("last_use_not_stored", reason=error.reason)
