"""Fetch: records out of the pool, under a grant, for a purpose and a case.

    (1) attributes  the grant as it is now, proven by its hash; resource; quota; the database's clock
    (2) decision    by the current grant, every time
    (3) position    of the consumer; never before what its grant lets it see, and not again and again
    (4) read        committed records, until the answer is full, or the end is reached, or 5 s are over
    (5) view        retracted values left out; rows and fields filtered, masks applied; rows that left the filter and
                    voids become withdrawals; disputed values are marked
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

import time
from collections.abc import Callable
from dataclasses import replace

from exchange.access.decision.policy import decide
from exchange.access.decision.roles import Standing
from exchange.access.grants.group import GroupStore
from exchange.access.grants.renewal import find_successor
from exchange.access.grants.store import AccessStore, GrantQuery
from exchange.authorization.attributes import AttributeProvider, GrantAttributes
from exchange.authorization.enforcement import AuditWriter, Authorized, Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.authorization.restored import RestoreGuard
from exchange.authorization.serving import ServingGuard
from exchange.broker.port import Broker
from exchange.records.group_fetch import GroupFetch
from exchange.records.ports import GrantViews, KeyPseudonymizer
from exchange.records.reading.consumer_positions import ConsumerPositions
from exchange.records.reading.delivery_tracking import DeliveryTracking, is_tracked
from exchange.records.reading.disputed_values import DisputedValues
from exchange.records.reading.position_token import BEGINNING, PositionTokens, is_clear
from exchange.records.reading.repeated_releases import RepeatedReleases
from exchange.records.reading.scan import GrantScan, TopicView
from exchange.records.release import GrantDescription, Release, empty_release
from exchange.records.release_draft import ReleaseDrafts, Selected, is_same_view
from exchange.records.retractions import RetractionCache
from exchange.records.traffic.counts import TRAFFIC
from registry.database.unit_of_work import Database
from schemas.access import Action, Actor, Allow, Deny, Grant, GrantState
from schemas.errors import ConflictError, CorruptError, Reason, RefusedError, UnavailableError
from schemas.failpoints import reached
from schemas.names import Topic

__all__ = ["FetchService"]

_SELECTIONS = 5  # of one fetch, whose keys are retracted while they are selected


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
        disputes: DisputedValues | None = None,
        tracking: DeliveryTracking,
        restored: RestoreGuard,
        serving: ServingGuard,
        repeats: RepeatedReleases | None = None,
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
        self._tokens = tokens
        self._retractions = retractions
        self._tracking = tracking
        self._restored = restored
        self._serving = serving
        self._repeats = repeats or RepeatedReleases()
        self._monotonic = monotonic
        self._scan = GrantScan(views, tokens, retractions, disputes, monotonic=monotonic)
        self._positions = ConsumerPositions(
            database=database, broker=broker, access=access, tokens=tokens, ahead=self._scan.ahead
        )
        self._drafts = ReleaseDrafts(
            positions=self._positions,
            pseudonymizer=pseudonymizer,
            tokens=tokens,
            tracking=tracking,
            repeats=self._repeats,
            window=window,
            monotonic=monotonic,
        )

    def grouped(self, store: GroupStore) -> GroupFetch:
        """Return what does the fetches of several consumers together."""
        return GroupFetch(
            database=self._database,
            enforcer=self._enforcer,
            ledger=self._ledger,
            broker=self._broker,
            attributes=self._attributes,
            restored=self._restored,
            serving=self._serving,
            store=store,
            views=self._views,
            retractions=self._retractions,
            tracking=self._tracking,
            scan=self._scan,
            positions=self._positions,
            drafts=self._drafts,
            repeats=self._repeats,
            monotonic=self._monotonic,
        )

    def topic_of(self, actor: Actor, call: RequestContext, grant_id: str) -> Topic:
        """Return a grant's topic to its consumer; the fetch itself decides the rest.

        Raises:
            RefusedError: it is unknown or another department's.
        """
        _, attributes = self._admit(actor, Action.GRANT_READ, call, grant_id)
        return attributes.grant.topic

    def describe(self, actor: Actor, call: RequestContext, grant_id: str) -> GrantDescription:
        """Return what a grant delivers, and its consumer's position; where purpose or case are declared, if they fit.

        Raises:
            RefusedError: it is unknown or another department's; the declared purpose or case is not the granted one;
                GRANT_RENEWED.
            ConflictError: TRANSITION_NOT_ALLOWED, it was never approved and has no view.
        """
        _, attributes = self._admit(actor, Action.GRANT_READ, call, grant_id)
        self._require_last(actor, call, attributes)
        if call.purpose or call.case:
            self._require_declaration(actor, call, attributes)
        grant = attributes.grant
        if grant.view_schema_id is None:
            raise RefusedError(
                Reason.GRANT_NOT_ACTIVE, f"the grant is {grant.state}; its view is made when the owner approves it"
            )
        with self._database.read() as reader:
            schema_text = self._views.schema_text(reader, grant.view_schema_id)
        topic = TopicView(self._broker, grant.topic)
        try:
            current, token = self._positions.current(grant, topic, b"")
        except ConflictError as error:
            if error.reason is not Reason.TOPIC_GENERATION_CHANGED:
                raise
            # A fetch from the stored position says so; a consumer that starts again must be able to ask first.
            current, token = self._positions.current(grant, topic, BEGINNING)
        return GrantDescription(
            grant=grant,
            schema_id=grant.view_schema_id,
            schema_text=schema_text,
            position=token or self._tokens.seal(current, grant.stream_id, topic.info.generation),
            row_filter=attributes.row_filter,
        )

    def fetch(
        self,
        actor: Actor,
        call: RequestContext,
        grant_id: str,
        position: bytes,
        max_records: int,
        max_bytes: int,
        *,
        as_json: bool = False,
    ) -> Release:
        """Do steps (1) to (7) once; an answer without records has released nothing. For the arguments see `FetchCall`.

        Raises:
            RefusedError: the current grant does not allow it; GRANT_RENEWED, `details["grant"]` goes on.
            InvalidError, ConflictError: the position is not one of this grant, or of an earlier generation.
            GoneError: retention has overtaken the position; `details["position"]` is one to go on from.
            UnavailableError: nothing was released; RESTORE_UNSETTLED; LOG_BEHIND while the log is not signed;
                RELEASE_REPEATED, records from this position were released too often.
        """
        self._restored.require_release()
        self._serving.require()
        # (1), (2)
        authorized, attributes = self._admit(actor, Action.FETCH, call, grant_id)
        grant = attributes.grant
        # (3)
        topic = TopicView(self._broker, grant.topic)
        current, token = self._positions.current(grant, topic, position)
        wait = self._repeats.wait(grant.stream_id, topic.info.generation, current.next)
        if wait:
            self._enforcer.refuse_rate(authorized, _repeated(self._repeats.per_minute, wait))
        if is_tracked(grant) and current.runs is None:
            floor, generation = self._positions.floor(grant, topic), topic.info.generation
            runs = self._tracking.complete(grant, topic.info.topic, generation, current.next, floor)
            current = replace(current, runs=runs)
        for _ in range(_SELECTIONS):
            # (4), (5)
            delivered = None
            if is_tracked(grant):
                delivered = self._tracking.before(grant, topic.info.generation, current.runs or 0)
            selection, caught_up = self._scan.collect(grant, topic, current, delivered, max_records, max_bytes)
            if not len(selection):
                token = self._positions.unmoved(grant, topic.info, current, token, selection.next, caught_up=caught_up)
                TRAFFIC.lags.fetched(grant.id, grant.topic, selection.next)
                return empty_release(grant.view_schema_id or 0, token, caught_up=caught_up)
            # (6), (7)
            selected = Selected(
                actor=actor,
                call=call,
                grant=grant,
                topic=topic,
                current=current,
                selection=selection,
                caught_up=caught_up,
                texts=self._views.json_values(grant, selection.values) if as_json else None,
            )
            try:
                return self._release(selected)
            except _RetractedMeanwhileError:
                continue
        raise UnavailableError(
            Reason.OVERLOADED,
            "keys of these records were retracted each time that they were selected; nothing was released, fetch again "
            "from the same position",
            retry_after=1.0,
        )

    def _release(self, selected: Selected) -> Release:
        grant, selection = selected.grant, selected.selection
        self._serving.require()  # reading may have taken seconds
        # (6)
        sent = self._monotonic()
        with self._database.begin() as work:
            locked = self._attributes.lock_grant(work, grant.id)
            standing = self._attributes.lock_standing(work, selected.actor)
            authorized = self._authorize(selected.actor, Action.FETCH, selected.call, standing, locked)
            if not is_same_view(locked.grant, grant):
                raise ConflictError(
                    Reason.VERSION_CONFLICT,
                    "the grant changed while records were read; fetch again from the same position",
                )
            if not self._retractions.still_blocked(work, grant.topic, selection.as_read(), selection.blocked()):
                raise _RetractedMeanwhileError
            self._attributes.add_released(work, grant, len(selection))
            stored = self._access.position(work, grant.stream_id)
            draft = self._drafts.draft(work, selected, authorized, locked, stored)
            self._access.replace_position(work, grant.stream_id, expected=stored, new=draft.moved)
            # The last write, but not sent with the commit: the time is taken once the entry is stored.
            leaf = self._ledger.write(work, [draft.entry])[0]
            sent = self._monotonic()
        self._drafts.committed(draft)
        reached("after_release_entry")
        # (7)
        return self._drafts.release(draft, leaf, sent)

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
            acknowledged = self._positions.read_clear(grant, info, position)
            position = self._tokens.seal(acknowledged, grant.stream_id, info.generation)
        else:
            acknowledged = self._positions.opened(position, grant, info)
        with self._database.begin() as work:
            entry = authorized.entry({"generation": info.generation, "at": list(acknowledged.next)})
            stored = self._access.position(work, grant.stream_id)
            moved = replace(stored, committed=position)
            self._access.replace_position(work, grant.stream_id, expected=stored, new=moved)
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

    def _require_last(self, actor: Actor, call: RequestContext, attributes: GrantAttributes) -> None:
        """Refuse to describe a grant that has ended and goes on as another."""
        if attributes.grant.state in _OVER:
            decision = Deny(Reason.GRANT_NOT_ACTIVE, "")
            successor = self._successor(attributes, decision)
            if successor is not None:
                self._refuse_renewed(actor, Action.GRANT_READ, call, attributes, successor)

    def _require_declaration(self, actor: Actor, call: RequestContext, attributes: GrantAttributes) -> None:
        """Refuse a purpose or a case for which a fetch would be refused; whether the grant is valid is not asked."""
        actor = attributes.in_zone(actor)
        decision = decide(
            actor, Action.FETCH, standing=Standing.ACTIVE, grant=attributes, purpose=call.purpose, case=call.case
        )
        if isinstance(decision, Deny) and decision.reason in _DECLARATION:
            TRAFFIC.denied(attributes.grant.id, decision.reason)
            topic = str(attributes.grant.topic)
            self._enforcer.admit(actor, Action.FETCH, topic, call, decision, attributes.reference)

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
        actor = actor if attributes is None else attributes.in_zone(actor)
        decision = decide(
            actor,
            action,
            standing=standing,
            grant=attributes,  # the store proves the hash of every version that it returns
            purpose=call.purpose,
            case=call.case,
        )
        if attributes is not None and isinstance(decision, Deny):
            TRAFFIC.denied(attributes.grant.id, decision.reason)
        resource = str(attributes.grant.topic) if attributes else ""
        reference = attributes.reference if attributes else None
        successor = self._successor(attributes, decision)
        if attributes is not None and successor is not None:
            return self._refuse_renewed(actor, action, call, attributes, successor)
        return self._enforcer.admit(actor, action, resource, call, decision, reference)

    def _refuse_renewed(
        self, actor: Actor, action: Action, call: RequestContext, attributes: GrantAttributes, successor: Grant
    ) -> Authorized:
        """Record the refusal of a grant that was renewed, and raise it with the id of the renewal."""
        message = f"the grant was renewed; go on under {successor.id}"
        denied, resource = Deny(Reason.GRANT_RENEWED, message), str(attributes.grant.topic)
        try:
            return self._enforcer.admit(actor, action, resource, call, denied, attributes.reference)
        except RefusedError as error:
            raise RefusedError(error.reason, error.message, details={"grant": successor.id}) from error

    def _successor(self, attributes: GrantAttributes | None, decision: Allow | Deny) -> Grant | None:
        """Return the active renewal of a grant under which nothing is released any more, for its own consumer."""
        if attributes is None or not isinstance(decision, Deny) or decision.reason not in _ENDED:
            return None
        grant = attributes.grant
        query = GrantQuery(consumer=grant.consumer, resource=grant.topic.name, states=frozenset({GrantState.ACTIVE}))
        with self._database.read() as reader:
            try:
                return find_successor(grant, self._access.list(reader, query))
            except CorruptError:  # of another grant: the denial stays what it is
                return None


_OVER = frozenset({GrantState.COMPLETED, GrantState.EXPIRED})
_ENDED = {Reason.GRANT_NOT_ACTIVE, Reason.GRANT_EXPIRED}
_DECLARATION = {Reason.PURPOSE_MISSING, Reason.PURPOSE_MISMATCH, Reason.CASE_MISSING, Reason.CASE_MISMATCH}


def _repeated(per_minute: int, wait: float) -> UnavailableError:
    return UnavailableError(
        Reason.RELEASE_REPEATED,
        f"got the same positions again and again under one grant; expected {per_minute} repeated releases a minute at "
        "most: commit what was processed, and fetch on from there",
        details={"per_minute": str(per_minute)},
        retry_after=wait,
    )
