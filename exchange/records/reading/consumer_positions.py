"""Consumer positions of a fetch: where it begins, by the token that was sent, and which token its answer gets.

The token is the one that was sent, else the last one committed, else none: then the grant's first record. No position
is before what the grant's history rule lets its consumer see (`floor`).
"""

import struct
from dataclasses import dataclass, replace

from exchange.access.grants.store import AccessStore, GrantPosition
from exchange.broker.port import Broker, TopicInfo
from exchange.records.reading.position_token import BEGINNING, ConsumerPosition, PositionTokens, is_clear, read_clear
from exchange.records.reading.scan import ScannedAhead, TopicView
from registry.database.unit_of_work import Database
from schemas.access import Grant, History
from schemas.errors import ConflictError, InvalidError, Reason
from schemas.record import Positions

__all__ = ["ConsumerPositions", "EntryStart", "maximum", "unpack", "vector"]

_ISSUE_SECONDS = 3_600.0  # after which an empty answer brings a new position, whether or not it moved


@dataclass(frozen=True, slots=True)
class EntryStart:
    """Where the range of a release's entry begins.

    Attributes:
        start: by partition.
        again: the range was released before.
        gap: why it leaves a gap; empty where it leaves none.
    """

    start: Positions
    again: bool
    gap: str

    @classmethod
    def of(cls, topic: TopicView, current: ConsumerPosition, stored: GrantPosition) -> "EntryStart":
        """Return it for a release from a position, after what is stored of the releases before."""
        released = unpack(stored.released)
        if not released:
            return cls(current.last_released, False, "")
        start = tuple(
            last if last <= before or last <= earliest else before
            for last, before, earliest in zip(current.last_released, released, topic.ends.earliest, strict=True)
        )
        again = any(first < before for first, before in zip(start, released, strict=True))
        gap = any(first > before for first, before in zip(start, released, strict=True))
        return cls(start, again, "retention" if gap else "")


