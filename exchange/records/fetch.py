"""Fetch: records out of the pool, under a grant, for a purpose and a case.

    (1) attributes  the grant as it is now, proven by its hash; resource; quota; the database's clock
    (2) decision    by the current grant, every time
    (3) position    of the consumer; never before what its grant lets it see
    (4) read        committed records, at most 16,384 positions
    (5) view        retracted values left out; rows and fields filtered, masks applied; rows that left the filter and
                    voids become withdrawals
    (6) entry       in one transaction: the grant's row locked and decided by again, the topic's retractions held back
                    and compared, quota, entry, commit
    (7) release     only within the release window after that commit was sent; later, nothing leaves

The lock in (6) and the update of a revocation exclude each other, so no entry follows a revocation; nor does an entry
of a value follow the retraction of its key (`exchange.erasure.retractions`). The window in (7) bounds how long after
the entry bytes may still leave; a revocation, or a void, is acknowledged only after that window has passed as well. If
the outcome of the commit is unknown, or the window is over, nothing is released: the log may claim too much, never too
little.
"""

import hashlib
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from exchange.access.decision.policy import decide
from exchange.access.decision.roles import Standing
from exchange.access.grants.store import AccessStore, GrantPosition
from exchange.authorization.attributes import AttributeProvider, GrantAttributes
from exchange.authorization.enforcement import AuditWriter, Authorized, Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.broker.port import Broker, Ends, ReadResult, TopicInfo
from exchange.records.ports import GrantViews, KeyPseudonymizer
from exchange.records.position_token import BEGINNING, ConsumerPosition
from exchange.records.release import GrantDescription, Release, empty_release
from exchange.records.retractions import Blocked, RetractionCache
from registry.database.unit_of_work import Database
from schemas.access import Action, Actor, Deny, Grant, History
from schemas.audit import Flow, fetch_data
from schemas.errors import ConflictError, CorruptError, GoneError, Reason, RefusedError, UnavailableError
from schemas.failpoints import reached
from schemas.merkle import root_of
from schemas.names import Topic
from schemas.record import KeyOccurrence, Packed, Positions

__all__ = ["FetchService"]

_MAX_POSITIONS = 16_384  # scanned by one fetch
_DEFAULT_RECORDS = 10_000
_MAX_BYTES = 16 * 1024 * 1024
_SELECTIONS = 5  # of one read, whose keys are retracted while they are selected


