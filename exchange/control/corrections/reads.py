"""Reads of corrections: lists and single tickets, notices, and whether a record is disputed under a grant.

A department sees the tickets that it raised, whose value it publishes, or whose answer is due from it, and the notices
that it was given. The pool's own roles see all. Neither has a value of the record.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from exchange.access.decision.roles import decide_control
from exchange.access.grants.store import AccessStore
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Authorized, Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.corrections.clock import TicketDue, due_of
from exchange.control.corrections.records import CorrectionRecords
from exchange.control.grants.reads import read_grant
from exchange.corrections.model import CorrectionNotice, shows
from exchange.corrections.store import CorrectionStore, NoticeQuery, TicketQuery, unknown_notice, unknown_ticket
from exchange.deadlines.clock import DueState
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import MAX_PAGE, collect
from registry.database.unit_of_work import Database
from schemas.access import Action, Actor, Allow, Deny
from schemas.errors import Reason

__all__ = ["CorrectionReads", "ShownTicket"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTicket:
    """One ticket with its clock, and how many of those that were told have acknowledged it."""

    told: TicketDue
    acknowledged: int


class CorrectionReads:
    """Audited reads of tickets and notices."""

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        access: AccessStore,
        store: CorrectionStore,
        records: CorrectionRecords,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._access = access
        self._store = store
        self._records = records
        self._now = now

    def list(
        self, actor: Actor, call: RequestContext, query: TicketQuery, *, due: DueState | None = None
    ) -> Sequence[TicketDue | DamagedRow]:
        """List the tickets that the actor may see, oldest first; a damaged row is named.

        Args:
            actor: who asks.
            call: its context.
            query: which; a department's is limited to its own.
            due: only those whose answer is so near.

        Raises:
            RefusedError: the actor may see none.
        """
        authorized = self._admit(actor, call)
        if actor.department:
            query = replace(query, party=actor.department)

        def read(after: str, limit: int) -> Sequence[TicketDue | DamagedRow]:
            with self._database.read() as reader:
                found = self._store.page(reader, replace(query, after=after, limit=limit))
                rules, now = self._attributes.rules(reader), self._now()
            return [one if isinstance(one, DamagedRow) else due_of(one, rules, now) for one in found]

        def keep(rows: Sequence[TicketDue | DamagedRow]) -> Sequence[TicketDue | DamagedRow]:
            return [one for one in rows if due is None or isinstance(one, DamagedRow) or one.state is due]

        found = collect(read, keep, cursor_of, after=query.after, limit=query.limit)
        self._enforcer.record_read(authorized, {})
        return found

    def show(self, actor: Actor, call: RequestContext, ticket_id: str) -> ShownTicket:
        """Return one ticket.

        Raises:
            RefusedError: the actor may not; NOT_FOUND, there is none that it may see.
            CorruptError: ROW_FORGED.
        """
        with self._database.read() as reader:
            ticket = self._store.get(reader, ticket_id)
        decision = self._decide(actor)
        if isinstance(decision, Allow) and (
            ticket is None or (actor.department and actor.department not in ticket.parties)
        ):
            decision = Deny(Reason.NOT_FOUND, unknown_ticket().message)
        resource = str(ticket.topic) if ticket is not None and isinstance(decision, Allow) else ""
        with self._enforcer.act(actor, Action.CORRECTION_READ, resource, call, decision) as (work, act):
            current = self._store.get(work, ticket_id)
            if current is None:
                raise unknown_ticket()
            act.note(ticket=ticket_id)
            given = self._store.notices(work, NoticeQuery(ticket=ticket_id, acknowledged=True, limit=MAX_PAGE))
            told = due_of(current, self._attributes.rules(work), self._now())
        return ShownTicket(told=told, acknowledged=len(given))

    def notices(
        self, actor: Actor, call: RequestContext, query: NoticeQuery
    ) -> Sequence[CorrectionNotice | DamagedRow]:
        """List the notices that the actor's department was given, or all; a damaged row is named.

        Raises:
            RefusedError: the actor may see none.
        """
        authorized = self._admit(actor, call)
        if actor.department:
            query = replace(query, consumer=actor.department)
        with self._database.read() as reader:
            found = self._store.notices(reader, query)
        self._enforcer.record_read(authorized, {})
        return found

    def notice(self, actor: Actor, call: RequestContext, notice_id: str) -> CorrectionNotice:
        """Return one notice.

        Raises:
            RefusedError: the actor may not; NOT_FOUND, there is none that it may see.
            CorruptError: ROW_FORGED.
        """
        with self._database.read() as reader:
            notice = self._store.get_notice(reader, notice_id)
        decision = self._decide(actor)
        if isinstance(decision, Allow) and (notice is None or actor.department not in {"", notice.consumer}):
            decision = Deny(Reason.NOT_FOUND, unknown_notice().message)
        self._enforcer.record_read(self._enforcer.admit(actor, Action.CORRECTION_READ, "*", call, decision), {})
        assert notice is not None  # noqa: S101 - an unknown one is a denial
        return notice

    def disputed(self, actor: Actor, call: RequestContext, grant_id: str, record_key: bytes) -> tuple[str, ...]:
        """Return the fields of a record that are disputed now, of those that a grant of the actor's department shows.

        Raises:
            RefusedError: the actor may not, or the grant is unknown or another department's.
        """
        grant, proven = read_grant(self._database, self._access, grant_id)
        standing = self._attributes.standing(actor)
        decision = decide_control(actor, Action.GRANT_READ, standing=standing, grant=grant, proven=proven)
        if isinstance(decision, Allow) and (grant is None or actor.department not in {"", grant.consumer}):
            decision = Deny(Reason.GRANT_OTHER_CONSUMER, "the grant is another department's than yours")
        resource = str(grant.topic) if grant is not None else ""
        self._enforcer.record_read(self._enforcer.admit(actor, Action.GRANT_READ, resource, call, decision), {})
        assert grant is not None  # noqa: S101 - an unknown one is a denial
        with self._database.read() as reader:
            records = self._store.disputed(reader).get(grant.topic, {})
        fields = next(
            (
                of
                for record, of in records.items()
                if self._records.record_key(grant.record_key_id, record) == record_key
            ),
            frozenset[str](),
        )
        return tuple(sorted(field for field in fields if shows(grant, field)))

    def _admit(self, actor: Actor, call: RequestContext) -> Authorized:
        return self._enforcer.admit(actor, Action.CORRECTION_READ, "*", call, self._decide(actor))

    def _decide(self, actor: Actor) -> Allow | Deny:
        return decide_control(
            actor,
            Action.CORRECTION_READ,
            standing=self._attributes.standing(actor),
            department=actor.department or None,
        )


def cursor_of(one: TicketDue | DamagedRow) -> str:
    """Return the cursor of a list behind a ticket."""
    return one.cursor if isinstance(one, DamagedRow) else one.ticket.id
