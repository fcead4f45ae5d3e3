"""Folder of the hub's key files, mode 0600: handle.key, and one for each month of key-encryption keys.

    handle.key        K_hub
    kek/0316.key      KEK of a month
    kek/0310.gone     in the place of a KEK that was destroyed: so that one which is lost is told from one which is gone

The folder belongs to the operating-system user of the hub worker. It lies on another path, and in another backup, than
the database: with both one reads everything, with one of them nothing.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path

from typing_extensions import override

from exchange.hub.store.keys import KEY_SIZE, KekKeys, check_month, destroyed, missing
from exchange.identity.keyfile import create_private, destroy_private, private_folder, read_private

__all__ = ["FileHubKeys"]


class FileHubKeys(KekKeys):
    """The adapter.

    Args:
        folder: of the files; `create` makes it.
        random: returns random bytes.

    Raises:
        InvalidError: CONFIG_INVALID, it has no key of handles, or is open to others.
    """

    def __init__(self, folder: Path, random: Callable[[int], bytes] = os.urandom) -> None:
        super().__init__(random)
        self._folder = folder
        self._lock = threading.Lock()
        self._known: dict[int, bytes] = {}
        self._handle_key = _read(folder / "handle.key", "the key of handles")

    @classmethod
    def create(cls, folder: Path, random: Callable[[int], bytes] = os.urandom) -> "FileHubKeys":
        """Make the folder and its key of handles, unless it has one; return it."""
        private_folder(folder)
        private_folder(folder / "kek")
        create_private(folder / "handle.key", random(KEY_SIZE))
        return cls(folder, random)

    @override
    def handle_key(self) -> bytes:
        return self._handle_key

    @override
    def draw(self, month: int) -> None:
        if self._gone(month).exists():
            raise destroyed(month)
        create_private(self._path(month), self._random(KEY_SIZE))

    @override
    def kek(self, month: int) -> bytes | None:
        # What another process destroyed must not go on to be read here from memory.
        if self._gone(month).exists():
            with self._lock:
                self._known.pop(month, None)
            return None
        with self._lock:
            if month not in self._known:
                self._known[month] = _read(self._path(month), f"the key of month {month}")
            return self._known[month]

    @override
    def destroy(self, month: int) -> None:
        path = self._path(month)
        if not path.exists():
            return
        # First the note: a crash in between leaves a key that no process reads, and that the next try destroys.
        create_private(self._gone(month), b"")
        destroy_private(path)
        with self._lock:
            self._known.pop(month, None)

    def _path(self, month: int) -> Path:
        check_month(month)
        return self._folder / "kek" / f"{month:04}.key"

    def _gone(self, month: int) -> Path:
        return self._path(month).with_suffix(".gone")


def _read(path: Path, what: str) -> bytes:
    if not path.exists():
        raise missing(what)
    key = read_private(path)
    if len(key) != KEY_SIZE:
        raise missing(what)
    return key
