"""Read-only connections to a connector's SQLite files, beside the run that writes them.

SQLite's URI form knows `?`, `#` and `%` (RFC 3986), which a folder's name may have, so the path is percent-encoded.
"""

import sqlite3
from pathlib import Path

__all__ = ["database_uri", "open_read_only"]


def database_uri(file: Path, *, read_only: bool = True) -> str:
    """Return the URI of a SQLite file."""
    return f"{file.resolve().as_uri()}{'?mode=ro' if read_only else ''}"


def open_read_only(file: Path) -> sqlite3.Connection:
    """Connect to a file that must exist.

    Raises:
        sqlite3.OperationalError: it does not exist or is no database.
    """
    return sqlite3.connect(database_uri(file), uri=True, timeout=10.0)
