"""Position token: a consumer's position, sealed for its grant and the topic's generation.

It holds two vectors of next offsets, one item a partition. `next` is the one to read from. `last_released` is the end
of the last release entry: what was scanned in between delivered nothing and has no entry yet, so it becomes part of
the next entry's range, and the ranges of a grant's entries join without a gap.

Offsets count every record of the topic, those beyond the grant too. A token is therefore encrypted and authenticated
(AES-256-GCM-SIV, RFC 8452) under a key of its grant: its holder reads nothing in it, cannot make one, and sees the same
number of bytes whatever the offsets are. Two tokens of one position differ (random nonce), so that comparing them tells
nothing either. A token is not a permission: what may be fetched is decided at each fetch.

    0x02 ‖ generation, uint64 ‖ nonce, 12 bytes ‖ AES-256-GCM-SIV(issued at, runs, last_released, next)

Numbers within are of 6 bytes, little-endian. The head and the grant's id are the associated data.

Version 1 was in clear (`is_clear`). Such a token is read only where `exchange.records.fetch` can compare it with what
the pool has stored for the grant; otherwise its maker could choose offsets and learn from the answers where records
are.
"""

import hashlib
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from schemas.errors import ConflictError, InvalidError, Reason
from schemas.record import Positions

__all__ = ["BEGINNING", "ConsumerPosition", "PositionTokens", "is_clear", "read_clear"]

BEGINNING = b"\x00"
"""A position that a consumer may send to start again from the first record that its grant lets it see."""

_VERSION = 2
_HEAD = struct.Struct("<BQ")  # version, generation
_NONCE = 12
_TAG = 16
_NUMBER = 6  # bytes of an offset, a count and a time: 2.8 × 10^14 records a partition
_UNKNOWN = (1 << 8 * _NUMBER) - 1
_LABEL = b"pool.position.v2"
_CACHED_KEYS = 16_384  # keyed ciphers, one a grant

_CLEAR_VERSION = 1
_CLEAR_HEAD = struct.Struct("<B8sqH")  # version, grant's tag, generation, partitions


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerPosition:
    """Position of a grant's consumer in a topic; `last_released` ≤ `next` in every partition.

    Attributes:
        last_released: end of the last release entry.
        next: where to read on.
        runs: releases whose delivered keys are needed to find the withdrawals behind it; None = not known yet (see
            `exchange.records.reading.delivery_tracking`).
        issued: seconds since 1970 at which its token was made; 0 = it was read from none.
    """

    last_released: Positions
    next: Positions
    runs: int | None = None
    issued: int = 0


class PositionTokens:
    """Seals and opens tokens.

    Args:
        grant_key: grant id → its secret of 32 bytes (`Secrets.grant_key`); the key of the cipher is derived from it
            (HKDF-Expand, RFC 5869), so that record keys and tokens share none.
        clock: microseconds since 1970.
    """

    def __init__(self, grant_key: Callable[[str], bytes], clock: Callable[[], int]) -> None:
        self._clock = clock
        self._cipher = lru_cache(maxsize=_CACHED_KEYS)(lambda grant_id: AESGCMSIV(_derive(grant_key(grant_id))))

    def now(self) -> int:
        """Return the time that a token made now would hold, in seconds since 1970."""
        return self._clock() // 1_000_000

    def seal(self, position: ConsumerPosition, grant_id: str, generation: int) -> bytes:
        """Return a token of 49 bytes and 12 a partition."""
        runs = _UNKNOWN if position.runs is None else position.runs
        numbers = (self.now(), runs, *position.last_released, *position.next)
        plain = b"".join([number.to_bytes(_NUMBER, "little") for number in numbers])
        head, nonce = _HEAD.pack(_VERSION, generation), os.urandom(_NONCE)
        return head + nonce + self._cipher(grant_id).encrypt(nonce, plain, _associated(head, grant_id))

    def open(self, token: bytes, grant_id: str, generation: int, partitions: int) -> ConsumerPosition:
        """Read a token that this pool sealed for this grant.

        Raises:
            InvalidError: POSITION_INVALID, it did not.
            ConflictError: TOPIC_GENERATION_CHANGED, made before the topic was restored: start again.
        """
        head, nonce, sealed = token[: _HEAD.size], token[_HEAD.size :][:_NONCE], token[_HEAD.size + _NONCE :]
        if len(sealed) != _NUMBER * (2 + 2 * partitions) + _TAG or token[0] != _VERSION:
            raise _invalid("a position of another form")
        try:
            plain = self._cipher(grant_id).decrypt(nonce, sealed, _associated(head, grant_id))
        except InvalidTag:
            raise _invalid("a position that was not made for this grant") from None
        _check_generation(_HEAD.unpack(head)[1], generation)
        numbers = [int.from_bytes(plain[at : at + _NUMBER], "little") for at in range(0, len(plain), _NUMBER)]
        issued, runs, *offsets = numbers
        return ConsumerPosition(
            last_released=tuple(offsets[:partitions]),
            next=tuple(offsets[partitions:]),
            runs=None if runs == _UNKNOWN else runs,
            issued=issued,
        )


def is_clear(token: bytes) -> bool:
    """Return whether a token is of version 1, which was neither encrypted nor authenticated."""
    return len(token) >= _CLEAR_HEAD.size and token[0] == _CLEAR_VERSION


def read_clear(token: bytes, grant_id: str, generation: int, partitions: int) -> ConsumerPosition:
    """Read a token of version 1. Who made it, nothing proves.

    Raises:
        InvalidError: POSITION_INVALID, not a token of this grant.
        ConflictError: TOPIC_GENERATION_CHANGED, made before the topic was restored: start again.
    """
    if not is_clear(token):
        raise _invalid("a position of another form")
    _, tag, made_in, count = _CLEAR_HEAD.unpack_from(token)
    if count != partitions or len(token) != _CLEAR_HEAD.size + 16 * count:
        raise _invalid("a position of another form")
    if tag != hashlib.sha256(grant_id.encode()).digest()[:8]:
        raise _invalid("a position of another grant")
    _check_generation(made_in, generation)
    offsets = struct.unpack_from(f"<{2 * count}Q", token, _CLEAR_HEAD.size)
    position = ConsumerPosition(last_released=offsets[:count], next=offsets[count:])
    if any(released > next_ for released, next_ in zip(position.last_released, position.next, strict=True)):
        raise _invalid("a position that contradicts itself")
    return position


def _derive(grant_key: bytes) -> bytes:
    return HKDFExpand(algorithm=hashes.SHA256(), length=32, info=_LABEL).derive(grant_key)


def _associated(head: bytes, grant_id: str) -> bytes:
    return _LABEL + head + grant_id.encode()


def _check_generation(made_in: int, generation: int) -> None:
    if made_in != generation:
        raise ConflictError(
            Reason.TOPIC_GENERATION_CHANGED,
            f"got a position of generation {made_in} of the topic, which was restored since and is now in "
            f"generation {generation}; start again from the beginning of the grant",
        )


def _invalid(got: str) -> InvalidError:
    return InvalidError(
        Reason.POSITION_INVALID, f"got {got}; expected the `next_position` of a fetch under this grant, or none"
    )
