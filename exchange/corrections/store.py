"""Store of correction tickets and of the notices that follow: the port, and its adapter in memory.

The stores never begin or commit: a write joins the `UnitOfWork` that it is given, a read takes any `Reader`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from typing_extensions import override

from exchange.corrections.model import OPEN, CorrectionNotice, CorrectionTicket, TicketState, erased
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader, UnitOfWork, on_rollback
from schemas.errors import ConflictError, InvalidError, Reason
from schemas.names import Topic

__all__ = [
    "CorrectionStore",
    "DisputedRecords",
    "MemoryCorrections",
    "NoticeQuery",
    "TicketQuery",
    "acknowledged_before",
    "already_open",
    "moved_meanwhile",
    "unknown_notice",
    "unknown_ticket",
]

DisputedRecords = Mapping[Topic, Mapping[bytes, frozenset[str]]]
"""Pseudonyms of the records with open tickets by topic, and the fields of each that are disputed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketQuery:
    """Which tickets to list; None does not limit.

    Attributes:
        party: department that raised it, publishes the value, or whose answer is due.
        source: department whose answer is due.
        raiser: department that raised it.
        states: any of these.
        topic: of the value.
        record: pseudonym.
        grant: under which the value was received.
        overdue: whether it is recorded that the clock had run out.
        after: id after which the page begins.
        limit: at most so many.
    """

    party: str | None = None
    source: str | None = None
    raiser: str | None = None
    states: frozenset[TicketState] | None = None
    topic: Topic | None = None
    record: bytes | None = None
    grant: str | None = None
    overdue: bool | None = None
    after: str = ""
    limit: int = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeQuery:
    """Which notices to list; None does not limit.

    Attributes:
        consumer: department that is told.
        ticket: whose.
        acknowledged: whether they are.
        after: id after which the page begins.
        limit: at most so many.
    """

    consumer: str | None = None
    ticket: str | None = None
    acknowledged: bool | None = None
    after: str = ""
    limit: int = 1_000


class CorrectionStore(Protocol):
    """Store of tickets and notices. A row that the pool did not write is refused; none is ever deleted."""

    def add(self, work: UnitOfWork, ticket: CorrectionTicket) -> None:
        """Store a ticket that is opened.

        Raises:
            ConflictError: ALREADY_EXISTS, one is open of this grant, record and field.
        """
        ...

    def replace(self, work: UnitOfWork, ticket: CorrectionTicket, before: CorrectionTicket) -> None:
        """Store a ticket in the place of what it was before.

        Raises:
            ConflictError: VERSION_CONFLICT, it is not that any more.
            CorruptError: ROW_FORGED.
        """
        ...

    def get(self, reader: Reader, ticket_id: str) -> CorrectionTicket | None:
        """Return a ticket.

        Raises:
            CorruptError: ROW_FORGED.
        """
        ...

    def page(self, reader: Reader, query: TicketQuery) -> Sequence[CorrectionTicket | DamagedRow]:
        """Return tickets in the order of their ids, which is that of time; a row that the pool did not write is named.

        Fewer than the limit only at the end.
        """
        ...

    def count_open(self, reader: Reader, raiser: str, most: int) -> int:
        """Return how many open tickets a department has raised, counted up to *most*."""
        ...

    def disputed(self, reader: Reader) -> DisputedRecords:
        """Return the records with open tickets; rows that the pool did not write are left out, and reported."""
        ...

    def erase(self, work: UnitOfWork, topic: Topic, record: bytes) -> int:
        """Remove what tickets and notices hold of a record, and close the open ones; return how many tickets had it."""
        ...

    def add_notices(self, work: UnitOfWork, notices: Sequence[CorrectionNotice]) -> None:
        """Store notices."""
        ...

    def get_notice(self, reader: Reader, notice_id: str) -> CorrectionNotice | None:
        """Return a notice.

        Raises:
            CorruptError: ROW_FORGED.
        """
        ...

    def acknowledge(self, work: UnitOfWork, notice_id: str, *, by: str, at: datetime) -> CorrectionNotice:
        """Store that a notice was read by its consumer, once; return it.

        Raises:
            InvalidError: NOT_FOUND.
            ConflictError: TRANSITION_NOT_ALLOWED, it is acknowledged.
            CorruptError: ROW_FORGED.
        """
        ...

    def hand_over(self, work: UnitOfWork, notice_id: str, *, consumer: str) -> CorrectionNotice:
        """Store that a notice which waits is for another department, the successor of its consumer; return it.

        Raises:
            InvalidError: NOT_FOUND.
            ConflictError: TRANSITION_NOT_ALLOWED, it is acknowledged.
            CorruptError: ROW_FORGED.
        """
        ...

    def notices(self, reader: Reader, query: NoticeQuery) -> Sequence[CorrectionNotice | DamagedRow]:
        """Return notices in the order of their ids, as `page` does."""
        ...


def already_open() -> ConflictError:
    """Return the error of a second ticket for what is disputed already."""
    return ConflictError(
        Reason.ALREADY_EXISTS,
        "a ticket of your department for this record and field is open; see `pool correction list`",
    )


def moved_meanwhile() -> ConflictError:
    """Return the error of a ticket that another act has changed."""
    return ConflictError(Reason.VERSION_CONFLICT, "the ticket was changed meanwhile; read it again")


