"""Fetch: records out of the pool, under a grant, for a purpose and a case.

    (1) attributes  the grant as it is now, proven by its hash; resource; quota; the database's clock
    (2) decision    by the current grant, every time
    (3) position    of the consumer; never before what its grant lets it see
    (4) read        committed records, until the answer is full, or the end is reached, or 5 s are over
    (5) view        retracted values left out; rows and fields filtered, masks applied; rows that left the filter and
                    voids become withdrawals
    (6) entry       in one transaction: the grant's row locked and decided by again, the topic's retractions held back
                    and compared, quota, entry, commit
    (7) release     only within the release window after that commit was sent; later, nothing leaves

Nothing in an answer depends on records that it does not hold (`exchange.records.reading.selection`): it is full, or
there is no more. A fetch that found nothing answers with the position that it was sent, and the gateway remembers up to
where it has looked. Two things remain: the time that a fetch takes, and an empty answer that has not caught up, where
5 s of reading found nothing.

The lock in (6) and the update of a revocation exclude each other, so no entry follows a revocation; nor does an entry
of a value follow the retraction of its key (`exchange.erasure.retractions`). The window in (7) bounds how long after
the entry bytes may still leave; a revocation, or a void, is acknowledged only after that window has passed as well. If
the outcome of the commit is unknown, or the window is over, nothing is released: the log may claim too much, never too
little.
"""

import hashlib
import struct
import time
from collections.abc import Callable
from dataclasses import replace

from exchange.access.decision.policy import decide
from exchange.access.decision.roles import Standing
from exchange.access.grants.store import AccessStore, GrantPosition
from exchange.authorization.attributes import AttributeProvider, GrantAttributes
from exchange.authorization.enforcement import AuditWriter, Authorized, Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.authorization.restored import RestoreGuard
from exchange.broker.port import Broker, TopicInfo
from exchange.records.ports import GrantViews, KeyPseudonymizer
from exchange.records.reading.delivery_tracking import DeliveryTracking, is_tracked
from exchange.records.reading.position_token import BEGINNING, ConsumerPosition, PositionTokens, is_clear, read_clear
from exchange.records.reading.scan import GrantScan, TopicView
from exchange.records.reading.selection import Selection
from exchange.records.release import GrantDescription, Release, empty_release, round_times
from exchange.records.retractions import RetractionCache
from registry.database.unit_of_work import Database
from schemas.access import Action, Actor, Deny, Grant, History
from schemas.audit import Flow, fetch_data
from schemas.errors import ConflictError, CorruptError, InvalidError, Reason, RefusedError, UnavailableError
from schemas.failpoints import reached
from schemas.merkle import root_of
from schemas.names import Topic
from schemas.record import Packed, Positions

__all__ = ["FetchService"]

