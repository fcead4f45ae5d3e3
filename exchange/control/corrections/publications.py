"""Publications of correct records: the entry of the log by which a version came into the pool."""

from exchange.audit.store import EntryQuery, EntryStore
from exchange.control.corrections.records import Version
from exchange.corrections.model import CorrectionTicket
from schemas.access import Action

__all__ = ["Publications"]

_AROUND = 600_000_000  # microseconds: an entry is written right after its records, or by a sweeper
_LOOKED_AT = 1_000  # entries


class Publications:
    """Finds the entry of a version's publication.

    Args:
        entries: of the log.
    """

    def __init__(self, entries: EntryStore) -> None:
        self._entries = entries

    def entry_of(self, ticket: CorrectionTicket, version: Version) -> str:
        """Return the id of the entry; empty where it is not written yet, or not near the record's time."""
        query = EntryQuery(
            resource=str(ticket.topic),
            action=Action.PUBLISH,
            decision="allow",
            since=version.recorded_at - _AROUND,
            until=version.recorded_at + _AROUND,
            limit=_LOOKED_AT,
        )
        place = version.place
        for leaf in self._entries.find(query):
            entry = leaf.entry() or {}
            runs = (entry.get("data") or {}).get("runs", ())
            if any(number == place.partition and first <= place.position <= last for number, first, last in runs):
                return str(entry["id"])
        return ""
