"""Upkeep of corrections, by the pool's timer: clocks that have run out, and notices to who received an old value.

    overdue    an entry, once a ticket, when its clock has run out; nothing else happens
    notify     of a corrected ticket: compute who received the old value, store a notice for each grant, close it;
               of a department that has merged, its successor is told

A ticket that cannot be dealt with does not keep the others: the reason is logged, and the next turn tries again. Nobody
is told twice, since ticket and notices change in one transaction.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

import structlog

from exchange.access.decision.roles import Standing, decide_control
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.corrections.clock import due_of
from exchange.control.corrections.recipients import Recipients
from exchange.control.corrections.records import CorrectionRecords
from exchange.corrections.life_cycle import Act, advance, is_late
from exchange.corrections.model import CorrectionNotice, CorrectionTicket, Event, TicketState
from exchange.corrections.store import CorrectionStore, TicketQuery, unknown_ticket
from exchange.deadlines.profile import RuleId
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import MAX_PAGE
from registry.database.unit_of_work import Database, UnitOfWork
from registry.directory.departments import Departments
from schemas.access import Action, Actor, ActorKind, Role
from schemas.errors import CorruptError, InvalidError, PoolError

__all__ = ["CorrectionUpkeep"]

_TIMER = Actor(kind=ActorKind.MACHINE, id="timer", department="", role=Role.OPERATOR)
_TIMER_CALL = RequestContext(trace="0" * 32, client="timer")
_WAITING = frozenset({TicketState.OPENED, TicketState.VERIFYING})
_log = structlog.get_logger()


class CorrectionUpkeep:
    """Acts of the timer on tickets."""

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        store: CorrectionStore,
        records: CorrectionRecords,
        recipients: Recipients,
        departments: Departments,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._store = store
        self._records = records
        self._recipients = recipients
        self._departments = departments
        self._now = now
        self._new_id = new_id

    def overdue(self) -> int:
        """Record of each ticket whose clock has run out that it has; return how many it were."""
        found = 0
        for ticket in self._tickets(TicketQuery(states=_WAITING, overdue=False, limit=MAX_PAGE)):
            with self._database.read() as reader:
                due = due_of(ticket, self._attributes.rules(reader), self._now()).due
            if is_late(self._now(), due.at):
                found += self._carried_out(ticket, self._record_overdue)
        return found

    def notify(self) -> int:
        """Tell who received the value of each corrected ticket; return how many tickets are closed by it."""
        corrected = TicketQuery(states=frozenset({TicketState.CORRECTED}), limit=MAX_PAGE)
        return sum(self._carried_out(ticket, self._tell) for ticket in self._tickets(corrected))

    def _tickets(self, query: TicketQuery) -> Iterator[CorrectionTicket]:
        while True:
            with self._database.read() as reader:
                page = self._store.page(reader, query)
            yield from (one for one in page if not isinstance(one, DamagedRow))
            if len(page) < query.limit:
                return
            last = page[-1]
            query = replace(query, after=last.cursor if isinstance(last, DamagedRow) else last.id)

    def _carried_out(self, ticket: CorrectionTicket, act: Callable[[CorrectionTicket], None]) -> int:
        try:
            with self._database.read() as reader:
                if self._store.get(reader, ticket.id) != ticket:  # another gateway has carried it out meanwhile
                    return 0
            act(ticket)
        except PoolError as error:
            _log.warning("correction_failed", ticket=ticket.id, reason=error.reason)
            return 0
        return 1

    def _responsible(self, work: UnitOfWork, consumer: str) -> str:
        """Return who is told: the consumer, or its successor; a damaged row does not stop the notice."""
        try:
            return self._departments.heir(work, consumer)
        except (CorruptError, InvalidError):
            return consumer

    def _record_overdue(self, ticket: CorrectionTicket) -> None:
        action = Action.CORRECTION_OVERDUE
        decision = decide_control(_TIMER, action, standing=Standing.ACTIVE)
        with self._enforcer.act(_TIMER, action, str(ticket.topic), _TIMER_CALL, decision) as (work, act):
            current = self._store.get(work, ticket.id)
            if current is None:
                raise unknown_ticket()
            rules, at = self._attributes.rules(work), self._now()
            due = due_of(current, rules, at).due
            after = advance(current, Act(event=Event.OVERDUE, by=_TIMER, at=at), due.at)
            self._store.replace(work, after, current)
            act.note(
                ticket=after.id,
                field=after.field,
                source=after.source,
                raiser=after.raiser,
                received_at=after.received_at.isoformat(),
                due_at=due.at.isoformat(),
                **rules.rule(RuleId.CORRECTION).noted(),
            )

    def _tell(self, ticket: CorrectionTicket) -> None:
        recipients = self._recipients.of(ticket)  # before the transaction: it reads records and entries
        action = Action.CORRECTION_NOTIFY
        decision = decide_control(_TIMER, action, standing=Standing.ACTIVE)
        with self._enforcer.act(_TIMER, action, str(ticket.topic), _TIMER_CALL, decision) as (work, act):
            current = self._store.get(work, ticket.id)
            if current is None:
                raise unknown_ticket()
            at = self._now()
            due = due_of(current, self._attributes.rules(work), at).due
            told = Act(event=Event.NOTIFY, by=_TIMER, at=at, told=len(recipients))
            after = advance(current, told, due.at)
            self._store.replace(work, after, current)
            notices = [
                CorrectionNotice(
                    id=self._new_id(),
                    ticket=after.id,
                    topic=after.topic,
                    field=after.field,
                    grant=one.grant,
                    consumer=self._responsible(work, one.consumer),
                    record_key=self._records.record_key(one.key_id, after.record),
                    release=one.release,
                    told_at=at,
                )
                for one in recipients
            ]
            self._store.add_notices(work, notices)
            act.note(
                ticket=after.id,
                field=after.field,
                told=len(notices),
                departments=[*sorted({one.consumer for one in notices})],
                correction=after.correction_entry,
            )
