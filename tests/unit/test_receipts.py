"""A receipt proves what it says, field by field, or it is none."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from exchange.client.receipts import verify_receipt
from schemas.errors import CorruptError, Reason
from schemas.names import Lane
from schemas.record import Receipt, Run, receipt_statement

KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
BARE = Receipt(
    lane=Lane.parse("019a0000-0000-7000-8000-000000000001/source/population.v1"),
    sequence=7,
    root=b"r" * 32,
    runs=(Run(partition=0, first=10, last=19), Run(partition=2, first=4, last=4)),
    entry_id="019a0000-0000-7000-8000-0000000000aa",
    leaf_hash=b"l" * 32,
    source_position=b"row 1000",
)
RECEIPT = replace(BARE, signature=KEY.sign(receipt_statement(BARE)))

CHANGES: dict[str, object] = {
    "lane": Lane.parse("019a0000-0000-7000-8000-000000000002/source/population.v1"),
    "sequence": 8,
    "root": b"q" * 32,
    "runs": (Run(partition=0, first=10, last=19),),
    "entry_id": "019a0000-0000-7000-8000-0000000000ab",
    "leaf_hash": b"m" * 32,
    "source_position": b"row 999",
    "signature": b"",
}


def test_what_the_pool_signed_is_accepted() -> None:
    verify_receipt(RECEIPT, PUBLIC)


@pytest.mark.parametrize("field", CHANGES)
def test_a_changed_field_is_found_out(field: str) -> None:
    changed = replace(RECEIPT, **{field: CHANGES[field]})  # type: ignore[arg-type]
    with pytest.raises(CorruptError, match="has not signed") as caught:
        verify_receipt(changed, PUBLIC)
    assert caught.value.reason is Reason.SIGNATURE_INVALID


def test_another_key_proves_nothing() -> None:
    other = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    with pytest.raises(CorruptError):
        verify_receipt(RECEIPT, other)
