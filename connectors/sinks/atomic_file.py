"""Atomic replacement of a file, in a folder that others may look into.

Everything goes through a descriptor of the folder, so that a folder that is replaced meanwhile changes nothing. The
new content is written under a temporary name that must not exist (`O_EXCL`) and is no symbolic link (`O_NOFOLLOW`),
with the permissions that are stated and not those that the umask leaves; what a crash has left under that name is
removed before. Flushed to disk, it is renamed, and the folder is flushed as well.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from schemas.errors import InvalidError, Reason

__all__ = ["OWNER_ALONE", "make_folder", "replace_file", "require_private_folder"]

OWNER_ALONE = 0o600


def make_folder(folder: Path, mode: int = 0o700) -> None:
    """Make a folder that does not exist, with those above it, whatever the umask; then check it.

    Raises:
        InvalidError: CONFIG_INVALID, everybody may write into it.
        OSError: it cannot be made.
    """
    for each in reversed([folder, *folder.parents]):
        each.mkdir(mode=mode, exist_ok=True)
    require_private_folder(folder)


def require_private_folder(folder: Path) -> None:
    """Check that not everybody may write into a folder.

    Raises:
        InvalidError: CONFIG_INVALID.
        OSError: it cannot be read.
    """
    mode = folder.stat().st_mode
    if mode & stat.S_IWOTH:
        raise InvalidError(
            Reason.CONFIG_INVALID,
            f"every user may write into {folder} ({stat.filemode(mode)}), and so replace what is stored there; "
            f"expected a folder of this program's user: chmod o-w {folder}",
        )


def replace_file(folder: Path, name: str, content: bytes, mode: int = OWNER_ALONE) -> None:
    """Write a file of a folder whole, or not at all.

    Args:
        folder: that exists.
        name: of the file in it.
        content: of the file.
        mode: its permissions.

    Raises:
        OSError: it cannot be written; the file is as it was.
    """
    part = f".{name}.part"
    with _opened(folder) as directory:
        with suppress(FileNotFoundError):
            os.unlink(part, dir_fd=directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(part, flags, OWNER_ALONE, dir_fd=directory), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
