"""Registry access enforcement: rights beside roles, and which reads leave an entry.

    forbidden pair   an auditor writes nothing, an operator decides nothing: no right lifts that
    role             what `exchange.access.decision.roles` says, on behalf of the department whose subject it is
    right            what the configuration gives beside (`registry.rights`)
    reads            `exchange.authorization.schema_access`, which decides those over gRPC too

A department's subjects are those of its catalogued resources, and those in its own context (`:.<department id>:name`).

Writes always leave an entry. Reads leave one where they disclose something: under a view's subject (who was granted
what) and under a restricted one. A list leaves one where it names a restricted subject, with their number.

Every decision asks the database whether the actor's certificate and department are active, except that of a read by id
that leaves no entry: it may be decided on what was true at most half a second ago (`permits_from_cache`).
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache

from typing_extensions import override

from exchange.access.decision.roles import FORBIDDEN, Standing, decide_control, refuse_role, refuse_standing
from exchange.api.registry.ttl_cache import TtlCache
from exchange.authorization.attribute_sources import IdentityAttributes
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.authorization.schema_access import SchemaAccess
from registry.database.unit_of_work import Database, Reader, UnitOfWork
from registry.governance.subject_rights import OPERATIONS, SubjectOperation
from registry.rest.access import AccessControl, AuditHandle, Visibility
from schemas.access import Action, Actor, ActorKind, Allow, Deny, Role
from schemas.identifiers import random_id

__all__ = ["ANONYMOUS", "RegistryAccessControl", "registry_request_context"]

ANONYMOUS = Actor(kind=ActorKind.HUMAN, id="dev:anonymous", department="", role=Role.DATA_AUTHORITY)
"""Every caller of a registry under --dev."""

_READS = frozenset({Action.SCHEMA_READ, Action.SCHEMA_READ_BY_ID})


class _Visibility(Visibility):
    """`Visibility` behind the pool: caches each subject's verdict, and counts the restricted ones that were named."""

    def __init__(self, visible: Callable[[str], bool], is_restricted: Callable[[str], bool]) -> None:
        self._visible = cache(visible)
        self._is_restricted = is_restricted
        self._named: set[str] = set()

    @override
    def visible(self, subject: str) -> bool:
        return self._visible(subject)

    @override
    def record(self, subjects: Iterable[str]) -> None:
        self._named.update(subjects)

    def restricted(self) -> int:
        return sum(map(self._is_restricted, self._named))


class RegistryAccessControl(AccessControl):
    """`AccessControl` over the pool's enforcer.

    Args:
        enforcer: the pool's.
        database: opens readers.
        identities: who is who at this moment.
        schemas: decides on reads.
        dev: every caller is ANONYMOUS and may do everything; on loopback alone.
        clock: of the cache; seconds, monotonic.
    """

    def __init__(
        self,
        enforcer: Enforcer,
        database: Database,
        identities: IdentityAttributes,
        schemas: SchemaAccess,
        *,
        dev: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._enforcer = enforcer
        self._database = database
        self._identities = identities
        self._schemas = schemas
        self._dev = dev
        self._standings: TtlCache[Actor, Standing] = TtlCache(lambda one: one is Standing.ACTIVE, clock=clock)

    @contextmanager
    @override
    def act(
        self, actor: Actor, action: Action, resource: str, texts: Mapping[str, str] | None = None
    ) -> Iterator[tuple[UnitOfWork, AuditHandle]]:
        finding = self._enforcer.screen.document(texts or {}, "body")
        if finding is not None:
            self._enforcer.refuse_text(actor, action, registry_request_context(), finding)
        decision = self._decide(actor, action, resource)
        with self._enforcer.act(actor, action, resource, registry_request_context(), decision) as (work, act):
            yield work, act

    @contextmanager
    @override
    def read(self, actor: Actor, action: Action, resource: str) -> Iterator[Reader]:
        call = registry_request_context()
        decision = self._decide(actor, action, resource)
        if self._schemas.is_recorded(resource):
            # The entry first: what is read may need readers of its own, which may not be opened within a transaction.
            with self._enforcer.announce(actor, action, resource, call, decision), self._database.read() as reader:
                yield reader
            return
        self._enforcer.admit(actor, action, resource, call, decision)
        with self._database.read() as reader:
            yield reader

    @contextmanager
    @override
    def list(self, actor: Actor, *, admitted: bool = False) -> Iterator[Visibility]:
        call = registry_request_context()
        decision = Allow() if admitted else self._decide(actor, Action.SCHEMA_READ, "")
        self._enforcer.admit(actor, Action.SCHEMA_READ, "", call, decision)
        visibility = _Visibility(self._readable_by(actor, SubjectOperation.READ), self._schemas.rights.is_restricted)
        yield visibility
        restricted = visibility.restricted()
        if restricted:
            with self._enforcer.act(actor, Action.SCHEMA_READ, "", call, decision) as (_, act):
                act.note(restricted=restricted)

    def _readable_by(self, actor: Actor, operation: SubjectOperation) -> Callable[[str], bool]:
        """Return a function that returns whether an actor, whose standing is checked elsewhere, may read a subject."""
        if self._dev and actor == ANONYMOUS:
            return lambda _: True
        return self._schemas.readable(actor, operation)

    @override
    def readable_subject(self, actor: Actor, origin: str, others: Callable[[], Iterable[str]]) -> str:
        if self._dev and actor == ANONYMOUS:
            return origin
        return self._schemas.readable_subject(actor, origin, others)

    @override
    def permits_from_cache(self, actor: Actor, action: Action, resource: str) -> bool:
        if self._dev and actor is ANONYMOUS:
            return not self._schemas.is_recorded(resource)
        standing = self._standings.get(actor)
        if standing is not Standing.ACTIVE or action in FORBIDDEN.get(actor.role, ()):
            return False
        return self._schemas.decide_without_waiting(actor, OPERATIONS[action], resource)

    def _decide(self, actor: Actor, action: Action, resource: str) -> Allow | Deny:
        if self._dev and actor == ANONYMOUS:
            return Allow()
        standing = self._standings.ask(actor, lambda: self._identities.standing_now(actor))
        if standing is not Standing.ACTIVE:
            return refuse_standing(actor, standing)
        if action in FORBIDDEN.get(actor.role, ()):
            return refuse_role(actor, action)
        if action in _READS:
            return self._schemas.decide(actor, OPERATIONS[action], resource)
        by_role = decide_control(actor, action, standing=standing, department=self._schemas.owner(resource))
        operation = OPERATIONS.get(action)
        if not by_role and operation is not None and self._schemas.rights.allows(actor, operation, resource):
            return Allow()
        return by_role


def registry_request_context() -> RequestContext:
    """Return the circumstances of one call to the registry."""
    return RequestContext(trace=random_id(), client="registry-api")
