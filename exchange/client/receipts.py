"""Verification of receipts: a receipt is the department's own proof of what it gave only if the pool has signed it."""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from schemas.errors import CorruptError, Reason
from schemas.record import Receipt, receipt_statement

__all__ = ["verify_receipt"]


def verify_receipt(receipt: Receipt, public_key: bytes) -> None:
    """Check that the pool has signed a receipt.

    Args:
        receipt: as it came, or from a ledger.
        public_key: the pool's Ed25519 key for receipts, 32 bytes (`Hello.receipt_public_key`).

    Raises:
        CorruptError: SIGNATURE_INVALID.
    """
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(public_key).verify(receipt.signature, receipt_statement(receipt))
    except (InvalidSignature, ValueError) as error:  # ValueError: not a key
        raise CorruptError(
            Reason.SIGNATURE_INVALID,
            f"got a receipt for batch {receipt.sequence} that the pool's key has not signed; expected Ed25519 over "
            "lane, sequence, root, runs, entry and source position. Ask the pool's operator before publishing on",
        ) from error
