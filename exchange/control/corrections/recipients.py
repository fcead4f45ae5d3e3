"""Recipients of an old value: the grants whose releases delivered a doubted version, computed from the log's entries.

    versions    of the record, from the doubted one up to the correct one
    grants      of the topic, ended ones too
    releases    entries of each that delivered one of these versions: an entry states the positions exactly
    fields      of the version of the grant under which the release was made

A withdrawal tells no value, so it does not count. A row of the log that is damaged says nothing of a release.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from exchange.access.grants.store import AccessStore, GrantQuery
from exchange.audit.store import EntryQuery, EntryStore
from exchange.control.corrections.records import CorrectionRecords, Version
from exchange.corrections.model import CorrectionTicket, shows
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import MAX_PAGE
from registry.database.unit_of_work import Database, Reader
from schemas.access import Action, Grant
from schemas.offsets import meant

__all__ = ["Recipient", "Recipients"]

_PAGE = 500  # entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """A consumer that received the old value.

    Attributes:
        grant: under which.
        key_id: of the grant whose secret makes its record keys.
        consumer: internal id of the department.
        release: id of the entry of a release that delivered it, the newest one.
    """

    grant: str
    key_id: str
    consumer: str
    release: str


class Recipients:
    """Computes who received an old value.

    Args:
        database: opens readers.
        access: the grants.
        entries: of the log.
        records: of the pool.
    """

    def __init__(
        self, database: Database, access: AccessStore, entries: EntryStore, records: CorrectionRecords
    ) -> None:
        self._database = database
        self._access = access
        self._entries = entries
        self._records = records

    def of(self, ticket: CorrectionTicket) -> Sequence[Recipient]:
        """Return who received a doubted version of a ticket's value, by grant.

        Raises:
            UnavailableError: database or broker do not answer.
        """
        end = ticket.correction
        versions = [
            one
            for one in self._records.versions(ticket, limited=False)
            if one.value is not None and (end is None or one.place < end)
        ]
        if not versions:
            return []
        return [found for grant in self._grants(ticket) if (found := self._received(grant, ticket, versions))]

    def _grants(self, ticket: CorrectionTicket) -> Iterator[Grant]:
        query = GrantQuery(topic=ticket.topic, limit=MAX_PAGE)
        while True:
            with self._database.read() as reader:
                page = self._access.page(reader, query)
            for one in page:
                if not isinstance(one, DamagedRow):
                    yield one
                    continue
                with self._database.read() as reader:  # who damages the row of a grant keeps nobody from being told
                    proven = self._proven(reader, one.cursor)
                if proven is not None:
                    yield proven
            if len(page) < query.limit:
                return
            last = page[-1]
            query = replace(query, after=last.cursor if isinstance(last, DamagedRow) else last.id)

    def _proven(self, reader: Reader, grant_id: str) -> Grant | None:
        versions = self._access.versions_page(reader, grant_id, after=0, limit=MAX_PAGE)
        proven = [one.grant for one in versions if not isinstance(one, DamagedRow)]
        return proven[-1] if proven else None

    def _received(self, grant: Grant, ticket: CorrectionTicket, versions: Sequence[Version]) -> Recipient | None:
        if grant.approved_at is None:
            return None
        shown: Mapping[int, bool] | None = None
        positions = {(one.place.generation, one.place.position) for one in versions}
        query = EntryQuery(
            grant=grant.id,
            action=Action.FETCH,
            decision="allow",
            since=min(one.recorded_at for one in versions),
            limit=_PAGE,
        )
        while True:
            found = self._entries.find(query)
            for leaf in found:
                entry = leaf.entry()
                if entry is None or not _delivers(entry.get("data"), ticket.place.partition, positions):
                    continue
                if shown is None:
                    shown = self._shown(grant.id, ticket.field)
                if shown.get(entry["grant"]["version"], False):
                    return Recipient(
                        grant=grant.id, key_id=grant.record_key_id, consumer=grant.consumer, release=entry["id"]
                    )
            if len(found) < _PAGE:
                return None
            query = replace(query, after=found[-1].place)

    def _shown(self, grant_id: str, field: str) -> Mapping[int, bool]:
        """Return, of each version of a grant, whether it shows a field."""
        with self._database.read() as reader:
            versions = self._access.versions_page(reader, grant_id, after=0, limit=MAX_PAGE)
        return {one.grant.version: shows(one.grant, field) for one in versions if not isinstance(one, DamagedRow)}


def _delivers(data: Any, partition: int, positions: set[tuple[int, int]]) -> bool:
    """Return whether an entry of a release delivered one of these (generation, position) of a partition."""
    if not isinstance(data, Mapping) or "delivered" not in data:
        return False
    start, end = tuple(data["from"]), tuple(data["to"])
    wanted = {position for generation, position in positions if generation == data["generation"]}
    return any(meant(start, end, data["delivered"], partition, position) for position in wanted)
