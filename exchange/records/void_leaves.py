"""Leaf hashes of voids: what the root of a batch needs and the stored records do not say.

The leaf of a void covers its key (`schemas.record.leaf_hashes`), and the broker holds the key's pseudonym alone. So the
leaves of a batch's voids are kept beside its receipt. A hash of a national number can be tried out in an hour; they are
therefore combined with a keyed mask (XOR), from the topic's key, which the database does not hold.

They need no tag: whether they are right is shown by the root.
"""

from collections.abc import Sequence

from exchange.records.ports import KeyPseudonymizer
from schemas.names import Lane
from schemas.record import Operation, Packed, leaf_hashes

__all__ = ["LEAF_SIZE", "mask_void_leaves", "void_leaves"]

LEAF_SIZE = 32  # bytes


def void_leaves(marks: bytes, void_keys: Packed, valid: bytes) -> list[bytes]:
    """Return the leaf hash of each void of a batch whose form was checked, in order."""
    indexes = [index for index, mark in enumerate(marks) if mark & 15 == Operation.VOID]
    times = b"".join([valid[16 * index : 16 * index + 16] for index in indexes])
    return leaf_hashes(bytes([marks[index] for index in indexes]), [b""] * len(indexes), void_keys, times)


def mask_void_leaves(
    pseudonymizer: KeyPseudonymizer, lane: Lane, sequence: int, leaves: Sequence[bytes]
) -> list[bytes]:
    """Return leaf hashes of a batch's voids masked, or masked ones as they were."""
    # No key of a record begins with U+001F (`schemas.record.key_bytes`): no pseudonym is a mask.
    head = f"\x1fvoid\x1f{lane}\x1f{sequence}\x1f"
    names = [f"{head}{index}\x1f{half}".encode() for index in range(len(leaves)) for half in "01"]
    halves = pseudonymizer.pseudonyms(lane.topic, names)
    return [
        bytes(one ^ other for one, other in zip(leaf, halves[2 * index] + halves[2 * index + 1], strict=True))
        for index, leaf in enumerate(leaves)
    ]
