"""Key files: their paths in the folder of a pool."""

from pathlib import Path

__all__ = ["RECORDS_KEY", "receipts_key", "records_tagged"]

RECORDS_KEY = "stored-records"
"""Name of the key of the tags of stored records."""


def receipts_key(folder: Path) -> Path:
    """Return the file of the key that signs receipts, in a pool's folder."""
    return folder / "secrets" / "receipts.key"


def records_tagged(folder: Path) -> Path:
    """Return the file that says that the records of before have had their first tags: none is tagged later.

    It is kept beside the keys and not in the database, whose administrator could remove it and have records tagged that
    the pool did not write.
    """
    return folder / "secrets" / "records-tagged"
