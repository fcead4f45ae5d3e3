"""Catalogue entries as tasks: drafts of an editor, reviews of a head and of the authority, updates and their time."""

from collections.abc import Mapping
from typing import Final

from typing_extensions import override

from exchange.authorization.attributes import AttributeProvider
from exchange.control.catalogue.entries import due_of
from exchange.control.tasks.due import task_due
from exchange.tasks.model import Portion, Task, TaskDue, TaskKind, TaskSource, Urgency, Viewer
from registry.catalogue.life_cycle import RULES, EntryEvent, EntryRule, ProcedureState
from registry.catalogue.record import CatalogueRecord
from registry.catalogue.store import RecordQuery, RecordStore
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader
from registry.governance.two_persons import refuse_second_signature
from schemas.access import Role
from schemas.errors import InvalidError, Reason
from schemas.names import Topic

__all__ = ["CatalogueTasks"]

_S, _E = ProcedureState, EntryEvent
_AWAITED: Final = frozenset({_E.SUBMIT, _E.APPROVE, _E.PUBLISH, _E.RETURN})
_STATES: Final = (_S.AUTHORITY_REVIEW, _S.DEPT_REVIEW, _S.DRAFT, _S.UPDATING)


class CatalogueTasks(TaskSource):
    """Source of catalogue entries. Its cursor is state and topic.

    Args:
        records: of entries.
        attributes: rules in force.
    """

    def __init__(self, records: RecordStore, attributes: AttributeProvider) -> None:
        self._records = records
        self._attributes = attributes

    @property
    @override
    def kind(self) -> TaskKind:
        return TaskKind.CATALOGUE

    @override
    def portion(self, reader: Reader, viewer: Viewer, *, after: str, limit: int) -> Portion:
        states = [state for state in _STATES if any(rule.source is state for rule in _rules(viewer.actor.role))]
        state, topic = _parsed(after, states)
        if state is None:
            return Portion((), None, 0)
        query = RecordQuery(provider=viewer.actor.department or None, state=state, after=topic, limit=limit)
        page = self._records.page(reader, query)
        following = states[states.index(state) + 1 :]
        if not page:
            return Portion((), f"{following[0]}/" if following else None, 0)
        records = [one for one in page if not isinstance(one, DamagedRow)]
        rules = self._attributes.rules(reader)
        signed = {name for one in records for name in (*one.described_by, *one.signed_by)}
        persons = viewer.persons(reader, {viewer.actor.id, *signed})
        found = []
        for record in records:
            due = due_of(record, rules)
            until = None if due is None else task_due(due, viewer.now, rules)
            acts = _acts(record, viewer, persons, until)
            if acts:
                found.append((f"{state}/{record.topic}", _task(record, acts, until)))
        if len(page) == limit:
            last = page[-1]
            behind = last.cursor if isinstance(last, DamagedRow) else str(last.topic)
            return Portion(found, f"{state}/{behind}", len(page))
        return Portion(found, f"{following[0]}/" if following else None, len(page))


def _rules(role: Role) -> list[EntryRule]:
    """Return what a role is waited for; an editor completes an update, which the head then submits."""
    awaited = [rule for rule in RULES if rule.event in _AWAITED or rule.event is _E.EXTEND]
    awaited += [rule for rule in RULES if (rule.event, rule.source) == (_E.DESCRIBE, _S.UPDATING)]
    return [rule for rule in awaited if role in rule.roles]


def _acts(record: CatalogueRecord, viewer: Viewer, persons: Mapping[str, str], due: TaskDue | None) -> tuple[str, ...]:
    signed = (*record.described_by, *record.signed_by)
    near = due is not None and due.urgency is Urgency.SOON
    extended = record.change is not None and record.change.extended
    return tuple(
        str(rule.event)
        for rule in _rules(viewer.actor.role)
        if rule.source is record.state
        and (rule.event is not _E.EXTEND or (near and not extended))
        and not (rule.other_person and any(refuse_second_signature(one, viewer.actor.id, persons) for one in signed))
        and viewer.allows(rule.action, department=record.provider)
    )


def _task(record: CatalogueRecord, acts: tuple[str, ...], due: TaskDue | None) -> Task:
    return Task(
        kind=TaskKind.CATALOGUE,
        id=str(record.topic),
        title=f"{record.topic} {record.metadata.title}",
        state=str(record.state),
        acts=acts,
        department=record.provider,
        since=record.act.at,
        due=due,
    )


def _parsed(cursor: str, states: list[ProcedureState]) -> tuple[ProcedureState | None, Topic | None]:
    if not cursor:
        return (states[0] if states else None), None
    state, slash, topic = cursor.partition("/")
    if not slash or state not in states:
        raise InvalidError(
            Reason.REQUEST_INVALID, 'after: got a cursor of another form; expected that of a `Link: rel="next"`'
        )
    return ProcedureState(state), Topic.parse(topic) if topic else None
