"""Correction service (校核): a consumer doubts a value, its source department answers, who received it is told.

    open                       a department under whose active grant the field is shown
    accept … cannot_verify     the source department; `exchange.corrections.rules` says which role, by which article
    transfer                   the source department, or the data authority
    acknowledge                a department that was told
    reveal                     the claim, to who raised the ticket and who answers it; to the latter the record too if
                               it is its own resource's, else the doubted value alone

A ticket of other departments does not exist for the caller: it is refused as an unknown one is, with an entry. Entries
hold ticket, topic, field and departments; claim, evidence and values are in none.

What a retraction or an erasure covers is doubted no more, and shown to nobody.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from exchange.access.decision.roles import decide_control
from exchange.access.grants.store import AccessStore
from exchange.authorization.attributes import AttributeProvider, reference_to
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.corrections.claim_seal import Claim, ClaimSeal
from exchange.control.corrections.clock import TicketDue, due_of
from exchange.control.corrections.publications import Publications
from exchange.control.corrections.records import CorrectionRecords, Version, no_record
from exchange.control.corrections.routing import CorrectionRouting
from exchange.control.grants.reads import read_grant
from exchange.corrections.life_cycle import Act, advance
from exchange.corrections.model import CorrectionNotice, CorrectionTicket, Event, shows
from exchange.corrections.store import CorrectionStore, unknown_notice, unknown_ticket
from exchange.deadlines.profile import RuleId
from exchange.erasure.retractions import RetractionStore
from registry.database.unit_of_work import Database, Reader, UnitOfWork
from registry.directory.departments import Departments
from registry.directory.model import DepartmentStatus
from schemas.access import Action, Actor, Allow, Deny, Grant, GrantState
from schemas.errors import ConflictError, InvalidError, Reason

__all__ = ["MOST_OPEN", "CorrectionService", "RevealedTicket"]

MOST_OPEN: Final = 1_000
"""Open tickets that one department has raised, at most."""
_MOST_TEXT: Final = 2_000  # characters of claimed value and of evidence
_ALLOW = Allow()


@dataclass(frozen=True, slots=True, kw_only=True)
class RevealedTicket:
    """What a ticket is about, in the clear.

    Attributes:
        claim: of the raiser; None where it was erased.
        record: for the source department, as a JSON text: the record as it was published, or of another department's
            the doubted field alone; empty for the raiser, and where it is retracted or not stored any more.
    """

    claim: Claim | None
    record: str


class CorrectionService:
    """Audited acts on tickets and notices."""

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        access: AccessStore,
        store: CorrectionStore,
        records: CorrectionRecords,
        routing: CorrectionRouting,
        publications: Publications,
        departments: Departments,
        retractions: RetractionStore,
        seal: ClaimSeal,
        as_text: Callable[[bytes], str],
        now: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._access = access
        self._store = store
        self._records = records
        self._routing = routing
        self._publications = publications
        self._departments = departments
        self._retractions = retractions
        self._seal = seal
        self._as_text = as_text
        self._now = now
        self._new_id = new_id

    def open(
        self,
        actor: Actor,
        call: RequestContext,
        *,
        grant_id: str,
        record_key: bytes,
        field: str,
        claim: Claim,
        recorded_at: datetime | None = None,
    ) -> TicketDue:
        """Open a ticket on a value that the actor's department received.

        Args:
            actor: of the consuming department.
            call: its context.
            grant_id: under which the value was received.
            record_key: that was delivered with it, 16 bytes.
            field: of the value.
            claim: what is right, and why.
            recorded_at: the time that was delivered with it; without it the record is looked for.

        Raises:
            RefusedError: the actor may not: no grant, another department's, one that is not active, or that does not
                show the field.
            InvalidError: NOT_FOUND, no such record; REQUEST_INVALID, no claim, or it takes `recorded_at`.
            ConflictError: ALREADY_EXISTS, such a ticket is open; DEPARTMENT_QUOTA.
            UnavailableError: OVERLOADED; try again.
        """
        grant, proven = read_grant(self._database, self._access, grant_id)
        standing = self._attributes.standing(actor)
        decision = decide_control(actor, Action.CORRECTION_OPEN, standing=standing, grant=grant, proven=proven)
        if isinstance(decision, Allow) and grant is not None:
            decision = self._refuse_grant(grant, field)
        resource = str(grant.topic) if grant is not None else ""
        reference = None if grant is None else reference_to(grant)
        self._enforcer.admit(actor, Action.CORRECTION_OPEN, resource, call, decision, reference)
        assert grant is not None  # noqa: S101 - an unknown one is a denial
        _check_claim(claim)
        found = self._records.find(grant, record_key, recorded_at)
        ticket_id, at = self._new_id(), self._now()
        with self._enforcer.act(actor, Action.CORRECTION_OPEN, resource, call, decision, reference) as (work, act):
            if self._store.count_open(work, grant.consumer, MOST_OPEN) >= MOST_OPEN:
                raise ConflictError(
                    Reason.DEPARTMENT_QUOTA,
                    f"got one more than the {MOST_OPEN} open tickets that a department may have; wait for answers",
                    details={"quota": "corrections", "limit": str(MOST_OPEN)},
                )
            ticket = CorrectionTicket(
                id=ticket_id,
                topic=grant.topic,
                field=field,
                record=found.record,
                place=found.place,
                grant=grant.id,
                raiser=grant.consumer,
                raised_by=actor.id,
                record_key=record_key,
                claim=self._seal.seal(claim, ticket=ticket_id, grant=grant.id),
                provider=grant.provider,
                source=self._routing.source(work, grant.topic, field, grant.provider),
                received_at=at,
            )
            self._store.add(work, ticket)
            # From here to the end no retraction is stored: an erasure either is seen, or finds the ticket.
            self._retractions.join(work, ticket.topic)
            if self._is_retracted(work, ticket):
                raise no_record()
            told = self._due(work, ticket)
            act.note(
                ticket=ticket.id,
                field=field,
                source=ticket.source,
                due_at=told.due.at.isoformat(),
                **self._attributes.rules(work).rule(RuleId.CORRECTION).noted(),
            )
        return told

    def accept(self, actor: Actor, call: RequestContext, ticket_id: str) -> TicketDue:
        """Take a ticket on, as its source department; `_act` says what may be raised."""
        return self._act(actor, call, ticket_id, Action.CORRECTION_ACCEPT, Event.ACCEPT)

    def transfer(
        self, actor: Actor, call: RequestContext, ticket_id: str, *, department: str, reason: str
    ) -> TicketDue:
        """Transfer a ticket to the department that is the source; its clock goes on. `_act` says what may be raised.

        Raises:
            InvalidError: DEPARTMENT_UNKNOWN; DEPARTMENT_INACTIVE.
        """
        return self._act(
            actor, call, ticket_id, Action.CORRECTION_TRANSFER, Event.TRANSFER, reason=reason, source=department
        )

    def withdraw(self, actor: Actor, call: RequestContext, ticket_id: str, *, reason: str) -> TicketDue:
        """Withdraw a ticket that nobody verifies yet, as who raised it; `_act` says what may be raised."""
        return self._act(actor, call, ticket_id, Action.CORRECTION_WITHDRAW, Event.WITHDRAW, reason=reason)

    def correct(self, actor: Actor, call: RequestContext, ticket_id: str, *, reason: str = "") -> TicketDue:
        """Answer that the value is corrected; the pool looks for the record that says so. See `_act`.

        Raises:
            ConflictError: CORRECTION_MISSING, it is not in the pool.
            UnavailableError: OVERLOADED, it takes longer to look; try again.
        """
        return self._act(actor, call, ticket_id, Action.CORRECTION_CORRECT, Event.CORRECT, reason=reason)

    def confirm(self, actor: Actor, call: RequestContext, ticket_id: str, *, reason: str) -> TicketDue:
        """Answer that the value is right; `_act` says what may be raised."""
        return self._act(actor, call, ticket_id, Action.CORRECTION_CONFIRM, Event.CONFIRM, reason=reason)

    def cannot_verify(self, actor: Actor, call: RequestContext, ticket_id: str, *, reason: str) -> TicketDue:
        """Answer that the value cannot be verified; `_act` says what may be raised."""
        return self._act(actor, call, ticket_id, Action.CORRECTION_REFUSE, Event.CANNOT_VERIFY, reason=reason)

    def reveal(self, actor: Actor, call: RequestContext, ticket_id: str) -> RevealedTicket:
        """Return the claim, and to the source department also the record, or the value; each time an entry.

        Raises:
            RefusedError: the actor may not; NOT_FOUND.
            CorruptError: ROW_FORGED.
            UnavailableError: the broker does not answer.
        """
        ticket = self._get(ticket_id)
        own = actor.department in {ticket.raiser, ticket.source} if ticket is not None else False
        decision = self._decide(actor, Action.CORRECTION_REVEAL, ticket, actor.department if own else "")
        resource = _resource(ticket, actor)
        with self._enforcer.act(actor, Action.CORRECTION_REVEAL, resource, call, decision) as (work, act):
            current = self._store.get(work, ticket_id)
            if current is None:
                raise unknown_ticket()
            claim = self._seal.open(current.claim, ticket=current.id, grant=current.grant)
            as_source, retracted = actor.department == current.source, self._is_retracted(work, current)
            shown = "claim" if not as_source else "claim and record" if _is_own(current) else "claim and value"
            act.note(ticket=current.id, field=current.field, shown=shown)
        return RevealedTicket(claim=claim, record=self._record_text(current) if as_source and not retracted else "")

    def acknowledge(self, actor: Actor, call: RequestContext, notice_id: str) -> CorrectionNotice:
        """Acknowledge a notice, as the department that was told.

        Raises:
            RefusedError: the actor may not; NOT_FOUND.
            ConflictError: TRANSITION_NOT_ALLOWED, it is acknowledged.
            CorruptError: ROW_FORGED.
        """
        with self._database.read() as reader:
            notice = self._store.get_notice(reader, notice_id)
        consumer = "" if notice is None else notice.consumer
        standing = self._attributes.standing(actor)
        # As an own one: whether there is another's is not told.
        decision = decide_control(
            actor, Action.CORRECTION_ACKNOWLEDGE, standing=standing, department=actor.department or None
        )
        if isinstance(decision, Allow) and actor.department != consumer:
            decision = Deny(Reason.NOT_FOUND, unknown_notice().message)
        resource = str(notice.topic) if notice is not None and actor.department == consumer else ""
        with self._enforcer.act(actor, Action.CORRECTION_ACKNOWLEDGE, resource, call, decision) as (work, act):
            acknowledged = self._store.acknowledge(work, notice_id, by=actor.id, at=self._now())
            act.note(notice=notice_id, ticket=acknowledged.ticket, field=acknowledged.field)
        return acknowledged

    def _act(
        self,
        actor: Actor,
        call: RequestContext,
        ticket_id: str,
        action: Action,
        event: Event,
        *,
        reason: str = "",
        source: str = "",
    ) -> TicketDue:
        """Carry out an event of a ticket, with its entry.

        Raises:
            RefusedError: the actor may not; NOT_FOUND, there is no such ticket, or it is none of its department's.
            ConflictError: TRANSITION_NOT_ALLOWED; VERSION_CONFLICT, it was changed meanwhile.
            InvalidError: REQUEST_INVALID, what the event requires is missing.
            CorruptError: ROW_FORGED.
        """
        ticket = self._get(ticket_id)
        side = "" if ticket is None else ticket.raiser if event is Event.WITHDRAW else ticket.source
        decision = self._decide(actor, action, ticket, side)
        resource = _resource(ticket, actor)
        correction, entry = None, ""
        if event is Event.CORRECT and ticket is not None and isinstance(decision, Allow):
            correction = self._correction(ticket)  # before the transaction: reading may take seconds
            entry = "" if correction is None else self._publications.entry_of(ticket, correction)
        with self._enforcer.act(actor, action, resource, call, decision) as (work, act):
            current = self._store.get(work, ticket_id)
            if current is None:
                raise unknown_ticket()
            if event is Event.TRANSFER:
                self._check_department(work, source)
            due = self._due(work, current).due
            after = advance(
                current,
                Act(
                    event=event,
                    by=actor,
                    at=self._now(),
                    reason=reason,
                    source=source,
                    correction=None if correction is None else correction.place,
                    correction_entry=entry,
                ),
                due.at,
            )
            self._store.replace(work, after, current)
            act.note(ticket=after.id, field=after.field, state=str(after.state), raiser=after.raiser)
            if event is Event.TRANSFER:
                act.note(source=after.source, before=current.source)
            if reason.strip():
                act.note(because=reason.strip())
            if after.reported_at is not None and current.reported_at is None:
                late = after.overdue_at is not None
                rule = self._attributes.rules(work).rule(RuleId.CORRECTION)
                act.note(due_at=due.at.isoformat(), late=late, **rule.noted())
            if after.correction_entry:
                act.note(correction=after.correction_entry)
            return self._due(work, after)

    def _refuse_grant(self, grant: Grant, field: str) -> Allow | Deny:
        """Return the denial of a ticket under a grant that does not show the value now."""
        with self._database.read() as reader:
            now = self._attributes.now(reader)
        if grant.state is not GrantState.ACTIVE or now < grant.not_before:
            return Deny(Reason.GRANT_NOT_ACTIVE, f"the grant is {grant.state}; a value is doubted under an active one")
        if now >= grant.expires:
            return Deny(Reason.GRANT_EXPIRED, "the grant has ended; a value is doubted under an active one")
        if not shows(grant, field):
            return Deny(Reason.FIELD_UNKNOWN, "the grant does not show the field; expected one of its own fields")
        return _ALLOW

    def _decide(self, actor: Actor, action: Action, ticket: CorrectionTicket | None, department: str) -> Allow | Deny:
        standing = self._attributes.standing(actor)
        if ticket is None or not _sees(actor, ticket):
            decision = decide_control(actor, action, standing=standing, department=actor.department or None)
            return decision if isinstance(decision, Deny) else Deny(Reason.NOT_FOUND, unknown_ticket().message)
        return decide_control(actor, action, standing=standing, department=department or None)

    def _check_department(self, work: UnitOfWork, department: str) -> None:
        if self._departments.get(work, department).status is not DepartmentStatus.ACTIVE:
            raise InvalidError(Reason.DEPARTMENT_INACTIVE, "the department is not active; name one that is")

    def _get(self, ticket_id: str) -> CorrectionTicket | None:
        with self._database.read() as reader:
            return self._store.get(reader, ticket_id)

    def _due(self, work: UnitOfWork, ticket: CorrectionTicket) -> TicketDue:
        return due_of(ticket, self._attributes.rules(work), self._now())

    def _correction(self, ticket: CorrectionTicket) -> Version | None:
        """Return the record that corrects the doubted one; None where there is none, or the field's value is the same.

        Of a doubted version that is erased, or of an earlier generation of the topic, nothing is left to compare with.
        """
        correction = self._records.correction(ticket)
        if correction is None or correction.value is None:
            return None
        doubted = next(iter(self._records.versions(ticket)), None)
        if doubted is None or doubted.value is None or doubted.place != ticket.place:
            return correction
        before, after = (_field_of(self._as_text(one), ticket.field) for one in (doubted.value, correction.value))
        return None if before == after else correction

    def _record_text(self, ticket: CorrectionTicket) -> str:
        first = next((one for one in self._records.versions(ticket) if one.value is not None), None)
        if first is None or first.value is None:
            return ""
        text = self._as_text(first.value)
        # Who answers for one element has no right to the rest of another department's record.
        return text if _is_own(ticket) else _field_of(text, ticket.field)

    def _is_retracted(self, reader: Reader, ticket: CorrectionTicket) -> bool:
        """Return whether a retraction covers the doubted version of a record."""
        place = ticket.place
        return any(
            one.partition == place.partition and place.position < one.position
            for one in self._retractions.of_keys(reader, ticket.topic, [ticket.record])
        )


def _is_own(ticket: CorrectionTicket) -> bool:
    """Return whether the department that answers is the one that publishes the record."""
    return ticket.source == ticket.provider


def _field_of(text: str, field: str) -> str:
    """Return of a record's JSON text the one field (dotted names) that a ticket is about."""
    value = json.loads(text)
    for name in field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return json.dumps({field: value}, ensure_ascii=False)


def _sees(actor: Actor, ticket: CorrectionTicket) -> bool:
    return not actor.department or actor.department in ticket.parties


def _resource(ticket: CorrectionTicket | None, actor: Actor) -> str:
    """Return what an act's entry names: not even there another department's ticket differs from an unknown one."""
    return str(ticket.topic) if ticket is not None and _sees(actor, ticket) else ""


def _check_claim(claim: Claim) -> None:
    if not claim.evidence.strip() or max(len(claim.claimed), len(claim.evidence)) > _MOST_TEXT:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"got no evidence, or a claim of more than {_MOST_TEXT} characters; expected the right value "
            "and how it is known",
        )
