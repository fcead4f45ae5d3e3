"""Data of the audit entry of a look-up or a verification: one leaf a call, without a value and without an answer. Pure.

    epoch, key    month and fingerprint of the key under which the pseudonyms are
    subjects      pseudonyms of everybody who was asked for, 16 bytes each, base64
    asked         how many
    found         bitmap of those whose record was shown; of a verification `answered`: yes or no, not which
    basis         [bucket, number of its last batch] of every bucket that was asked
    root          RFC 6962 root over SHA-256(0x00 ‖ salt ‖ answer), an absent one's answer being empty

The salt goes to the consumer and not into the log: a root over "yes" or "no" without it would be the answer. With
answers and salt either side proves later what was said.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence

from schemas.canonical import Json
from schemas.merkle import root_of

__all__ = ["bitmap", "leaf_data", "salted_root"]


def bitmap(flags: Sequence[bool]) -> bytes:
    """Return truth values as bits, the first one in the highest bit of the first byte."""
    packed = bytearray((len(flags) + 7) // 8)
    for at, flag in enumerate(flags):
        packed[at >> 3] |= flag << (7 - (at & 7))
    return bytes(packed)


def salted_root(salt: bytes, answers: Sequence[bytes]) -> bytes:
    """Return the root over answers, in order."""
    return root_of([hashlib.sha256(b"\x00" + salt + one).digest() for one in answers])


def leaf_data(
    *,
    library: str,
    epoch: str,
    key: bytes,
    pseudonyms: Sequence[bytes],
    basis: Mapping[int, int],
    rules: int,
    root: bytes,
    request: bytes,
    special: Mapping[str, Json],
) -> dict[str, Json]:
    """Return the data of an entry.

    Args:
        library: whose records were asked.
        epoch: of the pseudonyms.
        key: fingerprint of the key of the epoch.
        pseudonyms: of the subjects, in order.
        basis: number of the last batch by bucket.
        rules: version of the library's rules; 0 for none.
        root: over the salted answers.
        request: id that the caller chose; empty for none.
        special: what only this action has.
    """
    shown: list[Json] = [[bucket, basis[bucket]] for bucket in sorted(basis)]
    data: dict[str, Json] = {
        "library": library,
        "epoch": epoch,
        "key": key.hex(),
        "subjects": base64.b64encode(b"".join(pseudonyms)).decode(),
        "asked": len(pseudonyms),
        "basis": shown,
        "rules": rules,
        "root": root.hex(),
    }
    if request:
        data["request"] = request.hex()
    return {**data, **special}
