"""Share requests as tasks: what a party or the authority may do next, by the table of grants and requests.

Who may do an act is read from `exchange.access.decision.grant_rules`, and by which persons from
`exchange.requests.rules`; here stands which acts are waited for, in which state. What a side may do at any time (to
suspend, to withdraw) is no task.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial
from types import MappingProxyType
from typing import Final

from typing_extensions import override

from exchange.access.decision.grant_rules import GRANT_RULES, Event, GrantRule, Party
from exchange.access.grants.store import AccessStore, GrantQuery
from exchange.authorization.attributes import AttributeProvider
from exchange.control.grants.rectification import held_grants
from exchange.control.requests.due_dates import due_of
from exchange.control.requests.law import accounts_of, unsigned
from exchange.control.requests.stored import StoredRequests
from exchange.control.tasks.due import instant_due, task_due
from exchange.deadlines.in_force import RulesInForce
from exchange.requests.guards import MOST_DISPUTES
from exchange.requests.life_cycle import requesters_of
from exchange.requests.model import Event as RequestEvent
from exchange.requests.model import Office, RequestState, ShareRequest
from exchange.requests.rules import rules_from
from exchange.tasks.model import Portion, Task, TaskDue, TaskKind, TaskSource, Urgency, Viewer
from exchange.violations.store import ViolationStore
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader
from registry.directory.model import ShareType
from registry.governance.two_persons import refuse_second_signature
from schemas.access import Grant, GrantState, Role

__all__ = ["RequestTasks"]

_S: Final = GrantState
_C: Final = Party.CONSUMER
_Due = Callable[[], TaskDue | None]
"""Until when, computed where an act asks for it."""
_AWAITED: Final[Mapping[GrantState, frozenset[Event]]] = MappingProxyType(
    {
        _S.SUBMITTED: frozenset(
            {Event.CONFIRM, Event.APPROVE, Event.NEED_MORE, Event.REJECT, Event.EXTEND, Event.DISPUTE}
        ),
        _S.SUPPLEMENT: frozenset({Event.RESUBMIT}),
        _S.COUNTERSIGNED: frozenset({Event.COUNTERSIGN, Event.CONCLUDE}),
        _S.APPROVED: frozenset({Event.PROVISION}),
        _S.IN_DISPUTE: frozenset({Event.UPHOLD, Event.OVERTURN}),
        _S.SUSPENDED: frozenset({Event.RECTIFIED, Event.TERMINATE}),
    }
)
"""Events that a state waits for. To dispute a refusal is a right for which nobody waits."""
_OFFICES: Final = frozenset({Role.SHARING_OFFICE_HEAD, Role.SECURITY_OFFICER, Role.DATA_AUTHORITY})


class RequestTasks(TaskSource):
    """Source of share requests.

    Args:
        access: store of grants, whose state is that of their request.
        requests: of grants.
        violations: cases whose order keeps a grant suspended.
        attributes: rules in force.
    """

    def __init__(
        self,
        access: AccessStore,
        requests: StoredRequests,
        violations: ViolationStore,
        attributes: AttributeProvider,
    ) -> None:
        self._access = access
        self._requests = requests
        self._violations = violations
        self._attributes = attributes

    @property
    @override
    def kind(self) -> TaskKind:
        return TaskKind.REQUEST

    @override
    def portion(self, reader: Reader, viewer: Viewer, *, after: str, limit: int) -> Portion:
        role = viewer.actor.role
        rules_of = {state: found for state in _AWAITED if (found := _rules(state, role))}
        if role not in _OFFICES or not rules_of:
            return Portion((), None, 0)
        query = GrantQuery(party=viewer.actor.department or None, states=frozenset(rules_of), after=after, limit=limit)
        page = self._access.page(reader, query)
        if not page:
            return Portion((), None, 0)
        grants = [one for one in page if not isinstance(one, DamagedRow)]  # lists of grants name what is damaged
        mine = {one.id: own for one in grants if (own := _of_side(rules_of.get(one.state, ()), one, viewer))}
        grants = [one for one in grants if one.id in mine]
        suspended = [one for one in grants if one.state is GrantState.SUSPENDED]
        held = held_grants(self._violations, self._access, reader, suspended)
        requests = self._requests.some(reader, grants)
        rules = self._attributes.rules(reader)
        signed = {name for one in grants for name in (one.requested_by, one.confirmed_by, one.approved_by) if name}
        signed |= {name for one in requests.values() if isinstance(one, ShareRequest) for name in accounts_of(one)}
        persons = viewer.persons(reader, {viewer.actor.id, *signed})
        tasks = []
        for grant in grants:
            request = requests.get(grant.id)
            if isinstance(request, ShareRequest):
                due = cache(partial(_due, request, rules, viewer))
                free = [one for one in mine[grant.id] if grant.id not in held or one.event is not Event.RECTIFIED]
                acts = _acts(free, grant, request, viewer, persons, due)
                if acts:
                    tasks.append((grant.id, _task(grant, request, viewer, acts, due())))
        last = page[-1] if len(page) == limit else None
        behind = None if last is None else last.cursor if isinstance(last, DamagedRow) else last.id
        return Portion(tasks, behind, len(page))


@cache
def _rules(state: GrantState, role: Role) -> tuple[GrantRule, ...]:
    return tuple(rule for event, rule in GRANT_RULES.items() if event in _AWAITED[state] and role in rule.roles)


def _of_side(rows: Sequence[GrantRule], grant: Grant, viewer: Viewer) -> Sequence[GrantRule]:
    """Return the rows of the viewer's side; the request of a grant without any is not read."""
    own = viewer.actor.department
    return [rule for rule in rows if not own or own == (grant.consumer if rule.party is _C else grant.provider)]


