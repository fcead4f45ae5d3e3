"""What the registers say at this moment: the attributes that a decision needs, gathered in one place.

Decisions are pure; somebody must fetch what they decide on. A revocation is seen by the next call: nothing is kept
across calls, but for parsed certificates and schemas, which never change, and for what `publishers` remembers for a
fifth of a second, by which nothing is ever appended (ADR 0039).
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from exchange.access.decision.policy import Resource
from exchange.access.decision.roles import Standing
from exchange.access.grants.grant_json import grant_hash
from exchange.access.grants.store import AccessStore, quota_day
from exchange.access.view.filter import filter_to_text
from exchange.single_flight import SingleFlight
from registry.database.unit_of_work import UnitOfWork
from schemas.access import Actor, Grant, Level
from schemas.audit import GrantRef
from schemas.errors import InvalidError, Reason
from schemas.names import Topic

__all__ = [
    "AttributeProvider",
    "CatalogueSource",
    "GrantAttributes",
    "IdentitySource",
    "Look",
    "PublisherAttributes",
    "reference_to",
]

Look = Callable[[], AbstractContextManager[UnitOfWork]]
"""Opens one transaction that every room's reading joins: several facts cost one round of BEGIN and COMMIT."""


class IdentitySource(Protocol):
    """What decisions need of the identity register."""

    def standing(self, actor: Actor, work: UnitOfWork | None = None, *, hold: bool = False) -> Standing:
        """Return how the actor's certificate or account, and its department, stand now.

        Args:
            actor: who acts.
            work: the transaction to look in; one of its own without.
            hold: let a revocation of the certificate wait until *work* has ended.
        """
        ...

    def signing_key(self, actor: Actor, work: UnitOfWork) -> bytes | None:
        """Return the Ed25519 public key, 32 bytes, with which a connector signs batches now; None when it has none."""
        ...


class CatalogueSource(Protocol):
    """What decisions need of the registry."""

    def resource(self, topic: Topic) -> Resource | None:
        """Describe a topic; None when the catalogue does not know it."""
        ...

    def level(self, topic: Topic, fields: tuple[str, ...]) -> Level | None:
        """Return the highest level that one of the fields has in the topic's latest schema; None when unknown."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantAttributes:
    """A grant as it is now, and all that a decision under it needs.

    Attributes:
        grant: the current version; its hash has been proven, or it would not be here.
        resource: its topic, None when the catalogue does not know it.
        level: highest level of a granted field now.
        released_today: records released on this day of Asia/Shanghai.
        now: the database's clock.
        reference: id, version and hash for the entry.
    """

    grant: Grant
    resource: Resource | None
    level: Level | None
    released_today: int
    now: datetime
    reference: GrantRef

    @property
    def row_filter(self) -> str:
        """The row filter's canonical text; empty = every row."""
        return filter_to_text(self.grant.row_filter) if self.grant.row_filter is not None else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherAttributes:
    """All that the acceptance of a batch needs: who publishes, what, and the key that must have signed."""

    standing: Standing
    resource: Resource | None
    signing_key: bytes | None


_RECENT = 0.2  # seconds
_MOST_RECENT = 1_000
_NEVER: tuple[float, PublisherAttributes | None] = -math.inf, None


