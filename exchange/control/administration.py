"""Administration service: departments, catalogue, schemas, connectors.

Each call reads the attributes, decides, and acts through the enforcer. Act and entry are one transaction, in which the
registry's stores write as well.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from exchange.access.decision.roles import decide_control
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.release_window import RELEASE_WINDOW
from exchange.authorization.request_context import RequestContext
from exchange.broker.port import Broker, Retention
from exchange.control.catalogue.visibility import viewer_of
from exchange.control.quotas import Quotas, check_quota
from exchange.identity.enrolment import EnrolledConnector, Enrolment
from exchange.identity.store import Certificate
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import MAX_PAGE
from registry.database.unit_of_work import Database
from registry.directory.catalogue import Catalogue
from registry.directory.departments import Departments
from registry.directory.model import CatalogueEntry, Department, EntryState, GovernmentLevel, KeptHistory
from registry.subjects.model import Content
from registry.subjects.services import SubjectServices
from schemas.access import Action, Actor, Allow, Deny
from schemas.errors import ConflictError, InvalidError, Reason
from schemas.names import Topic

__all__ = ["Administration", "RegistryServices", "apply_history"]

PARTITIONS = 4  # of a new topic

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RegistryServices:
    """The services of the registry that are administered here."""

    departments: Departments
    catalogue: Catalogue
    subjects: SubjectServices


class Administration:
    """Audited acts on everything that is neither record nor grant."""

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        registry: RegistryServices,
        broker: Broker,
        enrolment: Enrolment,
        now: Callable[[], datetime],
        partitions: int = PARTITIONS,
        quotas: Quotas | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._registry = registry
        self._broker = broker
        self._enrolment = enrolment
        self._now = now
        self._partitions = partitions
        self._quotas = quotas or Quotas()
        self._sleep = sleep

    def register_department(
        self,
        actor: Actor,
        call: RequestContext,
        *,
        uscc: str,
        name: str,
        short_name: str,
        level: GovernmentLevel,
        division_code: str,
    ) -> Department:
        """Register a department.

        Raises:
            RefusedError: the actor may not.
            InvalidError, ConflictError: see `Departments.register`; DEPARTMENT_QUOTA, the pool has too many.
        """
        decision = self._decide(actor, Action.DEPARTMENT_REGISTER)
        with self._enforcer.act(actor, Action.DEPARTMENT_REGISTER, short_name, call, decision) as (work, _):
            registered = len(self._registry.departments.all(work))
            check_quota("departments", registered, self._quotas.departments, "register no more departments")
            return self._registry.departments.register(
                work, uscc=uscc, name=name, short_name=short_name, level=level, division_code=division_code
            )

    def departments(
        self, actor: Actor, call: RequestContext, *, after: str = "", limit: int = MAX_PAGE
    ) -> Sequence[Department | DamagedRow]:
        """List the departments after an id; every account may. Fewer than *limit* only at the end.

        Raises:
            RefusedError: the actor may not.
        """
        self._enforcer.admit(actor, Action.DEPARTMENT_READ, "*", call, self._decide(actor, Action.DEPARTMENT_READ))
        with self._database.read() as reader:
            return self._registry.departments.page(reader, after=after, limit=limit)

    def enrol(
        self,
        call: RequestContext,
        *,
        secret: str,
        connector: str,
        request: bytes,
        signing_key: bytes,
        signing_proof: bytes,
    ) -> EnrolledConnector:
        """Enrol a connector with a one-time token, which is the caller's only proof.

        Raises:
            RefusedError: TOKEN_INVALID.
            InvalidError, ConflictError: see `Enrolment.enrol`.
        """
        now = self._now()
        with self._database.begin() as work:
            actor = self._enrolment.invited_actor(work, secret=secret, connector=connector, at=now)
        decision = decide_control(
            actor,
            Action.CONNECTOR_ENROL,
            standing=self._attributes.standing(actor),
            department=actor.department,
            connector=actor.id,
        )
        with self._enforcer.act(actor, Action.CONNECTOR_ENROL, connector, call, decision) as (work, act):
            enrolled = self._enrolment.enrol(
                work,
                secret=secret,
                connector=connector,
                request=request,
                signing_key=signing_key,
                signing_proof=signing_proof,
                at=now,
            )
            act.note(certificate=enrolled.serial, signing_key=signing_key.hex())
        return enrolled

    def renew(self, actor: Actor, call: RequestContext, request: bytes) -> EnrolledConnector:
        """Issue the next certificate of a connector.

        Raises:
            RefusedError: its certificate is revoked, or too young.
            InvalidError: REQUEST_INVALID.
        """
        decision = self._decide(actor, Action.CONNECTOR_RENEW, actor.department, actor.id)
        with self._enforcer.act(actor, Action.CONNECTOR_RENEW, actor.id, call, decision) as (work, act):
            enrolled = self._enrolment.renew(work, actor=actor, request=request, at=self._now())
            act.note(certificate=enrolled.serial)
        return enrolled

    def revoke_connector(
        self, actor: Actor, call: RequestContext, department: str, connector: str, because: str
    ) -> None:
        """Revoke every certificate of a connector; its next call is denied.

        Raises:
            RefusedError: the actor may not.
        """
        decision = self._decide(actor, Action.CONNECTOR_REVOKE, department)
        with self._enforcer.act(actor, Action.CONNECTOR_REVOKE, connector, call, decision) as (work, act):
            serials = self._enrolment.revoke(
                work, department=department, connector=connector, at=self._now(), by=actor.id, because=because
            )
            act.note(department=department, certificates=list(serials), because=because)
        self._sleep(RELEASE_WINDOW)  # what a gateway was about to send under it has left by now, or never will

    def connectors(
        self, actor: Actor, call: RequestContext, *, after: tuple[str, str, str] = ("", "", ""), limit: int = MAX_PAGE
    ) -> Sequence[Certificate | DamagedRow]:
        """List the certificates of connectors, revoked ones too: of the actor's department, or of all.

        Those after a department, connector and serial; fewer than *limit* only at the end.

        Raises:
            RefusedError: the actor may see none.
        """
        department = actor.department or None
        decision = self._decide(actor, Action.CONNECTOR_READ, department)
        self._enforcer.admit(actor, Action.CONNECTOR_READ, department or "*", call, decision)
        with self._database.read() as reader:
            return self._enrolment.certificates_page(reader, department=department, after=after, limit=limit)

    def draft_entry(self, actor: Actor, call: RequestContext, entry: CatalogueEntry) -> CatalogueEntry:
        """Draft a catalogue entry of the actor's department.

        Raises:
            RefusedError: the actor may not.
            InvalidError, ConflictError: see `Catalogue.create`; DEPARTMENT_QUOTA, the department has too many.
        """
        decision = self._decide(actor, Action.CATALOGUE_DRAFT, entry.provider)
        with self._enforcer.act(actor, Action.CATALOGUE_DRAFT, str(entry.topic), call, decision) as (work, _):
            provided = len(self._registry.catalogue.provided_by(work, entry.provider))
            check_quota(
                "catalogue_entries",
                provided,
                self._quotas.catalogue_entries,
                "put what belongs together into one entry",
            )
            return self._registry.catalogue.create(work, entry)

    def register_schema(self, actor: Actor, call: RequestContext, topic: Topic, text: str) -> tuple[int, int]:
        """Register a schema of a catalogued resource; return its id and version.

        Raises:
            RefusedError: the actor may not.
            InvalidError, ConflictError: see `Registration.register`.
        """
        entry = self._entry(topic)
        decision = self._decide(actor, Action.SCHEMA_REGISTER, entry.provider)
        with self._enforcer.act(actor, Action.SCHEMA_REGISTER, topic.subject, call, decision) as (work, _):
            registered = self._registry.subjects.registration.register(work, topic.subject, Content(text=text))
        return registered.schema_id, registered.number

    def publish_entry(self, actor: Actor, call: RequestContext, topic: Topic) -> CatalogueEntry:
        """Complete the publication of a published entry: create the topic that it may lack after a crash.

        A draft is published with full metadata alone, after its reviews (`exchange.control.catalogue.entries`).

        Raises:
            RefusedError: the actor may not.
            InvalidError: RESOURCE_UNKNOWN.
            ConflictError: TRANSITION_NOT_ALLOWED, it is not published.
        """
        entry = self._entry(topic)
        decision = self._decide(actor, Action.CATALOGUE_PUBLISH, entry.provider)
        with self._enforcer.act(actor, Action.CATALOGUE_PUBLISH, str(topic), call, decision):
            if entry.state is not EntryState.PUBLISHED:
                raise ConflictError(
                    Reason.TRANSITION_NOT_ALLOWED,
                    f"the entry {topic} is {entry.state} and has no full metadata; expected `pool catalogue describe`, "
                    "`submit` and `approve` before its publication (decree 809, Art. 13 and 16)",
                )
            self._apply_history(entry)
        return entry

    def archive_entry(self, actor: Actor, call: RequestContext, topic: Topic) -> CatalogueEntry:
        """Archive an entry.

        Raises:
            RefusedError: the actor may not.
            InvalidError, ConflictError: see `Catalogue.archive`.
        """
        entry = self._entry(topic)
        decision = self._decide(actor, Action.CATALOGUE_ARCHIVE, entry.provider)
        with self._enforcer.act(actor, Action.CATALOGUE_ARCHIVE, str(topic), call, decision) as (work, _):
            archived = self._registry.catalogue.archive(work, topic, version=entry.version)
        self._sleep(RELEASE_WINDOW)
        return archived

    def set_history(
        self, actor: Actor, call: RequestContext, topic: Topic, history: KeptHistory
    ) -> tuple[CatalogueEntry, bool]:
        """Change what a resource keeps; return the entry, and whether its topic follows already.

        It does not yet where the broker wants an operator for it (Kafka).

        Raises:
            RefusedError: the actor may not.
            InvalidError, ConflictError: see `Catalogue.change`.
        """
        entry = self._entry(topic)
        decision = self._decide(actor, Action.CATALOGUE_RETAIN, entry.provider)
        with self._enforcer.act(actor, Action.CATALOGUE_RETAIN, str(topic), call, decision) as (work, act):
            act.note(history=str(history), before=str(entry.history))
            changed = self._registry.catalogue.change(work, replace(entry, history=history))
        # After the entry: if this process dies here, the next start does it (`reconcile_topics`).
        return changed, changed.state is not EntryState.PUBLISHED or self._apply_history(changed)

    def _apply_history(self, entry: CatalogueEntry) -> bool:
        return apply_history(self._broker, entry, self._partitions)

    def entries(
        self, actor: Actor, call: RequestContext, *, after: Topic | None = None, limit: int = MAX_PAGE
    ) -> Sequence[CatalogueEntry | DamagedRow]:
        """List the entries that the actor sees, after a topic; every account may. Fewer than *limit* only at the end.

        Raises:
            RefusedError: the actor may not.
        """
        self._enforcer.admit(actor, Action.CATALOGUE_READ, "*", call, self._decide(actor, Action.CATALOGUE_READ))
        with self._database.read() as reader:
            return self._registry.catalogue.page(reader, after=after, limit=limit, viewer=viewer_of(actor))

    def reconcile_topics(self) -> int:
        """Create the topics that published entries lack, and apply what they keep; return how many still differ."""
        with self._database.read() as reader:
            entries = self._registry.catalogue.all(reader)
        published = [entry for entry in entries if entry.state is EntryState.PUBLISHED]
        return sum(not self._apply_history(entry) for entry in published)

    def _entry(self, topic: Topic) -> CatalogueEntry:
        with self._database.read() as reader:
            return self._registry.catalogue.get(reader, topic)

    def _decide(
        self,
        actor: Actor,
        action: Action,
        department: str | None = None,
        connector: str | None = None,
    ) -> Allow | Deny:
        return decide_control(
            actor, action, standing=self._attributes.standing(actor), department=department, connector=connector
        )


def apply_history(broker: Broker, entry: CatalogueEntry, partitions: int = PARTITIONS) -> bool:
    """Create a published entry's topic, or let it keep what the entry states; return whether it does."""
    keep = Retention.LATEST if entry.history.latest else Retention.ALL
    retention = None if entry.history.days is None else timedelta(days=entry.history.days)
    try:
        info = broker.topic(entry.topic)
    except InvalidError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        info = broker.create_topic(entry.topic, partitions=partitions, keep=keep, retention=retention)
    if (info.keep, info.retention) == (keep, retention):
        return True
    try:
        broker.configure_topic(entry.topic, keep=keep, retention=retention)
    except ConflictError as error:
        _log.warning("history_not_applied", topic=str(entry.topic), message=error.message)
        return False
    return True
