"""Attribute provider (policy information point): reads what a decision needs, at the moment of the decision.

Decisions are pure functions of these attributes. A revocation is effective with the next call, because nothing is
cached across calls, except parsed certificates and schemas, which never change, and the attributes of a publication,
for a fifth of a second: a check may use them, an append never does (ADR 0039).
"""

import math
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol, TypeAlias

from exchange.access.decision.parties import DepartmentProfile, flow_of
from exchange.access.decision.policy import GrantContext, Resource
from exchange.access.decision.roles import Standing
from exchange.access.grants.grant_json import grant_hash
from exchange.access.grants.group import GroupStore
from exchange.access.grants.renewal import carried_by, quota_of
from exchange.access.grants.store import AccessStore, quota_day
from exchange.access.view.filter import fields_of, filter_to_text
from exchange.deadlines.in_force import RulesInForce, RulesSource
from registry.database.unit_of_work import Database, Reader, UnitOfWork
from schemas.access import Actor, Grant, Level, MaskRule
from schemas.audit import Flow, GrantRef
from schemas.errors import CorruptError, InvalidError, Reason
from schemas.names import Topic

__all__ = [
    "AttributeProvider",
    "CatalogueSource",
    "GrantAttributes",
    "GrantUse",
    "IdentitySource",
    "Levels",
    "Profiles",
    "PublisherAttributes",
    "reference_to",
]


class IdentitySource(Protocol):
    """Attributes from identities and departments."""

    def standing(self, reader: Reader, actor: Actor) -> Standing:
        """Return whether the actor's certificate or account, and its department, are active."""
        ...

    def lock_standing(self, work: UnitOfWork, actor: Actor) -> Standing:
        """Return the same; a revocation of the certificate waits until the transaction ends."""
        ...

    def signing_key(self, reader: Reader, actor: Actor) -> bytes | None:
        """Return the connector's current Ed25519 public key, 32 bytes, for its batches; None if it has none."""
        ...

    def persons(self, reader: Reader, accounts: Collection[str]) -> Mapping[str, str]:
        """Return the staff number of each account that names one, by account name; revoked accounts too."""
        ...

    def profiles(self, reader: Reader, departments: Collection[str]) -> "Profiles":
        """Return the profiles of departments by id, without those that are unknown or not written by the pool."""
        ...


class CatalogueSource(Protocol):
    """Attributes from the catalogue and the subjects."""

    def resource(self, reader: Reader, topic: Topic) -> Resource | None:
        """Return a topic's catalogue entry; None when it is not in the catalogue."""
        ...

    def levels(self, reader: Reader, topic: Topic) -> "Levels":
        """Return the levels of the fields in the topic's latest schema."""
        ...

    def not_personal(self, reader: Reader, topic: Topic) -> Collection[str] | None:
        """Return the top-level fields of the topic's latest schema in which nothing is personal; None = unknown."""
        ...


Levels: TypeAlias = Callable[[Collection[str]], Level | None]
"""Returns the highest level that one of the fields has; None when it is unknown."""


Profiles: TypeAlias = Mapping[str, DepartmentProfile]
"""Departments by their internal ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantAttributes(GrantContext):
    """The current version of a grant, and all that a decision and a release under it need.

    Attributes:
        proven: always true: the store returns no version that the pool did not write.
        reference: id, version and hash for the entry.
    """

    proven: bool = True
    reference: GrantRef

    @property
    def flow(self) -> Flow | None:
        """Flow of a delivery under it; None where a party is not known."""
        return None if self.provider is None or self.consumer is None else flow_of(self.provider, self.consumer)

    def in_zone(self, actor: Actor) -> Actor:
        """Return a connector of the consumer in the zone that its department is in now; another's as it is."""
        if actor.department != self.grant.consumer:
            return actor
        return _in_zone(actor, self.consumer)

    @property
    def row_filter(self) -> str:
        """The row filter's canonical text; empty = every row."""
        return filter_to_text(self.grant.row_filter) if self.grant.row_filter is not None else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantUse:
    """Attributes of one fetch of several: of its actor and of its grant."""

    standing: Standing
    attributes: GrantAttributes


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherAttributes:
    """Attributes for the acceptance of a batch: who publishes, what, and the key that must have signed it."""

    standing: Standing
    resource: Resource | None
    signing_key: bytes | None
    publisher: DepartmentProfile | None = None

    def in_zone(self, actor: Actor) -> Actor:
        """Return the connector in the zone that its department is in."""
        return _in_zone(actor, self.publisher)


