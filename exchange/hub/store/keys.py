"""Keys of the hub behind one port: the key of handles, and key-encryption keys (KEK) of months. Envelope encryption.

    K_hub       makes handles of identifiers; one for the life of the hub
    KEK(month)  wraps the data keys of subjects (AES-256-GCM); destroyed once the survivors are wrapped under a later
    data key    of one subject, 32 random bytes, stored wrapped: with it destroyed, all that is sealed with it is gone

The adapters keep K_hub and the KEKs away from the database and from the gateway: in files of the user of
the operating system that runs the hub (`exchange.hub.store.key_files`), later in a hardware security module. A wrapped
key names its subject and its month as associated data: no row's key opens as another row's.

A month is counted from January 2000: 316 is May 2026.
"""

import os
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from typing_extensions import override

from exchange.hub.fold.identity import Handle
from schemas.errors import CorruptError, InvalidError, Reason

__all__ = ["KEY_SIZE", "HubKeys", "KekKeys", "MemoryHubKeys", "month_of"]

KEY_SIZE: Final = 32
_NONCE: Final = 12
_FIRST_YEAR: Final = 2000
_MOST_MONTHS: Final = 2**15 - 1  # as the database's smallint holds them


class HubKeys(Protocol):
    """Keys of the hub. Thread-safe."""

    def handle_key(self) -> bytes:
        """Return K_hub, 32 bytes.

        Raises:
            InvalidError: CONFIG_INVALID, it is missing; it cannot be made again.
        """
        ...

    def draw(self, month: int) -> None:
        """Draw the KEK of a month, unless it has one.

        Raises:
            InvalidError: CONFIG_INVALID, the month's was destroyed: it is not drawn again.
        """
        ...

    def wrap(self, month: int, handle: Handle, data_key: bytes) -> bytes:
        """Return a data key wrapped under the KEK of a month.

        Raises:
            InvalidError: CONFIG_INVALID, the month has no KEK.
        """
        ...

    def unwrap(self, month: int, handle: Handle, wrapped: bytes) -> bytes | None:
        """Return a data key; None where the month's KEK was destroyed, and the data key with it.

        Raises:
            InvalidError: CONFIG_INVALID, the KEK is missing though nobody destroyed it.
            CorruptError: ROW_FORGED, this was not wrapped for that subject in that month.
        """
        ...

    def destroy(self, month: int) -> None:
        """Destroy the KEK of a month, for which two persons have decided. A month without one stays without.

        Raises:
            UnavailableError: DISK_FULL, the file system refuses.
        """
        ...


def month_of(time: datetime) -> int:
    """Return the number of a month."""
    return (time.year - _FIRST_YEAR) * 12 + time.month - 1


class KekKeys(HubKeys):
    """What all adapters share that hold the KEKs themselves: wrapping by AES-256-GCM (NIST SP 800-38D).

    Args:
        random: returns random bytes.
    """

    def __init__(self, random: Callable[[int], bytes] = os.urandom) -> None:
        self._random = random

    def kek(self, month: int) -> bytes | None:
        """Return the KEK of a month; None where it was destroyed.

        Raises:
            InvalidError: CONFIG_INVALID, it is missing though nobody destroyed it.
        """
        raise NotImplementedError

    @override
    def wrap(self, month: int, handle: Handle, data_key: bytes) -> bytes:
        kek = self.kek(month)
        if kek is None:
            raise destroyed(month)
        # A nonce of random bytes and not of the handle: after an erasure a subject may get another key in this month.
        nonce = self._random(_NONCE)
        return nonce + AESGCM(kek).encrypt(nonce, data_key, _context(month, handle))

    @override
    def unwrap(self, month: int, handle: Handle, wrapped: bytes) -> bytes | None:
        kek = self.kek(month)
        if kek is None:
            return None
        try:
            return AESGCM(kek).decrypt(wrapped[:_NONCE], wrapped[_NONCE:], _context(month, handle))
        except (InvalidTag, ValueError) as error:
            raise CorruptError(
                Reason.ROW_FORGED,
                "a row of hub_key holds a key that was not wrapped for its subject and month; it is not used until an "
                "auditor has looked",
            ) from error


class MemoryHubKeys(KekKeys):
    """The adapter in memory, for tests.

    Args:
        random: returns random bytes.
    """

    def __init__(self, random: Callable[[int], bytes] = os.urandom) -> None:
        super().__init__(random)
        self._lock = threading.Lock()
        self._handle_key = random(KEY_SIZE)
        self._keks: dict[int, bytes | None] = {}

    @override
    def handle_key(self) -> bytes:
        return self._handle_key

    @override
    def draw(self, month: int) -> None:
        check_month(month)
        with self._lock:
            if self._keks.setdefault(month, self._random(KEY_SIZE)) is None:
                raise destroyed(month)

    @override
    def kek(self, month: int) -> bytes | None:
        check_month(month)
        with self._lock:
            if month not in self._keks:
                raise missing(f"the key of month {month}")
            return self._keks[month]

    @override
    def destroy(self, month: int) -> None:
        check_month(month)
        with self._lock:
            if month in self._keks:
                self._keks[month] = None


def check_month(month: int) -> None:
    """Check that a number is one of a month.

    Raises:
        ValueError: it is not.
    """
    if not 0 <= month <= _MOST_MONTHS:
        raise ValueError(f"got the month {month}; expected 0 to {_MOST_MONTHS}, counted from January 2000")


def destroyed(month: int) -> InvalidError:
    """Return the error of a KEK that was destroyed and is asked for."""
    return InvalidError(
        Reason.CONFIG_INVALID,
        f"the hub's key of month {month} was destroyed; it is not drawn again: wrap under a later month",
    )


def missing(what: str) -> InvalidError:
    """Return the error of a key that nobody destroyed and that is not there."""
    return InvalidError(Reason.CONFIG_INVALID, f"{what} of the hub is missing; restore the key folder from its backup")


def _context(month: int, handle: Handle) -> bytes:
    return b"hub_key" + month.to_bytes(2) + handle
