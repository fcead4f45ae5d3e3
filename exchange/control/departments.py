"""Department service: place, name officers, rename, merge, deactivate; what a department had ends with it.

A department that is merged or deactivated (撤销) does not act any more. Within one transaction its accounts and
certificates are revoked and its invitations and open proposals lose their effect.

A merger then lets what it was responsible for go over to the successor (`exchange.control.succession`): duty list,
resources, grants, requests. A deactivation closes its requests and terminates every grant in which it is a party; so
does a merger with a grant between the two departments. Each has an entry of its own. Repeated after a crash, the call
carries out what is left.

The departments under it go under its successor, else under the one above it, in the same transaction, so that none is
under one that has ended. An abolished department leaves no contractor behind.

A department that is deactivated and still provides resources is refused: they are archived first, which their
consumers notice.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from exchange.access.decision.grant_rules import Event
from exchange.access.decision.roles import decide_control
from exchange.access.grants.store import GrantQuery
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.release_window import RELEASE_WINDOW
from exchange.authorization.request_context import RequestContext
from exchange.control.grants.reads import GrantReads
from exchange.control.grants.service import GrantService
from exchange.control.succession.service import Succession
from exchange.identity.enrolment import Enrolment
from exchange.identity.tokens import Users
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Database, UnitOfWork
from registry.directory.catalogue import Catalogue
from registry.directory.departments import Departments
from registry.directory.government_level import DepartmentKind, GovernmentLevel
from registry.directory.hierarchy import common_superior, inferiors, superiors
from registry.directory.model import Department, DepartmentStatus, EntryState
from schemas.access import Action, Actor, Allow, Deny, GrantState, Role
from schemas.errors import ConflictError, CorruptError, InvalidError, Reason, RefusedError

__all__ = ["DepartmentService", "Placement", "ShownDepartment"]

_OFFICES: Mapping[str, Role] = {
    "office_head": Role.SHARING_OFFICE_HEAD,
    "office_deputy": Role.SHARING_OFFICE_HEAD,
    "security_officer": Role.SECURITY_OFFICER,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a department is to stand; None = as it is.

    Attributes:
        parent: internal id of the department above it; empty = none.
        kinds: what it does in the pool.
        level: of government.
        division_code: administrative division.
        contract_ends: end of a contractor's contract; it is dropped with the kind.
    """

    parent: str | None = None
    kinds: tuple[DepartmentKind, ...] | None = None
    level: GovernmentLevel | None = None
    division_code: str | None = None
    contract_ends: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownDepartment:
    """A department among the others.

    Attributes:
        department: its current version.
        superiors: ids of all departments above it, nearest first.
        inferiors: ids of those directly under it.
        in_use: office → whether its account is in use, in the department, with the role of the office.
    """

    department: Department
    superiors: tuple[str, ...]
    inferiors: tuple[str, ...]
    in_use: Mapping[str, bool]


