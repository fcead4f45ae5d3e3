"""Succession service: what a merged department was responsible for goes over to its successor, each with an entry.

    duty list    each item goes into the successor's list; the department's own items are retired
    resources    entry, record, data elements and the grants on them, one transaction a resource
    grants       those in which the department is the consumer (`exchange.control.succession.grants`)
    lead         of data elements
    corrections  open tickets: who raised one, who publishes the value, whose answer is due
    notices      of corrected values, that wait for being acknowledged

Every step finds by itself what is left to do: repeated after a crash, `run` carries out the rest.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Final

from exchange.access.decision.roles import decide_control
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import AuditedAct, Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.succession.grants import GrantSuccession, Handover
from exchange.corrections.model import OPEN, CorrectionNotice, CorrectionTicket
from exchange.corrections.store import CorrectionStore, NoticeQuery, TicketQuery
from exchange.duties.model import DutyItem, cursor_of, retired
from exchange.duties.store import DutyStore
from registry.catalogue.element_store import ElementStore
from registry.catalogue.elements import DataElement
from registry.catalogue.life_cycle import EntryEvent
from registry.catalogue.procedure import Procedure
from registry.catalogue.record import EntryAct
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Database, Reader, UnitOfWork
from registry.directory.catalogue import Catalogue
from registry.directory.model import EntryState
from schemas.access import Action, Actor
from schemas.names import Topic

__all__ = ["Succession"]

_PAGE: Final = 500
_CODE: Final = 64  # characters of a duty's code
_SHORT: Final = 6  # characters of a department's id that tell its item from the successor's of the same code


class Succession:
    """Carries out a succession."""

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        duties: DutyStore,
        catalogue: Catalogue,
        procedure: Procedure,
        elements: ElementStore,
        corrections: CorrectionStore,
        grants: GrantSuccession,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._duties = duties
        self._catalogue = catalogue
        self._procedure = procedure
        self._elements = elements
        self._corrections = corrections
        self._grants = grants
        self._now = now

    def run(self, actor: Actor, call: RequestContext, department: str, into: str, reason: str) -> None:
        """Move everything that a merged department still has.

        Raises:
            RefusedError: the actor may not.
            CorruptError: ROW_FORGED, a duty item or an entry is not one that the pool wrote: restore it, and repeat.
            UnavailableError: repeat.
        """
        handover = Handover(actor=actor, call=call, department=department, into=into, reason=reason, duties={})
        handover = replace(handover, duties=self._move_duties(handover))
        for topic in self._provided(department):
            self._move_resource(handover, topic)
        self._grants.move_rest(handover)
        self._move_leads(handover)
        self._move_tickets(handover)
        self._move_notices(handover)

    def close(self, actor: Actor, call: RequestContext, department: str, reason: str) -> None:
        """End what a department that ends without a successor leaves open: its requests, and its leads of elements.

        Raises:
            RefusedError: the actor may not.
            UnavailableError: repeat.
        """
        self._grants.close_requests(actor, call, department, reason)
        self._move_leads(Handover(actor=actor, call=call, department=department, into="", reason=reason, duties={}))

    def _move_duties(self, handover: Handover) -> dict[str, str]:
        """Move the items of the duty list; return the codes that they have in the successor's."""
        codes = {}
        for item in self._items(handover.department):
            with self._database.read() as reader:
                codes[item.code] = self._code_of(reader, handover.into, item)
            if not item.active:
                continue
            with self._act(handover, cursor_of(item.department, item.code)) as (work, act):
                at = self._now()
                moved = replace(
                    item, department=handover.into, code=codes[item.code], changed_by=handover.actor.id, changed_at=at
                )
                if self._duties.get(work, moved.department, moved.code) is None:
                    self._duties.put(work, moved)
                self._duties.put(work, retired(item, by=handover.actor.id, at=at))
                act.note(what="duty", code=item.code, into_code=moved.code)
        return codes

    def _code_of(self, reader: Reader, into: str, item: DutyItem) -> str:
        """Return the item's code in the successor's list: its own, unless that one is of another duty."""
        there = self._duties.get(reader, into, item.code)
        if there is None or (there.name, there.legal_basis, there.purposes) == (
            item.name,
            item.legal_basis,
            item.purposes,
        ):
            return item.code
        return f"{item.code[: _CODE - _SHORT - 1]}-{item.department[-_SHORT:]}"

    def _move_resource(self, handover: Handover, topic: Topic) -> None:
        with self._act(handover, str(topic)) as (work, act):
            made = EntryAct(
                event=EntryEvent.SUCCEED,
                by=handover.actor.id,
                at=self._now(),
                entry=act.entry_id,
                reason=handover.reason,
            )
            self._procedure.succeed(work, topic, department=handover.department, into=handover.into, act=made)
            self._catalogue.succeed(work, topic, handover.department, handover.into)
            grants = self._grants.move_of_topic(work, act, handover, topic)
            act.note(what="resource", grants=grants)

    def _move_leads(self, handover: Handover) -> None:
        """Let the successor be the lead of the elements; without one, they have none."""
        for element in self._elements_of(handover.department):
            with self._act(handover, element.code) as (work, act):
                current = self._elements.lock(work, element.code)
                if current is not None and current.lead == handover.department:
                    self._elements.save(work, replace(current, version=current.version + 1, lead=handover.into))
                act.note(what="lead")

    def _move_tickets(self, handover: Handover) -> None:
        def party(one: str) -> str:
            return handover.into if one == handover.department else one

        for ticket in self._tickets(handover.department):
            with self._act(handover, ticket.id) as (work, act):
                moved = replace(
                    ticket,
                    raiser=party(ticket.raiser),
                    provider=party(ticket.provider),
                    source=party(ticket.source),
                )
                self._corrections.replace(work, moved, ticket)
                act.note(what="correction")

    def _move_notices(self, handover: Handover) -> None:
        for notice in self._notices(handover.department):
            with self._act(handover, str(notice.topic)) as (work, act):
                self._corrections.hand_over(work, notice.id, consumer=handover.into)
                act.note(what="notice", notice=notice.id)

    def _act(self, handover: Handover, resource: str) -> AbstractContextManager[tuple[UnitOfWork, AuditedAct]]:
        standing, action = self._attributes.standing(handover.actor), Action.DEPARTMENT_SUCCEED
        decision = decide_control(handover.actor, action, standing=standing, department=handover.department)
        return self._noted(handover, self._enforcer.act(handover.actor, action, resource, handover.call, decision))

    @staticmethod
    @contextmanager
    def _noted(
        handover: Handover, opened: AbstractContextManager[tuple[UnitOfWork, AuditedAct]]
    ) -> Iterator[tuple[UnitOfWork, AuditedAct]]:
        with opened as (work, act):
            act.note(before=handover.department, because=handover.reason)
            if handover.into:
                act.note(into=handover.into)
            yield work, act

    def _items(self, department: str) -> list[DutyItem]:
        found: list[DutyItem] = []
        after = ""
        while True:
            with self._database.read() as reader:
                page = self._duties.page(reader, department=department, after=after, limit=_PAGE)
            found += [one for one in page if isinstance(one, DutyItem)]
            if len(page) < _PAGE:
                return found
            after = page[-1].cursor if isinstance(page[-1], DamagedRow) else page[-1].id

    def _provided(self, department: str) -> list[Topic]:
        with self._database.read() as reader:
            return [
                entry.topic
                for entry in self._catalogue.all(reader)
                if entry.provider == department and entry.state is not EntryState.ARCHIVED
            ]

    def _elements_of(self, department: str) -> list[DataElement]:
        found: list[DataElement] = []
        after = ""
        while True:
            with self._database.read() as reader:
                page = self._elements.page(reader, after=after, limit=_PAGE)
            found += [one for one in page if isinstance(one, DataElement) and one.lead == department]
            if len(page) < _PAGE:
                return found
            after = page[-1].cursor if isinstance(page[-1], DamagedRow) else page[-1].code

    def _tickets(self, department: str) -> list[CorrectionTicket]:
        found: list[CorrectionTicket] = []
        query = TicketQuery(party=department, states=OPEN, limit=_PAGE)
        while True:
            with self._database.read() as reader:
                page = self._corrections.page(reader, query)
            found += [one for one in page if isinstance(one, CorrectionTicket)]
            if len(page) < _PAGE:
                return found
            query = replace(query, after=page[-1].cursor if isinstance(page[-1], DamagedRow) else page[-1].id)

    def _notices(self, department: str) -> list[CorrectionNotice]:
        found: list[CorrectionNotice] = []
        query = NoticeQuery(consumer=department, acknowledged=False, limit=_PAGE)
        while True:
            with self._database.read() as reader:
                page = self._corrections.notices(reader, query)
            found += [one for one in page if isinstance(one, CorrectionNotice)]
            if len(page) < _PAGE:
                return found
            query = replace(query, after=page[-1].cursor if isinstance(page[-1], DamagedRow) else page[-1].id)
