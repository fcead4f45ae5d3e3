"""The signed log as it is stored: indexes and checkpoints in the database, hashes and entries in tile files."""

import base64
from pathlib import Path

from exchange.audit.proof import log_behind, prove
from exchange.audit.store import CheckpointRow, LogStore
from schemas.errors import CorruptError, Reason
from schemas.merkle import leaf_hash

__all__ = ["StoredLog"]


class StoredLog:
    """The adapter of `exchange.control.audit_queries.SignedLog`.

    Args:
        log: indexes and checkpoints.
        folder: of the log.
    """

    def __init__(self, log: LogStore, folder: Path) -> None:
        self._log = log
        self._folder = folder

    def prove(self, entry_id: str, *, by_hash: bool) -> str:
        """Return an entry's inclusion proof; see `SignedLog.prove`."""
        index = self._log.index_of(entry_id)
        if index is None:
            raise log_behind()
        return prove(self._folder, index, by_hash=by_hash)

    def require_signed(self, entry_id: str, leaf: bytes) -> None:
        """Check that the signed log has an entry with these bytes; see `SignedLog.require_signed`."""
        proven = self.prove(entry_id, by_hash=True).split("\n")[1].removeprefix("extra ")
        if base64.b64decode(proven) != leaf_hash(leaf):
            raise CorruptError(
                Reason.LEAF_MISMATCH, "the stored entry is not the one in the signed log; an auditor must look at it"
            )

    def covering_checkpoint(self, index: int) -> CheckpointRow | None:
        """Return the first checkpoint that covers the entry of an index; None while there is none."""
        return self._log.covering_checkpoint(index)

    def latest_checkpoint(self) -> tuple[int, str] | None:
        """Return size and signed note of the newest checkpoint; None while nothing has been signed."""
        row = self._log.latest_checkpoint()
        return None if row is None else (row.size, row.note)
