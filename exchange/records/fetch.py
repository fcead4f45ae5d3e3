"""Fetch: records out of the pool, under a grant, for a purpose and a case.

    (1) facts      the grant as it is now, proven by its hash; resource; quota; the database's clock
    (2) decision   today's grant, every time
    (3) place      where the consumer stands; never before what its grant lets it see
    (4) read       committed records, at most 16,384 positions
    (5) view       rows kept, fields kept, masks applied; rows that left the filter and voids become withdrawals
    (6) entry      in one transaction: the grant's row locked and decided upon again, quota, entry, commit
    (7) release    only within the release window after that commit was sent; later, nothing leaves

The lock in (6) and the update of a revocation exclude each other, so no entry follows a revocation. The window in
(7) bounds how long after the entry bytes may still leave; a revocation is acknowledged only after that window has
passed as well. If the outcome of the commit is unknown, or the window is over, nothing is released: the log may
say too much, never too little.
"""

import hashlib
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from exchange.access.decision.policy import decide
from exchange.access.decision.roles import Standing
from exchange.access.grants.store import AccessStore, GrantPosition
from exchange.authorization.attributes import AttributeProvider, GrantAttributes
from exchange.authorization.enforcement import Authorized, Enforcer, Writer
from exchange.authorization.request_context import RequestContext
from exchange.broker.port import Broker, ReadResult
from exchange.records.position_token import BEGINNING, ConsumerPosition
from exchange.records.release import Release, Terms, ViewOf, empty_release
from registry.database.unit_of_work import Database, Reader
from schemas.access import Action, Actor, Deny, Grant, History
from schemas.audit import Flow, fetch_data
from schemas.errors import ConflictError, CorruptError, GoneError, Reason, RefusedError, UnavailableError
from schemas.failpoints import reached
from schemas.merkle import root_of
from schemas.names import Topic
from schemas.record import KeyOccurrence, Packed, Positions

__all__ = ["FetchService"]

_MOST_POSITIONS = 16_384  # scanned by one fetch
_DEFAULT_RECORDS = 10_000
_MOST_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """The selected records of one slice, before their release."""

    values: Packed
    keys: Sequence[bytes]
    recorded_at: Sequence[int]
    delivered: Sequence[Sequence[int]]  # offsets a partition
    withdrawn: Sequence[Sequence[int]]

    @property
    def count(self) -> int:
        return len(self.keys)