class DepartmentService:
    """Audited changes of departments."""

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        departments: Departments,
        catalogue: Catalogue,
        enrolment: Enrolment,
        users: Users,
        grants: GrantService,
        grant_reads: GrantReads,
        succession: Succession,
        now: Callable[[], datetime],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._departments = departments
        self._catalogue = catalogue
        self._enrolment = enrolment
        self._users = users
        self._grants = grants
        self._grant_reads = grant_reads
        self._succession = succession
        self._now = now
        self._sleep = sleep

    def rename(
        self, actor: Actor, call: RequestContext, department: str, *, name: str, short_name: str, uscc: str | None
    ) -> Department:
        """Change a department's name, and its credit code if one is given.

        Raises:
            RefusedError: the actor may not.
            InvalidError, ConflictError: see `Departments.rename`; TRANSITION_NOT_ALLOWED, it is not active.
        """
        current = self._read(department)
        decision = self._decide(actor, department)
        with self._enforcer.act(actor, Action.DEPARTMENT_CHANGE, department, call, decision) as (work, act):
            _check_active(current)
            act.note(change="rename")
            return self._departments.rename(
                work, department, name=name, short_name=short_name, uscc=uscc, version=current.version
            )

    def show(self, actor: Actor, call: RequestContext, department: str) -> ShownDepartment:
        """Return a department with those above and under it, and its officers; every account may.

        Raises:
            RefusedError: the actor may not.
            InvalidError: DEPARTMENT_UNKNOWN.
        """
        self._admit_reading(actor, call, department)
        with self._database.read() as reader:
            found = self._departments.get(reader, department)
            every = {one.id: one for one in self._departments.all(reader)}
            accounts = {one.name: one for one in self._users.all(reader) if one.department == department}
        in_use = {}
        for office, role in _OFFICES.items():
            account = accounts.get(getattr(found, office))
            if getattr(found, office):
                in_use[office] = account is not None and account.revoked_at is None and account.role is role
        return ShownDepartment(
            department=found,
            superiors=superiors({**every, found.id: found}, department),
            inferiors=inferiors(every, department),
            in_use=in_use,
        )

    def common_superior(self, actor: Actor, call: RequestContext, department: str, other: str) -> str | None:
        """Return the id of the nearest department above both, None if there is none; every account may.

        Raises:
            RefusedError: the actor may not.
            InvalidError: DEPARTMENT_UNKNOWN.
        """
        self._admit_reading(actor, call, department)
        with self._database.read() as reader:
            return common_superior({one.id: one for one in self._departments.all(reader)}, department, other)

    def place(self, actor: Actor, call: RequestContext, department: str, wanted: Placement) -> Department:
        """Change where a department stands, and what it does in the pool.

        A shorter contract or another kind is acknowledged when nothing more can leave by the earlier one.

        Raises:
            RefusedError: the actor may not.
            InvalidError, ConflictError: see `Departments.place`; TRANSITION_NOT_ALLOWED, it is not active.
        """
        current = self._read(department)
        decision = self._decide(actor, department)
        with self._enforcer.act(actor, Action.DEPARTMENT_CHANGE, department, call, decision) as (work, act):
            _check_active(current)
            kinds = current.kinds if wanted.kinds is None else wanted.kinds
            ends = current.contract_ends if wanted.contract_ends is None else wanted.contract_ends
            if wanted.contract_ends is None and DepartmentKind.CONTRACTOR not in kinds:
                ends = None
            placed = self._departments.place(
                work,
                department,
                parent=current.parent if wanted.parent is None else wanted.parent or None,
                kinds=kinds,
                level=wanted.level or current.level,
                division_code=wanted.division_code or current.division_code,
                contract_ends=ends,
                version=current.version,
            )
            act.note(
                change="place",
                parent=placed.parent or "",
                kinds=list(map(str, placed.kinds)),
                level=str(placed.level),
                division_code=placed.division_code,
                **({} if ends is None else {"contract_ends": ends.isoformat()}),
            )
        if (placed.kinds, placed.contract_ends) != (current.kinds, current.contract_ends):
            self._sleep(RELEASE_WINDOW)
        return placed

    def name_officers(
        self, actor: Actor, call: RequestContext, department: str, named: Mapping[str, str | None]
    ) -> Department:
        """Name the accounts of a department's officers: office → account, empty = none; who is not in it stays.

        Raises:
            RefusedError: the actor may not.
            InvalidError: NOT_FOUND, no such account in use; REQUEST_INVALID, it is of another department or role, or
                head and deputy are one person.
            ConflictError: VERSION_CONFLICT; TRANSITION_NOT_ALLOWED, it is not active.
        """
        current = self._read(department)
        decision = self._decide(actor, department)
        with self._enforcer.act(actor, Action.DEPARTMENT_CHANGE, department, call, decision) as (work, act):
            _check_active(current)
            officers = {
                office: getattr(current, office) if named.get(office) is None else str(named[office])
                for office in _OFFICES
            }
            self._check_officers(work, department, {one: officers[one] for one in _OFFICES if named.get(one)})
            self._check_two_persons(work, officers["office_head"], officers["office_deputy"])
            changed = self._departments.name_officers(work, department, version=current.version, **officers)
            act.note(change="officers", **officers)
        return changed

    def _check_officers(self, work: UnitOfWork, department: str, named: Mapping[str, str]) -> None:
        for office, name in named.items():
            account = self._users.in_use(work, name)
            if account.department != department or account.role is not _OFFICES[office]:
                raise InvalidError(
                    Reason.REQUEST_INVALID,
                    f"got {name[:64]!r} as {office}; expected an account of this department with the role "
                    f"{_OFFICES[office]}",
                )

    def _check_two_persons(self, work: UnitOfWork, head: str, deputy: str) -> None:
        if not head or not deputy:
            return
        persons = self._users.persons(work, (head, deputy))
        if head == deputy or (persons.get(head) and persons.get(head) == persons.get(deputy)):
            raise InvalidError(
                Reason.REQUEST_INVALID, "got one person as head and deputy of the sharing office; expected two"
            )

    def merge(self, actor: Actor, call: RequestContext, department: str, *, into: str, reason: str) -> Department:
        """End a department whose duties another one has taken over; see the module for what goes over to that.

        Raises:
            RefusedError: the actor may not.
            InvalidError: see `Departments.merge`; REQUEST_INVALID, without a reason; DEPARTMENT_KIND, the successor is
                no provider of resources, or no consumer of grants, that it would get.
            ConflictError: TRANSITION_NOT_ALLOWED, it ended otherwise.
            CorruptError: ROW_FORGED, see `Succession.run`.
        """
        return self._end(actor, call, department, into=into, reason=reason)

    def deactivate(self, actor: Actor, call: RequestContext, department: str, *, reason: str) -> Department:
        """End a department without a successor; see the module for what ends with it.

        Raises:
            RefusedError: the actor may not.
            InvalidError: DEPARTMENT_UNKNOWN; REQUEST_INVALID, without a reason.
            ConflictError: TRANSITION_NOT_ALLOWED, it provides resources, or ended otherwise.
        """
        return self._end(actor, call, department, into=None, reason=reason)

    def _end(self, actor: Actor, call: RequestContext, department: str, *, into: str | None, reason: str) -> Department:
        if not reason.strip():
            raise InvalidError(Reason.REQUEST_INVALID, "got no reason; say why the department ends")
        current = self._read(department)
        wanted = DepartmentStatus.ABOLISHED if into is None else DepartmentStatus.MERGED
        if (current.status, current.successor) != (wanted, into):
            decision = self._decide(actor, department)
            with self._enforcer.act(actor, Action.DEPARTMENT_CHANGE, department, call, decision) as (work, act):
                _check_active(current)
                if into is None:
                    self._check_provides_nothing(work, department)
                else:
                    self._check_kinds(work, department, into)
                act.note(change=str(wanted), because=reason, **({} if into is None else {"into": into}))
                if into is None:
                    current = self._departments.abolish(work, department, version=current.version)
                else:
                    current = self._departments.merge(work, department, into=into, version=current.version)
                moved = [one.id for one in self._departments.move_inferiors(work, department)]
                now = self._now()
                accounts = [
                    self._users.revoke(work, one.name, now).name
                    for one in self._users.all(work)
                    if one.department == department and one.revoked_at is None
                ]
                serials = self._enrolment.revoke(work, department=department, at=now, by=actor.id, because=reason)
                act.note(accounts=list(accounts), certificates=list(serials), inferiors=list(moved))
            self._sleep(RELEASE_WINDOW)  # what a gateway was about to send to it has left by now, or never will
        if into is None:
            self._succession.close(actor, call, department, reason)
        else:
            self._succession.run(actor, call, department, into, reason)
            self._succession.close(actor, call, department, reason)
        self._end_grants(actor, call, department, reason)
        return current

    def _end_grants(self, actor: Actor, call: RequestContext, department: str, reason: str) -> None:
        query = GrantQuery(party=department, states=frozenset({GrantState.ACTIVE, GrantState.SUSPENDED}))
        while grants := self._grant_reads.list(actor, call, query):
            for grant in grants:
                if isinstance(grant, DamagedRow):
                    self._end_damaged(actor, call, grant.names["id"], reason)
                    continue
                if grant.state is GrantState.ACTIVE:
                    self._grants.change(actor, call, grant.id, Event.SUSPEND, reason=reason)
                self._grants.change(actor, call, grant.id, Event.TERMINATE, reason=reason)
            last = grants[-1]
            query = replace(query, after=last.cursor if isinstance(last, DamagedRow) else last.id)

    def _end_damaged(self, actor: Actor, call: RequestContext, grant_id: str, reason: str) -> None:
        """End a grant whose row is damaged; a refusal stops no other's end, and nothing is released under it anyway."""
        for event in (Event.SUSPEND, Event.TERMINATE):
            with suppress(ConflictError, CorruptError, RefusedError):
                self._grants.change(actor, call, grant_id, event, reason=reason)

    def _check_kinds(self, work: UnitOfWork, department: str, into: str) -> None:
        """Check that the successor may be what the department is to others."""
        successor = self._departments.get(work, into)
        needed = []
        if DepartmentKind.PROVIDER not in successor.kinds and self._provided(work, department):
            needed.append(DepartmentKind.PROVIDER)
        if DepartmentKind.CONSUMER not in successor.kinds and self._grants.holds_any(work, department):
            needed.append(DepartmentKind.CONSUMER)
        if needed:
            raise InvalidError(
                Reason.DEPARTMENT_KIND,
                f"the successor is no {' and no '.join(needed)}, and would get resources or grants; place it as one "
                "first (`pool department place`)",
            )

    def _provided(self, work: UnitOfWork, department: str) -> list[str]:
        return [
            str(entry.topic)
            for entry in self._catalogue.all(work)
            if entry.provider == department and entry.state is not EntryState.ARCHIVED
        ]

    def _check_provides_nothing(self, work: UnitOfWork, department: str) -> None:
        provided = self._provided(work, department)
        if provided:
            raise ConflictError(
                Reason.TRANSITION_NOT_ALLOWED,
                f"the department provides {len(provided)} resources, such as {provided[0]}; archive them first "
                "(`pool catalogue archive`), and let the successor catalogue its own",
            )

    def _read(self, department: str) -> Department:
        with self._database.read() as reader:
            return self._departments.get(reader, department)

    def _admit_reading(self, actor: Actor, call: RequestContext, department: str) -> None:
        decision = decide_control(actor, Action.DEPARTMENT_READ, standing=self._attributes.standing(actor))
        self._enforcer.admit(actor, Action.DEPARTMENT_READ, department, call, decision)

    def _decide(self, actor: Actor, department: str) -> Allow | Deny:
        return decide_control(
            actor, Action.DEPARTMENT_CHANGE, standing=self._attributes.standing(actor), department=department
        )


def _check_active(department: Department) -> None:
    if department.status is not DepartmentStatus.ACTIVE:
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED, f"the department is {department.status} already; only an active one changes"
        )
