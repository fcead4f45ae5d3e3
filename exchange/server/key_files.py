"""Key files: their paths in the folder of a pool."""

from pathlib import Path

__all__ = ["receipts_key"]


def receipts_key(folder: Path) -> Path:
    """Return the file of the key that signs receipts, in a pool's folder."""
    return folder / "secrets" / "receipts.key"
