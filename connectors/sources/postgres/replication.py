"""Replication stream: messages of a slot by PostgreSQL's streaming protocol, and what is confirmed back.

Confirmed is what the caller says, and nothing else; when nothing is under way also what the server says it has sent,
since that held nothing for this connector. Otherwise a database without changes of the published tables would keep its
log without end. For the same reason a message of no content is written to the log from time to time (heartbeat).
"""

import select
import time
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from connectors.sources.postgres.connection import open_replication, translate_errors

__all__ = ["ReplicationStream"]

_FEEDBACK = 5.0  # seconds; the server ends a stream after wal_sender_timeout, 60 s, without any


class ReplicationStream:
    """One connection that reads one slot. Used by one thread."""

    def __init__(self, url: sa.URL, slot: str, publication: str) -> None:
        """Connect and begin where the slot was confirmed.

        Raises:
            ConflictError: SOURCE_CHANGED, the slot is gone or lost.
            UnavailableError: SOURCE_UNAVAILABLE; another session reads it.
        """
        self._what = f"read the slot {slot}"
        options: Mapping[str, str] = {
            "proto_version": "1",
            "publication_names": '"' + publication.replace('"', '""') + '"',
            "messages": "true",
        }
        with translate_errors(self._what):
            self._connection: Any = open_replication(url)
            self._cursor: Any = self._connection.cursor()
            # The driver answers the server's requests for a sign of life by itself, while it reads.
            self._cursor.start_replication(slot_name=slot, decode=False, options=dict(options), status_interval=10)
        self._said_at = 0.0

    @property
    def sent(self) -> int:
        """Return the LSN up to which the server has sent all there is."""
        return int(self._cursor.wal_end)

    def read(self) -> bytes | None:
        """Return the next message; None when none is here."""
        with translate_errors(self._what):
            message = self._cursor.read_message()
        return None if message is None else message.payload

    def wait(self, seconds: float) -> bool:
        """Wait for a message; return whether there may be one."""
        with translate_errors(self._what):
            return bool(select.select([self._connection], [], [], seconds)[0])

    def confirm(self, position: int, *, now: bool = False, ask: bool = False) -> None:
        """Tell the server what is confirmed, at most every few seconds.

        Args:
            position: LSN.
            now: at once.
            ask: for a sign of how far the server has sent.
        """
        if not now and not ask and time.monotonic() - self._said_at < _FEEDBACK:
            return
        with translate_errors(self._what):
            self._cursor.send_feedback(
                write_lsn=position, flush_lsn=position, apply_lsn=position, reply=ask, force=True
            )
        self._said_at = time.monotonic()

    def close(self) -> None:
        """End the connection; the server frees the slot."""
        self._connection.close()
