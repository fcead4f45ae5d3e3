"""History and use of one grant: its versions, how much was released under it a day, and when last.

What was released a day is the counter of the quota; when, the entries of the log say. Both are for the parties of the
grant and for the pool's own roles, as the grant is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from exchange.access.grants.store import AccessStore, GrantVersion
from exchange.audit.search.entry_rows import iso_time
from exchange.audit.store import EntryQuery, EntryStore
from exchange.authorization.enforcement import AuditedAct
from exchange.authorization.request_context import RequestContext
from exchange.control.grants.reads import GrantReads
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import UnitOfWork
from schemas.access import Action, Actor
from schemas.canonical import Json

__all__ = ["GrantUse"]

_DAYS: Final = 31
_RELEASES: Final = 1_000  # entries that are looked at
_MICROSECONDS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantUse:
    """Audited reads of one grant's history and use.

    Attributes:
        grants: decides who may read a grant.
        access: versions and counters.
        entries: of the log.
        clock: microseconds UTC.
    """

    grants: GrantReads
    access: AccessStore
    entries: EntryStore
    clock: Callable[[], int]

    def versions(
        self, actor: Actor, call: RequestContext, grant_id: str, *, after: int = 0, limit: int
    ) -> Sequence[GrantVersion | DamagedRow]:
        """Return versions of a grant after a number, oldest first; one that the pool did not write is named.

        Raises:
            RefusedError: the actor may not see the grant; GRANT_FORGED.
        """

        def read(work: UnitOfWork, act: AuditedAct) -> Sequence[GrantVersion | DamagedRow]:
            del act
            return self.access.versions_page(work, grant_id, after=after, limit=limit)

        return self.grants.reading(actor, call, grant_id, read)

    def use(self, actor: Actor, call: RequestContext, grant_id: str) -> dict[str, Json]:
        """Return how often and how much was released under a grant in the last 31 days, and when last.

        `days`: records of each day of UTC+8 on which something was released, newest first; `releases`: number of
        releases; `more`: true where there are more than the 1,000 that are counted; `last`: time, records and entry
        of the last release, also if it was before, null if there was none.

        Raises:
            RefusedError: the actor may not see the grant; GRANT_FORGED.
        """

        def read(work: UnitOfWork, act: AuditedAct) -> Sequence[tuple[str, int]]:
            del act
            days = self.access.released_days(work, grant_id, limit=_DAYS)
            return [(day.isoformat(), records) for day, records in days]

        days = self.grants.reading(actor, call, grant_id, read)
        query = EntryQuery(grant=grant_id, action=Action.FETCH, decision="allow", limit=_RELEASES)
        # A damaged row says nothing of a release; a search of the log names it.
        found = [entry for one in self.entries.find(query) if (entry := one.entry()) is not None]
        since = self.clock() - int(timedelta(days=_DAYS).total_seconds()) * _MICROSECONDS
        released = [one for one in found if _count(one)]
        recent = [one for one in released if one["at"] >= since]
        last = released[0] if released else None
        return {
            "grant": grant_id,
            "days": [{"day": day, "records": records} for day, records in days],
            "releases": len(recent),
            "more": len(found) == _RELEASES and found[-1]["at"] >= since,
            "last": last and {"at": iso_time(last["at"]), "records": _count(last), "entry": last["id"]},
        }


def _count(entry: dict[str, Any]) -> int:
    """Return the records that an entry of a fetch released; 0 for one that failed."""
    data = entry.get("data") or {}
    return 0 if "failed" in data else int(data.get("count", 0))
