"""Versions of a grant, with its request: read, locked together with what its consumer holds, and stored.

Two approvals of one consumer on one resource follow each other by these locks, and the second sees the first.
"""

from collections.abc import Mapping
from contextlib import suppress

from exchange.access.grants.holding import Holding
from exchange.access.grants.store import AccessStore, version_conflict
from exchange.authorization.attributes import AttributeProvider, reference_to
from exchange.authorization.enforcement import AuditedAct
from exchange.control.grants.reads import read_grant
from exchange.control.grants.review import GrantReview
from exchange.control.requests.law import RequestLaw, accounts_of
from exchange.requests.model import ShareRequest
from registry.database.unit_of_work import Database, UnitOfWork
from schemas.access import Actor, ActorKind, Grant
from schemas.errors import CorruptError

__all__ = ["GrantVersions", "persons_of"]


class GrantVersions:
    """Grants as they are read before a decision, and as they are locked and stored in its transaction."""

    def __init__(
        self,
        database: Database,
        access: AccessStore,
        attributes: AttributeProvider,
        review: GrantReview,
        law: RequestLaw,
    ) -> None:
        self._database = database
        self._access = access
        self._attributes = attributes
        self._review = review
        self._law = law

    def known(self, actor: Actor, grant_id: str) -> tuple[Grant | None, bool, Mapping[str, str]]:
        """Return a grant, whether its row is proven, and the persons of the actor and of who requested and signed."""
        grant, proven = read_grant(self._database, self._access, grant_id)
        accounts: tuple[str, ...] = ()
        if grant is not None and actor.kind is ActorKind.HUMAN:
            with self._database.read() as reader, suppress(CorruptError):
                accounts = accounts_of(self._law.requests.of(reader, grant))
        return grant, proven, persons_of(self._attributes, actor, grant, accounts)

    def lock_with_holding(self, work: UnitOfWork, grant_id: str) -> tuple[Grant, Holding]:
        """Lock a grant, and all that its consumer holds of the resource before it; return both.

        Two approvals of one consumer on one resource thus follow each other, and the second sees the first.
        """
        found = self._access.get(work, grant_id)  # the topic never changes
        self._access.lock_holding(work, found.consumer, found.topic.name)
        grant = self._access.lock_for_update(work, grant_id)
        if grant.consumer != found.consumer:
            raise version_conflict(grant, grant.version)
        return grant, self._review.holding(work, grant)

    def current(self, work: UnitOfWork, grant: Grant, holding: Holding) -> ShareRequest:
        """Return the request of a grant, with what the whole holding says of it."""
        return self._law.current(work, grant, sensitive=holding.sensitive, together=holding.together_with)

    def store(self, work: UnitOfWork, act: AuditedAct, grant: Grant, request: ShareRequest | None) -> None:
        """Store a new version of a grant with its request, as the act's."""
        self._access.put(work, grant, entry_id=act.entry_id, at=self._attributes.now(work))
        act.grant = reference_to(grant)
        if request is not None:
            self._law.put(work, request)


def persons_of(
    attributes: AttributeProvider, actor: Actor, grant: Grant | None, accounts: tuple[str, ...] = ()
) -> Mapping[str, str]:
    """Return the persons of the actor, and of who requested and signed before: a program's act needs none."""
    if grant is None or actor.kind is not ActorKind.HUMAN:
        return {}
    signed = (grant.requested_by, grant.approved_by, grant.confirmed_by)
    return attributes.persons(*dict.fromkeys(filter(None, (actor.id, *signed, *accounts))))
