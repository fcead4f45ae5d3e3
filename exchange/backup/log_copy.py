"""Copy of a log's folder, cut to a checkpoint: the tiles of the tree of that size, and the checkpoint.

A log only grows, so that the tree of an earlier checkpoint is always in its folder. What is copied has the root that
the checkpoint signs, or the copy is refused.
"""

from pathlib import Path

from exchange.audit.sequencer import CHECKPOINT
from exchange.audit.tiles import ENTRIES, TileFiles, tile_path, tile_width
from schemas.audit import Checkpoint
from schemas.errors import CorruptError, Reason

__all__ = ["copy_log"]


def copy_log(source: Path, target: Path, checkpoint: Checkpoint, note: str) -> None:
    """Write the log of a checkpoint's size to a new folder.

    Args:
        source: the log's folder.
        target: the folder to write.
        checkpoint: of the size to copy, at most that of the source.
        note: its signed text.

    Raises:
        CorruptError: LOG_CORRUPT, a tile is missing, or the tiles have another root.
    """
    files, copied, size = TileFiles(source), TileFiles(target), checkpoint.size
    target.mkdir(parents=True, exist_ok=True)
    level = 0
    while size >> 8 * level:
        number = 0
        while width := tile_width(level, number, size):
            _copy(files, copied, level, number, width)
            if level == 0:
                _copy(files, copied, ENTRIES, number, width)
            number += 1
        level += 1
    root = copied.root(size, size)
    if root != checkpoint.root:
        raise CorruptError(
            Reason.LOG_CORRUPT,
            f"the tiles in {source} have another root than the database's checkpoint of size {size}; run `pool audit "
            "verify` on both before anything else",
        )
    copied.write(CHECKPOINT, note.encode())


def _copy(source: TileFiles, target: TileFiles, level: int | str, number: int, width: int) -> None:
    content = source.tile(level, number, width)
    if content is None:
        raise CorruptError(
            Reason.LOG_CORRUPT,
            f"{tile_path(level, number, width)} is missing in {source.folder}, and the database's checkpoint covers it",
        )
    target.write(tile_path(level, number, width), content)
