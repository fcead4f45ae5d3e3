"""Detection of violations: reads the log behind its index, and what is overdue, and opens a case for each occurrence.

It runs in the sweeper's turns, beside the record path and never in it. The position in the log is stored, so that a
process goes on where another one was; it rises only when every case of the entries before it is stored. What is
read twice makes no second case.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog

from exchange.access.decision.roles import decide_control
from exchange.audit.store import EntryStore, TailQuery
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.violations.overdue import OverdueSource
from exchange.violations.life_cycle import opened
from exchange.violations.model import Occurrence
from exchange.violations.signs import ACTIONS, REASONS, occurrences_in
from exchange.violations.store import ViolationStore
from registry.database.unit_of_work import Database, Reader
from schemas.access import Action, Actor, ActorKind, Role
from schemas.errors import ConflictError

__all__ = ["ViolationDetector"]

_log = structlog.get_logger()
_TIMER: Final = Actor(kind=ActorKind.MACHINE, id="timer", department="", role=Role.OPERATOR)
_SPAN: Final = 20_000  # entries that one turn looks at
_OVERDUE_EVERY: Final = 30  # turns


class ViolationDetector:
    """Opens cases.

    Args:
        database: opens readers and transactions.
        enforcer: records each case.
        attributes: the database's time, and the rules in force.
        store: the cases.
        entries: the log.
        provider_of: returns the department that provides a topic; None where there is none.
        overdue: what has deadlines.
        new_id: for a case.
    """

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        store: ViolationStore,
        entries: EntryStore,
        provider_of: Callable[[Reader, str], str | None],
        overdue: Sequence[OverdueSource],
        new_id: Callable[[], str],
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._store = store
        self._entries = entries
        self._provider_of = provider_of
        self._overdue = overdue
        self._new_id = new_id
        self._turns = 0

    def step(self) -> int:
        """Read what has come since the last turn, and every few minutes what is overdue; return how many cases it made.

        Raises:
            UnavailableError: the database or the log does not answer, or too many entries were written in this minute;
                the next turn goes on.
        """
        made = self.read_log()
        if self._turns % _OVERDUE_EVERY == 0:
            made += self.read_deadlines()
        self._turns += 1
        return made

    def read_log(self) -> int:
        """Read the next entries of the log; return how many cases they made.

        Raises:
            UnavailableError: as `step`.
        """
        with self._database.read() as reader:
            start = self._store.position(reader)
        tail = self._entries.tail(TailQuery(start=start, span=_SPAN, reasons=REASONS, actions=ACTIONS))
        if tail.end < start:  # a pool that was restored without its log has begun another one
            with self._database.begin() as work:
                self._store.restart(work)
            return 0
        if tail.end == start:
            return 0
        # A damaged row says nothing; the verification of the log names it.
        entries = [entry for leaf in tail.leaves if (entry := leaf.entry()) is not None]
        with self._database.read() as reader:
            topics = {one.get("resource", "") for one in entries}
            provider_of = {topic: self._provider_of(reader, topic) for topic in sorted(topics)}
        made = self._open(one for entry in entries for one in occurrences_in(entry, provider_of.get))
        with self._database.begin() as work:
            self._store.move(work, tail.end)
        return made

    def read_deadlines(self) -> int:
        """Look for what is overdue now; return how many cases it made.

        Raises:
            UnavailableError: as `step`.
        """
        with self._database.read() as reader:
            now, rules = self._attributes.now(reader), self._attributes.rules(reader)
            found = [one for source in self._overdue for one in source.overdue(reader, rules, now)]
        return self._open(found)

    def _open(self, occurrences: Iterable[Occurrence]) -> int:
        by_key = {one.key: one for one in reversed([*occurrences])}  # of each key the first
        with self._database.read() as reader:
            known = self._store.known(reader, sorted(by_key))
        made = 0
        for key, occurrence in reversed(by_key.items()):
            if key in known:
                continue
            try:
                self._open_one(occurrence)
            except ConflictError:
                continue  # another gateway was faster
            made += 1
        return made

    def _open_one(self, occurrence: Occurrence) -> None:
        standing = self._attributes.standing(_TIMER)
        decision = decide_control(_TIMER, Action.VIOLATION_DETECT, standing=standing)
        call = RequestContext(trace="0" * 32, client="timer")
        with self._enforcer.act(_TIMER, Action.VIOLATION_DETECT, occurrence.respondent, call, decision) as (work, act):
            case = opened(occurrence, case_id=self._new_id(), by=_TIMER.id, at=self._attributes.now(work))
            self._store.add(work, case)
            act.note(
                case=case.id,
                code=str(occurrence.code),
                sign=str(occurrence.sign),
                day=occurrence.day.isoformat(),
                subject=occurrence.subject,
                evidence=occurrence.entry,
            )
        _log.info("violation_detected", case=case.id, code=occurrence.code, sign=occurrence.sign)