class FetchService:
    """The consuming side of the pool."""

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        ledger: Writer,
        broker: Broker,
        attributes: AttributeProvider,
        access: AccessStore,
        view_of: ViewOf,
        record_keys: Callable[[str, Sequence[bytes]], bytes],
        schema_text: Callable[[Reader, int], str],
        window: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._ledger = ledger
        self._broker = broker
        self._attributes = attributes
        self._access = access
        self._view_of = view_of
        self._record_keys = record_keys
        self._schema_text = schema_text
        self._window = window  # seconds
        self._monotonic = monotonic

    def topic_of(self, actor: Actor, call: RequestContext, grant_id: str) -> Topic:
        """Return a grant's topic to its consumer; the fetch itself decides the rest.

        Raises:
            RefusedError: it is unknown or another department's.
        """
        return self._described(actor, call, grant_id)[1].grant.topic

    def describe(self, actor: Actor, call: RequestContext, grant_id: str) -> Terms:
        """Return what a grant delivers and where its consumer stands.

        Raises:
            RefusedError: it is unknown or another department's.
            ConflictError: TRANSITION_NOT_ALLOWED, it was never approved and has no view.
        """
        _, attributes = self._described(actor, call, grant_id)
        grant = attributes.grant
        if grant.view_schema_id is None:
            raise RefusedError(
                Reason.GRANT_NOT_ACTIVE, f"the grant is {grant.state}; its view is made when the owner approves it"
            )
        with self._database.read() as reader:
            place = self._place(reader, grant, b"")
            schema_text = self._schema_text(reader, grant.view_schema_id)
        info = self._broker.topic(grant.topic)
        return Terms(
            grant=grant,
            schema_id=grant.view_schema_id,
            schema_text=schema_text,
            position=place.token(grant.id, info.generation),
            row_filter=attributes.row_filter,
        )

    def fetch(
        self, actor: Actor, call: RequestContext, grant_id: str, position: bytes, max_records: int, max_bytes: int
    ) -> Release:
        """Do steps (1) to (6) once; an answer without records has released nothing.

        Raises:
            RefusedError: today's grant does not allow it.
            InvalidError, ConflictError: the position is not one of this grant, or of an earlier generation.
            GoneError: retention has overtaken the position; `details["position"]` is one to go on from.
            UnavailableError: nothing was released.
        """
        # (1), (2)
        with self._database.read() as reader:
            attributes = self._grant(reader, actor, Action.FETCH, call, grant_id)
            standing = self._attributes.standing_of(reader, actor)
            passage = self._admit(actor, Action.FETCH, call, standing, attributes)
            assert attributes is not None  # noqa: S101 - an unknown grant was refused
            grant = attributes.grant
            # (3)
            place = self._place(reader, grant, position)
        # (4)
        generation = self._broker.topic(grant.topic).generation
        slice_ = self._read(grant, place, generation, max_records, max_bytes)
        # (5)
        drawn = self._draw(grant, slice_)
        caught_up = slice_.next == place.at or self._broker.ends(grant.topic).latest == slice_.next
        if not drawn.count:
            scanned = sum(slice_.next) - sum(place.at)
            onward = ConsumerPosition(place.since, slice_.next).token(grant.id, generation)
            return empty_release(grant.view_schema_id or 0, onward, scanned, caught_up=caught_up)
        # (6)
        sent = self._monotonic()
        with self._database.begin() as work:
            locked = self._attributes.lock_grant(work, grant_id)
            standing = self._attributes.hold_standing(work, actor)
            passage = self._admit(actor, Action.FETCH, call, standing, locked, within=passage)
            if locked.grant.version != grant.version:
                raise ConflictError(
                    Reason.VERSION_CONFLICT,
                    "the grant changed while records were read; fetch again from the same place",
                )
            self._attributes.add_released(work, grant, len(drawn.keys) - sum(map(len, drawn.withdrawn)))
            stands = self._access.position(work, grant.id)
            start, again, gap = self._chain(grant, place, stands)
            furthest = _higher(slice_.next, _positions(stands.released) or slice_.next)
            moved = replace(stands, released=_vector(furthest))
            self._access.replace_position(work, grant.id, expected=stands, new=moved)
            keys = self._record_keys(grant.id, drawn.keys)
            data = fetch_data(
                generation=generation,
                start=start,
                end=slice_.next,
                delivered=drawn.delivered,
                withdrawn=drawn.withdrawn,
                root=_root(keys, drawn.values),
                again=again,
                gap=gap,
            )
            entry = passage.entry(data, flow=Flow.HORIZONTAL)
            # The last write, but not one that goes with the commit: the time is taken once the entry is stored.
            leaf = self._ledger.write(work, [entry])[0]
            sent = self._monotonic()
        reached("after_release_entry")
        # (7)
        deadline = sent + self._window
        if self._monotonic() > deadline:
            raise UnavailableError(
                Reason.RELEASE_TOO_LATE,
                "the entry took longer than the release window; nothing was released, fetch again from the same place",
                retry_after=0.0,
            )
        return Release(
            schema_id=grant.view_schema_id or 0,
            values=drawn.values,
            record_keys=keys,
            recorded_at=drawn.recorded_at,
            valid=b"",  # kept with the record and in its leaf; no view delivers valid times yet
            next_position=ConsumerPosition(slice_.next, slice_.next).token(grant.id, generation),
            entry_id=entry.id,
            leaf_hash=leaf,
            scanned=sum(slice_.next) - sum(place.at),
            caught_up=caught_up,
            deadline=deadline,
        )

    def commit(self, actor: Actor, call: RequestContext, grant_id: str, position: bytes) -> str:
        """Store the consumer's acknowledgement; give the id of its entry.

        Raises:
            RefusedError: today's grant does not allow it.
            InvalidError, ConflictError: the position is not one of this grant, or of an earlier generation.
        """
        with self._database.read() as reader:
            attributes = self._grant(reader, actor, Action.COMMIT, call, grant_id)
            standing = self._attributes.standing_of(reader, actor)
            passage = self._admit(actor, Action.COMMIT, call, standing, attributes)
        assert attributes is not None  # noqa: S101 - an unknown grant was refused
        grant = attributes.grant
        info = self._broker.topic(grant.topic)
        place = ConsumerPosition.parse(position, grant.id, info.generation, info.partitions)
        with self._database.begin() as work:
            entry = passage.entry({"generation": info.generation, "at": list(place.at)})
            stands = self._access.position(work, grant.id)
            self._access.replace_position(work, grant.id, expected=stands, new=replace(stands, committed=position))
            self._ledger.write(work, [entry])
        return entry.id

    def _described(self, actor: Actor, call: RequestContext, grant_id: str) -> tuple[Authorized, GrantAttributes]:
        with self._database.read() as reader:
            attributes = self._grant(reader, actor, Action.GRANT_READ, call, grant_id)
            standing = self._attributes.standing_of(reader, actor)
            passage = self._admit(actor, Action.GRANT_READ, call, standing, attributes)
        assert attributes is not None  # noqa: S101 - an unknown grant was refused
        return passage, attributes

    def _grant(
        self, reader: Reader, actor: Actor, action: Action, call: RequestContext, grant_id: str
    ) -> GrantAttributes | None:
        """Return the grant's facts; a row that does not prove itself is a denial, and recorded as one."""
        try:
            return self._attributes.grant(reader, grant_id)
        except CorruptError as error:
            if error.reason is Reason.GRANT_FORGED:
                self._enforcer.admit(actor, action, grant_id, call, Deny(error.reason, error.message))
            raise

    def _admit(
        self,
        actor: Actor,
        action: Action,
        call: RequestContext,
        standing: Standing,
        attributes: GrantAttributes | None,
        *,
        within: Authorized | None = None,
    ) -> Authorized:
        """Decide with these attributes; a denial is recorded in a transaction of its own.

        *within*: what the first decision authorized; for the second one the caller locks the certificate as it locks
        the grant, so that a revocation of either waits for the entry.
        """
        decision = decide(
            actor,
            action,
            standing=standing,
            grant=attributes,
            purpose=call.purpose,
            case=call.case,
        )
        if within is not None and decision:
            return within
        resource = str(attributes.grant.topic) if attributes else ""
        return self._enforcer.admit(
            actor, action, resource, call, decision, attributes.reference if attributes else None
        )

    def _place(self, reader: Reader, grant: Grant, position: bytes) -> ConsumerPosition:
        """Return the consumer's place: the position sent, else the last committed; BEGINNING starts again."""
        info = self._broker.topic(grant.topic)
        token = b"" if position == BEGINNING else position or self._access.position(reader, grant.id).committed
        floor = self._floor(grant, info.partitions)
        if not token:
            start = _higher(floor, self._broker.ends(grant.topic).earliest)
            return ConsumerPosition(start, start)
        place = ConsumerPosition.parse(token, grant.id, info.generation, info.partitions)
        # A position before the floor is no way round the grant's history rule.
        return ConsumerPosition(_higher(place.since, floor), _higher(place.at, floor))

    def _floor(self, grant: Grant, partitions: int) -> Positions:
        """Return the first positions that the grant's history rule lets its consumer see."""
        if grant.history is History.ALL:
            return (0,) * partitions
        if grant.approved_at is None:
            return self._broker.ends(grant.topic).latest
        return self._broker.positions_for_time(grant.topic, int(grant.approved_at.timestamp() * 1_000_000))

    def _read(
        self, grant: Grant, place: ConsumerPosition, generation: int, max_records: int, max_bytes: int
    ) -> ReadResult:
        try:
            return self._broker.read(
                grant.topic,
                place.at,
                max_records=min(max_records or _DEFAULT_RECORDS, _MOST_POSITIONS),
                max_bytes=min(max_bytes or _MOST_BYTES, _MOST_BYTES),
            )
        except GoneError as error:
            earliest = tuple(int(offset) for offset in error.details["earliest"].split(","))
            onward = _higher(place.at, earliest)
            error.details["position"] = ConsumerPosition(onward, onward).token(grant.id, generation).hex()
            raise

    def _draw(self, grant: Grant, slice_: ReadResult) -> _Drawn:
        """Apply the view to a slice, and find what is withdrawn: voids, and rows that may have left the filter."""
        values = [value for stretch in slice_.partitions for value in stretch.values]
        partitions = len(slice_.next)
        if not values:
            empty: list[list[int]] = [[] for _ in range(partitions)]
            return _Drawn(values=Packed.of([]), keys=(), recorded_at=(), delivered=empty, withdrawn=empty)
        viewed = self._view_of(grant, values)
        kept = viewed.kept
        gone = np.zeros(len(values), dtype=np.bool_)
        delivered: list[list[int]] = [[] for _ in range(partitions)]
        withdrawn: list[list[int]] = [[] for _ in range(partitions)]
        keys: list[bytes] = []
        times: list[int] = []
        base = 0
        for stretch in slice_.partitions:
            mine = slice(base, base + len(stretch))
            base += len(stretch)
            stays = kept[mine]
            if stays.all():
                keys += stretch.keys
                times += stretch.recorded_at
                delivered[stretch.partition] += stretch.offsets
                continue
            if grant.withdrawals:
                for index in np.flatnonzero(~stays).tolist():
                    gone[mine.start + index] = (
                        stretch.values[index] is None or stretch.mark(index) >> 4 != KeyOccurrence.FIRST
                    )
            for index in np.flatnonzero(stays | gone[mine]).tolist():
                keys.append(stretch.keys[index])
                times.append(stretch.recorded_at[index])
                side = delivered if stays[index] else withdrawn
                side[stretch.partition].append(stretch.offsets[index])
        return _Drawn(
            values=_spread(viewed.values, kept[kept | gone]),
            keys=keys,
            recorded_at=times,
            delivered=delivered,
            withdrawn=withdrawn,
        )

    def _chain(self, grant: Grant, place: ConsumerPosition, stands: GrantPosition) -> tuple[Positions, bool, str]:
        """Return the entry's start, whether the range was released before, and why it leaves a gap, if it does."""
        released = _positions(stands.released)
        if not released:
            return place.since, False, ""
        earliest = self._broker.ends(grant.topic).earliest
        start = tuple(
            since if since <= before or since <= first else before
            for since, before, first in zip(place.since, released, earliest, strict=True)
        )
        again = any(since < before for since, before in zip(start, released, strict=True))
        gap = any(since > before for since, before in zip(start, released, strict=True))
        return start, again, "retention" if gap else ""


def _spread(values: Packed, kept: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> Packed:
    """Put an empty value in each place that is not kept."""
    if kept.all():
        return values
    lengths = np.zeros(len(kept), dtype="<i4")
    lengths[kept] = np.diff(np.frombuffer(values.offsets, dtype="<i4"))
    offsets = np.zeros(len(kept) + 1, dtype="<i4")
    np.cumsum(lengths, out=offsets[1:])
    return Packed(offsets.tobytes(), values.values)


def _root(keys: bytes, values: Packed) -> bytes:
    """Return the RFC 6962 root over what leaves: leaf = SHA-256(0x00 ‖ record key ‖ framed value)."""
    sha256 = hashlib.sha256
    return root_of(
        [sha256(b"\x00" + keys[16 * index : 16 * index + 16] + value).digest() for index, value in enumerate(values)]
    )


def _higher(one: Positions, other: Positions) -> Positions:
    return tuple(max(pair) for pair in zip(one, other, strict=True))


def _positions(vector: bytes) -> Positions:
    return struct.unpack(f"<{len(vector) // 8}Q", vector)


def _vector(positions: Positions) -> bytes:
    return struct.pack(f"<{len(positions)}Q", *positions)
