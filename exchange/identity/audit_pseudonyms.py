"""Pseudonyms in the trace: those of a batch's keys beside its receipt, sealed with K_audit, the key of the month.

    stored   header ‖ 16 bytes a key
    header   0x01 ‖ epoch, such as `2026-11` ‖ the first 16 bytes of SHA-256 of the epoch's key: 24 bytes
    a key    AES-256(K_audit, pseudonym under K_topic): one block, so that equal persons of a topic are equal in a month

A holder of K_audit finds a person's batches of that month and the order of a batch; once it is destroyed, what is
stored says nothing about anybody, in backups too. A subject of a look-up is named by its own keyed hash (HMAC) under a
key that is derived from the month's. Batches of earlier versions have no header and hold the pseudonyms
under K_topic themselves, so that their length is a multiple of 16; they stay as they are, until they are pruned.

The gateway that stores the first batch of a month draws its key. Processes on one data folder share it. A host with a
folder of its own draws its own key: the header says which key is needed, `pool audit keys` which keys a folder holds.
"""

import hashlib
import hmac
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from exchange.identity.pseudonyms import PSEUDONYM_SIZE
from exchange.identity.secrets import Secrets
from schemas.errors import InvalidError, Reason

__all__ = ["AuditPseudonyms", "epoch_of", "fingerprint"]

_VERSION = b"\x01"
_EPOCH_SIZE = 7  # characters, YYYY-MM
_HEADER_SIZE = 24  # bytes; no multiple of 16, by which older batches are told apart


def epoch_of(at: int) -> str:
    """Return the epoch of a time (microseconds UTC): its month in UTC, `YYYY-MM`."""
    return datetime.fromtimestamp(at / 1_000_000, UTC).strftime("%Y-%m")


def fingerprint(key: bytes) -> bytes:
    """Return 16 bytes that name an epoch's key and tell nothing of it."""
    return hashlib.sha256(b"exchange-pool/1/audit-key/" + key).digest()[:PSEUDONYM_SIZE]


class AuditPseudonyms:
    """Seals pseudonyms for the trace, and opens them while their key exists. Thread-safe.

    Args:
        secrets: hold the keys.
        clock: microseconds UTC.
    """

    def __init__(self, secrets: Secrets, clock: Callable[[], int]) -> None:
        self._secrets = secrets
        self._clock = clock
        self._current: tuple[str, bytes] | None = None  # epoch and key; the only one that stays in memory
        self._lock = threading.Lock()

    def seal(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return what is stored of a batch's pseudonyms, in two parts, the header first; nothing for none."""
        if not keys:
            return []
        epoch, key = self._key()
        packed = _cipher(key).encryptor().update(b"".join(keys))
        header = _VERSION + epoch.encode() + fingerprint(key)
        return [header, packed]

    def subjects(self, identifiers: Sequence[tuple[str, str]]) -> tuple[str, bytes, list[bytes]]:
        """Return epoch, fingerprint of its key, and the pseudonym of each (type, canonical number), in order.

        A holder of the key finds every entry of the month that names a person, whatever was asked and by whom; once
        it is destroyed, the pseudonyms say nothing about anybody.
        """
        epoch, key = self._key()
        keyed = hmac.digest(key, b"exchange-pool/1/subjects", hashlib.sha256)
        names = (f"{kind}\x1f{number}".encode() for kind, number in identifiers)
        return epoch, fingerprint(key), [hmac.digest(keyed, one, hashlib.sha256)[:PSEUDONYM_SIZE] for one in names]

    def open(self, stored: bytes) -> bytes:
        """Return the pseudonyms under K_topic, end to end; empty where the key is destroyed, or is another folder's."""
        if len(stored) % PSEUDONYM_SIZE != _HEADER_SIZE % PSEUDONYM_SIZE:
            return stored  # of an earlier version
        epoch = stored[1 : 1 + _EPOCH_SIZE].decode("ascii", "replace")
        try:
            key = self._secrets.audit_key(epoch)
        except InvalidError as error:
            if error.reason is Reason.CONFIG_INVALID:
                return b""
            raise
        if fingerprint(key) != stored[1 + _EPOCH_SIZE : _HEADER_SIZE]:
            return b""
        return _cipher(key).decryptor().update(stored[_HEADER_SIZE:])

    def _key(self) -> tuple[str, bytes]:
        epoch = epoch_of(self._clock())
        current = self._current
        if current is not None and current[0] >= epoch:
            return current
        with self._lock:
            # A clock that was ahead may have begun a later epoch already; it then stays the current one.
            epoch = max(epoch, *self._secrets.audit_epochs()[-1:], "")
            current = self._current = epoch, self._secrets.draw_audit_key(epoch)
        return current


def _cipher(key: bytes) -> Cipher[modes.ECB]:
    # Each block is a pseudonym, which is random to everybody without K_topic; they shall be comparable within an epoch.
    return Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305
