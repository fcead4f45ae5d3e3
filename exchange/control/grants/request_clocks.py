"""Clocks of requests: the pool's own timer records what has run out. Silence is never consent.

A reply or a delivery that is late is an entry and a violation in the request's history (decree 809, Art. 39(4)), and
changes nothing else; a supplement that does not come lets its request lapse. Who let a clock run out is told by the
request's list (`due`), before and after.
"""

import structlog

from exchange.access.decision.grant_rules import Event
from exchange.access.grants.store import AccessStore, GrantQuery
from exchange.authorization.attributes import AttributeProvider
from exchange.control.grants.service import GrantService
from exchange.control.requests.due_dates import due_of
from exchange.control.requests.stored import StoredRequests
from exchange.requests.rules import Clock
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Database, Reader
from schemas.access import Grant, GrantState
from schemas.errors import ConflictError, CorruptError, PoolError, UnavailableError

__all__ = ["RequestClocks"]

_log = structlog.get_logger()
_RUNNING = frozenset({GrantState.SUBMITTED, GrantState.SUPPLEMENT, GrantState.COUNTERSIGNED, GrantState.APPROVED})


class RequestClocks:
    """The timer of requests.

    Args:
        database: opens readers.
        access: the grants.
        requests: the stored requests.
        attributes: the time, and the rules in force.
        grants: carries the events out.
    """

    def __init__(
        self,
        *,
        database: Database,
        access: AccessStore,
        requests: StoredRequests,
        attributes: AttributeProvider,
        grants: GrantService,
    ) -> None:
        self._database = database
        self._access = access
        self._requests = requests
        self._attributes = attributes
        self._grants = grants

    def run(self) -> int:
        """Record every clock that has run out and is not recorded yet; return their number.

        A request that cannot be changed does not stop the others; the reason is logged.

        Raises:
            UnavailableError: the database cannot list them.
            CorruptError: ROW_FORGED, a row of the rules: nothing is late by rules that nobody confirmed.
        """
        recorded, query = 0, GrantQuery(states=_RUNNING)
        while True:
            with self._database.read() as reader:
                page = self._access.page(reader, query)
                due = self._due(reader, [one for one in page if isinstance(one, Grant)])
            for grant_id, event in due:
                try:
                    self._grants.run_out(grant_id, event)
                except ConflictError:
                    continue  # another process was faster, or somebody has replied
                except UnavailableError:
                    raise
                except PoolError as error:
                    _log.warning("clock_failed", grant=grant_id, reason=error.reason)
                else:
                    recorded += 1
            if len(page) < query.limit:
                return recorded
            last = page[-1]
            query = GrantQuery(states=_RUNNING, after=last.cursor if isinstance(last, DamagedRow) else last.id)

    def _due(self, reader: Reader, grants: list[Grant]) -> list[tuple[str, Event]]:
        """Return which of these have an event of a clock to be recorded, and which one."""
        if not grants:
            return []
        now, rules = self._attributes.now(reader), self._attributes.rules(reader)
        known = self._requests.some(reader, grants)
        found: list[tuple[str, Event]] = []
        for grant in grants:
            request = known[grant.id]
            if isinstance(request, DamagedRow):
                _log.warning("clock_failed", grant=grant.id, reason=CorruptError.__name__)
                continue
            if grant.state is GrantState.APPROVED and now >= grant.expires:
                found.append((grant.id, Event.EXPIRE))
                continue
            running = due_of(request, rules)
            if running is None:
                continue
            clock, deadline = running
            if now >= deadline.at and clock.value not in request.overdue:
                found.append((grant.id, Event.LAPSE if clock is Clock.SUPPLEMENT else Event.OVERDUE))
        return found
