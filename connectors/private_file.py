"""Files of the state folder: they hold records and rows set aside, so this user alone reads them.

A file that is there already may be anybody's work: a symbolic link is not followed, and rights that another program or
a copy has left are taken back before the first record is written. One that SQLite cannot read is named, with what to
do: what is lost with it, the pool or the source knows.
"""

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import InvalidError, Reason

__all__ = ["make_private", "named_if_damaged"]

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_private(path: Path) -> None:
    """Make a file and its folder where they are not there yet, for this user alone; else take others' rights back.

    Raises:
        InvalidError: CONFIG_INVALID, it is a symbolic link or no file, or others may read it and this user cannot
            change that.
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EISDIR, errno.ENXIO}:
            raise _no_file(path) from error
        raise
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise _no_file(path)
        if mode & _OTHERS:
            os.fchmod(descriptor, stat.S_IMODE(mode) & ~_OTHERS)
    except PermissionError as error:
        raise InvalidError(
            Reason.CONFIG_INVALID,
            f"{path} is of another user, and others may read it ({stat.filemode(mode)}); chown it to this program's",
        ) from error
    finally:
        os.close(descriptor)


@contextmanager
def named_if_damaged(path: Path) -> Iterator[None]:
    """Say which file SQLite cannot read.

    Raises:
        InvalidError: CONFIG_INVALID.
    """
    try:
        yield
    except sqlite3.OperationalError:
        raise  # locked, or the disk is full: it may be well
    except sqlite3.DatabaseError as error:
        raise InvalidError(
            Reason.CONFIG_INVALID,
            f"{path} is damaged, or no file of this program ({error}); move it away, and start again: what it held is "
            "asked for again",
        ) from error


def _no_file(path: Path) -> InvalidError:
    return InvalidError(
        Reason.CONFIG_INVALID, f"{path} is a symbolic link, or no file; remove it: somebody put it into the folder"
    )
