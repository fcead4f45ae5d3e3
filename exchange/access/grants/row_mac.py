"""Message authentication code (MAC) of a grant's row: detects rows that the pool did not write.

A plain hash beside the text would not do: an account that can edit the row can edit the hash. So a MAC protects it
(HMAC-SHA-256 over the grant's id and the hash), with a key that is not in the database; the column and the documents
call it the seal. An administrator of the database who edits a row, inserts one, or copies one grant's row over that of
another cannot compute it.

What a MAC cannot detect is an old row that is put back, whole, in place of a newer one. That the current version is the
newest is proved by the audit log alone, where the hash of each version is in a leaf.
"""

import hashlib
import hmac
from dataclasses import dataclass
from functools import lru_cache

from exchange.access.grants.grant_json import from_text
from schemas.access import Grant
from schemas.errors import CorruptError, PoolError, Reason

__all__ = ["MacedRow", "RowMac", "forged_grant"]

_MIN_KEY = 32  # bytes
_MOST_PARSED = 4_096  # parsed grants in the cache; each a few kilobytes


@dataclass(frozen=True, slots=True)
class MacedRow:
    """A grant's version as stored, with its MAC.

    Attributes:
        text: canonical JSON.
        hash: SHA-256 of the text, 32 bytes.
        mac: HMAC-SHA-256 over id and hash, 32 bytes; the column `seal`.
    """

    text: str
    hash: bytes
    mac: bytes


class RowMac:
    """Computes the MAC of grants' rows, and verifies it.

    Args:
        key: at least 32 bytes, kept outside the database.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < _MIN_KEY:
            raise ValueError(f"got a key of {len(key)} bytes; expected at least {_MIN_KEY}")
        self._key = key

    def protect(self, grant_id: str, text: str) -> MacedRow:
        """Return the row of a canonical text, with its hash and MAC."""
        digest = hashlib.sha256(text.encode()).digest()
        return MacedRow(text, digest, self._mac(grant_id, digest))

    def verify(self, grant_id: str, row: MacedRow) -> Grant:
        """Return the grant of a row, if text, hash and MAC fit each other and the id.

        Raises:
            CorruptError: GRANT_FORGED.
        """
        digest = hashlib.sha256(row.text.encode()).digest()
        if digest != row.hash or not hmac.compare_digest(self._mac(grant_id, digest), row.mac):
            raise forged_grant(grant_id)
        try:
            grant = _parsed(row.text)
        except PoolError as error:
            raise forged_grant(grant_id) from error
        if grant.id != grant_id:
            raise forged_grant(grant_id)
        return grant

    def _mac(self, grant_id: str, digest: bytes) -> bytes:
        return hmac.digest(self._key, grant_id.encode() + b"\0" + digest, "sha256")


# Grants are frozen and the text is their identity; parsing one takes 50 µs, and each fetch verifies its grant.
_parsed = lru_cache(maxsize=_MOST_PARSED)(from_text)


def forged_grant(grant_id: str) -> CorruptError:
    """Return the error of a grant that is not one that the pool wrote."""
    return CorruptError(
        Reason.GRANT_FORGED,
        f"the stored grant {grant_id} is not the one that the pool wrote; nothing is released under it until an "
        "auditor has looked (`pool audit verify`)",
    )
