"""Element service: the dictionary of data elements (数据元), lead departments (数源部门), the report of duplicates."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from exchange.access.decision.roles import decide_control
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.catalogue.visibility import viewer_of
from registry.catalogue.element_store import ElementStore
from registry.catalogue.elements import DataElement, Duplicate, duplicates
from registry.catalogue.life_cycle import ProcedureState
from registry.catalogue.record import CatalogueRecord
from registry.catalogue.store import RecordQuery, RecordStore
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import MAX_PAGE
from registry.database.unit_of_work import Database, Reader
from registry.directory.departments import Departments
from registry.directory.model import DepartmentStatus
from schemas.access import Action, Actor, Allow, Deny
from schemas.errors import InvalidError, Reason

__all__ = ["ElementService"]

_ENDED = frozenset({ProcedureState.ARCHIVED, ProcedureState.WITHDRAWN})


class ElementService:
    """Audited acts on data elements."""

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        departments: Departments,
        store: ElementStore,
        records: RecordStore,
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._departments = departments
        self._store = store
        self._records = records

    def define(self, actor: Actor, call: RequestContext, element: DataElement) -> DataElement:
        """Define an element, or replace its definition; the lead stays who it is.

        Raises:
            RefusedError: the actor may not.
            ConflictError: VERSION_CONFLICT, another one defined it meanwhile.
        """
        decision = self._decide(actor, Action.ELEMENT_DEFINE)
        with self._enforcer.act(actor, Action.ELEMENT_DEFINE, element.code, call, decision) as (work, act):
            current = self._store.lock(work, element.code)
            if current is not None:
                element = replace(element, version=current.version + 1, lead=current.lead)
            self._store.save(work, element)
            act.note(version=element.version)
        return element

    def name_lead(
        self, actor: Actor, call: RequestContext, code: str, *, department: str, reason: str
    ) -> tuple[DataElement, Sequence[str]]:
        """Name the lead department of an element: it alone is its source from now on (decree 809, Art. 19).

        Return the element, and the entries in force of other departments that were its source.

        Raises:
            RefusedError: the actor may not.
            InvalidError: NOT_FOUND, there is no such element; DEPARTMENT_UNKNOWN; DEPARTMENT_INACTIVE; REQUEST_INVALID,
                without a reason.
        """
        decision = self._decide(actor, Action.ELEMENT_LEAD)
        with self._enforcer.act(actor, Action.ELEMENT_LEAD, code, call, decision) as (work, act):
            if not reason.strip():
                raise InvalidError(Reason.REQUEST_INVALID, "got no reason; say why this department is the lead")
            current = self._store.lock(work, code)
            if current is None:
                raise _unknown(code)
            if self._departments.get(work, department).status is not DepartmentStatus.ACTIVE:
                raise InvalidError(Reason.DEPARTMENT_INACTIVE, "the lead is no active department; name one that is")
            ended = [str(claim.topic) for claim in self._store.claims(work, code) if claim.provider != department]
            self._store.drop_claims(work, code, but=department)
            changed = replace(current, version=current.version + 1, lead=department)
            self._store.save(work, changed)
            act.note(lead=department, before=current.lead, because=reason, no_source=list(ended))
        return changed, ended

    def elements(
        self, actor: Actor, call: RequestContext, *, after: str = "", limit: int = MAX_PAGE
    ) -> Sequence[DataElement | DamagedRow]:
        """List the elements after a code; every account may. Fewer than *limit* only at the end.

        Raises:
            RefusedError: the actor may not.
        """
        self._admit(actor, call, "*")
        with self._database.read() as reader:
            return self._store.page(reader, after=after, limit=limit)

    def element(self, actor: Actor, call: RequestContext, code: str) -> tuple[DataElement, Sequence[str]]:
        """Return an element, and the entries in force that are its source.

        Raises:
            RefusedError: the actor may not.
            InvalidError: NOT_FOUND.
        """
        self._admit(actor, call, code)
        with self._database.read() as reader:
            element = self._store.get(reader, code)
            if element is None:
                raise _unknown(code)
            return element, [str(claim.topic) for claim in self._store.claims(reader, code)]

    def duplicates(self, actor: Actor, call: RequestContext) -> Sequence[Duplicate]:
        """Return the report of duplicates: of all entries for the authority and auditors, else those with an own entry.

        Of another department's entry only the metadata in force are looked at.

        Raises:
            RefusedError: the actor may not.
        """
        self._admit(actor, call, "duplicates")
        viewer = viewer_of(actor)
        with self._database.read() as reader:
            elements = [one for one in self._all_elements(reader) if not isinstance(one, DamagedRow)]
            entries = [
                (seen.topic, seen.provider, seen.metadata)
                for record in self._all_records(reader)
                if record.state not in _ENDED and (seen := self._seen(reader, record, viewer)) is not None
            ]
        found = duplicates(elements, entries)
        if viewer is None:
            return found
        return [one for one in found if actor.department in {provider for _, provider in one.entries}]

    def _seen(self, reader: Reader, record: CatalogueRecord, viewer: str | None) -> CatalogueRecord | None:
        """Return the version of a record that a department sees; None = none."""
        if viewer in {None, record.provider} or record.in_force == record.version:
            return record
        return self._records.version(reader, record.topic, record.in_force) if record.in_force else None

    def _all_elements(self, reader: Reader) -> Iterator[DataElement | DamagedRow]:
        after = ""
        while page := self._store.page(reader, after=after, limit=MAX_PAGE):
            yield from page
            last = page[-1]
            after = last.cursor if isinstance(last, DamagedRow) else last.code

    def _all_records(self, reader: Reader) -> Iterator[CatalogueRecord]:
        query = RecordQuery(limit=MAX_PAGE)
        while page := [one for one in self._records.page(reader, query) if not isinstance(one, DamagedRow)]:
            yield from page
            query = replace(query, after=page[-1].topic)

    def _admit(self, actor: Actor, call: RequestContext, resource: str) -> None:
        self._enforcer.admit(actor, Action.ELEMENT_READ, resource, call, self._decide(actor, Action.ELEMENT_READ))

    def _decide(self, actor: Actor, action: Action) -> Allow | Deny:
        return decide_control(actor, action, standing=self._attributes.standing(actor))


def _unknown(code: str) -> InvalidError:
    return InvalidError(Reason.NOT_FOUND, f"there is no data element {code[:40]!r}; list them (`pool element list`)")