class AttributeProvider:
    """Gathers facts from the rooms of the pool."""

    def __init__(
        self,
        *,
        identities: IdentitySource,
        catalogue: CatalogueSource,
        access: AccessStore,
        now: Callable[[UnitOfWork], datetime],
        look: Look,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._identities = identities
        self._catalogue = catalogue
        self._access = access
        self._now = now
        self._look = look
        self._publishers = SingleFlight(self._publisher)
        self._clock = clock  # seconds, rising
        self._recent: dict[tuple[Actor, Topic], tuple[float, PublisherAttributes]] = {}  # until when, by that clock
        self._lock = threading.Lock()

    def publisher(self, actor: Actor, topic: Topic) -> PublisherAttributes:
        """Return the facts of a publication, all of one moment; the batches of a stream ask together."""
        asked = self._clock()
        attributes = self._publishers((actor, topic))
        # What would let nothing pass is of no use a moment later, and may be of an invented topic.
        if attributes.resource is not None and attributes.signing_key is not None:
            self._remember((actor, topic), asked + _RECENT, attributes)
        return attributes

    def publishers(self, actor: Actor, topic: Topic) -> Iterator[PublisherAttributes]:
        """Return the facts of a publication as of at most 0.2 s ago, if they were asked for then; then as of now.

        For a check whose act is decided again, as of now, before anything is done.
        """
        until, attributes = self._recent.get((actor, topic), _NEVER)
        if attributes is not None and self._clock() < until:
            yield attributes
        yield self.publisher(actor, topic)

    def _remember(self, key: tuple[Actor, Topic], until: float, attributes: PublisherAttributes) -> None:
        with self._lock:
            if len(self._recent) >= _MOST_RECENT:
                self._recent.clear()
            if until > self._recent.get(key, _NEVER)[0]:  # an answer that was late does not replace a newer one
                self._recent[key] = until, attributes

    def _publisher(self, who_what: tuple[Actor, Topic]) -> PublisherAttributes:
        actor, topic = who_what
        with self._look() as work:
            return PublisherAttributes(
                standing=self._identities.standing(actor, work),
                resource=self._catalogue.resource(topic),
                signing_key=self._identities.signing_key(actor, work),
            )

    def look(self) -> AbstractContextManager[UnitOfWork]:
        """Open a transaction that every room's reading joins."""
        return self._look()

    def standing(self, actor: Actor, work: UnitOfWork | None = None, *, hold: bool = False) -> Standing:
        """Return the standing of an actor, as `IdentitySource.standing` does."""
        return self._identities.standing(actor, work, hold=hold)

    def resource(self, topic: Topic) -> Resource | None:
        """Return what the catalogue says of a topic, as `CatalogueSource.resource` does."""
        return self._catalogue.resource(topic)

    def level(self, topic: Topic, fields: tuple[str, ...]) -> Level | None:
        """Return the highest level of fields, as `CatalogueSource.level` does."""
        return self._catalogue.level(topic, fields)

    def now(self, work: UnitOfWork) -> datetime:
        """Return the time by the pool's one clock, the database's."""
        return self._now(work)

    def grant(self, work: UnitOfWork, grant_id: str) -> GrantAttributes | None:
        """Return the facts of a grant; None when there is no such grant.

        Raises:
            CorruptError: GRANT_FORGED.
        """
        try:
            return self._gather(work, self._access.get(work, grant_id))
        except InvalidError as error:
            if error.reason is Reason.GRANT_UNKNOWN:
                return None
            raise

    def lock_grant(self, work: UnitOfWork, grant_id: str) -> GrantAttributes:
        """Return the facts of a grant and keep them so until the transaction ends.

        Raises:
            InvalidError: GRANT_UNKNOWN.
            CorruptError: GRANT_FORGED.
        """
        return self._gather(work, self._access.lock_shared(work, grant_id))

    def add_released(self, work: UnitOfWork, grant: Grant, count: int) -> None:
        """Count released records against the day's quota.

        Raises:
            RefusedError: QUOTA_EXHAUSTED.
        """
        if count:
            day = quota_day(self._now(work))
            self._access.add_released(work, grant.id, day, count, grant.quota_per_day)

    def _gather(self, work: UnitOfWork, grant: Grant) -> GrantAttributes:
        now = self._now(work)
        return GrantAttributes(
            grant=grant,
            resource=self._catalogue.resource(grant.topic),
            level=self._catalogue.level(grant.topic, grant.fields),
            released_today=self._access.released(work, grant.id, quota_day(now)) if grant.quota_per_day else 0,
            now=now,
            reference=reference_to(grant),
        )


def reference_to(grant: Grant) -> GrantRef:
    """Return the reference that stands in entries: id, version, and the hash of the canonical text."""
    return GrantRef(id=grant.id, version=grant.version, hash=grant_hash(grant).hex())