_SELECTIONS = 5  # of one fetch, whose keys are retracted while they are selected
_ISSUE_SECONDS = 3_600.0  # after which an empty answer brings a new position, whether or not it moved


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
        tokens: PositionTokens,
        retractions: RetractionCache,
        tracking: DeliveryTracking,
        restored: RestoreGuard | None = None,
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
        self._tokens = tokens
        self._retractions = retractions
        self._tracking = tracking
        self._restored = restored or RestoreGuard()
        self._scan = GrantScan(broker, views, tokens, retractions, monotonic=monotonic)
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
        topic = TopicView(self._broker, grant.topic)
        try:
            current, token = self._position(grant, topic, b"")
        except ConflictError as error:
            if error.reason is not Reason.TOPIC_GENERATION_CHANGED:
                raise
            # A fetch from the stored position says so; a consumer that starts again must be able to ask first.
            current, token = self._position(grant, topic, BEGINNING)
        return GrantDescription(
            grant=grant,
            schema_id=grant.view_schema_id,
            schema_text=schema_text,
            position=token or self._tokens.seal(current, grant.id, topic.info.generation),
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
            UnavailableError: nothing was released; RESTORE_UNSETTLED.
        """
        self._restored.require_release()
        # (1), (2)
        _, attributes = self._admit(actor, Action.FETCH, call, grant_id)
        grant = attributes.grant
        # (3)
        topic = TopicView(self._broker, grant.topic)
        current, token = self._position(grant, topic, position)
        if is_tracked(grant) and current.runs is None:
            floor, generation = self._floor(grant, topic), topic.info.generation
            runs = self._tracking.complete(grant, topic.info.topic, generation, current.next, floor)
            current = replace(current, runs=runs)
        for _ in range(_SELECTIONS):
            # (4), (5)
            delivered = None
            if is_tracked(grant):
                delivered = self._tracking.before(grant, topic.info.generation, current.runs or 0)
            selection, caught_up = self._scan.collect(grant, topic, current, delivered, max_records, max_bytes)
            if not len(selection):
                token = self._unmoved(grant, topic.info, current, token, selection.next, caught_up=caught_up)
                return empty_release(grant.view_schema_id or 0, token, caught_up=caught_up)
            # (6), (7)
            try:
                release = self._release(actor, call, grant, topic, current, selection)
            except _RetractedMeanwhileError:
                continue
            return replace(release, caught_up=caught_up)
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
        topic: TopicView,
        current: ConsumerPosition,
        selection: Selection,
    ) -> Release:
        generation = topic.info.generation
        # (6)
        sent = self._monotonic()
        with self._database.begin() as work:
            locked = self._attributes.lock_grant(work, grant.id)
            standing = self._attributes.lock_standing(work, actor)
            authorized = self._authorize(actor, Action.FETCH, call, standing, locked)
            if not _same_view(locked.grant, grant):
                raise ConflictError(
                    Reason.VERSION_CONFLICT,
                    "the grant changed while records were read; fetch again from the same position",
                )
            if not self._retractions.still_blocked(work, grant.topic, selection.as_read(), selection.blocked()):
                raise _RetractedMeanwhileError
            self._attributes.add_released(work, grant, len(selection))
            stored = self._access.position(work, grant.id)
            start, again, gap = self._entry_start(topic, current, stored)
            furthest = _maximum(selection.next, _positions(stored.released) or selection.next)
            moved = replace(
                stored, released=_vector(furthest), committed=self._sealed(grant, topic.info, stored.committed)
            )
            run = None
            if is_tracked(grant):
                moved, run = self._tracking.record(work, grant, generation, stored, moved, selection)
            self._access.replace_position(work, grant.id, expected=stored, new=moved)
            keys = self._pseudonymizer.record_keys(grant.id, selection.keys)
            data = fetch_data(
                generation=generation,
                start=start,
                end=selection.next,
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
        if run is not None:
            self._tracking.released(grant, generation, stored, run)
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
            recorded_at=round_times(selection.recorded_at, locked.resource.time_step if locked.resource else 0),
            valid=b"",  # stored with the record and in its leaf; no view delivers valid times yet
            next_position=self._tokens.seal(
                ConsumerPosition(last_released=selection.next, next=selection.next, runs=moved.runs),
                grant.id,
                generation,
            ),
            entry_id=entry.id,
            leaf_hash=leaf,
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
        if is_clear(position):
            acknowledged = self._read_clear(grant, info, position)
            position = self._tokens.seal(acknowledged, grant.id, info.generation)
        else:
            acknowledged = self._tokens.open(position, grant.id, info.generation, info.partitions)
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

    def _position(self, grant: Grant, topic: TopicView, position: bytes) -> tuple[ConsumerPosition, bytes]:
        """Return the consumer's position: the one sent, else the last committed; BEGINNING starts again.

        Also its token, empty where it has none yet.
        """
        info = topic.info
        token = b"" if position == BEGINNING else position or self._stored(grant).committed
        floor = self._floor(grant, topic)
        if not token:
            start = _maximum(floor, topic.ends.earliest)
            return ConsumerPosition(last_released=start, next=start), b""
        if is_clear(token):
            current = self._read_clear(grant, info, token)
            token = b""
        else:
            current = self._tokens.open(token, grant.id, info.generation, info.partitions)
        # A position before the floor does not get around the grant's history rule.
        return replace(
            current, last_released=_maximum(current.last_released, floor), next=_maximum(current.next, floor)
        ), token

    def _stored(self, grant: Grant) -> GrantPosition:
        # A connection of its own, given back before the broker is asked: while the broker does not answer, waiting
        # fetches must not keep connections that publishing and the registry need.
        with self._database.read() as reader:
            return self._access.position(reader, grant.id)

    def _read_clear(self, grant: Grant, info: TopicInfo, token: bytes) -> ConsumerPosition:
        """Read a token in clear, of a pool of the version before, that equals what that pool has stored.

        The first release or commit after the upgrade seals what is stored, and no token in clear is read any more. So
        its sender, who may have made it, learns no offset that it has not been told already.

        Raises:
            InvalidError: POSITION_INVALID, it is another one.
            ConflictError: TOPIC_GENERATION_CHANGED.
        """
        position = read_clear(token, grant.id, info.generation, info.partitions)
        stored = self._stored(grant)
        if token == stored.committed:
            return position
        if is_clear(stored.committed) and _vector(position.last_released) == stored.released:
            # What lies between the two vectors delivered nothing: it is read again, and may not be chosen.
            return replace(position, next=position.last_released)
        raise InvalidError(
            Reason.POSITION_INVALID,
            "got a position of an earlier form, which is read only where it is the last one committed or released; "
            "expected a newer one: fetch without a position to continue after the last commit, or from the beginning "
            "(one 0 byte)",
        )

    def _sealed(self, grant: Grant, info: TopicInfo, committed: bytes) -> bytes:
        """Return a stored position in the form of today."""
        if not is_clear(committed):
            return committed
        try:
            position = read_clear(committed, grant.id, info.generation, info.partitions)
        except (ConflictError, InvalidError):  # of an earlier generation: refused in either form
            return b""
        return self._tokens.seal(position, grant.id, info.generation)

    def _unmoved(
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
            return self._tokens.seal(replace(current, next=end), grant.id, info.generation)
        self._scan.ahead.put(grant, info.generation, current.next, end)
        return token or self._tokens.seal(current, grant.id, info.generation)

    def _floor(self, grant: Grant, topic: TopicView) -> Positions:
        """Return the first positions that the grant's history rule lets its consumer see."""
        if grant.history is History.ALL:
            return (0,) * topic.info.partitions
        if grant.approved_at is None:
            return topic.ends.latest
        return self._broker.positions_for_time(grant.topic, int(grant.approved_at.timestamp() * 1_000_000))

    def _entry_start(
        self, topic: TopicView, current: ConsumerPosition, stored: GrantPosition
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


def _same_view(current: Grant, used: Grant) -> bool:
    """Return whether a later version of a grant shows what the one that was used shows: a state alone may differ."""
    stated = replace(used, version=current.version, state=current.state, suspend_after=current.suspend_after)
    return stated == current


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
