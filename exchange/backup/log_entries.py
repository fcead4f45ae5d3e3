"""Entries of a log's folder, put into a restored database: so the log goes on as the one tree that it is.

The folder's tiles hold every entry that was signed. Those that the database lacks are inserted with their index, their
bytes and their search columns, and the folder's checkpoint beside them. Those that the dump had without an index get
theirs. One that contradicts what the database has ends the restore.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from exchange.audit.postgres import columns_of
from exchange.audit.tables import audit_checkpoint, audit_entry
from exchange.audit.tiles import ENTRIES, WIDTH, TileFiles, decode_bundle, tile_width
from schemas.audit import Checkpoint, from_leaf, read_leaf
from schemas.errors import CorruptError, Reason
from schemas.merkle import leaf_hash

__all__ = ["insert_entries", "placed_end"]

_END = sa.text("SELECT coalesce(max(leaf_index) + 1, 0) FROM audit_entry")
_KNOWN = sa.text("SELECT leaf_hash FROM audit_entry WHERE id = CAST(:id AS uuid)")
_PLACE = sa.text("UPDATE audit_entry SET leaf_index = :index WHERE id = CAST(:id AS uuid)")


def placed_end(connection: sa.Connection) -> int:
    """Return the number of entries with an index."""
    end: int = connection.execute(_END).scalar_one()
    return end


def insert_entries(
    connection: sa.Connection, folder: Path, checkpoint: Checkpoint, note: str, at: int
) -> Iterator[tuple[dict[str, Any], bool]]:
    """Insert the entries that the database lacks, and the checkpoint; yield each, and whether it was there already.

    Args:
        connection: in the restore's transaction.
        folder: the log's folder, which was verified.
        checkpoint: of the folder.
        note: its signed text.
        at: microseconds UTC.

    Raises:
        CorruptError: LOG_CORRUPT, the database has another entry of this id.
    """
    files, start = TileFiles(folder), placed_end(connection)
    for number in range(start // WIDTH, (checkpoint.size + WIDTH - 1) // WIDTH):
        bundle = files.tile(ENTRIES, number, tile_width(0, number, checkpoint.size))
        for offset, leaf in enumerate(decode_bundle(bundle or b"")):
            index = number * WIDTH + offset
            if index >= start:
                entry = read_leaf(leaf)
                yield dict(entry), _place(connection, index, leaf, entry["id"])
    if checkpoint.size:
        row = {"size": checkpoint.size, "root": checkpoint.root, "note": note, "at": at}
        known = sa.select(audit_checkpoint.c.size).where(audit_checkpoint.c.size == checkpoint.size)
        if connection.execute(known).first() is None:
            connection.execute(sa.insert(audit_checkpoint).values(row))


def _place(connection: sa.Connection, index: int, leaf: bytes, entry_id: str) -> bool:
    """Give an entry its index, or insert it; return whether it was there."""
    digest = leaf_hash(leaf)
    known = connection.execute(_KNOWN, {"id": entry_id}).one_or_none()
    if known is None:
        row = {**columns_of(from_leaf(leaf)), "leaf": leaf, "leaf_hash": digest, "leaf_index": index}
        connection.execute(sa.insert(audit_entry).values(row))
        return False
    if bytes(known.leaf_hash) != digest:
        raise CorruptError(
            Reason.LOG_CORRUPT, f"entry {index} of the log's folder is another one in the backup; one of them is forged"
        )
    connection.execute(_PLACE, {"id": entry_id, "index": index})
    return True
