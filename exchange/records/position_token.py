"""Position token: a consumer's position, opaque and versioned, bound to its grant and the topic's generation.

It holds two vectors of next offsets, one item a partition. `next` is the one to read from. `last_released` is the end
of the last release entry: what was scanned in between delivered nothing and has no entry yet, so it becomes part of
the next entry's range, and the ranges of a grant's entries join without a gap.

A token is neither a secret nor a permission: a forged one reads only what the grant allows anyway. The binding finds
mistakes: another grant's token, or one from before a restore.
"""

import hashlib
import struct
from dataclasses import dataclass

from schemas.errors import ConflictError, InvalidError, Reason
from schemas.record import Positions

__all__ = ["BEGINNING", "ConsumerPosition"]

BEGINNING = b"\x00"
"""A position that a consumer may send to start again from the first record that its grant lets it see."""

_VERSION = 1
_HEAD = struct.Struct("<B8sqH")  # version, grant's tag, generation, partitions


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerPosition:
    """Position of a grant's consumer in a topic; `last_released` ≤ `next` in every partition."""

    last_released: Positions
    next: Positions

    def token(self, grant_id: str, generation: int) -> bytes:
        """Return the opaque form: 19 bytes and 16 a partition."""
        head = _HEAD.pack(_VERSION, _tag(grant_id), generation, len(self.next))
        return head + struct.pack(f"<{2 * len(self.next)}Q", *self.last_released, *self.next)

    @classmethod
    def parse(cls, token: bytes, grant_id: str, generation: int, partitions: int) -> "ConsumerPosition":
        """Read a token.

        Raises:
            InvalidError: POSITION_INVALID, not a token of this grant.
            ConflictError: TOPIC_GENERATION_CHANGED, made before the topic was restored: start again.
        """
        if len(token) < _HEAD.size:
            raise _invalid("too short a position")
        version, tag, made_in, count = _HEAD.unpack_from(token)
        if version != _VERSION or count != partitions or len(token) != _HEAD.size + 16 * count:
            raise _invalid("a position of another form")
        if tag != _tag(grant_id):
            raise _invalid("a position of another grant")
        if made_in != generation:
            raise ConflictError(
                Reason.TOPIC_GENERATION_CHANGED,
                f"got a position of generation {made_in} of the topic, which was restored since and is now in "
                f"generation {generation}; start again from the beginning of the grant",
            )
        offsets = struct.unpack_from(f"<{2 * count}Q", token, _HEAD.size)
        position = cls(last_released=offsets[:count], next=offsets[count:])
        if any(released > next_ for released, next_ in zip(position.last_released, position.next, strict=True)):
            raise _invalid("a position that contradicts itself")
        return position


def _tag(grant_id: str) -> bytes:
    return hashlib.sha256(grant_id.encode()).digest()[:8]


def _invalid(got: str) -> InvalidError:
    return InvalidError(
        Reason.POSITION_INVALID, f"got {got}; expected the `next_position` of a fetch under this grant, or none"
    )
