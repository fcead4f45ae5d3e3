"""Coverage (覆盖情况) of the catalogue: published resources by department, theme and division, with the empty cells."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from exchange.access.decision.roles import decide_control
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from registry.catalogue.code_lists import code_lists
from registry.catalogue.store import RecordQuery, RecordStore
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Database, Reader
from registry.directory.catalogue import Catalogue
from registry.directory.departments import Departments
from registry.directory.model import CatalogueEntry, Department, DepartmentKind, DepartmentStatus, EntryState
from schemas.access import Action, Actor
from schemas.names import Topic

__all__ = ["CoverageService"]

_PAGE: Final = 1_000


class CoverageService:
    """The report of coverage; each read is decided on and recorded.

    Args:
        database: opens readers.
        enforcer: decides and records.
        attributes: of actors.
        catalogue: entries.
        records: their full metadata, which names the theme.
        departments: who could provide.
    """

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        catalogue: Catalogue,
        records: RecordStore,
        departments: Departments,
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._catalogue = catalogue
        self._records = records
        self._departments = departments

    def report(self, actor: Actor, call: RequestContext) -> dict[str, Any]:
        """Return the report: of all providing departments, or of the actor's own.

        A resource without full metadata has no theme, and is counted under the empty one.

        Raises:
            RefusedError: the actor may not read it.
        """
        own = actor.department or None
        action = Action.REPORT_READ
        decision = decide_control(actor, action, standing=self._attributes.standing(actor), department=own)
        authorized = self._enforcer.admit(actor, action, "coverage", call, decision)
        self._enforcer.record_read(authorized, {"report": "coverage"})
        with self._database.read() as reader:
            departments = [
                one
                for one in self._departments.all(reader)
                if own in {None, one.id}
                and one.status is DepartmentStatus.ACTIVE
                and DepartmentKind.PROVIDER in one.kinds
            ]
            themes = self._themes(reader)
            entries = [one for one in self._entries(reader) if own in {None, one.provider}]
        return _document(departments, entries, themes)

    def _themes(self, reader: Reader) -> dict[Topic, str]:
        found: dict[Topic, str] = {}
        query = RecordQuery(after=None, limit=_PAGE)
        while True:
            page = self._records.page(reader, query)
            found |= {one.topic: one.metadata.theme for one in page if not isinstance(one, DamagedRow)}
            if len(page) < _PAGE:
                return found
            last = page[-1]
            query = replace(query, after=Topic.parse(last.cursor) if isinstance(last, DamagedRow) else last.topic)

    def _entries(self, reader: Reader) -> Iterator[CatalogueEntry]:
        after: Topic | None = None
        while True:
            page = self._catalogue.page(reader, after=after, limit=_PAGE)
            yield from (one for one in page if not isinstance(one, DamagedRow) and one.state is EntryState.PUBLISHED)
            if len(page) < _PAGE:
                return
            last = page[-1]
            after = Topic.parse(last.cursor) if isinstance(last, DamagedRow) else last.topic


def _document(
    departments: Sequence[Department], entries: Sequence[CatalogueEntry], themes: dict[Topic, str]
) -> dict[str, Any]:
    cells = Counter((one.provider, themes.get(one.topic, "")) for one in entries)
    terms = code_lists().terms("themes")
    by_theme = Counter(theme for _, theme in cells.elements())
    divisions = sorted({one.division_code for one in departments})
    by_department = Counter(provider for provider, _ in cells.elements())
    division_of = {one.id: one.division_code for one in departments}
    by_division = Counter(division_of[provider] for provider, _ in cells.elements() if provider in division_of)
    in_division = Counter((division_of[who], theme) for who, theme in cells.elements() if who in division_of)
    listed = [{"theme": term.id, "zh": term.zh, "en": term.en, "resources": by_theme[term.id]} for term in terms]
    if by_theme[""]:
        listed.append({"theme": "", "zh": "未标注主题", "en": "no theme", "resources": by_theme[""]})
    return {
        "resources": len(entries),
        "departments": [
            {
                "department": one.id,
                "name": one.short_name or one.name,
                "division": one.division_code,
                "resources": by_department[one.id],
                "themes": {theme: count for (who, theme), count in sorted(cells.items()) if who == one.id},
            }
            for one in sorted(departments, key=lambda each: (each.division_code, each.id))
        ],
        "themes": listed,
        "divisions": [{"division": one, "resources": by_division[one]} for one in divisions],
        "empty": {
            "departments": [one.id for one in departments if not by_department[one.id]],
            "themes": [term.id for term in terms if not by_theme[term.id]],
            "divisions": [one for one in divisions if not by_division[one]],
            "department_themes": [
                [one.id, term.id] for one in departments for term in terms if not cells[one.id, term.id]
            ],
            "division_themes": [
                [division, term.id] for division in divisions for term in terms if not in_division[division, term.id]
            ],
        },
    }
