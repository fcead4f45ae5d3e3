"""Catalogue service: the procedure of entries with full metadata, as audited acts of the departments and the authority.

Who may do what in which state stands in `registry.catalogue.life_cycle`; each act and its entry are one transaction. An
entry is published with full metadata, after two reviews by two persons, and ends after its consumers were told. One
that was published before it had to have them stays in force (`exchange.control.administration`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from itertools import islice
from time import sleep as sleep_seconds

from exchange.access.decision.roles import decide_control
from exchange.access.grants.store import AccessStore, GrantQuery
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import AuditedAct, Enforcer
from exchange.authorization.release_window import RELEASE_WINDOW
from exchange.authorization.request_context import RequestContext
from exchange.broker.port import Broker
from exchange.control.administration import PARTITIONS, Administration, RegistryServices, apply_history
from exchange.control.catalogue.inventory import ImportedRows, InventoryDrafts
from exchange.control.catalogue.visibility import viewer_of
from exchange.control.quotas import Quotas, check_quota
from exchange.deadlines.clock import SHANGHAI, Due, DueState
from exchange.deadlines.in_force import RulesInForce
from exchange.deadlines.profile import RuleId, Ruling
from registry.catalogue.inventory import InventoryHeader
from registry.catalogue.life_cycle import RULES, EntryEvent, ProcedureState
from registry.catalogue.metadata import Metadata
from registry.catalogue.metadata_rules import Fault
from registry.catalogue.procedure import Procedure, Step
from registry.catalogue.record import CatalogueRecord
from registry.catalogue.store import RecordQuery
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import MAX_PAGE
from registry.database.unit_of_work import Database, Reader
from registry.directory.model import CatalogueEntry
from schemas.access import Action, Actor, Allow, Deny, GrantState
from schemas.canonical import Json
from schemas.errors import ConflictError, InvalidError, Reason
from schemas.names import Topic

__all__ = ["CatalogueService", "EntryStep", "ShownRecord", "due_of"]

_HELD = frozenset({GrantState.ACTIVE, GrantState.SUSPENDED})
_RESTRICTING = frozenset({EntryEvent.SUSPEND, EntryEvent.RETIRE})
_ACTION = {rule.event: rule.action for rule in RULES}
_GRANTS = 1_000  # of one page
_ENDS_CLOCK = frozenset({EntryEvent.SUBMIT, EntryEvent.PUBLISH, EntryEvent.RETURN})
_RUNS_CLOCK = frozenset({EntryEvent.CHANGE, EntryEvent.EXTEND})
_ON_THE_CLOCK = {
    ProcedureState.UPDATING: RuleId.CATALOGUE_UPDATE,
    ProcedureState.AUTHORITY_REVIEW: RuleId.CATALOGUE_REVIEW,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryStep:
    """What a caller states of an event; empty where it needs nothing.

    Attributes:
        reason: in words. filing: number of the filing. changed_on, from_day: see `registry.catalogue.procedure.Step`.
    """

    reason: str = ""
    filing: str = ""
    changed_on: date | None = None
    from_day: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRecord:
    """A record as its reader may see it.

    Attributes:
        record: the current version, for its department, the authority and auditors; else the one in force.
        faults: what its metadata lacks for a review; of a list, none are looked for.
        due: until when it is updated, or the update reviewed (decree 809, Art. 17); None = no clock runs.
        due_state: how near that is.
    """

    record: CatalogueRecord
    faults: Sequence[Fault] = ()
    due: Due | None = None
    due_state: DueState | None = None


class CatalogueService:
    """Audited procedure of catalogue entries."""

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        registry: RegistryServices,
        procedure: Procedure,
        administration: Administration,
        access: AccessStore,
        broker: Broker,
        now: Callable[[], datetime],
        partitions: int = PARTITIONS,
        quotas: Quotas | None = None,
        sleep: Callable[[float], None] = sleep_seconds,
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._registry = registry
        self._procedure = procedure
        self._administration = administration
        self._access = access
        self._broker = broker
        self._now = now
        self._partitions = partitions
        self._quotas = quotas or Quotas()
        self._sleep = sleep

    def describe(self, actor: Actor, call: RequestContext, topic: Topic, metadata: Metadata) -> CatalogueRecord:
        """Draft an entry of the actor's department with full metadata, or replace that of a draft or an update.

        Raises:
            RefusedError: the actor may not.
            InvalidError, ConflictError: see `Procedure.describe`; DEPARTMENT_QUOTA, the department has too many.
        """
        decision = self._decide(actor, Action.CATALOGUE_DRAFT, actor.department)
        with self._enforcer.act(actor, Action.CATALOGUE_DRAFT, str(topic), call, decision) as (work, act):
            provided = self._registry.catalogue.provided_by(work, actor.department)
            if topic not in provided:
                check_quota(
                    "catalogue_entries",
                    len(provided),
                    self._quotas.catalogue_entries,
                    "put what belongs together into one entry",
                )
            record = self._procedure.describe(
                work,
                topic,
                metadata,
                provider=actor.department,
                actor=actor,
                at=self._now(),
                entry_id=act.entry_id,
            )
            _note(act, record)
        return record

    def import_inventory(
        self, actor: Actor, call: RequestContext, columns: Sequence[str], rows: Sequence[tuple[int, Sequence[str]]]
    ) -> ImportedRows:
        """Draft the rows of an inventory that have no fault, and return every gap of the others.

        A row is the entry of its resource's name, else of its code, else of its title in the department. Repeated, it
        replaces a draft; what is as it was is left alone. All drafts and the entry are one transaction.

        Args:
            actor: of the department whose inventory it is.
            call: its context.
            columns: the header.
            rows: number in the file, and texts.

        Raises:
            RefusedError: the actor may not.
            InvalidError: see `InventoryHeader`; DEPARTMENT_QUOTA, the department has too many entries.
        """
        decision = self._decide(actor, Action.CATALOGUE_DRAFT, actor.department)
        with self._enforcer.act(actor, Action.CATALOGUE_DRAFT, "inventory", call, decision) as (work, act):
            drafting = InventoryDrafts(self._procedure, self._registry.catalogue, work, actor.department)
            imported = drafting.run(InventoryHeader(columns), rows, actor=actor, at=self._now(), entry_id=act.entry_id)
            check_quota(
                "catalogue_entries",
                len(self._registry.catalogue.provided_by(work, actor.department)) - 1,
                self._quotas.catalogue_entries,
                "put what belongs together into one entry",
            )
            act.note(
                event="inventory",
                drafts=[str(record.topic) for _, record in imported.drafts],
                unchanged=len(imported.unchanged),
                gaps=len(imported.gaps),
            )
        return imported

    def check(self, actor: Actor, call: RequestContext, metadata: Metadata) -> Sequence[Fault]:
        """Return every fault of metadata, as its review would find them; nothing is stored.

        Raises:
            RefusedError: the actor may not read the catalogue.
        """
        self._admit(actor, call, "*")
        with self._database.read() as reader:
            return self._procedure.check(reader, metadata)

    def apply(
        self, actor: Actor, call: RequestContext, topic: Topic, event: EntryEvent, given: EntryStep
    ) -> CatalogueRecord:
        """Let an event happen to an entry with full metadata.

        Raises:
            RefusedError, InvalidError, ConflictError: see `Procedure.apply`.
        """
        with self._database.read() as reader:
            entry = self._registry.catalogue.get(reader, topic)
            before = self._procedure.store.get(reader, topic)
        action = _ACTION[event]
        decision = self._decide(actor, action, entry.provider)
        with self._enforcer.act(actor, action, str(topic), call, decision) as (work, act):
            signed = () if before is None else (*before.described_by, *before.signed_by)
            step = Step(
                event=event,
                actor=actor,
                at=self._now(),
                entry_id=act.entry_id,
                reason=given.reason,
                filing=given.filing,
                changed_on=given.changed_on,
                from_day=given.from_day,
                consumers=self._consumers(work, topic) if event is EntryEvent.ANNOUNCE else (),
                persons=self._attributes.persons(actor.id, *signed),
            )
            if event is EntryEvent.EXTEND and before is not None:
                self._check_extension(act, self._attributes.rules(work), before)
            if event is EntryEvent.CHANGE and before is None:
                record = self._procedure.open_update(work, topic, step)
            else:
                record = self._procedure.apply(work, topic, step)
            act.note(**self._clock_data(work, event, before, record))
            if event is EntryEvent.PUBLISH:
                apply_history(self._broker, self._registry.catalogue.get(work, topic), self._partitions)
            _note(act, record)
        if event in _RESTRICTING:
            self._sleep(RELEASE_WINDOW)  # what a gateway was about to send has left by now, or never will
        return record

    def publish(self, actor: Actor, call: RequestContext, topic: Topic) -> CatalogueEntry:
        """Publish an entry after its two reviews and create its topic; repeated, it completes the publication.

        Raises:
            RefusedError, InvalidError, ConflictError: see `apply` and `Administration.publish_entry`.
        """
        with self._database.read() as reader:
            record = self._procedure.store.get(reader, topic)
        if record is None or record.state is ProcedureState.PUBLISHED:  # repeated, it completes the publication
            return self._administration.publish_entry(actor, call, topic)
        self.apply(actor, call, topic, EntryEvent.PUBLISH, EntryStep())
        with self._database.read() as reader:
            return self._registry.catalogue.get(reader, topic)

    def archive(self, actor: Actor, call: RequestContext, topic: Topic) -> CatalogueEntry:
        """Archive an entry without full metadata.

        Raises:
            RefusedError, InvalidError, ConflictError: see `Administration.archive_entry`; TRANSITION_NOT_ALLOWED, it
                has full metadata and is retired with notice.
        """
        with self._database.read() as reader:
            described = self._procedure.store.get(reader, topic) is not None
        if described:
            raise ConflictError(
                Reason.TRANSITION_NOT_ALLOWED,
                "the entry has full metadata, so its consumers are told before it ends; expected `pool catalogue "
                "announce` and `retire` (decree 809, Art. 27), or `withdraw` for a draft",
            )
        return self._administration.archive_entry(actor, call, topic)

    def records(
        self,
        actor: Actor,
        call: RequestContext,
        *,
        state: ProcedureState | None = None,
        after: Topic | None = None,
        limit: int = MAX_PAGE,
    ) -> Sequence[ShownRecord | DamagedRow]:
        """List records after a topic: of the actor's department, or of all for the authority and auditors.

        Fewer than *limit* only at the end.

        Raises:
            RefusedError: the actor may not.
        """
        self._admit(actor, call, "*")
        query = RecordQuery(provider=viewer_of(actor), state=state, after=after, limit=limit)
        with self._database.read() as reader:
            rules = self._attributes.rules(reader)
            found = self._procedure.store.page(reader, query)
            return [one if isinstance(one, DamagedRow) else self._shown(rules, one) for one in found]

    def record(self, actor: Actor, call: RequestContext, topic: Topic) -> ShownRecord:
        """Return a record: as it is, to its department, the authority and auditors; what is in force, to others.

        Raises:
            RefusedError: the actor may not.
            InvalidError: RESOURCE_UNKNOWN, also for an entry that the actor does not see; NOT_FOUND, it has no full
                metadata, or none in force.
        """
        self._admit(actor, call, str(topic))
        viewer = viewer_of(actor)
        with self._database.read() as reader:
            self._registry.catalogue.visible(reader, topic, viewer)
            current = self._procedure.get(reader, topic)
            if viewer in {None, current.provider}:
                shown = self._shown(self._attributes.rules(reader), current)
                return replace(shown, faults=self._procedure.faults(reader, current))
            in_force = self._procedure.in_force(reader, current)
        if in_force is None:
            raise InvalidError(Reason.NOT_FOUND, f"the entry {topic} has no full metadata that you may see")
        suspended = current.state is ProcedureState.SUSPENDED
        state = ProcedureState.SUSPENDED if suspended else ProcedureState.PUBLISHED  # an update is its provider's
        return ShownRecord(record=replace(in_force, state=state, notice=current.notice))

    def versions(
        self, actor: Actor, call: RequestContext, topic: Topic, *, after: int = 0, limit: int = MAX_PAGE
    ) -> Sequence[CatalogueRecord | DamagedRow]:
        """List the versions of a record, oldest first: to its department, the authority and auditors.

        Raises:
            RefusedError: the actor may not.
            InvalidError: RESOURCE_UNKNOWN, also for an entry that the actor does not see; NOT_FOUND, it has no full
                metadata, or is another department's.
        """
        self._admit(actor, call, str(topic))
        viewer = viewer_of(actor)
        with self._database.read() as reader:
            self._registry.catalogue.visible(reader, topic, viewer)
            current = self._procedure.get(reader, topic)
            if viewer not in {None, current.provider}:
                raise InvalidError(
                    Reason.NOT_FOUND, f"the versions of {topic} are shown to its department; ask for the entry itself"
                )
            return self._procedure.store.versions(reader, topic, after=after, limit=limit)

    def notices(
        self, actor: Actor, call: RequestContext, *, after: Topic | None = None, limit: int = MAX_PAGE
    ) -> Sequence[CatalogueRecord]:
        """List the entries whose end or suspension concerns the actor's department: it has a grant of them in force.

        By topic, those after one; fewer than *limit* only at the end.

        Raises:
            RefusedError: the actor may not.
        """
        self._admit(actor, call, "*")
        with self._database.read() as reader:
            topics = {grant.topic for grant in self._held(reader, GrantQuery(consumer=actor.department, states=_HELD))}
            behind = (topic for topic in sorted(topics) if after is None or topic > after)
            found = (self._procedure.store.get(reader, topic) for topic in behind)
            concerning = (
                one
                for one in found
                if one is not None and (one.notice is not None or one.state is ProcedureState.SUSPENDED)
            )
            return [*islice(concerning, limit)]

    def _shown(self, rules: RulesInForce, record: CatalogueRecord) -> ShownRecord:
        due = due_of(record, rules)
        return ShownRecord(
            record=record, due=due, due_state=None if due is None else due.state(self._now(), rules.calendar)
        )

    def _clock_data(
        self, reader: Reader, event: EntryEvent, before: CatalogueRecord | None, record: CatalogueRecord
    ) -> dict[str, Json]:
        """Return what the entry says of the clock of an update or its review that an event begins, extends or ends."""
        if event in _ENDS_CLOCK and before is not None and before.change is not None and before.state in _ON_THE_CLOCK:
            of, rule_id, done_at = before, _ON_THE_CLOCK[before.state], self._now()
        elif event in _RUNS_CLOCK and record.change is not None:
            of, rule_id, done_at = record, RuleId.CATALOGUE_UPDATE, None
        else:
            return {}
        rules = self._attributes.rules(reader)
        due = due_of(of, rules)
        return {} if due is None else rules.rule(rule_id).noted_clock(due, done_at=done_at)

    def _check_extension(self, act: AuditedAct, rules: RulesInForce, record: CatalogueRecord) -> None:
        """Check that the rule in force allows more time for an update, and note the rule.

        Raises:
            ConflictError: TRANSITION_NOT_ALLOWED, the rule knows no extension, or the time has run out.
        """
        if record.change is None or record.change.extended:
            return  # the procedure refuses it
        ruling = rules.rule(RuleId.CATALOGUE_UPDATE)
        clock = ruling.clock(_beginning(record.change.on))
        ruling.extended(clock, _most(ruling), at=self._now(), calendar=rules.calendar)
        act.note(**ruling.noted())

    def _consumers(self, reader: Reader, topic: Topic) -> Sequence[str]:
        return sorted({grant.consumer for grant in self._held(reader, GrantQuery(topic=topic, states=_HELD))})

    def _held(self, reader: Reader, query: GrantQuery) -> Sequence["_Held"]:
        found: list[_Held] = []
        query = replace(query, limit=_GRANTS)
        while True:
            page = self._access.page(reader, query)
            found += [_Held(one.topic, one.consumer) for one in page if not isinstance(one, DamagedRow)]
            if len(page) < _GRANTS:
                return found
            last = page[-1]
            query = replace(query, after=last.cursor if isinstance(last, DamagedRow) else last.id)

    def _admit(self, actor: Actor, call: RequestContext, resource: str) -> None:
        decision = self._decide(actor, Action.CATALOGUE_READ)
        self._enforcer.admit(actor, Action.CATALOGUE_READ, resource, call, decision)

    def _decide(self, actor: Actor, action: Action, department: str | None = None) -> Allow | Deny:
        return decide_control(actor, action, standing=self._attributes.standing(actor), department=department)


def due_of(record: CatalogueRecord, rules: RulesInForce) -> Due | None:
    """Return until when an update is made, or is reviewed; None where no clock runs (decree 809, Art. 17)."""
    change = record.change
    if change is None:
        return None
    if change.resubmitted_at is not None and record.state is ProcedureState.AUTHORITY_REVIEW:
        return rules.due(RuleId.CATALOGUE_REVIEW, change.resubmitted_at)
    ruling = rules.rule(RuleId.CATALOGUE_UPDATE)
    clock = ruling.clock(_beginning(change.on))
    return (clock.extended_by(_most(ruling)) if change.extended else clock).due(rules.calendar)


def _beginning(day: date) -> datetime:
    return datetime.combine(day, time.min, SHANGHAI)


def _most(ruling: Ruling) -> int:
    return ruling.rule.extension.most if ruling.rule.extension is not None else 1


@dataclass(frozen=True, slots=True)
class _Held:
    topic: Topic
    consumer: str


def _note(act: AuditedAct, record: CatalogueRecord) -> None:
    """Note in the entry what happened to the record: never its texts but those that the event states."""
    act.note(event=str(record.act.event), version=record.version, state=str(record.state), code=record.code)
    if record.act.reason:
        act.note(because=record.act.reason)
    if record.act.filing:
        act.note(filing=record.act.filing)
    if record.act.event is EntryEvent.CHANGE and record.change is not None:
        act.note(changed_on=record.change.on.isoformat())
    if record.act.event is EntryEvent.ANNOUNCE and record.notice is not None:
        act.note(from_day=record.notice.from_day.isoformat(), consumers=list(record.notice.consumers))
