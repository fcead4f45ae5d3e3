"""Duty service: the data authority writes the duty lists (权责清单) of departments; everybody reads them.

A department does not write its own: a request stays within the list, so who asks must not be able to widen it. Grants
that name an item stay as they are when it changes or is retired; requests that come later are held against the list as
it is then.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from exchange.access.decision.roles import decide_control
from exchange.access.grants.store import AccessStore
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.duties.model import MOST_ITEMS, DutyItem, check_item, cursor_of, retired
from exchange.duties.store import DutyStore
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import MAX_PAGE
from registry.database.unit_of_work import Database, UnitOfWork
from registry.directory.departments import Departments
from schemas.access import Action, Actor, Allow, Deny
from schemas.errors import ConflictError, InvalidError, Reason

__all__ = ["DutyService"]


class DutyService:
    """Audited changes of duty lists, and reads of them.

    Args:
        database: opens readers.
        enforcer: decides and records.
        attributes: of actors.
        duties: the lists.
        departments: whose lists they are.
        access: the pool's purposes.
        now: aware.
    """

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        duties: DutyStore,
        departments: Departments,
        access: AccessStore,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._duties = duties
        self._departments = departments
        self._access = access
        self._now = now

    def set_item(
        self,
        actor: Actor,
        call: RequestContext,
        department: str,
        code: str,
        *,
        name: str,
        legal_basis: str,
        purposes: Sequence[str],
    ) -> DutyItem:
        """Write an item of a department's list, in place of the one of this code; a retired one may be asked for again.

        Raises:
            RefusedError: the actor may not.
            InvalidError: DEPARTMENT_UNKNOWN; REQUEST_INVALID, the item does not fit.
            ConflictError: DEPARTMENT_QUOTA, the list has too many items.
            CorruptError: ROW_FORGED.
        """
        item = DutyItem(
            department=department,
            code=code,
            name=name,
            legal_basis=legal_basis,
            purposes=tuple(sorted(purposes)),
            changed_by=actor.id,
            changed_at=self._now(),
        )
        decision = self._decide(actor, Action.DUTY_CHANGE, department)
        with self._enforcer.act(actor, Action.DUTY_CHANGE, cursor_of(department, code), call, decision) as (work, act):
            self._departments.get(work, department)
            check_item(item, {purpose.id for purpose in self._access.purposes(work) if purpose.active})
            if self._duties.get(work, department, code) is None:
                self._check_room(work, department)
            self._duties.put(work, item)
            act.note(change="set", code=code, legal_basis=legal_basis, purposes=list(item.purposes))
        return item

    def retire(self, actor: Actor, call: RequestContext, department: str, code: str, *, reason: str) -> DutyItem:
        """Retire an item: no later request may name it.

        Raises:
            RefusedError: the actor may not.
            InvalidError: NOT_FOUND; REQUEST_INVALID, without a reason.
            ConflictError: TRANSITION_NOT_ALLOWED, it is retired already.
            CorruptError: ROW_FORGED.
        """
        decision = self._decide(actor, Action.DUTY_CHANGE, department)
        with self._enforcer.act(actor, Action.DUTY_CHANGE, cursor_of(department, code), call, decision) as (work, act):
            if not reason.strip():
                raise InvalidError(Reason.REQUEST_INVALID, "got no reason; say why the duty ends")
            item = self._duties.get(work, department, code)
            if item is None:
                raise _unknown()
            item = retired(item, by=actor.id, at=self._now())
            self._duties.put(work, item)
            act.note(change="retire", code=code, because=reason)
        return item

    def show(self, actor: Actor, call: RequestContext, department: str, code: str) -> DutyItem:
        """Return an item; every account may read it, and it leaves no entry.

        Raises:
            RefusedError: the actor may not.
            InvalidError: NOT_FOUND.
            CorruptError: ROW_FORGED.
        """
        self._admit(actor, call, department)
        with self._database.read() as reader:
            item = self._duties.get(reader, department, code)
        if item is None:
            raise _unknown()
        return item

    def items(
        self,
        actor: Actor,
        call: RequestContext,
        *,
        department: str | None = None,
        after: str = "",
        limit: int = MAX_PAGE,
    ) -> Sequence[DutyItem | DamagedRow]:
        """List items after a cursor, of one department or of all; every account may. A damaged row is named.

        Raises:
            RefusedError: the actor may not.
        """
        self._admit(actor, call, department)
        with self._database.read() as reader:
            return self._duties.page(reader, department=department, after=after, limit=limit)

    def _check_room(self, work: UnitOfWork, department: str) -> None:
        if self._duties.count(work, department, MOST_ITEMS) >= MOST_ITEMS:
            raise ConflictError(
                Reason.DEPARTMENT_QUOTA,
                f"got one more than the {MOST_ITEMS} items that a duty list may have; write a retired one again",
                details={"quota": "duties", "limit": str(MOST_ITEMS)},
            )

    def _admit(self, actor: Actor, call: RequestContext, department: str | None) -> None:
        decision = self._decide(actor, Action.DUTY_READ, department)
        self._enforcer.admit(actor, Action.DUTY_READ, "*", call, decision)

    def _decide(self, actor: Actor, action: Action, department: str | None) -> Allow | Deny:
        return decide_control(actor, action, standing=self._attributes.standing(actor), department=department)


def _unknown() -> InvalidError:
    return InvalidError(Reason.NOT_FOUND, "the department's list has no such duty; see `pool duty list`")