_CACHE_SECONDS = 0.2
_CACHE_SIZE = 1_000
_NEVER: tuple[float, PublisherAttributes | None] = -math.inf, None


class AttributeProvider:
    """Reads attributes from the pool's other packages."""

    def __init__(
        self,
        *,
        identities: IdentitySource,
        catalogue: CatalogueSource,
        access: AccessStore,
        rules: RulesSource,
        now: Callable[[Reader], datetime],
        database: Database,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._identities = identities
        self._catalogue = catalogue
        self._access = access
        self._rules = rules
        self._now = now
        self._database = database
        self._clock = clock  # seconds, monotonic
        self._cached: dict[tuple[Actor, Topic], tuple[float, PublisherAttributes]] = {}  # until when, by that clock
        self._lock = threading.Lock()

    def recent(self, actor: Actor, topic: Topic) -> PublisherAttributes | None:
        """Return the cached attributes of a publication, read at most 0.2 s ago; None where there are none.

        For a check whose act is decided again, by current ones, before anything is done.
        """
        until, attributes = self._cached.get((actor, topic), _NEVER)
        return attributes if self._clock() < until else None

    def current(self, actor: Actor, topic: Topic) -> PublisherAttributes:
        """Read the attributes of a publication now, and cache them for `recent`."""
        began = self._clock()
        with self._database.read() as reader:
            attributes = PublisherAttributes(
                standing=self._identities.standing(reader, actor),
                resource=self._catalogue.resource(reader, topic),
                signing_key=self._identities.signing_key(reader, actor),
                publisher=self._identities.profiles(reader, [actor.department]).get(actor.department),
            )
        # Attributes that let no batch pass are useless later, and may be of an invented topic.
        if attributes.resource is not None and attributes.signing_key is not None:
            self._cache((actor, topic), began + _CACHE_SECONDS, attributes)
        return attributes

    def _cache(self, key: tuple[Actor, Topic], until: float, attributes: PublisherAttributes) -> None:
        with self._lock:
            if len(self._cached) >= _CACHE_SIZE:
                self._cached.clear()
            if until > self._cached.get(key, _NEVER)[0]:  # a late answer does not replace a newer one
                self._cached[key] = until, attributes

    def standing(self, actor: Actor) -> Standing:
        """Return the current standing of an actor."""
        with self._database.read() as reader:
            return self._identities.standing(reader, actor)

    def standing_of(self, reader: Reader, actor: Actor) -> Standing:
        """Return the standing of an actor, as `IdentitySource.standing` does."""
        return self._identities.standing(reader, actor)

    def lock_standing(self, work: UnitOfWork, actor: Actor) -> Standing:
        """Return the standing of an actor, as `IdentitySource.lock_standing` does."""
        return self._identities.lock_standing(work, actor)

    def profiles(self, reader: Reader, departments: Collection[str]) -> Profiles:
        """Return the profiles of departments by id, as `IdentitySource.profiles` does."""
        return self._identities.profiles(reader, departments)

    def persons(self, *accounts: str) -> Mapping[str, str]:
        """Return the staff numbers of accounts, as `IdentitySource.persons` does."""
        with self._database.read() as reader:
            return self._identities.persons(reader, accounts)

    def persons_of(self, reader: Reader, accounts: Collection[str]) -> Mapping[str, str]:
        """Return the same, read with a reader."""
        return self._identities.persons(reader, accounts)

    def resource(self, topic: Topic) -> Resource | None:
        """Return a topic's current catalogue entry; None when it is not in the catalogue."""
        with self._database.read() as reader:
            return self._catalogue.resource(reader, topic)

    def resource_of(self, reader: Reader, topic: Topic) -> Resource | None:
        """Return the same, read with a reader."""
        return self._catalogue.resource(reader, topic)

    def is_unconditional(self, reader: Reader, topic: Topic) -> bool:
        """Return whether a topic's resource is shared without conditions; False where it is not in the catalogue."""
        resource = self._catalogue.resource(reader, topic)
        return resource is not None and resource.unconditional

    def level_of(self, reader: Reader, grant: Grant) -> Level | None:
        """Return the current highest level of a grant's fields and of its filter's; None when unknown."""
        return self._catalogue.levels(reader, grant.topic)(_graded(grant))

    def level_of_fields(self, reader: Reader, topic: Topic, fields: Collection[str]) -> Level | None:
        """Return the current highest level of fields of a topic; None when unknown."""
        return self._catalogue.levels(reader, topic)(fields)

    def levels_of(self, reader: Reader, grant: Grant) -> dict[str, Level]:
        """Return the current level of each of a grant's fields and of its filter's; unknown ones are left out."""
        levels = self._catalogue.levels(reader, grant.topic)
        graded = ((field, levels((field,))) for field in _graded(grant))
        return {field: level for field, level in graded if level is not None}

    def now(self, reader: Reader) -> datetime:
        """Return the database's time, the only clock for the validity of grants."""
        return self._now(reader)

    def rules(self, reader: Reader) -> RulesInForce:
        """Return the rules of deadlines that the pool follows now, as `RulesSource.rules` does."""
        return self._rules.rules(reader)

    def grant(self, reader: Reader, grant_id: str) -> GrantAttributes | None:
        """Return the attributes of a grant; None when there is no such grant.

        Raises:
            CorruptError: GRANT_FORGED.
        """
        try:
            return self._gather(reader, self._access.get(reader, grant_id))
        except InvalidError as error:
            if error.reason is Reason.GRANT_UNKNOWN:
                return None
            raise

    def lock_grant(self, work: UnitOfWork, grant_id: str) -> GrantAttributes:
        """Return the attributes of a grant, and lock it against changes until the transaction ends.

        Raises:
            InvalidError: GRANT_UNKNOWN.
            CorruptError: GRANT_FORGED.
        """
        return self._gather(work, self._access.lock_shared(work, grant_id))

    def uses(self, reader: Reader, wanted: Sequence[tuple[Actor, str]], store: GroupStore) -> list[GrantUse | None]:
        """Return the attributes of several fetches, by actor and grant, in their order; what they share is read once.

        Args:
            reader: to read with. In a transaction the grants and the actors' standings are locked, as `lock_grant` and
                `lock_standing` do it.
            wanted: different grants.
            store: of the grants.

        Returns:
            None for a grant that is unknown, forged or just being changed, and where attributes cannot be read: the
            fetch alone says why, or waits.
        """
        ids = [grant_id for _, grant_id in wanted]
        grants = store.lock(reader, ids) if isinstance(reader, UnitOfWork) else store.get(reader, ids)
        now = self._now(reader)
        shared = _Shared(self._identities, self._catalogue, reader, now)
        shared.standings({actor for actor, grant_id in wanted if grant_id in grants})
        shared.profiles({one for grant in grants.values() for one in _parties(grant)})
        limited = [grant.id for grant in grants.values() if grant.quota_per_day]
        day = quota_day(now)
        released = store.released(reader, limited, day) if limited else {}
        counts = {one.id: released.get(one.id, 0) + carried_by(one, day) for one in grants.values()}
        return [shared.use(actor, grants.get(grant_id), counts.get(grant_id, 0)) for actor, grant_id in wanted]

    def add_released(self, work: UnitOfWork, grant: Grant, count: int) -> None:
        """Add released records to the day's count.

        Raises:
            RefusedError: QUOTA_EXHAUSTED.
        """
        if count:
            day = quota_day(self._now(work))
            self._access.add_released(work, grant.id, day, count, quota_of(grant, day))

    def _gather(self, reader: Reader, grant: Grant) -> GrantAttributes:
        now = self._now(reader)
        day = quota_day(now)
        profiles = self._identities.profiles(reader, _parties(grant))
        return GrantAttributes(
            grant=grant,
            resource=self._catalogue.resource(reader, grant.topic),
            level=self.level_of(reader, grant),
            released_today=self._access.released(reader, grant.id, day) + carried_by(grant, day)
            if grant.quota_per_day
            else 0,
            now=now,
            reference=reference_to(grant),
            consumer=profiles.get(grant.consumer),
            provider=profiles.get(grant.provider),
            plaintext=_plaintext(self._catalogue, reader, grant, profiles.get(grant.consumer)),
        )

    def plaintext(self, reader: Reader, grant: Grant) -> tuple[str, ...] | None:
        """Return the personal fields that a grant shows a contractor unmasked, or tells it; None = unknown."""
        consumer = self._identities.profiles(reader, [grant.consumer]).get(grant.consumer)
        return _plaintext(self._catalogue, reader, grant, consumer)


class _Shared:
    """Attributes of several fetches, each read once: of an actor, of a topic, and the time.

    One that cannot be read, such as a row that the pool did not write, is None: the fetch alone says why.
    """

    def __init__(self, identities: IdentitySource, catalogue: CatalogueSource, reader: Reader, now: datetime) -> None:
        self._identities = identities
        self._catalogue = catalogue
        self._reader = reader
        self._now = now
        self._standings: dict[Actor, Standing | None] = {}
        self._profiles: Profiles = {}
        self._topics: dict[Topic, tuple[Resource | None, Levels] | None] = {}

    def standings(self, actors: Collection[Actor]) -> None:
        """Read the standing of each; in a transaction, lock it, in the order of the certificates."""
        for actor in sorted({*actors}, key=lambda one: one.certificate):
            self._standings[actor] = None
            with suppress(CorruptError):
                if isinstance(self._reader, UnitOfWork):
                    self._standings[actor] = self._identities.lock_standing(self._reader, actor)
                else:
                    self._standings[actor] = self._identities.standing(self._reader, actor)

    def profiles(self, departments: Collection[str]) -> None:
        """Read the profiles of the grants' parties, with one query."""
        self._profiles = self._identities.profiles(self._reader, departments) if departments else {}

    def use(self, actor: Actor, grant: Grant | None, released: int) -> GrantUse | None:
        """Return the attributes of one fetch, None if any of them is missing."""
        standing = self._standings.get(actor)
        topic = None if grant is None else self._topic(grant.topic)
        if grant is None or standing is None or topic is None:
            return None
        resource, levels = topic
        attributes = GrantAttributes(
            grant=grant,
            resource=resource,
            level=levels(_graded(grant)),
            released_today=released,
            now=self._now,
            reference=reference_to(grant),
            consumer=self._profiles.get(grant.consumer),
            provider=self._profiles.get(grant.provider),
            plaintext=_plaintext(self._catalogue, self._reader, grant, self._profiles.get(grant.consumer)),
        )
        return GrantUse(standing=standing, attributes=attributes)

    def _topic(self, topic: Topic) -> tuple[Resource | None, Levels] | None:
        if topic not in self._topics:
            self._topics[topic] = None
            with suppress(CorruptError, InvalidError):
                resource = self._catalogue.resource(self._reader, topic)
                self._topics[topic] = resource, self._catalogue.levels(self._reader, topic)
        return self._topics[topic]


def _plaintext(
    catalogue: CatalogueSource, reader: Reader, grant: Grant, consumer: DepartmentProfile | None
) -> tuple[str, ...] | None:
    """Return the personal fields that a grant shows its consumer unmasked, or tells it, where that is a contractor."""
    if consumer is None or not consumer.contractor:
        return ()
    clear = catalogue.not_personal(reader, grant.topic)
    if clear is None:
        return None
    masks = dict(grant.masks)
    shown = {field for field in grant.fields if masks.get(field, MaskRule.NONE) is MaskRule.NONE}
    found = (shown | fields_of(grant.row_filter)) - {*clear}
    return tuple(sorted(found | {*grant.unmasked} | {*grant.filter_discloses}))


def _parties(grant: Grant) -> tuple[str, str]:
    return grant.consumer, grant.provider


def _in_zone(actor: Actor, department: DepartmentProfile | None) -> Actor:
    zone = "" if department is None else department.zone  # of an unknown department it is no zone
    return actor if actor.zone == zone else replace(actor, zone=zone)


def _graded(grant: Grant) -> tuple[str, ...]:
    """Return the fields whose levels count: those of the grant, and of its filter."""
    return grant.fields if grant.row_filter is None else tuple({*grant.fields, *fields_of(grant.row_filter)})


def reference_to(grant: Grant) -> GrantRef:
    """Return a grant's reference for audit entries: id, version, and the hash of the canonical text."""
    return GrantRef(id=grant.id, version=grant.version, hash=grant_hash(grant).hex())
