"""Group fetch: several consumers' fetches of one topic share reads, and their entries share a commit (group commit).

One record may wake a thousand consumers. Each has a grant, a decision, a view and an entry of its own; what they do not
have of their own is read once:

    (1) attributes  the grants in one query; catalogue, classification, standing of an actor and the clock once
    (2) decision    of each
    (4) read        from one position once, and verified once
    (5) view        of each
    (6) entries     in one transaction: the grants' rows locked and decided by again, the topic's retractions held back
                    and compared, quotas, positions, and for each release an entry with its own number and leaf
    (7) release     of each, within the release window after that commit was sent

The rules are those of `exchange.records.fetch`, and this module has none of its own. It does what goes well, and leaves
out every fetch that does not: a denial, a quota that would be passed, a key retracted meanwhile, a grant that is being
changed, a topic to be read further, an error. Those are fetched one by one, which decides, records and reports as ever;
so no consumer can fail another's fetch, nor hold it up for long. A transaction that fails has written nothing, and all
its members are fetched one by one. Only where its commit fails does each of them get that error: it may have happened.

A revocation waits for a group's transaction as it does for that of one release (ADR 0010).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

from exchange.access.decision.policy import decide
from exchange.access.grants.group import Count, GroupStore, PositionChange
from exchange.access.grants.renewal import quota_of
from exchange.access.grants.store import quota_day
from exchange.authorization.attributes import AttributeProvider, GrantAttributes, GrantUse
from exchange.authorization.enforcement import AuditWriter, Authorized, Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.authorization.restored import RestoreGuard
from exchange.authorization.serving import ServingGuard
from exchange.broker.port import Broker
from exchange.records.ports import GrantViews
from exchange.records.reading.consumer_positions import ConsumerPositions
from exchange.records.reading.delivery_tracking import DeliveryTracking, is_tracked
from exchange.records.reading.repeated_releases import RepeatedReleases
from exchange.records.reading.scan import GrantScan, MoreToReadError, SharedTopicView
from exchange.records.release import Release, empty_release
from exchange.records.release_draft import Draft, ReleaseDrafts, Selected, is_same_view
from exchange.records.retractions import RetractionCache
from exchange.records.traffic.counts import TRAFFIC
from registry.database.unit_of_work import Database, UnitOfWork
from schemas.access import Action, Actor
from schemas.errors import PoolError
from schemas.failpoints import reached
from schemas.names import Topic

__all__ = ["FetchCall", "GroupFetch", "Outcome"]

_MAX_BYTES = 4 * 1024 * 1024  # of the values that wait for one transaction
_MAX_SECONDS = 0.1  # of selecting for one transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchCall:
    """Arguments of one fetch: those of `FetchService.fetch`.

    Attributes:
        actor, call: who fetches, and what is declared.
        grant_id: under which.
        position: at which to begin; empty after the last commit.
        max_records: of the answer; 0 = as many as are allowed.
        max_bytes: of its values; 0 = as many as are allowed.
        as_json: the release also has the values as JSON texts.
    """

    actor: Actor
    call: RequestContext
    grant_id: str
    position: bytes
    max_records: int
    max_bytes: int
    as_json: bool = False


Outcome: TypeAlias = Release | PoolError | None
"""Outcome of one fetch of a group; None = it was left out: fetch it alone."""


class _FirstPositionError(Exception):
    """Grants got their first positions from another transaction."""


class GroupFetch:
    """Fetches for several consumers together; `FetchService.grouped` makes it."""

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        ledger: AuditWriter,
        broker: Broker,
        attributes: AttributeProvider,
        restored: RestoreGuard,
        serving: ServingGuard,
        store: GroupStore,
        views: GrantViews,
        retractions: RetractionCache,
        tracking: DeliveryTracking,
        scan: GrantScan,
        positions: ConsumerPositions,
        drafts: ReleaseDrafts,
        repeats: RepeatedReleases,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._ledger = ledger
        self._broker = broker
        self._attributes = attributes
        self._restored = restored
        self._serving = serving
        self._store = store
        self._views = views
        self._retractions = retractions
        self._tracking = tracking
        self._scan = scan
        self._positions = positions
        self._drafts = drafts
        self._repeats = repeats
        self._monotonic = monotonic

    def fetch(self, calls: Sequence[FetchCall]) -> Iterator[Mapping[int, Outcome]]:
        """Yield the outcomes by the index of the call, those of each transaction as soon as it is committed.

        A call that is in none of them was left out, as one whose outcome is None.

        Raises:
            PoolError: the database or the broker does not answer; what was not yielded is as if it had not been called.
            UnavailableError: RESTORE_UNSETTLED.
        """
        self._restored.require_release()
        self._serving.require()
        topics: dict[Topic, SharedTopicView] = {}
        waiting: dict[int, Selected] = {}
        size, until = 0, self._monotonic() + _MAX_SECONDS
        for index, attributes in self._admitted(calls).items():
            try:
                topic = topics.get(attributes.grant.topic)
                if topic is None:
                    topic = topics[attributes.grant.topic] = SharedTopicView(self._broker, attributes.grant.topic)
                found = self._selected(calls[index], attributes, topic)
            except (PoolError, MoreToReadError):
                continue
            if found is None:
                continue
            if isinstance(found, Release):
                yield {index: found}
                continue
            waiting[index] = found
            size += found.selection.size
            if size >= _MAX_BYTES or self._monotonic() > until:
                yield self._released(waiting)
                waiting, size, until = {}, 0, self._monotonic() + _MAX_SECONDS
        if waiting:
            yield self._released(waiting)

    def _admitted(self, calls: Sequence[FetchCall]) -> dict[int, GrantAttributes]:
        """Do steps (1) and (2); of two calls under one grant only the first may go on."""
        first: dict[str, int] = {}
        for index, one in enumerate(calls):
            first.setdefault(one.grant_id, index)
        chosen = list(first.values())
        with self._database.read() as reader:
            uses = self._attributes.uses(
                reader, [(calls[index].actor, calls[index].grant_id) for index in chosen], self._store
            )
            admitted = {
                index: use.attributes
                for index, use in zip(chosen, uses, strict=True)
                if use is not None and self._authorized(calls[index].actor, calls[index].call, use) is not None
            }
            self._views.prepare(reader, [attributes.grant for attributes in admitted.values()])
        return admitted

    def _authorized(self, actor: Actor, call: RequestContext, use: GrantUse) -> Authorized | None:
        attributes = use.attributes
        actor = attributes.in_zone(actor)
        decision = decide(
            actor,
            Action.FETCH,
            standing=use.standing,
            grant=attributes,
            purpose=call.purpose,
            case=call.case,
        )
        resource = str(attributes.grant.topic)
        return self._enforcer.allowed(actor, Action.FETCH, resource, call, decision, attributes.reference)

    def _selected(
        self, one: FetchCall, attributes: GrantAttributes, topic: SharedTopicView
    ) -> Selected | Release | None:
        """Do steps (3) to (5) of one fetch; None = it is left out, since it repeats itself too often."""
        grant = attributes.grant
        current, token = self._positions.current(grant, topic, one.position)
        if self._repeats.wait(grant.stream_id, topic.info.generation, current.next):
            return None
        delivered = None
        if is_tracked(grant):
            if current.runs is None:
                raise MoreToReadError
            delivered = self._tracking.before(grant, topic.info.generation, current.runs)
        selection, caught_up = self._scan.collect(
            grant, topic, current, delivered, one.max_records, one.max_bytes, one_read=True
        )
        if not len(selection):
            token = self._positions.unmoved(grant, topic.info, current, token, selection.next, caught_up=caught_up)
            TRAFFIC.lags.fetched(grant.id, grant.topic, selection.next)
            return empty_release(grant.view_schema_id or 0, token, caught_up=caught_up)
        return Selected(
            actor=one.actor,
            call=one.call,
            grant=grant,
            topic=topic,
            current=current,
            selection=selection,
            caught_up=caught_up,
            texts=self._views.json_values(grant, selection.values) if one.as_json else None,
        )

    def _released(self, waiting: Mapping[int, Selected]) -> dict[int, Outcome]:
        """Do steps (6) and (7) of all that were selected."""
        drafts: dict[int, Draft] = {}
        leaves: Sequence[bytes] = ()
        sent: float | None = None
        try:
            self._serving.require()  # reading may have taken seconds
            with self._database.begin() as work:
                drafts = self._stored(work, waiting)
                # The last write, but not sent with the commit: the time is taken once the entries are stored.
                leaves = self._ledger.write(work, [draft.entry for draft in drafts.values()])
                sent = self._monotonic()
        except _FirstPositionError:
            return {}
        except PoolError as error:
            # Before the commit was sent nothing had happened; then each is fetched alone.
            return {} if sent is None else dict.fromkeys(drafts, error)
        outcomes: dict[int, Outcome] = {}
        if drafts:
            reached("after_release_entry")
        for (index, draft), leaf in zip(drafts.items(), leaves, strict=True):
            self._drafts.committed(draft)
            try:
                outcomes[index] = self._drafts.release(draft, leaf, sent)
            except PoolError as error:
                outcomes[index] = error
        return outcomes

    def _stored(self, work: UnitOfWork, waiting: Mapping[int, Selected]) -> dict[int, Draft]:
        """Lock, decide again, compare, and store all but the entries; return the drafts of those that may leave."""
        wanted = [(selected.actor, selected.grant.id) for selected in waiting.values()]
        uses = dict(zip(waiting, self._attributes.uses(work, wanted, self._store), strict=True))
        allowed: dict[int, tuple[Authorized, GrantAttributes]] = {}
        for index, selected in waiting.items():
            use = uses[index]
            if use is None or not is_same_view(use.attributes.grant, selected.grant):
                continue
            authorized = self._authorized(selected.actor, selected.call, use)
            if authorized is not None:
                allowed[index] = authorized, use.attributes
        left = self._counted(work, waiting, allowed, self._unretracted(work, waiting, list(allowed)))
        streams = {index: waiting[index].grant.stream_id for index in left}
        stored = self._store.lock_positions(work, list(streams.values())) if streams else {}
        drafts = {
            index: self._drafts.draft(work, waiting[index], *allowed[index], stored.get(stream))
            for index, stream in streams.items()
        }
        changes = {streams[index]: PositionChange(draft.stored, draft.moved) for index, draft in drafts.items()}
        if changes and len(self._store.replace_positions(work, changes)) < len(changes):
            raise _FirstPositionError
        return drafts

    def _unretracted(self, work: UnitOfWork, waiting: Mapping[int, Selected], indexes: Sequence[int]) -> list[int]:
        """Return those none of whose keys was retracted since they were selected; hold back the topic's retractions."""
        left: list[int] = []
        in_order = sorted(indexes, key=lambda index: waiting[index].grant.topic)
        for topic, group in groupby(in_order, key=lambda index: waiting[index].grant.topic):
            members = list(group)
            selections = [waiting[index].selection for index in members]
            still = self._retractions.each_still_blocked(
                work, topic, [(selection.as_read(), selection.blocked()) for selection in selections]
            )
            left += [index for index, same in zip(members, still, strict=True) if same]
        return left

    def _counted(
        self,
        work: UnitOfWork,
        waiting: Mapping[int, Selected],
        allowed: Mapping[int, tuple[Authorized, GrantAttributes]],
        indexes: Sequence[int],
    ) -> list[int]:
        """Add to the day's counts; return those whose quota allowed it."""
        counts, now = {}, None
        for index in indexes:
            grant, now = allowed[index][1].grant, allowed[index][1].now
            limit = grant.quota_per_day if now is None else quota_of(grant, quota_day(now))
            counts[grant.id] = Count(len(waiting[index].selection), limit)
        if now is None:
            return []
        added = set(self._store.add_released(work, counts, quota_day(now)))
        return [index for index in indexes if waiting[index].grant.id in added]
