"""Authenticity of entries that a search finds: each row is compared with the signed log, or checked by its tag.

Who can write into the database can change a leaf together with its hash. Verification finds that; until then a search
would show the changed entry. So each row that is found is judged, at the cost of a read of a file of 8 KiB for each 256
entries of the log:

    covered by the checkpoint     its leaf hash is the one in the log's tile files (C2SP tlog-tiles)
    not covered yet               its tag is that of a registered process (`exchange.audit.entry_tags`)

A process can judge what it has the means for: an entry is taken as found where the tile or the folder of the log is
missing, or where its tag is of a role whose key this process lacks. That nothing is missing from a search, and that
rows are found by what their leaves say, no search can tell: verification does (`exchange.audit.verify_database`).
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import sqlalchemy as sa

from exchange.audit.entry_tags import ENTRY_ROLES, EntryTags, process_of
from exchange.audit.note import parse_checkpoint
from exchange.audit.tiles import WIDTH, TileFiles, tile_width
from schemas.errors import InvalidError
from schemas.merkle import HASH_SIZE

__all__ = ["EntryAuthenticity", "RegisteredProcesses", "SignedHashes"]

_TILES = 256  # full tiles in memory, 8 KiB each
_PROCESS = sa.text("SELECT role, tag FROM audit_process WHERE process = :process")


class RegisteredProcesses:
    """Roles of the processes that write entries; what was proven once is remembered.

    Args:
        tags: check registrations.
    """

    def __init__(self, tags: EntryTags) -> None:
        self._tags = tags
        self._roles: dict[str, str] = {}

    def role_of(self, connection: sa.Connection, process: str) -> str:
        """Return the role under which a process is registered; empty for one that is not, by a key of this process."""
        role = self._roles.get(process)
        if role is None:
            row = connection.execute(_PROCESS, {"process": process}).one_or_none()
            if row is None or not self._tags.is_registered(row.role, process, row.tag):
                return ""
            role = self._roles[process] = row.role
        return role

    def is_unjudged(self, connection: sa.Connection, process: str) -> bool:
        """Return whether a process says that it is of a role whose key this process lacks."""
        row = connection.execute(_PROCESS, {"process": process}).one_or_none()
        return row is not None and row.role in ENTRY_ROLES and not self._tags.knows(row.role)


class SignedHashes:
    """Leaf hashes of the signed log, from its tile files. Thread-safe.

    Args:
        folder: of the log.
    """

    def __init__(self, folder: Path) -> None:
        self._files = TileFiles(folder)
        self._lock = Lock()
        self._full: OrderedDict[int, bytes] = OrderedDict()  # tiles that never change any more

    def size(self) -> int:
        """Return how many entries the log's checkpoint covers; 0 where there is no log."""
        content = self._files.read("checkpoint")
        try:
            # The signature is not verified here: the file is on the pool's own disk.
            return 0 if content is None else parse_checkpoint(content.decode().rpartition("\n\n")[0] + "\n").size
        except (InvalidError, UnicodeDecodeError):
            return 0

    def leaf_hash(self, index: int, size: int) -> bytes | None:
        """Return the hash of an entry in the log of *size* entries; None where its tile is missing."""
        number, at = divmod(index, WIDTH)
        width = tile_width(0, number, size)
        content = self._tile(number, width)
        if content is None or len(content) != width * HASH_SIZE:
            return None
        return content[at * HASH_SIZE : (at + 1) * HASH_SIZE]

    def _tile(self, number: int, width: int) -> bytes | None:
        if width < WIDTH:
            return self._files.tile(0, number, width)
        with self._lock:
            content = self._full.get(number)
            if content is not None:
                self._full.move_to_end(number)
                return content
        content = self._files.tile(0, number, width)
        if content is not None:
            with self._lock:
                self._full[number] = content
                if len(self._full) > _TILES:
                    self._full.popitem(last=False)
        return content


class EntryAuthenticity:
    """Judges rows of entries.

    Args:
        tags: of this process, with the keys that it has.
        hashes: of the signed log; None where the process has no folder of it.
    """

    def __init__(self, tags: EntryTags, hashes: SignedHashes | None) -> None:
        self._tags = tags
        self._hashes = hashes
        self._processes = RegisteredProcesses(tags)

    def judge(self, connection: sa.Connection, rows: Sequence[Any]) -> list[bool]:
        """Return for each row (`leaf_index`, `leaf`, `leaf_hash`, `tag`) whether it is what the pool wrote.

        That a leaf is that of its hash is not looked at here.
        """
        size = self._hashes.size() if self._hashes is not None else 0
        return [self._is_genuine(connection, row, size) for row in rows]

    def _is_genuine(self, connection: sa.Connection, row: Any, size: int) -> bool:
        digest = bytes(row.leaf_hash)
        if row.leaf_index is not None:
            if self._hashes is None or not size:
                return True  # placed, perhaps before entries had tags
            if row.leaf_index < 0:
                return False
            if row.leaf_index < size:
                signed = self._hashes.leaf_hash(row.leaf_index, size)
                return signed is None or signed == digest
        process = process_of(bytes(row.leaf))
        role = self._processes.role_of(connection, process)
        if role:
            return self._tags.holds(role, process, digest, row.tag)
        return self._processes.is_unjudged(connection, process)
