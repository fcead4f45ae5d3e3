"""Seals: what makes a grant's row in the database worth believing.

A plain hash beside the text would not do: whoever can edit the row can edit the hash. So the hash is sealed, HMAC-
SHA-256 over the grant's id and the hash with a key that the database does not hold. An administrator of the
database who edits a row, makes one up, or puts one grant's row in another's place cannot make the seal fit.

What a seal does not find is an old row put back, whole, in place of a newer one. That the current version is the
newest is proved by the audit log alone, where the hash of each version stands in a leaf.
"""

import hashlib
import hmac
from dataclasses import dataclass
from functools import lru_cache

from exchange.access.grants.grant_json import from_text
from schemas.access import Grant
from schemas.errors import CorruptError, PoolError, Reason

__all__ = ["MacedRow", "RowMac"]

_MIN_KEY = 32  # bytes
_PARSED = 4_096  # grants kept parsed; each a few kilobytes


@dataclass(frozen=True, slots=True)
class MacedRow:
    """A grant's version as stored.

    Attributes:
        text: canonical JSON.
        hash: SHA-256 of the text, 32 bytes.
        seal: HMAC-SHA-256 over id and hash, 32 bytes.
    """

    text: str
    hash: bytes
    seal: bytes


class RowMac:
    """Seals grants, and opens them again.

    Args:
        key: at least 32 bytes, kept outside the database.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < _MIN_KEY:
            raise ValueError(f"got a key of {len(key)} bytes; expected at least {_MIN_KEY}")
        self._key = key

    def seal(self, grant_id: str, text: str) -> MacedRow:
        """Seal a canonical text."""
        digest = hashlib.sha256(text.encode()).digest()
        return MacedRow(text, digest, self._mac(grant_id, digest))

    def open(self, grant_id: str, sealed: MacedRow) -> Grant:
        """Return the grant, if text, hash and seal fit each other and the id.

        Raises:
            CorruptError: GRANT_FORGED.
        """
        digest = hashlib.sha256(sealed.text.encode()).digest()
        if digest != sealed.hash or not hmac.compare_digest(self._mac(grant_id, digest), sealed.seal):
            raise _forged(grant_id)
        try:
            grant = _parsed(sealed.text)
        except PoolError as error:
            raise _forged(grant_id) from error
        if grant.id != grant_id:
            raise _forged(grant_id)
        return grant

    def _mac(self, grant_id: str, digest: bytes) -> bytes:
        return hmac.digest(self._key, grant_id.encode() + b"\0" + digest, "sha256")


# Grants are frozen and the text is their identity; parsing one costs 50 µs, and a busy one is opened every fetch.
_parsed = lru_cache(maxsize=_PARSED)(from_text)


def _forged(grant_id: str) -> CorruptError:
    return CorruptError(
        Reason.GRANT_FORGED,
        f"the stored grant {grant_id} is not the one that the pool wrote; nothing is released under it until an "
        "auditor has looked (`pool audit verify`)",
    )
