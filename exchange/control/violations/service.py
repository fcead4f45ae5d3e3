"""Violation service (违规案件): report, list and show cases, and carry out what the authority decides on them.

Each act applies a pure event of `exchange.violations.life_cycle` to the locked case, and stores its next version with
an entry. What an event does to the grant is done in the same transaction, by the grant's own event and through its own
gate, with an entry of its own:

    order       suspends it, and from then on nobody resumes it in another way
    accept      resumes it, unless another order keeps it suspended
    escalate    ends it

Where the grant was renewed, it is the renewal in force to which this happens.

The data authority decides, and sees every case, as an auditor does. A department sees the cases that concern it and
those that it reported, and is heard in the former; it learns of no others, not even whether there are any. A case
stays that of the department that it names; once this has merged, its successor sees it and is heard in its place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Final

from exchange.access.decision.grant_rules import Event
from exchange.access.decision.roles import decide_control
from exchange.access.grants.store import AccessStore
from exchange.audit.store import EntryQuery, EntryStore
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import AuditedAct, Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.grants.reads import read_grant
from exchange.control.grants.rectification import holding_cases, in_force
from exchange.control.grants.service import GrantService, PreparedChange
from exchange.deadlines.clock import SHANGHAI, Clock, Due, DueState
from exchange.deadlines.in_force import RulesInForce
from exchange.deadlines.profile import RuleId
from exchange.violations.codes import Side, ViolationCode, text_of
from exchange.violations.life_cycle import CaseAct, advance, opened, taken_over
from exchange.violations.model import CaseEvent, Occurrence, Order, Referral, Sign, ViolationCase
from exchange.violations.rules import CASE_RULES
from exchange.violations.signs import is_refused_call
from exchange.violations.store import CaseQuery, ViolationStore, case_changed
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Database, Reader, UnitOfWork
from registry.directory.departments import Departments
from schemas.access import Action, Actor, Allow, Deny, Grant, GrantState
from schemas.errors import ConflictError, CorruptError, InvalidError, Reason

__all__ = ["AUTHORITY", "MOST_REPORTED", "Decision", "Report", "ShownCase", "ViolationService"]

AUTHORITY: Final = "authority"
"""Resource of entries about a case against the data authority, which is no department."""
MOST_REPORTED: Final = 200
"""Cases that one department has reported and that are not closed, at most."""
_ACTION = {rule.event: rule.action for rule in CASE_RULES}
_COUNTED: Final = 1_000  # entries
_DAY: Final = 86_400_000_000  # microseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What somebody reports.

    Attributes:
        code: the violation.
        respondent: id of the department; empty = that of the grant's side that the code is about.
        grant: id of the grant or request that it is about; empty = none.
        resource: topic; empty = that of the grant, or none.
        day: on which it was seen; None = today.
        entry: id of the log's entry that shows it; empty = none.
        reason: in words.
    """

    code: ViolationCode
    reason: str
    respondent: str = ""
    grant: str = ""
    resource: str = ""
    day: date | None = None
    entry: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What somebody decides or states: why, in words, and of an escalation to what it leads."""

    reason: str
    referral: Referral | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCase:
    """A case as its reader sees it.

    Attributes:
        case: its current version.
        due: until when its order gives time; None without one.
        due_state: how near that is, while it is rectified.
        calls: refused calls of its day, as the log counts them; None where it is not about calls, and in lists.
    """

    case: ViolationCase
    due: Due | None = None
    due_state: DueState | None = None
    calls: int | None = None


class ViolationService:
    """Audited acts on violation cases.

    Args:
        database: opens readers.
        enforcer: decides and records.
        attributes: of actors, time, rules.
        store: the cases.
        access: the grants.
        grants: suspends, resumes and ends them.
        departments: who can be a respondent.
        entries: of the log.
        new_id: for a case.
    """

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        store: ViolationStore,
        access: AccessStore,
        grants: GrantService,
        departments: Departments,
        entries: EntryStore,
        new_id: Callable[[], str],
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._store = store
        self._access = access
        self._grants = grants
        self._departments = departments
        self._entries = entries
        self._new_id = new_id

    def report(self, actor: Actor, call: RequestContext, report: Report) -> ShownCase:
        """Open a case on a person's word: of the data authority, or of the other party of a grant.

        Raises:
            RefusedError: the actor may not; GRANT_UNKNOWN, OTHER_DEPARTMENT: its department is no party.
            InvalidError: REQUEST_INVALID, no reason, or a respondent whose violation it cannot be; DEPARTMENT_UNKNOWN.
            ConflictError: ALREADY_EXISTS, the same was reported on that day; DEPARTMENT_QUOTA.
        """
        grant, proven = read_grant(self._database, self._access, report.grant) if report.grant else (None, None)
        standing = self._attributes.standing(actor)
        action = Action.VIOLATION_REPORT
        decision = decide_control(actor, action, standing=standing, grant=grant, proven=proven)
        if decision and report.grant and grant is None:
            decision = Deny(Reason.GRANT_UNKNOWN, "no such grant or request; ask for the list of your grants")
        respondent = report.respondent or _side_of(report.code, grant)
        with self._enforcer.act(actor, action, respondent or AUTHORITY, call, decision) as (work, act):
            now = self._attributes.now(work)
            occurrence = self._reported(work, actor, replace(report, respondent=respondent), grant, now)
            case = opened(occurrence, case_id=self._new_id(), by=actor.id, at=now, reason=report.reason)
            if actor.department:
                self._check_quota(work, actor.department)
            self._store.add(work, case)
            _note(act, case)
            act.note(day=occurrence.day.isoformat(), subject=occurrence.subject, reason=report.reason.strip())
        return ShownCase(case=case)

    def _check_quota(self, reader: Reader, department: str) -> None:
        """Raise DEPARTMENT_QUOTA where a department has as many open reports as it may have."""
        if self._store.count_reported(reader, department, MOST_REPORTED) >= MOST_REPORTED:
            raise ConflictError(
                Reason.DEPARTMENT_QUOTA,
                f"got one more than the {MOST_REPORTED} open reports that a department may have; wait for decisions",
                details={"quota": "violation_reports", "limit": str(MOST_REPORTED)},
            )

    def decide(
        self, actor: Actor, call: RequestContext, case_id: str, event: CaseEvent, decision: Decision
    ) -> ShownCase:
        """Carry out an event of a case; one that stops a grant returns when nothing more can leave under it.

        Raises:
            RefusedError: the actor may not; SAME_PERSON.
            InvalidError: NOT_FOUND, to who may see every case; REQUEST_INVALID.
            ConflictError: TRANSITION_NOT_ALLOWED, VERSION_CONFLICT; what the grant's event raises.
            CorruptError: ROW_FORGED, GRANT_FORGED.
        """
        with self._database.read() as reader:
            found = self._store.get(reader, case_id)
        allowed = self._decided(actor, _ACTION[event], found)
        persons = self._attributes.persons(*filter(None, (actor.id, found.reported_by if found else "")))
        grant_id = self._in_force(found) if allowed and found is not None and found.concerns_grant else ""
        changes = self._prepared(actor, grant_id, event) if grant_id else {}
        resource = AUTHORITY if found is None else found.occurrence.respondent or AUTHORITY
        revoked = False
        with self._enforcer.act(actor, _ACTION[event], resource, call, allowed) as (work, act):
            if changes:
                self._lock_grant(work, grant_id)
            case = self._store.lock(work, case_id)
            if case is None:
                raise _unknown()
            if changes and in_force(self._access, work, case.occurrence.grant).id != grant_id:
                raise case_changed(case.id)  # renewed meanwhile
            rules = self._attributes.rules(work)
            now = max(self._attributes.now(work), case.history[-1].at)
            due = _due(case, rules)
            order = None
            if event is CaseEvent.ORDER:
                order = self._order(work, act, case, rules, now, grant_id)
            said = CaseAct(
                event=event,
                by=actor,
                at=now,
                reason=decision.reason,
                order=order,
                due=None if due is None else due.at,
                referral=decision.referral,
                heir=self._heir(work, case.occurrence.respondent),
            )
            before, case = case, advance(case, said, persons=persons)
            self._store.change(work, case)
            _note(act, case)
            act.note(reason=decision.reason.strip(), state=str(case.state))
            if case.referral is not None:
                act.note(referral=str(case.referral))
            revoked = self._follow(work, act, call, before, case, grant_id, changes)
        if revoked:
            self._grants.await_releases()
        return self._shown(case, rules, now)

    def show(self, actor: Actor, call: RequestContext, case_id: str) -> ShownCase:
        """Return a case.

        Raises:
            RefusedError: the actor may not see it, or there is none that it may see.
            InvalidError: NOT_FOUND, to who may see every case.
            CorruptError: ROW_FORGED.
        """
        with self._database.read() as reader:
            case = self._store.get(reader, case_id)
        allowed = self._decided(actor, Action.VIOLATION_READ, case)
        resource = AUTHORITY if case is None else case.occurrence.respondent or AUTHORITY
        with self._enforcer.act(actor, Action.VIOLATION_READ, resource, call, allowed) as (work, act):
            if case is None:
                raise _unknown()
            act.note(case=case.id)
            shown = self._shown(case, self._attributes.rules(work), self._attributes.now(work))
        return replace(shown, calls=self._calls(case.occurrence))

    def cases(self, actor: Actor, call: RequestContext, query: CaseQuery) -> Sequence[ShownCase | DamagedRow]:
        """List cases, newest first: those that the actor may see. A damaged row is named.

        Raises:
            RefusedError: the actor may see none.
        """
        standing = self._attributes.standing(actor)
        action = Action.VIOLATION_READ
        allowed = decide_control(actor, action, standing=standing, department=actor.department or None)
        authorized = self._enforcer.admit(actor, action, "*", call, allowed)
        with self._database.read() as reader:
            if actor.department:
                taken_over = self._departments.taken_over_by(reader, actor.department)
                query = replace(query, party=actor.department, taken_over=taken_over)
            rules, now = self._attributes.rules(reader), self._attributes.now(reader)
            found = self._store.page(reader, query)
        self._enforcer.record_read(authorized, {"count": len(found)})
        return [one if isinstance(one, DamagedRow) else self._shown(one, rules, now) for one in found]

    def _decided(self, actor: Actor, action: Action, case: ViolationCase | None) -> Allow | Deny:
        """Decide an act on one case; of one that does not concern the department, as if there were none."""
        named = set() if case is None else {case.occurrence.respondent}
        if case is not None and action is Action.VIOLATION_READ:
            named.add(case.occurrence.reporter)
        with self._database.read() as reader:
            concerned = {self._heir(reader, one) or one for one in named}
        standing = self._attributes.standing(actor)
        department = actor.department if actor.department in concerned else None
        return decide_control(actor, action, standing=standing, department=department)

    def _heir(self, reader: Reader, department: str) -> str:
        """Return who has taken a department over; empty where nobody has, or its row does not say so any more."""
        try:
            heir = self._departments.heir(reader, department) if department else ""
        except (CorruptError, InvalidError):
            return ""
        return "" if heir == department else heir

    def _reported(self, reader: Reader, actor: Actor, report: Report, grant: Grant | None, now: datetime) -> Occurrence:
        """Return what is reported, if it can be the respondent's violation.

        Raises:
            InvalidError: REQUEST_INVALID, DEPARTMENT_UNKNOWN.
        """
        today = now.astimezone(SHANGHAI).date()
        side, respondent = report.code.side, report.respondent
        faults = [
            (side is Side.AUTHORITY and bool(respondent), f"no department, as {report.code} is the authority's"),
            (side is not Side.AUTHORITY and not respondent, "the department whose violation it is, or its grant"),
            (bool(respondent) and respondent == actor.department, "another department than your own"),
            (
                grant is not None and side is not Side.AUTHORITY and respondent != _side_of(report.code, grant),
                f"the {side} of the grant, as {report.code} is of that side",
            ),
            (report.day is not None and report.day > today, "a day that is not ahead"),
            (len(report.resource) > 256 or len(report.entry) > 64, "the topic of a resource, and the id of an entry"),
        ]
        wrong = [expected for is_wrong, expected in faults if is_wrong]
        if wrong:
            raise InvalidError(Reason.REQUEST_INVALID, f"the report cannot be filed: expected {'; '.join(wrong)}")
        if respondent:
            self._departments.get(reader, respondent)
        resource = report.resource or ("" if grant is None else str(grant.topic))
        return Occurrence(
            code=report.code,
            sign=Sign.REPORT,
            respondent=respondent,
            day=report.day or today,
            subject=report.grant or resource or "*",
            grant=report.grant,
            resource=resource,
            entry=report.entry,
            since=int(now.timestamp() * 1_000_000),
            reporter=actor.department,
        )

    def _order(
        self,
        work: UnitOfWork,
        act: AuditedAct,
        case: ViolationCase,
        rules: RulesInForce,
        now: datetime,
        grant_id: str,
    ) -> Order:
        """Return an order with the time limit of the rules in force, and whether it is what suspends the grant."""
        ruling = rules.rule(RuleId.RECTIFICATION)
        clock = ruling.clock(now)
        due = clock.due(rules.calendar)
        assert due is not None  # noqa: S101 - only a clock that stands still has none
        act.note(**ruling.noted(), due=due.at.isoformat(), provisional=due.provisional)
        suspends = case.concerns_grant and self._access.get(work, grant_id).state is GrantState.ACTIVE
        return Order(at=now, clock=clock.to_json(), rule=ruling.noted(), suspended=suspends)

    def _in_force(self, case: ViolationCase) -> str:
        """Return the id of the grant of a case, or of the renewal that goes on in its place."""
        with self._database.read() as reader:
            try:
                return in_force(self._access, reader, case.occurrence.grant).id
            except CorruptError:
                return case.occurrence.grant  # the act itself is refused for it, with an entry

    def _lock_grant(self, work: UnitOfWork, grant_id: str) -> None:
        """Lock what the grant's consumer holds, before the case: no resumption or renewal passes an order unseen."""
        grant = self._access.get(work, grant_id)
        self._access.lock_holding(work, grant.consumer, grant.topic.name)

    def _prepared(self, actor: Actor, grant_id: str, event: CaseEvent) -> dict[Event, PreparedChange]:
        """Return the decisions on the events of the grant that an event may need, before any lock is held."""
        needed = {
            CaseEvent.ORDER: (Event.SUSPEND,),
            CaseEvent.ACCEPT: (Event.RECTIFIED,),
            CaseEvent.ESCALATE: (Event.SUSPEND, Event.TERMINATE),
        }.get(event, ())
        return {one: self._grants.prepared(actor, grant_id, one) for one in needed}

    def _follow(
        self,
        work: UnitOfWork,
        act: AuditedAct,
        call: RequestContext,
        before: ViolationCase,
        case: ViolationCase,
        grant_id: str,
        changes: dict[Event, PreparedChange],
    ) -> bool:
        """Let the grant follow a case; return whether it was stopped."""
        if not changes:
            return False
        state = self._access.get(work, grant_id).state
        text = text_of(case.occurrence.code)
        reason = f"violation case {case.id}: {case.occurrence.code}, {text.clause_en}"
        needed: list[Event] = []
        if Event.RECTIFIED in changes:
            needed = self._resumption(work, act, before, grant_id, state)
        elif state is GrantState.ACTIVE:
            needed = [*changes]
        elif state is GrantState.SUSPENDED and Event.TERMINATE in changes:
            needed = [Event.TERMINATE]
        for event in needed:
            self._grants.follow(work, act, call, changes[event], reason=reason)
        act.note(grant=grant_id, grant_events=[str(event) for event in needed])
        return bool(set(needed) & {Event.SUSPEND, Event.TERMINATE})

    def _resumption(
        self, work: UnitOfWork, act: AuditedAct, accepted: ViolationCase, grant_id: str, state: GrantState
    ) -> list[Event]:
        """Return what resumes a grant: nothing while another order keeps it, which answers for it from now on."""
        if accepted.order is None or not accepted.order.suspended or state is not GrantState.SUSPENDED:
            return []
        holding = holding_cases(self._store, self._access, work, grant_id)
        others = [one for one in holding if one.id != accepted.id]
        if not others:
            return [Event.RECTIFIED]
        other = self._store.lock(work, others[0].id)
        if other is not None and other.order is not None and not other.order.suspended:
            self._store.change(work, taken_over(other))
        act.note(still_held_by=others[0].id)
        return []

    def _shown(self, case: ViolationCase, rules: RulesInForce, now: datetime) -> ShownCase:
        due = _due(case, rules)
        running = due is not None and CaseEvent.ACCEPT in _possible(case)
        return ShownCase(case=case, due=due, due_state=due.state(now, rules.calendar) if due and running else None)

    def _calls(self, seen: Occurrence) -> int | None:
        """Return the refused calls of an occurrence's day as the log counts them; None where it is not about calls."""
        if seen.sign not in {Sign.PURPOSE, Sign.CASE, Sign.SCOPE}:
            return None
        begin = int(datetime.combine(seen.day, datetime.min.time(), SHANGHAI).timestamp() * 1_000_000)
        query = EntryQuery(
            department=seen.respondent,
            grant=seen.subject if seen.subject != seen.resource else None,
            resource=seen.resource or None,
            decision="deny",
            since=begin,
            until=begin + _DAY,
            limit=_COUNTED,
        )
        found = [entry for one in self._entries.find(query) if (entry := one.entry()) is not None]
        return sum(int((one.get("data") or {}).get("folded", 1)) for one in found if is_refused_call(one, seen.sign))


def _side_of(code: ViolationCode, grant: Grant | None) -> str:
    """Return the party of a grant whose violation a code is; empty without a grant, and for the authority's."""
    if grant is None or code.side is Side.AUTHORITY:
        return ""
    return grant.provider if code.side is Side.PROVIDER else grant.consumer


def _due(case: ViolationCase, rules: RulesInForce) -> Due | None:
    return None if case.order is None else Clock.from_json(case.order.clock).due(rules.calendar)


def _possible(case: ViolationCase) -> list[CaseEvent]:
    return [rule.event for rule in CASE_RULES if rule.source is case.state]


def _note(act: AuditedAct, case: ViolationCase) -> None:
    act.note(case=case.id, version=case.version, code=str(case.occurrence.code))


def _unknown() -> InvalidError:
    return InvalidError(Reason.NOT_FOUND, "there is no such case; see `pool violation list`")
