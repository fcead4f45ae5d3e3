"""Seal of claims: encrypts what a ticket's raiser claims and its evidence (AES-256-GCM), a key for each ticket.

    key      HKDF-SHA256 (RFC 5869) of the grant's key under which the value was received, with the ticket's id
    stored   12 bytes of nonce ‖ ciphertext and tag, bound to the ticket's id

Both are personal: they are nowhere else than here. An erasure removes what is stored.
"""

import json
import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from exchange.identity.secrets import Secrets
from schemas.errors import CorruptError, Reason

__all__ = ["Claim", "ClaimSeal"]

_NONCE = 12  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a raiser says: the value that is right, and why."""

    claimed: str
    evidence: str


class ClaimSeal:
    """Seals claims and opens them.

    Args:
        secrets: hold the keys of grants.
    """

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def seal(self, claim: Claim, *, ticket: str, grant: str) -> bytes:
        """Return what is stored of a claim."""
        text = json.dumps([claim.claimed, claim.evidence], ensure_ascii=False).encode()
        nonce = os.urandom(_NONCE)
        return nonce + AESGCM(self._key(ticket, grant)).encrypt(nonce, text, ticket.encode())

    def open(self, stored: bytes, *, ticket: str, grant: str) -> Claim | None:
        """Return the claim; None where it was erased.

        Raises:
            CorruptError: ROW_FORGED, it is not what was sealed for this ticket.
        """
        if not stored:
            return None
        try:
            text = AESGCM(self._key(ticket, grant)).decrypt(stored[:_NONCE], stored[_NONCE:], ticket.encode())
        except InvalidTag as error:
            raise CorruptError(
                Reason.ROW_FORGED,
                f"the claim of the ticket {ticket[:40]} is not the one that was sealed for it, or the keys are another "
                "pool's; it is not shown",
            ) from error
        claimed, evidence = json.loads(text)
        return Claim(claimed=claimed, evidence=evidence)

    def _key(self, ticket: str, grant: str) -> bytes:
        info = f"exchange-pool/1/correction/{ticket}".encode()
        return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(self._secrets.grant_key(grant))