def unknown_ticket() -> InvalidError:
    """Return the error of a ticket that does not exist, or that the caller may not know of."""
    return InvalidError(Reason.NOT_FOUND, "there is no such ticket; see `pool correction list`")


def unknown_notice() -> InvalidError:
    """Return the error of a notice that does not exist, or that the caller may not know of."""
    return InvalidError(Reason.NOT_FOUND, "there is no such notice; see `pool correction notices`")


def acknowledged_before() -> ConflictError:
    """Return the error of a second acknowledgement."""
    return ConflictError(Reason.TRANSITION_NOT_ALLOWED, "the notice is acknowledged already")


class MemoryCorrections(CorrectionStore):
    """The adapter in memory, for tests."""

    def __init__(self) -> None:
        self._tickets: dict[str, CorrectionTicket] = {}
        self._notices: dict[str, CorrectionNotice] = {}

    @override
    def add(self, work: UnitOfWork, ticket: CorrectionTicket) -> None:
        same = (ticket.grant, ticket.record, ticket.field)
        if any((one.grant, one.record, one.field) == same for one in self._tickets.values() if one.state in OPEN):
            raise already_open()
        self._tickets[ticket.id] = ticket
        on_rollback(work, lambda: self._tickets.__delitem__(ticket.id))

    @override
    def replace(self, work: UnitOfWork, ticket: CorrectionTicket, before: CorrectionTicket) -> None:
        if self._tickets.get(ticket.id) != before:
            raise moved_meanwhile()
        self._tickets[ticket.id] = ticket
        on_rollback(work, lambda: self._tickets.__setitem__(ticket.id, before))

    @override
    def get(self, reader: Reader, ticket_id: str) -> CorrectionTicket | None:
        return self._tickets.get(ticket_id)

    @override
    def page(self, reader: Reader, query: TicketQuery) -> Sequence[CorrectionTicket | DamagedRow]:
        return [one for one in self._in_order() if one.id > query.after and _fits(one, query)][: query.limit]

    @override
    def count_open(self, reader: Reader, raiser: str, most: int) -> int:
        return min(sum(one.state in OPEN and one.raiser == raiser for one in self._tickets.values()), most)

    @override
    def disputed(self, reader: Reader) -> DisputedRecords:
        found: dict[Topic, dict[bytes, frozenset[str]]] = {}
        for one in self._tickets.values():
            if one.state in OPEN:
                records = found.setdefault(one.topic, {})
                records[one.record] = records.get(one.record, frozenset()) | {one.field}
        return found

    @override
    def erase(self, work: UnitOfWork, topic: Topic, record: bytes) -> int:
        tickets, notices = dict(self._tickets), dict(self._notices)
        named = {one.id for one in tickets.values() if (one.topic, one.record) == (topic, record)}
        self._tickets |= {ticket_id: erased(tickets[ticket_id]) for ticket_id in named}
        self._notices |= {one.id: replace(one, record_key=b"") for one in notices.values() if one.ticket in named}

        def undo() -> None:
            self._tickets, self._notices = tickets, notices

        on_rollback(work, undo)
        return len(named)

    @override
    def add_notices(self, work: UnitOfWork, notices: Sequence[CorrectionNotice]) -> None:
        before = dict(self._notices)
        self._notices |= {one.id: one for one in notices}

        def undo() -> None:
            self._notices = before

        on_rollback(work, undo)

    @override
    def get_notice(self, reader: Reader, notice_id: str) -> CorrectionNotice | None:
        return self._notices.get(notice_id)

    @override
    def acknowledge(self, work: UnitOfWork, notice_id: str, *, by: str, at: datetime) -> CorrectionNotice:
        return self._change_waiting(work, notice_id, acknowledged_by=by, acknowledged_at=at)

    @override
    def hand_over(self, work: UnitOfWork, notice_id: str, *, consumer: str) -> CorrectionNotice:
        return self._change_waiting(work, notice_id, consumer=consumer)

    def _change_waiting(self, work: UnitOfWork, notice_id: str, **changes: Any) -> CorrectionNotice:
        before = self._notices.get(notice_id)
        if before is None:
            raise unknown_notice()
        if before.acknowledged_at is not None:
            raise acknowledged_before()
        self._notices[notice_id] = replace(before, **changes)
        on_rollback(work, lambda: self._notices.__setitem__(notice_id, before))
        return self._notices[notice_id]

    @override
    def notices(self, reader: Reader, query: NoticeQuery) -> Sequence[CorrectionNotice | DamagedRow]:
        found = [
            one
            for _, one in sorted(self._notices.items())
            if one.id > query.after
            and query.consumer in {None, one.consumer}
            and query.ticket in {None, one.ticket}
            and query.acknowledged in {None, one.acknowledged_at is not None}
        ]
        return found[: query.limit]

    def _in_order(self) -> Iterator[CorrectionTicket]:
        return (one for _, one in sorted(self._tickets.items()))


def _fits(ticket: CorrectionTicket, query: TicketQuery) -> bool:
    return (
        (query.party is None or query.party in ticket.parties)
        and query.source in {None, ticket.source}
        and query.raiser in {None, ticket.raiser}
        and (query.states is None or ticket.state in query.states)
        and query.topic in {None, ticket.topic}
        and query.record in {None, ticket.record}
        and query.grant in {None, ticket.grant}
        and query.overdue in {None, ticket.overdue_at is not None}
    )
