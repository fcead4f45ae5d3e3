"""Export service: the catalogue in force as DCAT 3, for other catalogues to harvest."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from exchange.access.decision.roles import decide_control
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from registry.catalogue.code_lists import code_lists
from registry.catalogue.dcat import CatalogueDescription, RdfForm, catalogue_graph, serialized
from registry.catalogue.life_cycle import ProcedureState
from registry.catalogue.procedure import Procedure
from registry.catalogue.record import CatalogueRecord
from registry.catalogue.store import RecordQuery
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Database, Reader
from registry.directory.departments import Departments
from schemas.access import Action, Actor
from schemas.names import Topic

__all__ = ["CatalogueExport", "ExportedPage"]

_NOT_IN_FORCE = frozenset({ProcedureState.SUSPENDED, ProcedureState.ARCHIVED, ProcedureState.WITHDRAWN})
_PAGE = 200  # records that are read at once


@dataclass(frozen=True, slots=True)
class ExportedPage:
    """A part of the export. `next`: topic behind which the next part begins; None = there is none."""

    text: str
    next: Topic | None


class CatalogueExport:
    """Export of the entries with full metadata that are in force.

    Args:
        database: of the pool.
        enforcer: enforces and records.
        attributes: standing of actors.
        departments: their names.
        procedure: of entries.
        pool_id: names the publisher.
    """

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        departments: Departments,
        procedure: Procedure,
        pool_id: str,
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._departments = departments
        self._procedure = procedure
        self._pool_id = pool_id

    def page(
        self, actor: Actor, call: RequestContext, form: RdfForm, *, base: str, after: Topic | None, limit: int
    ) -> ExportedPage:
        """Return the entries in force after a topic, as many as *limit*; every account may read them.

        Args:
            actor: who asks.
            call: its context.
            form: of the text.
            base: address of the control API, ends with `/`.
            after: topic, None = from the beginning.
            limit: entries of the part at most.

        Raises:
            RefusedError: the actor may not read the catalogue.
        """
        decision = decide_control(actor, Action.CATALOGUE_READ, standing=self._attributes.standing(actor))
        self._enforcer.admit(actor, Action.CATALOGUE_READ, "export", call, decision)
        with self._database.read() as reader:
            records, following = self._in_force(reader, after, limit)
            names = {one.id: one.name for one in self._departments.all(reader)}
        about = CatalogueDescription(
            base=base,
            title=("政务信息资源目录", "Catalogue of government information resources"),
            description=("本平台已发布的政务信息资源目录条目", "Entries that are in force in this pool"),
            publisher=self._pool_id,
            departments=names,
        )
        return ExportedPage(serialized(catalogue_graph(about, records, code_lists()), form), following)

    def _in_force(
        self, reader: Reader, after: Topic | None, limit: int
    ) -> tuple[Sequence[CatalogueRecord], Topic | None]:
        found: list[CatalogueRecord] = []
        for current in self._records(reader, after):
            if current.state in _NOT_IN_FORCE:
                continue
            record = self._procedure.in_force(reader, current)
            if record is None:
                continue
            if len(found) == limit:
                return found, found[-1].topic
            found.append(record)
        return found, None

    def _records(self, reader: Reader, after: Topic | None) -> Iterator[CatalogueRecord]:
        query = RecordQuery(after=after, limit=_PAGE)
        while True:
            page = self._procedure.store.page(reader, query)
            yield from (one for one in page if not isinstance(one, DamagedRow))
            if len(page) < _PAGE:
                return
            last = page[-1]
            query = replace(query, after=Topic.parse(last.cursor) if isinstance(last, DamagedRow) else last.topic)