class _TopicView:
    """A topic as one fetch sees it: its description, and its ends, asked for at most once."""

    def __init__(self, broker: Broker, topic: Topic) -> None:
        self._broker = broker
        self.info: TopicInfo = broker.topic(topic)

    @cached_property
    def ends(self) -> Ends:
        return self._broker.ends(self.info.topic)

    def reached_end(self, position: Positions) -> bool:
        """Return whether a position is behind every record that was there when the ends were asked for."""
        return all(next_ >= latest for next_, latest in zip(position, self.ends.latest, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Selection:
    """The records of one read that the view selects, before their release."""

    values: Packed
    keys: Sequence[bytes]
    recorded_at: Sequence[int]
    delivered: Sequence[Sequence[int]]  # offsets by partition
    withdrawn: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.keys)


class _RetractedMeanwhileError(Exception):
    """A key of the read was retracted after the records were selected."""


class FetchService:
    """The consuming side of the pool."""

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        ledger: AuditWriter,
        broker: Broker,
        attributes: AttributeProvider,
        access: AccessStore,
        views: GrantViews,
        pseudonymizer: KeyPseudonymizer,
        retractions: RetractionCache,
        window: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._ledger = ledger
        self._broker = broker
        self._attributes = attributes
        self._access = access
        self._views = views
        self._pseudonymizer = pseudonymizer
        self._retractions = retractions
        self._window = window  # seconds
        self._monotonic = monotonic

    def topic_of(self, actor: Actor, call: RequestContext, grant_id: str) -> Topic:
        """Return a grant's topic to its consumer; the fetch itself decides the rest.

        Raises:
            RefusedError: it is unknown or another department's.
        """
        _, attributes = self._admit(actor, Action.GRANT_READ, call, grant_id)
        return attributes.grant.topic

    def describe(self, actor: Actor, call: RequestContext, grant_id: str) -> GrantDescription:
        """Return what a grant delivers, and its consumer's position.

        Raises:
            RefusedError: it is unknown or another department's.
            ConflictError: TRANSITION_NOT_ALLOWED, it was never approved and has no view.
        """
        _, attributes = self._admit(actor, Action.GRANT_READ, call, grant_id)
        grant = attributes.grant
        if grant.view_schema_id is None:
            raise RefusedError(
                Reason.GRANT_NOT_ACTIVE, f"the grant is {grant.state}; its view is made when the owner approves it"
            )
        with self._database.read() as reader:
            schema_text = self._views.schema_text(reader, grant.view_schema_id)
        topic = _TopicView(self._broker, grant.topic)
        current = self._position(grant, topic, b"")
        return GrantDescription(
            grant=grant,
            schema_id=grant.view_schema_id,
            schema_text=schema_text,
            position=current.token(grant.id, topic.info.generation),
            row_filter=attributes.row_filter,
        )

    def fetch(
        self, actor: Actor, call: RequestContext, grant_id: str, position: bytes, max_records: int, max_bytes: int
    ) -> Release:
        """Do steps (1) to (7) once; an answer without records has released nothing.

        Raises:
            RefusedError: the current grant does not allow it.
            InvalidError, ConflictError: the position is not one of this grant, or of an earlier generation.
            GoneError: retention has overtaken the position; `details["position"]` is one to go on from.
            UnavailableError: nothing was released.
        """
        # (1), (2)
        _, attributes = self._admit(actor, Action.FETCH, call, grant_id)
        grant = attributes.grant
        # (3)
        topic = _TopicView(self._broker, grant.topic)
        current = self._position(grant, topic, position)
        # (4)
        read = self._read(grant, topic, current, max_records, max_bytes)
        scanned = sum(read.next) - sum(current.next)
        caught_up = not scanned or topic.reached_end(read.next)
        for _ in range(_SELECTIONS):
            # (5)
            blocked = self._retractions.blocked(grant.topic, read)
            selection = self._select(grant, read, blocked)
            if not len(selection):
                following = ConsumerPosition(last_released=current.last_released, next=read.next)
                token = following.token(grant.id, topic.info.generation)
                return empty_release(grant.view_schema_id or 0, token, scanned, caught_up=caught_up)
            # (6), (7)
            try:
                release = self._release(actor, call, grant, topic, current, read, selection, blocked)
            except _RetractedMeanwhileError:
                continue
            return replace(release, scanned=scanned, caught_up=caught_up)
        raise UnavailableError(
            Reason.OVERLOADED,
            "keys of these records were retracted each time that they were selected; nothing was released, fetch again "
            "from the same position",
            retry_after=1.0,
        )

    def _release(
        self,
        actor: Actor,
        call: RequestContext,
        grant: Grant,
        topic: _TopicView,
        current: ConsumerPosition,
        read: ReadResult,
        selection: _Selection,
        blocked: Blocked | None,
    ) -> Release:
        generation = topic.info.generation
        # (6)
        sent = self._monotonic()
        with self._database.begin() as work:
            locked = self._attributes.lock_grant(work, grant.id)
            standing = self._attributes.lock_standing(work, actor)
            authorized = self._authorize(actor, Action.FETCH, call, standing, locked)
            if locked.grant.version != grant.version:
                raise ConflictError(
                    Reason.VERSION_CONFLICT,
                    "the grant changed while records were read; fetch again from the same position",
                )
            if not self._retractions.still_blocked(work, grant.topic, read, blocked):
                raise _RetractedMeanwhileError
            self._attributes.add_released(work, grant, len(selection) - sum(map(len, selection.withdrawn)))
            stored = self._access.position(work, grant.id)
            start, again, gap = self._entry_start(topic, current, stored)
            furthest = _maximum(read.next, _positions(stored.released) or read.next)
            moved = replace(stored, released=_vector(furthest))
            self._access.replace_position(work, grant.id, expected=stored, new=moved)
            keys = self._pseudonymizer.record_keys(grant.id, selection.keys)
            data = fetch_data(
                generation=generation,
                start=start,
                end=read.next,
                delivered=selection.delivered,
                withdrawn=selection.withdrawn,
                root=_root(keys, selection.values),
                again=again,
                gap=gap,
            )
            entry = authorized.entry(data, flow=Flow.HORIZONTAL)
            # The last write, but not sent with the commit: the time is taken once the entry is stored.
            leaf = self._ledger.write(work, [entry])[0]
            sent = self._monotonic()
        reached("after_release_entry")
        # (7)
        deadline = sent + self._window
        if self._monotonic() > deadline:
            raise UnavailableError(
                Reason.RELEASE_TOO_LATE,
                "the entry took longer than the release window; nothing was released, fetch again from the same "
                "position",
                retry_after=0.0,
            )
        return Release(
            schema_id=grant.view_schema_id or 0,
            values=selection.values,
            record_keys=keys,
            recorded_at=selection.recorded_at,
            valid=b"",  # stored with the record and in its leaf; no view delivers valid times yet
            next_position=ConsumerPosition(last_released=read.next, next=read.next).token(grant.id, generation),
            entry_id=entry.id,
            leaf_hash=leaf,
            scanned=0,
            caught_up=False,
            deadline=deadline,
        )

    def commit(self, actor: Actor, call: RequestContext, grant_id: str, position: bytes) -> str:
        """Store the consumer's acknowledgement; return the id of its entry.

        Raises:
            RefusedError: the current grant does not allow it.
            InvalidError, ConflictError: the position is not one of this grant, or of an earlier generation.
        """
        authorized, attributes = self._admit(actor, Action.COMMIT, call, grant_id)
        grant = attributes.grant
        info = self._broker.topic(grant.topic)
        acknowledged = ConsumerPosition.parse(position, grant.id, info.generation, info.partitions)
        with self._database.begin() as work:
            entry = authorized.entry({"generation": info.generation, "at": list(acknowledged.next)})
            stored = self._access.position(work, grant.id)
            self._access.replace_position(work, grant.id, expected=stored, new=replace(stored, committed=position))
            self._ledger.write(work, [entry])
        return entry.id

    def _admit(
        self, actor: Actor, action: Action, call: RequestContext, grant_id: str
    ) -> tuple[Authorized, GrantAttributes]:
        """Read a grant's attributes and decide by them; return what was authorized, and by which attributes."""
        try:
            with self._database.read() as reader:
                attributes = self._attributes.grant(reader, grant_id)
                standing = self._attributes.standing_of(reader, actor)
        except CorruptError as error:
            if error.reason is Reason.GRANT_FORGED:  # a row that does not prove itself is a denial, and recorded as one
                self._enforcer.admit(actor, action, grant_id, call, Deny(error.reason, error.message))
            raise
        authorized = self._authorize(actor, action, call, standing, attributes)
        if attributes is None:  # the decision on an unknown grant is a denial, raised by then
            raise RefusedError(Reason.GRANT_UNKNOWN, "no such grant; ask for the list of your grants")
        return authorized, attributes

    def _authorize(
        self,
        actor: Actor,
        action: Action,
        call: RequestContext,
        standing: Standing,
        attributes: GrantAttributes | None,
    ) -> Authorized:
        """Decide by these attributes; a denial is recorded in a transaction of its own, and raised.

        For the second decision of a fetch the caller holds the certificate's row as it locks the grant's, so that a
        revocation of either waits for the entry.
        """
        decision = decide(
            actor,
            action,
            standing=standing,
            grant=attributes,  # the store proves the hash of every version that it returns
            purpose=call.purpose,
            case=call.case,
        )
        resource = str(attributes.grant.topic) if attributes else ""
        return self._enforcer.admit(
            actor, action, resource, call, decision, attributes.reference if attributes else None
        )

    def _position(self, grant: Grant, topic: _TopicView, position: bytes) -> ConsumerPosition:
        """Return the consumer's position: the one sent, else the last committed; BEGINNING starts again."""
        token = b"" if position == BEGINNING else position or self._committed(grant)
        floor = self._floor(grant, topic)
        if not token:
            start = _maximum(floor, topic.ends.earliest)
            return ConsumerPosition(last_released=start, next=start)
        current = ConsumerPosition.parse(token, grant.id, topic.info.generation, topic.info.partitions)
        # A position before the floor does not get around the grant's history rule.
        return ConsumerPosition(
            last_released=_maximum(current.last_released, floor), next=_maximum(current.next, floor)
        )

    def _committed(self, grant: Grant) -> bytes:
        # A connection of its own, given back before the broker is asked: while the broker does not answer, waiting
        # fetches must not keep connections that publishing and the registry need.
        with self._database.read() as reader:
            return self._access.position(reader, grant.id).committed

    def _floor(self, grant: Grant, topic: _TopicView) -> Positions:
        """Return the first positions that the grant's history rule lets its consumer see."""
        if grant.history is History.ALL:
            return (0,) * topic.info.partitions
        if grant.approved_at is None:
            return topic.ends.latest
        return self._broker.positions_for_time(grant.topic, int(grant.approved_at.timestamp() * 1_000_000))

    def _read(
        self, grant: Grant, topic: _TopicView, current: ConsumerPosition, max_records: int, max_bytes: int
    ) -> ReadResult:
        try:
            return self._broker.read(
                grant.topic,
                current.next,
                max_records=min(max_records or _DEFAULT_RECORDS, _MAX_POSITIONS),
                max_bytes=min(max_bytes or _MAX_BYTES, _MAX_BYTES),
            )
        except GoneError as error:
            earliest = tuple(int(offset) for offset in error.details["earliest"].split(","))
            next_ = _maximum(current.next, earliest)
            token = ConsumerPosition(last_released=next_, next=next_).token(grant.id, topic.info.generation)
            error.details["position"] = token.hex()
            raise

    def _select(self, grant: Grant, read: ReadResult, blocked: Blocked | None) -> _Selection:
        """Apply the view to what was read; find what is withdrawn: voids, and rows that may have left the filter."""
        values = [value for records in read.partitions for value in records.values]
        untold = None  # neither delivered nor withdrawn
        if blocked is not None:
            is_void = np.array([value is None for value in values])
            untold = np.where(is_void, blocked.silent(grant.approved_at), blocked.hidden)
            values = [None if hidden else value for hidden, value in zip(untold.tolist(), values, strict=True)]
        partitions = len(read.next)
        if not values:
            empty: list[list[int]] = [[] for _ in range(partitions)]
            return _Selection(values=Packed.of([]), keys=(), recorded_at=(), delivered=empty, withdrawn=empty)
        output = self._views.apply(grant, values)
        selected = output.selected
        gone = np.zeros(len(values), dtype=np.bool_)
        delivered: list[list[int]] = [[] for _ in range(partitions)]
        withdrawn: list[list[int]] = [[] for _ in range(partitions)]
        keys: list[bytes] = []
        times: list[int] = []
        base = 0
        for records in read.partitions:
            own = slice(base, base + len(records))
            base += len(records)
            stays = selected[own]
            if stays.all():
                keys += records.keys
                times += records.recorded_at
                delivered[records.partition] += records.offsets
                continue
            if grant.withdrawals:
                for index in np.flatnonzero(~stays).tolist():
                    gone[own.start + index] = (
                        records.values[index] is None or records.mark(index) >> 4 != KeyOccurrence.FIRST
                    )
                if untold is not None:
                    gone[own] &= ~untold[own]
            for index in np.flatnonzero(stays | gone[own]).tolist():
                keys.append(records.keys[index])
                times.append(records.recorded_at[index])
                side = delivered if stays[index] else withdrawn
                side[records.partition].append(records.offsets[index])
        return _Selection(
            values=_insert_empty(output.values, selected[selected | gone]),
            keys=keys,
            recorded_at=times,
            delivered=delivered,
            withdrawn=withdrawn,
        )

    def _entry_start(
        self, topic: _TopicView, current: ConsumerPosition, stored: GrantPosition
    ) -> tuple[Positions, bool, str]:
        """Return the entry's start, whether the range was released before, and why it leaves a gap, if it does."""
        released = _positions(stored.released)
        if not released:
            return current.last_released, False, ""
        start = tuple(
            last if last <= before or last <= earliest else before
            for last, before, earliest in zip(current.last_released, released, topic.ends.earliest, strict=True)
        )
        again = any(first < before for first, before in zip(start, released, strict=True))
        gap = any(first > before for first, before in zip(start, released, strict=True))
        return start, again, "retention" if gap else ""


def _insert_empty(values: Packed, selected: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> Packed:
    """Return the values with an empty one wherever *selected* is false: the values of withdrawals."""
    if selected.all():
        return values
    lengths = np.zeros(len(selected), dtype="<i4")
    lengths[selected] = np.diff(np.frombuffer(values.offsets, dtype="<i4"))
    offsets = np.zeros(len(selected) + 1, dtype="<i4")
    np.cumsum(lengths, out=offsets[1:])
    return Packed(offsets.tobytes(), values.values)


def _root(keys: bytes, values: Packed) -> bytes:
    """Return the RFC 6962 root over what leaves: leaf = SHA-256(0x00 ‖ record key ‖ framed value)."""
    sha256 = hashlib.sha256
    return root_of(
        [sha256(b"\x00" + keys[16 * index : 16 * index + 16] + value).digest() for index, value in enumerate(values)]
    )


def _maximum(one: Positions, other: Positions) -> Positions:
    return tuple(max(pair) for pair in zip(one, other, strict=True))


def _positions(vector: bytes) -> Positions:
    return struct.unpack(f"<{len(vector) // 8}Q", vector)


def _vector(positions: Positions) -> bytes:
    return struct.pack(f"<{len(positions)}Q", *positions)
