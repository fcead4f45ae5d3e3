"""Overdue sources: what has to be done by a deadline and was not, read from the pool's state and not from its log.

A source tells what is late by the rules in force now. A deadline that may still move, since the working days of its
year are not known yet, accuses nobody.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

from exchange.control.catalogue.entries import due_of
from exchange.deadlines.in_force import RulesInForce
from exchange.violations.codes import ViolationCode
from exchange.violations.model import Occurrence, Sign
from registry.catalogue.life_cycle import ProcedureState
from registry.catalogue.record import CatalogueRecord
from registry.catalogue.store import RecordQuery, RecordStore
from registry.database.keyset import MAX_PAGE
from registry.database.unit_of_work import Reader
from schemas.names import Topic

__all__ = ["OverdueSource", "OverdueUpdates"]


class OverdueSource(Protocol):
    """Something that has deadlines."""

    def overdue(self, reader: Reader, rules: RulesInForce, now: datetime) -> Iterator[Occurrence]:
        """Yield what is late now; each has the same key at every call."""
        ...


class OverdueUpdates:
    """Catalogue entries whose update is late (decree 809, Art. 17).

    Args:
        records: of the catalogue's procedure.
    """

    def __init__(self, records: RecordStore) -> None:
        self._records = records

    def overdue(self, reader: Reader, rules: RulesInForce, now: datetime) -> Iterator[Occurrence]:
        """Yield the updates that are late; see `OverdueSource.overdue`."""
        after: Topic | None = None
        while True:
            query = RecordQuery(state=ProcedureState.UPDATING, after=after, limit=MAX_PAGE)
            page = self._records.page(reader, query)
            for record in page:
                if isinstance(record, CatalogueRecord):
                    yield from _late(record, rules, now)
            if len(page) < MAX_PAGE:
                return
            last = page[-1]
            after = last.topic if isinstance(last, CatalogueRecord) else Topic.parse(last.cursor)


def _late(record: CatalogueRecord, rules: RulesInForce, now: datetime) -> Iterator[Occurrence]:
    due = due_of(record, rules)
    if record.change is None or due is None or due.provisional or now < due.at:
        return
    topic = str(record.topic)
    yield Occurrence(
        code=ViolationCode.P1,
        sign=Sign.OVERDUE_UPDATE,
        respondent=record.provider,
        day=record.change.on,  # of the change: when it is due may move, and it stays one occurrence
        subject=topic,
        resource=topic,
        since=int(due.at.timestamp() * 1_000_000),
    )
