"""Element use service: which schemas name a data element (数据元), and which fields name none that they fit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from exchange.access.decision.roles import decide_control
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.catalogue.visibility import viewer_of
from registry.avro.fields import resolved_json
from registry.catalogue.element_store import ElementStore
from registry.catalogue.elements import ElementUse
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import MAX_PAGE
from registry.database.unit_of_work import Database, Reader
from registry.directory.catalogue import Catalogue
from registry.directory.model import CatalogueEntry, EntryState
from registry.governance.element_rules import ElementDefinition, element_fields, unfit
from registry.subjects.lookup import SchemaLookup
from schemas.access import Action, Actor
from schemas.errors import InvalidError, PoolError, Reason
from schemas.names import Topic

__all__ = ["ElementGap", "ElementUseService", "FoundGaps"]

_ENTRIES = 100  # whose schemas a page reads at most


@dataclass(frozen=True, slots=True, order=True)
class ElementGap:
    """A field that names no data element, or one that it does not fit now.

    Attributes:
        topic: of the entry whose newest schema has the field. path: dotted names.
        zh: its Chinese label. element: that it names; empty = none.
        problem: what does not fit, in words; empty where it names none.
    """

    topic: Topic
    path: str
    zh: str
    element: str = ""
    problem: str = ""

    @property
    def cursor(self) -> str:
        """Its place in the list."""
        return f"{self.topic}/{self.path}"


@dataclass(frozen=True, slots=True)
class FoundGaps:
    """A page of gaps. `next`: cursor behind which the next page begins; empty = there is none."""

    gaps: Sequence[ElementGap]
    next: str


class ElementUseService:
    """Reads of the use of data elements.

    Args:
        database: of the pool.
        enforcer: enforces and records.
        attributes: standing of actors.
        catalogue: of entries.
        lookup: of schemas.
        store: of data elements.
    """

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        catalogue: Catalogue,
        lookup: SchemaLookup,
        store: ElementStore,
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._catalogue = catalogue
        self._lookup = lookup
        self._store = store

    def uses(
        self, actor: Actor, call: RequestContext, code: str, *, after: tuple[str, str] = ("", ""), limit: int = MAX_PAGE
    ) -> Sequence[ElementUse]:
        """List the fields of schemas that name an element, behind a subject and path, those that the actor sees.

        A page may be filtered to fewer than *limit*, and is filled up; fewer only at the end.

        Raises:
            RefusedError: the actor may not.
            InvalidError: NOT_FOUND, there is no such element.
        """
        self._admit(actor, call, code)
        viewer = viewer_of(actor)
        found: list[ElementUse] = []
        with self._database.read() as reader:
            if self._store.get(reader, code) is None:
                raise InvalidError(
                    Reason.NOT_FOUND, f"there is no data element {code[:40]!r}; list them (`pool element list`)"
                )
            while True:
                page = self._store.uses(reader, code, after=after, limit=limit)
                found += [use for use in page if self._sees(reader, use, viewer)]
                if len(page) < limit or len(found) >= limit:
                    return found[:limit]
                after = (page[-1].subject, page[-1].path)

    def gaps(self, actor: Actor, call: RequestContext, *, after: str = "", limit: int = MAX_PAGE) -> FoundGaps:
        """Report the fields without an element that they fit: of the actor's department, or of all for the authority.

        A page ends after so many entries at the latest, so it may be short where more follow.

        Raises:
            RefusedError: the actor may not.
            InvalidError: NAME_INVALID, the cursor has another form.
        """
        self._admit(actor, call, "gaps")
        topic, _, path = after.partition("/")
        viewer = viewer_of(actor)
        found: list[ElementGap] = []
        with self._database.read() as reader:
            entries = self._entries(reader, Topic.parse(topic) if topic else None, viewer)
            for number, entry in enumerate(entries):
                if number == _ENTRIES:
                    return FoundGaps(found, f"{entry.topic}/")  # its fields are all behind this
                for gap in self._gaps_of(reader, entry):
                    if str(gap.topic) == topic and gap.path <= path:
                        continue
                    if len(found) == limit:
                        return FoundGaps(found, found[-1].cursor)
                    found.append(gap)
        return FoundGaps(found, "")

    def _entries(self, reader: Reader, first: Topic | None, viewer: str | None) -> Iterator[CatalogueEntry]:
        """Yield the entries from one on whose provider looks, or all for who sees all; ended ones are left out."""
        if first is not None:
            yield from self._first(reader, first, viewer)
        after = first
        while page := self._catalogue.page(reader, after=after, viewer=viewer, limit=_ENTRIES):
            for one in page:
                if isinstance(one, DamagedRow):
                    continue
                if viewer in {None, one.provider} and one.state is not EntryState.ARCHIVED:
                    yield one
            last = page[-1]
            after = Topic.parse(last.cursor) if isinstance(last, DamagedRow) else last.topic

    def _first(self, reader: Reader, topic: Topic, viewer: str | None) -> Iterator[CatalogueEntry]:
        """Yield the entry of a cursor where it is still in the list; no other is told of."""
        try:
            entry = self._catalogue.get(reader, topic)
        except PoolError:
            return  # none, or a damaged one, which the list leaves out too
        if viewer in {None, entry.provider} and entry.state is not EntryState.ARCHIVED:
            yield entry

    def _gaps_of(self, reader: Reader, entry: CatalogueEntry) -> Sequence[ElementGap]:
        try:
            version = self._lookup.version(reader, entry.subject, None)
            schema = resolved_json(self._lookup.parsed_by_id(reader, version.schema_id))
        except PoolError:
            return ()  # no schema yet, or one that is damaged and named elsewhere

        def definition(code: str) -> ElementDefinition | None:
            element = self._store.get(reader, code)
            return None if element is None else element.definition

        gaps = []
        for field in element_fields(schema):
            zh = str(field.node.get("zh", ""))
            if field.element is None:
                gaps.append(ElementGap(entry.topic, field.path, zh))
            elif problems := [*unfit(field, definition)]:
                gaps.append(ElementGap(entry.topic, field.path, zh, str(field.element)[:40], "; ".join(problems)))
        return sorted(gaps, key=lambda gap: gap.path)

    def _sees(self, reader: Reader, use: ElementUse, viewer: str | None) -> bool:
        try:
            entry = self._catalogue.get(reader, Topic.parse(use.subject.removesuffix("-value")))
        except PoolError:
            return False
        return entry.is_visible_to(viewer)

    def _admit(self, actor: Actor, call: RequestContext, resource: str) -> None:
        decision = decide_control(actor, Action.ELEMENT_READ, standing=self._attributes.standing(actor))
        self._enforcer.admit(actor, Action.ELEMENT_READ, resource, call, decision)