def _acts(
    rows: Sequence[GrantRule],
    grant: Grant,
    request: ShareRequest,
    viewer: Viewer,
    persons: Mapping[str, str],
    due: _Due,
) -> tuple[str, ...]:
    return tuple(
        str(rule.event)
        for rule in rows
        if _is_next(rule.event, request, due)
        and _is_another_person(rule.event, request, viewer, persons)
        and viewer.allows(rule.action, grant=grant, proven=True, persons=persons)
    )


def _is_next(event: Event, request: ShareRequest, due: _Due) -> bool:  # noqa: PLR0911 - one return an event
    """Return whether an event of a state is waited for now, by anybody: what its guards read in the request."""
    missing = unsigned(request)
    match event:
        case Event.CONFIRM | Event.COUNTERSIGN:
            return Office.SECURITY_OFFICER in missing
        case Event.APPROVE:
            return Office.HEAD in missing
        case Event.CONCLUDE:
            return not missing
        case Event.NEED_MORE:
            return request.noticed_at is None  # one complete list (decree 809, Art. 21)
        case Event.EXTEND:
            once = request.extension == 0 and request.share_type is not ShareType.UNCONDITIONAL
            return once and _urgency(due) is Urgency.SOON
        case Event.DISPUTE:
            return request.disputes < MOST_DISPUTES and _urgency(due) is Urgency.OVERDUE
        case Event.RECTIFIED:
            return _urgency(due) is not Urgency.OVERDUE
        case _:
            return True


def _urgency(due: _Due) -> Urgency:
    until = due()
    return Urgency.NORMAL if until is None else until.urgency


def _is_another_person(event: Event, request: ShareRequest, viewer: Viewer, persons: Mapping[str, str]) -> bool:
    """Return whether the law of the request lets the viewer's person do it: who asked or signed may be excluded."""
    asked = RequestEvent.COUNTERSIGN if event is Event.CONFIRM else RequestEvent(event.value)
    rows = [row for row in rules_from(request.state) if row.event is asked]
    row = next((row for row in rows if row.overturned in {None, request.overturned}), None)
    if row is None:
        return False
    before = requesters_of(request) if row.not_by_requester else ()
    before += tuple(one.account for one in request.signatures) if row.not_by_signer else ()
    return all(refuse_second_signature(one, viewer.actor.id, persons) is None for one in before)


def _due(request: ShareRequest, rules: RulesInForce, viewer: Viewer) -> TaskDue | None:
    if request.state is RequestState.SUSPENDED and request.rectify_until is not None:
        return instant_due(request.rectify_until, viewer.now, rules)
    running = due_of(request, rules)
    return None if running is None else task_due(running[1], viewer.now, rules)


def _task(grant: Grant, request: ShareRequest, viewer: Viewer, acts: Collection[str], due: TaskDue | None) -> Task:
    provided = viewer.actor.department == grant.provider
    return Task(
        kind=TaskKind.REQUEST,
        id=grant.id,
        title=str(grant.topic),
        state=GrantState(grant.state).value,
        acts=tuple(acts),
        department=grant.consumer if provided or not viewer.actor.department else grant.provider,
        since=request.history[-1].at if request.history else request.approved_at or request.received_at,
        due=due,
    )
