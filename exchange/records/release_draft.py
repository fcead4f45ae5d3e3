"""Release draft: what a release stores and answers, from its selection until its entry is committed.

    Selected    one fetch before its transaction: what leaves, and by which version of the grant it was selected
    Draft       the same within its transaction: positions to be stored, entry to be written
    Release     the answer, once the transaction is committed and while the release window lasts

A release alone (`exchange.records.fetch`) and one of a group (`exchange.records.group_fetch`) take the same steps.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from exchange.access.grants.store import GrantPosition
from exchange.authorization.attributes import GrantAttributes
from exchange.authorization.enforcement import Authorized
from exchange.authorization.request_context import RequestContext
from exchange.records.ports import KeyPseudonymizer
from exchange.records.reading.consumer_positions import ConsumerPositions, EntryStart, maximum, unpack, vector
from exchange.records.reading.delivered_keys import Run
from exchange.records.reading.delivery_tracking import DeliveryTracking, is_tracked
from exchange.records.reading.position_token import ConsumerPosition, PositionTokens
from exchange.records.reading.repeated_releases import RepeatedReleases
from exchange.records.reading.scan import TopicView
from exchange.records.reading.selection import Selection
from exchange.records.release import Release, round_times, round_valid
from exchange.records.traffic.counts import TRAFFIC
from registry.database.unit_of_work import UnitOfWork
from schemas.access import Actor, Grant
from schemas.audit import AuditEntry, fetch_data
from schemas.errors import Reason, UnavailableError
from schemas.merkle import root_of
from schemas.record import Packed

__all__ = ["Draft", "ReleaseDrafts", "Selected", "is_same_view"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """Selection of one fetch.

    Attributes:
        actor, call: who fetches, and what the call declares.
        grant: the version by which was selected.
        topic: as the fetch saw it.
        current: position at which the fetch began.
        selection: at least one record.
        caught_up: whether nothing more is to be expected before the topic grows.
        texts: see `Release`. Made before the entry: the release window is too short for it.
    """

    actor: Actor
    call: RequestContext
    grant: Grant
    topic: TopicView
    current: ConsumerPosition
    selection: Selection
    caught_up: bool
    texts: Packed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A release within its transaction.

    Attributes:
        selected: what leaves.
        stored: the grant's positions as they are stored; None before its first release.
        moved: those to store in their place.
        run: what is tracked of it; None where nothing is.
        keys: its record keys.
        entry: to be written.
        time_step: to which its times are rounded.
    """

    selected: Selected
    stored: GrantPosition | None
    moved: GrantPosition
    run: Run | None
    keys: bytes
    entry: AuditEntry
    time_step: int


class ReleaseDrafts:
    """Makes drafts, and releases of committed ones."""

    def __init__(
        self,
        *,
        positions: ConsumerPositions,
        pseudonymizer: KeyPseudonymizer,
        tokens: PositionTokens,
        tracking: DeliveryTracking,
        repeats: RepeatedReleases,
        window: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._positions = positions
        self._pseudonymizer = pseudonymizer
        self._tokens = tokens
        self._tracking = tracking
        self._repeats = repeats
        self._window = window  # seconds
        self._monotonic = monotonic

    def draft(
        self,
        work: UnitOfWork,
        selected: Selected,
        authorized: Authorized,
        attributes: GrantAttributes,
        position: GrantPosition | None,
    ) -> Draft:
        """Return the draft of a release whose grant is locked, and store what is tracked of it.

        Args:
            work: its transaction.
            selected: what leaves.
            authorized: by the decision in this transaction.
            attributes: of that decision.
            position: the grant's, as stored; None before its first release.
        """
        grant, selection, topic = selected.grant, selected.selection, selected.topic
        stored, generation = position or GrantPosition(), topic.info.generation
        began = EntryStart.of(topic, selected.current, stored)
        furthest = maximum(selection.next, unpack(stored.released) or selection.next)
        committed = self._positions.sealed(grant, topic.info, stored.committed)
        moved, run = replace(stored, released=vector(furthest), committed=committed), None
        if is_tracked(grant):
            moved, run = self._tracking.record(work, grant, generation, stored, moved, selection)
        keys = self._pseudonymizer.record_keys(grant.record_key_id, selection.keys)
        data = fetch_data(
            generation=generation,
            start=began.start,
            end=selection.next,
            delivered=selection.delivered,
            withdrawn=selection.withdrawn,
            root=_root(keys, selection.values),
            again=began.again,
            gap=began.gap,
        )
        return Draft(
            selected=selected,
            stored=position,
            moved=moved,
            run=run,
            keys=keys,
            entry=authorized.entry(data, flow=attributes.flow),
            time_step=attributes.resource.time_step if attributes.resource else 0,
        )

    def committed(self, draft: Draft) -> None:
        """Take what is tracked of a committed release into the copy of this process."""
        if draft.run is not None:
            grant, topic = draft.selected.grant, draft.selected.topic
            self._tracking.released(grant, topic.info.generation, draft.stored or GrantPosition(), draft.run)

    def release(self, draft: Draft, leaf_hash: bytes, sent: float) -> Release:
        """Return the release of a committed draft.

        Args:
            draft: of it.
            leaf_hash: of its entry.
            sent: when its commit was sent, by the monotonic clock.

        Raises:
            UnavailableError: RELEASE_TOO_LATE, the release window is over.
        """
        deadline = sent + self._window
        if self._monotonic() > deadline:
            raise UnavailableError(
                Reason.RELEASE_TOO_LATE,
                "the entry took longer than the release window; nothing was released, fetch again from the same "
                "position",
                retry_after=0.0,
            )
        selected, selection = draft.selected, draft.selected.selection
        withdrawn = sum(len(offsets) for offsets in selection.withdrawn)
        TRAFFIC.released(selected.grant.id, selected.grant.topic, len(selection), withdrawn)
        TRAFFIC.lags.fetched(selected.grant.id, selected.grant.topic, selection.next)
        self._repeats.released(selected.grant.stream_id, selected.topic.info.generation, selected.current.next)
        return Release(
            schema_id=selected.grant.view_schema_id or 0,
            values=selection.values,
            record_keys=draft.keys,
            recorded_at=round_times(selection.recorded_at, draft.time_step),
            valid=round_valid(selection.valid, draft.time_step),
            places=selection.places,
            marks=selection.marks,
            next_position=self._tokens.seal(
                ConsumerPosition(last_released=selection.next, next=selection.next, runs=draft.moved.runs),
                selected.grant.stream_id,
                selected.topic.info.generation,
            ),
            entry_id=draft.entry.id,
            leaf_hash=leaf_hash,
            caught_up=selected.caught_up,
            deadline=deadline,
            texts=selected.texts,
            disputed=selection.disputed,
        )


def is_same_view(current: Grant, used: Grant) -> bool:
    """Return whether a later version of a grant shows what the one that was used shows: a state alone may differ.

    Or its provider: the resource has gone over to a successor.
    """
    stated = replace(
        used,
        version=current.version,
        state=current.state,
        suspend_after=current.suspend_after,
        provider=current.provider,
    )
    return stated == current


def _root(keys: bytes, values: Packed) -> bytes:
    """Return the RFC 6962 root over what leaves: leaf = SHA-256(0x00 ‖ record key ‖ framed value)."""
    sha256 = hashlib.sha256
    return root_of(
        [sha256(b"\x00" + keys[16 * index : 16 * index + 16] + value).digest() for index, value in enumerate(values)]
    )
