"""Inventory drafts (盘点入目): which entry a row is, and what becomes of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from registry.catalogue.code_lists import code_lists
from registry.catalogue.inventory import RESOURCE, Gap, InventoryHeader, InventoryRow
from registry.catalogue.life_cycle import ProcedureState
from registry.catalogue.metadata_rules import FaultCode
from registry.catalogue.procedure import Procedure
from registry.catalogue.record import CatalogueRecord
from registry.database.unit_of_work import UnitOfWork
from registry.directory.catalogue import Catalogue
from registry.directory.model import CatalogueEntry
from schemas.access import Actor
from schemas.names import ResourceName, Topic

__all__ = ["ImportedRows", "InventoryDrafts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedRows:
    """What became of rows of an inventory.

    Attributes:
        drafts: rows that were drafted, or replaced a draft. unchanged: rows that the catalogue has as they are.
        gaps: of all others, by row and column.
    """

    drafts: Sequence[tuple[int, CatalogueRecord]]
    unchanged: Sequence[int]
    gaps: Sequence[Gap]


class InventoryDrafts:
    """Drafts of one import.

    Args:
        procedure: of entries.
        catalogue: of entries.
        work: the transaction.
        department: whose inventory it is.
    """

    def __init__(self, procedure: Procedure, catalogue: Catalogue, work: UnitOfWork, department: str) -> None:
        self._procedure = procedure
        self._work = work
        self._department = department
        procedure.store.lock_codes(work)
        self._entries: dict[Topic, CatalogueEntry] = {entry.topic: entry for entry in catalogue.all(work)}
        self._catalogue = catalogue
        self._rows: dict[Topic, int] = {}  # of this import

    def run(
        self,
        header: InventoryHeader,
        rows: Sequence[tuple[int, Sequence[str]]],
        *,
        actor: Actor,
        at: datetime,
        entry_id: str,
    ) -> ImportedRows:
        """Draft what has no fault, in the order of the rows."""
        drafts: list[tuple[int, CatalogueRecord]] = []
        unchanged: list[int] = []
        gaps: list[Gap] = []
        for number, cells in rows:
            row, found = header.read(number, cells, code_lists())
            gaps += found
            if row is None:
                continue
            topic, clash = self._topic(row)
            if clash is not None or topic in self._rows:
                gaps.append(header.gap(number, clash or _named_by(row), FaultCode.DUPLICATE))
                continue
            self._rows[topic] = number
            state = self._state(topic, row)
            if state is FaultCode.EXISTS:
                gaps.append(header.gap(number, _named_by(row), state))
            elif state is None:
                unchanged.append(number)
            else:
                record = self._procedure.describe(
                    self._work,
                    topic,
                    replace(row.metadata, code=row.metadata.code or self._code(topic)),
                    provider=self._department,
                    actor=actor,
                    at=at,
                    entry_id=entry_id,
                    others=self._entries.values(),
                )
                drafts.append((number, record))
                self._entries[topic] = self._catalogue.get(self._work, topic)
        return ImportedRows(drafts=drafts, unchanged=unchanged, gaps=gaps)

    def _topic(self, row: InventoryRow) -> tuple[Topic, str | None]:
        """Return the entry that a row is, and the element by which it is another's; None for none."""
        metadata = row.metadata
        own = [entry for entry in self._entries.values() if entry.provider == self._department]
        if row.resource:
            topic = Topic(ResourceName(row.resource), 1)
        elif metadata.code:
            known = next((entry.topic for entry in own if entry.code == metadata.code), None)
            topic = known or _named(metadata.code)
        else:
            known = next((entry.topic for entry in own if entry.title == metadata.title), None)
            topic = known or _named(self._next_code(metadata.class_code))
        stands = self._entries.get(topic)
        if stands is not None and stands.provider != self._department:
            return topic, _named_by(row)
        taken = {entry.code: entry.topic.name for entry in self._entries.values()}
        if metadata.code and taken.get(metadata.code, topic.name) != topic.name:
            return topic, "code"
        return topic, None

    def _state(self, topic: Topic, row: InventoryRow) -> FaultCode | str | None:
        """Return None for a row that stands as it is, EXISTS for one that may not be replaced, else a word."""
        entry = self._entries.get(topic)
        if entry is None:
            return "new"
        record = self._procedure.store.get(self._work, topic)
        wanted = replace(row.metadata, code=entry.code)
        if record is not None and record.metadata == wanted:
            return None
        if record is None or record.state is not ProcedureState.DRAFT or record.in_force:
            return FaultCode.EXISTS
        same = row.metadata.code in {"", entry.code} and row.metadata.class_code == entry.code.partition("/")[0]
        return "draft" if same else FaultCode.EXISTS

    def _next_code(self, class_code: str) -> str:
        return self._catalogue.next_code(self._work, _NOBODY, class_code, others=self._entries.values())

    def _code(self, topic: Topic) -> str:
        entry = self._entries.get(topic)
        return "" if entry is None else entry.code


_NOBODY = Topic(ResourceName("inventory"), 9999)


def _named(code: str) -> Topic:
    return Topic(ResourceName(f"r-{code.replace('/', '-')}"), 1)


def _named_by(row: InventoryRow) -> str:
    return RESOURCE if row.resource else "code" if row.metadata.code else "title"