class ConsumerPositions:
    """Reads the positions of consumers, and makes the tokens of answers."""

    def __init__(
        self, *, database: Database, broker: Broker, access: AccessStore, tokens: PositionTokens, ahead: ScannedAhead
    ) -> None:
        self._database = database
        self._broker = broker
        self._access = access
        self._tokens = tokens
        self._ahead = ahead

    def current(self, grant: Grant, topic: TopicView, position: bytes) -> tuple[ConsumerPosition, bytes]:
        """Return the consumer's position: the one sent, else the last committed; BEGINNING starts again.

        Also its token, empty where it has none yet.
        """
        info = topic.info
        token = b"" if position == BEGINNING else position or self._stored(grant).committed
        floor = self.floor(grant, topic)
        if not token:
            start = maximum(floor, topic.ends.earliest)
            return ConsumerPosition(last_released=start, next=start), b""
        if is_clear(token):
            current = self.read_clear(grant, info, token)
            token = b""
        else:
            current = self.opened(token, grant, info)
        # A position before the floor does not get around the grant's history rule.
        return replace(
            current, last_released=maximum(current.last_released, floor), next=maximum(current.next, floor)
        ), token

    def _stored(self, grant: Grant) -> GrantPosition:
        # A connection of its own, given back before the broker is asked: while the broker does not answer, waiting
        # fetches must not keep connections that publishing and the registry need.
        with self._database.read() as reader:
            return self._access.position(reader, grant.stream_id)

    def opened(self, token: bytes, grant: Grant, info: TopicInfo) -> ConsumerPosition:
        """Read a token of a grant, as `PositionTokens.open` does.

        Raises:
            InvalidError: POSITION_INVALID.
            ConflictError: TOPIC_GENERATION_CHANGED; GRANT_VIEW_CHANGED, it was made under the grant that this one
                renews, which showed something else.
        """
        try:
            return self._tokens.open(token, grant.stream_id, info.generation, info.partitions)
        except InvalidError:
            if self._is_of_renewed(token, grant):
                raise ConflictError(
                    Reason.GRANT_VIEW_CHANGED,
                    f"got a position of a grant that {grant.id} renews, which showed other fields or rows: take the "
                    "records of the target for withdrawn, and fetch from the beginning (one 0 byte)",
                ) from None
            raise

    def _is_of_renewed(self, token: bytes, grant: Grant) -> bool:
        """Return whether a token is of another stream of the grants that this one renews, one after the other."""
        renewed, streams = grant.renews, {grant.stream_id}
        while renewed:
            with self._database.read() as reader:
                earlier = self._access.get(reader, renewed)
            if earlier.stream_id not in streams:
                streams.add(earlier.stream_id)
                try:
                    info = self._broker.topic(earlier.topic)
                    self._tokens.open(token, earlier.stream_id, info.generation, info.partitions)
                except ConflictError:
                    return True
                except InvalidError:
                    pass
                else:
                    return True
            renewed = earlier.renews
        return False

    def read_clear(self, grant: Grant, info: TopicInfo, token: bytes) -> ConsumerPosition:
        """Read a token in clear, of a pool of the version before, that equals what that pool has stored.

        The first release or commit after the upgrade seals what is stored, and no token in clear is read any more. So
        its sender, who may have made it, learns no offset that it has not been told already.

        Raises:
            InvalidError: POSITION_INVALID, it is another one.
            ConflictError: TOPIC_GENERATION_CHANGED.
        """
        position = read_clear(token, grant.stream_id, info.generation, info.partitions)
        stored = self._stored(grant)
        if token == stored.committed:
            return position
        if is_clear(stored.committed) and vector(position.last_released) == stored.released:
            # What lies between the two vectors delivered nothing: it is read again, and may not be chosen.
            return replace(position, next=position.last_released)
        raise InvalidError(
            Reason.POSITION_INVALID,
            "got a position of an earlier form, which is read only where it is the last one committed or released; "
            "expected a newer one: fetch without a position to continue after the last commit, or from the beginning "
            "(one 0 byte)",
        )

    def sealed(self, grant: Grant, info: TopicInfo, committed: bytes) -> bytes:
        """Return a stored position in the form of today."""
        if not is_clear(committed):
            return committed
        try:
            position = read_clear(committed, grant.stream_id, info.generation, info.partitions)
        except (ConflictError, InvalidError):  # of an earlier generation: refused in either form
            return b""
        return self._tokens.seal(position, grant.stream_id, info.generation)

    def unmoved(
        self,
        grant: Grant,
        info: TopicInfo,
        current: ConsumerPosition,
        token: bytes,
        end: Positions,
        *,
        caught_up: bool,
    ) -> bytes:
        """Return the position of an empty answer: the one that was sent, so that it does not tell what was scanned.

        It is renewed every hour, so that retention does not overtake a consumer to whom nothing is delivered; and after
        a scan that time has ended.
        """
        if not caught_up or (token and self._tokens.now() - current.issued >= _ISSUE_SECONDS):
            return self._tokens.seal(replace(current, next=end), grant.stream_id, info.generation)
        self._ahead.put(grant, info.generation, current.next, end)
        return token or self._tokens.seal(current, grant.stream_id, info.generation)

    def floor(self, grant: Grant, topic: TopicView) -> Positions:
        """Return the first positions that the grant's history rule lets its consumer see."""
        if grant.history is History.ALL:
            return (0,) * topic.info.partitions
        since = grant.since or grant.approved_at
        if since is None:
            return topic.ends.latest
        return self._broker.positions_for_time(grant.topic, int(since.timestamp() * 1_000_000))


def maximum(one: Positions, other: Positions) -> Positions:
    """Return the later position of two, by partition."""
    return tuple(max(pair) for pair in zip(one, other, strict=True))


def unpack(packed: bytes) -> Positions:
    """Return the positions of `vector`."""
    return struct.unpack(f"<{len(packed) // 8}Q", packed)


def vector(positions: Positions) -> bytes:
    """Return positions as 8 bytes each, little-endian."""
    return struct.pack(f"<{len(positions)}Q", *positions)
