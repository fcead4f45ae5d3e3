"""Correction tickets, their notices and violation cases as tasks: what departments answer, the authority decides."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from typing_extensions import override

from exchange.authorization.attributes import AttributeProvider
from exchange.control.tasks.due import task_due
from exchange.corrections.model import CorrectionTicket, TicketState
from exchange.corrections.rules import CORRECTION_RULES, Party
from exchange.corrections.store import CorrectionStore, NoticeQuery, TicketQuery
from exchange.deadlines.clock import Clock
from exchange.deadlines.in_force import RulesInForce
from exchange.deadlines.profile import RuleId
from exchange.tasks.model import Portion, Task, TaskDue, TaskKind, TaskSource, Viewer
from exchange.violations.model import CaseState, ViolationCase
from exchange.violations.rules import CASE_RULES, CaseParty
from exchange.violations.store import CaseQuery, ViolationStore
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader
from registry.directory.departments import Departments
from registry.governance.two_persons import refuse_second_signature
from schemas.access import Action, Role

__all__ = ["CaseTasks", "NoticeTasks", "TicketTasks"]

_NOTHING: Final = Portion((), None, 0)
_ANSWERED: Final = frozenset({TicketState.OPENED, TicketState.VERIFYING})
_OFFICE: Final = frozenset({Role.SHARING_OFFICE_HEAD, Role.CATALOGUE_EDITOR, Role.SECURITY_OFFICER})
_HEARD: Final = frozenset({CaseState.DETECTED, CaseState.CONFIRMED, CaseState.RECTIFYING})


class TicketTasks(TaskSource):
    """Source of correction tickets whose answer is due (decree 809, Art. 26).

    Args:
        corrections: tickets and notices.
        attributes: rules in force.
    """

    def __init__(self, corrections: CorrectionStore, attributes: AttributeProvider) -> None:
        self._corrections = corrections
        self._attributes = attributes

    @property
    @override
    def kind(self) -> TaskKind:
        return TaskKind.CORRECTION

    @override
    def portion(self, reader: Reader, viewer: Viewer, *, after: str, limit: int) -> Portion:
        own = viewer.actor.department
        if not own or viewer.actor.role not in _OFFICE:
            return _NOTHING
        page = self._corrections.page(reader, TicketQuery(source=own, states=_ANSWERED, after=after, limit=limit))
        if not page:
            return _NOTHING
        rules = self._attributes.rules(reader)
        found = []
        for one in page:
            if isinstance(one, DamagedRow):
                continue
            acts = tuple(
                str(rule.event)
                for rule in CORRECTION_RULES
                if rule.source is one.state
                and rule.party is Party.SOURCE
                and viewer.actor.role in rule.roles
                and viewer.allows(rule.action, department=own)
            )
            if acts:
                found.append((one.id, _ticket(one, acts, _answer_due(one.received_at, rules, viewer))))
        last = page[-1] if len(page) == limit else None
        return Portion(found, _cursor(last), len(page))


class NoticeTasks(TaskSource):
    """Source of notices of corrections that a consumer has not acknowledged.

    Args:
        corrections: tickets and notices.
    """

    def __init__(self, corrections: CorrectionStore) -> None:
        self._corrections = corrections

    @property
    @override
    def kind(self) -> TaskKind:
        return TaskKind.NOTICE

    @override
    def portion(self, reader: Reader, viewer: Viewer, *, after: str, limit: int) -> Portion:
        own = viewer.actor.department
        if not own or not viewer.allows(Action.CORRECTION_ACKNOWLEDGE, department=own):
            return _NOTHING
        query = NoticeQuery(consumer=own, acknowledged=False, after=after, limit=limit)
        page = self._corrections.notices(reader, query)
        found = [
            (
                one.id,
                Task(
                    kind=TaskKind.NOTICE,
                    id=one.id,
                    title=str(one.topic),
                    state="told",
                    acts=("acknowledge",),
                    since=one.told_at,
                ),
            )
            for one in page
            if not isinstance(one, DamagedRow)
        ]
        return Portion(found, _cursor(page[-1] if len(page) == limit else None), len(page))


class CaseTasks(TaskSource):
    """Source of violation cases, newest first: decisions of the authority, statements of who is concerned.

    Args:
        cases: of violations.
        attributes: rules in force.
        departments: which have merged into the viewer's, and are heard by it.
    """

    def __init__(self, cases: ViolationStore, attributes: AttributeProvider, departments: Departments) -> None:
        self._cases = cases
        self._attributes = attributes
        self._departments = departments

    @property
    @override
    def kind(self) -> TaskKind:
        return TaskKind.VIOLATION

    @override
    def portion(self, reader: Reader, viewer: Viewer, *, after: str, limit: int) -> Portion:
        own = viewer.actor.department
        if own and not viewer.allows(Action.VIOLATION_REPLY, department=own):
            return _NOTHING
        if not own and not viewer.allows(Action.VIOLATION_CONFIRM):
            return _NOTHING
        states = _HEARD if own else frozenset(CaseState) - {CaseState.CLOSED}
        taken_over = self._departments.taken_over_by(reader, own) if own else frozenset[str]()
        query = CaseQuery(respondent=own or None, states=states, before=after, limit=limit)
        if taken_over:  # what they reported is on the page too, and is no task
            query = replace(query, respondent=None, party=own, taken_over=taken_over)
        page = self._cases.page(reader, query)
        if not page:
            return _NOTHING
        cases = [one for one in page if not isinstance(one, DamagedRow)]
        persons = viewer.persons(reader, {viewer.actor.id, *(one.reported_by for one in cases if one.reported_by)})
        rules = self._attributes.rules(reader)
        found = []
        for one in cases:
            acts = _decisions(one, viewer, persons, taken_over)
            if acts:
                found.append((one.id, _case(one, acts, _order_due(one, rules, viewer))))
        return Portion(found, _cursor(page[-1] if len(page) == limit else None), len(page))


def _decisions(
    case: ViolationCase, viewer: Viewer, persons: Mapping[str, str], taken_over: frozenset[str]
) -> tuple[str, ...]:
    heard = case.occurrence.respondent
    heard = viewer.actor.department if heard in taken_over else heard
    side = CaseParty.RESPONDENT if viewer.actor.department else CaseParty.AUTHORITY
    refusal = refuse_second_signature(case.reported_by, viewer.actor.id, persons) if case.reported_by else None
    return tuple(
        str(rule.event)
        for rule in CASE_RULES
        if rule.source is case.state
        and rule.party is side
        and not (rule.not_by_reporter and refusal is not None)
        and viewer.allows(rule.action, department=heard or None)
    )


def _ticket(ticket: CorrectionTicket, acts: tuple[str, ...], due: TaskDue | None) -> Task:
    return Task(
        kind=TaskKind.CORRECTION,
        id=ticket.id,
        title=f"{ticket.topic} {ticket.field}",
        state=str(ticket.state),
        acts=acts,
        department=ticket.raiser,
        since=ticket.received_at,
        due=due,
    )


def _case(case: ViolationCase, acts: tuple[str, ...], due: TaskDue | None) -> Task:
    return Task(
        kind=TaskKind.VIOLATION,
        id=case.id,
        title=f"{case.occurrence.code} {case.occurrence.resource}".strip(),
        state=str(case.state),
        acts=acts,
        department=case.occurrence.respondent,
        since=case.history[-1].at if case.history else None,
        due=due,
    )


def _answer_due(received: datetime, rules: RulesInForce, viewer: Viewer) -> TaskDue | None:
    if rules.book.find(RuleId.CORRECTION) is None:
        return None
    return task_due(rules.due(RuleId.CORRECTION, received), viewer.now, rules)


def _order_due(case: ViolationCase, rules: RulesInForce, viewer: Viewer) -> TaskDue | None:
    if case.order is None or case.state is not CaseState.RECTIFYING:
        return None
    due = Clock.from_json(case.order.clock).due(rules.calendar)
    return None if due is None else task_due(due, viewer.now, rules)


def _cursor(last: Any) -> str | None:
    if last is None:
        return None
    return last.cursor if isinstance(last, DamagedRow) else str(last.id)
