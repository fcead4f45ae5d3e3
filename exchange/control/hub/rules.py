"""Rules of the hub's libraries: proposed, agreed to by each department whose lead changes, activated. Audited acts.

    propose    a catalogue editor, or the data authority, from a document (`exchange.hub.fold.rules`)
    agree      the head of the sharing office of a department whose lead changes
    activate   the data authority; the version that was active is retired in the same transaction
    reject     the data authority, with a reason
    rules      every account reads the versions of a library

Three different persons act, whatever their accounts. Each entry holds library, version, hash and the departments, so
that the log alone says who led which field from which batch on.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from exchange.access.decision.roles import decide_control
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import AuditedAct, Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.hub.fold.identity import BUCKETS
from exchange.hub.fold.rules import Rules, leads_that_differ, parse
from exchange.hub.services.rule_changes import (
    RulesVersion,
    activated,
    agreed,
    proposed,
    rejected,
    retired,
    signers,
)
from exchange.hub.store.rules_store import RulesStore, unknown_rules
from exchange.hub.store.store import HubStore
from registry.database.unit_of_work import Database, Reader
from schemas.access import Action, Actor, Allow, Deny
from schemas.canonical import Json
from schemas.errors import InvalidError, Reason
from schemas.names import Topic

__all__ = ["HubRulesService"]


class HubRulesService:
    """Audited acts on rules.

    Args:
        database: opens readers.
        enforcer: decides and records.
        attributes: of actors and time.
        store: the rules.
        hub: numbers resources and batches.
        provider: returns the id of the department that provides a topic, None for one that is not catalogued.
        now: aware.
    """

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        store: RulesStore,
        hub: HubStore,
        provider: Callable[[Reader, Topic], str | None],
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._store = store
        self._hub = hub
        self._provider = provider
        self._now = now

    def propose(self, actor: Actor, call: RequestContext, document: Json) -> RulesVersion:
        """Propose the next version of a library's rules.

        Raises:
            RefusedError: the actor may not.
            InvalidError: RULES_INVALID, with the place in the document; NO_LEAD.
            ConflictError: TRANSITION_NOT_ALLOWED, too many versions wait already.
            CorruptError: ROW_FORGED, a row of this library's rules is not the pool's.
        """
        rules = parse(document)
        decision = self._decide(actor, Action.HUB_RULES_PROPOSE)
        with self._enforcer.act(actor, Action.HUB_RULES_PROPOSE, rules.library, call, decision) as (work, act):
            self._store.lock(work, rules.library)
            versions = self._store.versions(work, rules.library)
            active = self._store.active(work, rules.library)
            version = proposed(
                rules,
                versions=versions,
                departments=self._departments(work, None if active is None else active.rules, rules),
                by=actor,
                at=self._now(),
            )
            self._store.add(work, version)
            _note(act, version)
        return version

    def agree(self, actor: Actor, call: RequestContext, library: str, number: int) -> RulesVersion:
        """Sign for the actor's department, whose lead changes.

        Raises:
            RefusedError: the actor may not; OTHER_DEPARTMENT, SAME_PERSON, PERSON_UNKNOWN.
            InvalidError: NOT_FOUND.
            ConflictError: TRANSITION_NOT_ALLOWED.
            CorruptError: ROW_FORGED.
        """
        persons = self._persons(actor, library, number)
        decision = self._decide(actor, Action.HUB_RULES_AGREE)
        with self._enforcer.act(actor, Action.HUB_RULES_AGREE, library, call, decision) as (work, act):
            self._store.lock(work, library)
            before = self._get(work, library, number)
            version = agreed(before, actor, self._now(), persons=persons)
            self._store.change(work, version, before.state)
            _note(act, version)
        return version

    def activate(self, actor: Actor, call: RequestContext, library: str, number: int) -> RulesVersion:
        """Activate a version that every department concerned has agreed to; steps that begin afterwards fold by it.

        Raises:
            RefusedError: the actor may not; SAME_PERSON, PERSON_UNKNOWN.
            InvalidError: NOT_FOUND; NO_LEAD.
            ConflictError: TRANSITION_NOT_ALLOWED; VERSION_CONFLICT, other rules were activated since it was proposed.
            CorruptError: ROW_FORGED.
        """
        persons = self._persons(actor, library, number)
        decision = self._decide(actor, Action.HUB_RULES_ACTIVATE)
        with self._enforcer.act(actor, Action.HUB_RULES_ACTIVATE, library, call, decision) as (work, act):
            self._store.lock(work, library)
            before, active = self._get(work, library, number), self._store.active(work, library)
            last = self._hub.last_batches(work)
            version = activated(
                before,
                actor,
                self._now(),
                active=active,
                from_batch=tuple(last.get(bucket, 0) + 1 for bucket in range(BUCKETS)),
                persons=persons,
            )
            if active is not None:
                self._store.change(work, retired(active), active.state)
            self._store.change(work, version, before.state)
            self._hub.number_resources(work, version.rules.resources)
            _note(act, version)
            act.note(retires=0 if active is None else active.rules.version)
        return version

    def reject(self, actor: Actor, call: RequestContext, library: str, number: int, reason: str) -> RulesVersion:
        """Reject a version that is not active, with a reason.

        Raises:
            RefusedError: the actor may not.
            InvalidError: NOT_FOUND; REQUEST_INVALID, without a reason.
            ConflictError: TRANSITION_NOT_ALLOWED.
            CorruptError: ROW_FORGED.
        """
        decision = self._decide(actor, Action.HUB_RULES_ACTIVATE)
        with self._enforcer.act(actor, Action.HUB_RULES_ACTIVATE, library, call, decision) as (work, act):
            self._store.lock(work, library)
            before = self._get(work, library, number)
            version = rejected(before, actor, self._now(), reason)
            self._store.change(work, version, before.state)
            _note(act, version)
            act.note(reason=version.reason)
        return version

    def rules(self, actor: Actor, call: RequestContext, library: str) -> Sequence[RulesVersion]:
        """Return the versions of a library's rules, in order; every account may read them.

        Raises:
            RefusedError: the actor may not.
            CorruptError: ROW_FORGED.
        """
        decision = self._decide(actor, Action.HUB_RULES_READ)
        self._enforcer.admit(actor, Action.HUB_RULES_READ, library, call, decision)
        with self._database.read() as reader:
            return self._store.versions(reader, library)

    def _decide(self, actor: Actor, action: Action) -> Allow | Deny:
        return decide_control(
            actor, action, standing=self._attributes.standing(actor), department=actor.department or None
        )

    def _persons(self, actor: Actor, library: str, number: int) -> Mapping[str, str]:
        """Return the persons of who acts and who has acted; read before the transaction, which opens no other."""
        with self._database.read() as reader:
            found = [one for one in self._store.versions(reader, library) if one.rules.version == number]
        return self._attributes.persons(actor.id, *(account for one in found for account in signers(one)))

    def _get(self, reader: Reader, library: str, number: int) -> RulesVersion:
        for version in self._store.versions(reader, library):
            if version.rules.version == number:
                return version
        raise unknown_rules()

    def _departments(self, reader: Reader, before: Rules | None, after: Rules) -> frozenset[str]:
        """Return the departments that provide a resource whose lead changes."""
        found: set[str] = set()
        for name in sorted(leads_that_differ(before, after)):
            provider = self._provider(reader, Topic.parse(name))
            if provider is None:
                raise InvalidError(
                    Reason.RULES_INVALID,
                    f"got {name} as a source; expected the topic of a resource that the catalogue has",
                    details={"place": name},
                )
            found.add(provider)
        return frozenset(found)


def _note(act: AuditedAct, version: RulesVersion) -> None:
    act.note(
        library=version.rules.library,
        version=version.rules.version,
        hash=version.rules.hash().hex(),
        state=version.state.value,
        fields=len(version.rules.fields),
        departments=[*version.departments],
        missing=[*version.missing],
    )
