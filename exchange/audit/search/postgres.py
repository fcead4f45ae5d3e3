"""Search of the log in PostgreSQL: queries by index ranges with keyset pagination, and the columns that they use.

Each branch of a query is one index range with its own LIMIT. A filter that finds little must not walk the log: with
`OR` or `= ANY`, a department with few entries, or an act that never happened, would cost a look at every entry. So
there are indexes for acts of control and for denials, which are a few per cent of the log, and one for each column
that a search may state alone (`exchange.audit.tables`).

A page ends with the place of its last entry, and the next page begins behind it. An offset would read all pages before.
"""

import json
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc
from sqlalchemy.dialects import postgresql as pg

from exchange.audit.search.authenticity import EntryAuthenticity
from exchange.audit.store import RESOURCE_SCOPES, EntryParty, EntryPlace, EntryQuery, StoredLeaf, Tail, TailQuery
from exchange.audit.tables import DENIED, OF_CONTROL, RECORD_ACTS, audit_entry
from registry.database.errors import unavailable
from schemas.audit import Decision
from schemas.errors import Reason, UnavailableError

__all__ = ["fill_search_columns", "find_entries", "find_tail", "select_entries", "uuid_text"]

_FOUND = (
    audit_entry.c.leaf_index,
    audit_entry.c.leaf,
    audit_entry.c.leaf_hash,
    audit_entry.c.at,
    audit_entry.c.seq,
    audit_entry.c.tag,
)
_FEW = 10  # part of a page that each branch of a department's search gives at first
_BATCH = 2_000  # entries that get their columns in one transaction
_NO_BITMAP = sa.text("SET LOCAL enable_bitmapscan = off")
_UNFILLED = sa.text("SELECT EXISTS (SELECT FROM audit_entry WHERE actor IS NULL)")
_LAST_INDEX = sa.text(
    "SELECT leaf_index FROM audit_entry WHERE leaf_index IS NOT NULL ORDER BY leaf_index DESC LIMIT 1"
)
_NEXT = sa.text("SELECT seq, leaf FROM audit_entry WHERE actor IS NULL ORDER BY seq LIMIT :limit")
_FILL = sa.text("""
UPDATE audit_entry AS e SET actor = new.actor, reason = new.reason
FROM unnest(CAST(:seqs AS bigint[]), CAST(:actors AS text[]), CAST(:reasons AS text[])) AS new (seq, actor, reason)
WHERE e.seq = new.seq
""")


def uuid_text(text: str) -> str | None:
    """Return a UUID in its usual form; None for other text, which no row can have as its id."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


def find_entries(
    engine: sa.Engine, query: EntryQuery, authenticity: EntryAuthenticity | None = None
) -> list[StoredLeaf]:
    """Return the leaves that match, newest first (`EntryStore.find`), each judged where *authenticity* is given."""
    if query.entry is not None and uuid_text(query.entry) is None:
        return []
    try:
        with engine.connect() as connection:
            if (query.actor is not None or query.reason is not None) and connection.execute(_UNFILLED).scalar_one():
                raise _not_filled()
            if query.party is not None:
                # A branch of a resource with many entries must read its newest ones, not sort all of them: the planner
                # knows the average resource alone.
                connection.execute(_NO_BITMAP)
            rows = connection.execute(select_entries(query)).all()
            genuine = [True] * len(rows) if authenticity is None else authenticity.judge(connection, rows)
    except sa_exc.SQLAlchemyError as error:
        raise unavailable(error) from error
    return _leaves(rows, genuine)


def _leaves(rows: Sequence[Any], genuine: Sequence[bool]) -> list[StoredLeaf]:
    return [
        StoredLeaf(
            index=row[0], leaf=bytes(row[1]), leaf_hash=bytes(row[2]), place=EntryPlace(row[3], row[4]), genuine=ours
        )
        for row, ours in zip(rows, genuine, strict=True)
    ]


def find_tail(engine: sa.Engine, query: TailQuery, authenticity: EntryAuthenticity) -> Tail:
    """Return the placed entries that match, in the order of the log (`EntryStore.tail`)."""
    table = audit_entry.c
    try:
        with engine.connect() as connection:
            last = connection.execute(_LAST_INDEX).scalar_one_or_none()
            end = min(query.start + query.span, 0 if last is None else last + 1)
            if end <= query.start:
                return Tail(leaves=[], end=end)
            wanted = sa.or_(
                sa.and_(table.decision == Decision.DENY, table.reason.in_(sorted(query.reasons))),
                table.action.in_(sorted(query.actions)),
            )
            statement = sa.select(*_FOUND).where(table.leaf_index >= query.start, table.leaf_index < end, wanted)
            rows = connection.execute(statement.order_by(table.leaf_index)).all()
            genuine = authenticity.judge(connection, rows)
    except sa_exc.SQLAlchemyError as error:
        raise unavailable(error) from error
    return Tail(leaves=_leaves(rows, genuine), end=end)


def select_entries(query: EntryQuery) -> "sa.Select[Any]":
    """Return the statement of a search."""
    if query.party is not None:
        return _of_party(query, query.party)
    return _newest(_matching(query), query.limit)


def fill_search_columns(engine: sa.Engine, progress: Callable[[int], None] = lambda _: None) -> int:
    """Fill the columns `actor` and `reason` of entries of an earlier version from their leaves; return their number.

    In short transactions: the pool may run meanwhile, and a repetition goes on where it was interrupted.

    Raises:
        UnavailableError: DATABASE_UNAVAILABLE.
    """
    done = 0
    try:
        while True:
            with engine.begin() as connection:
                rows = connection.execute(_NEXT, {"limit": _BATCH}).all()
                if not rows:
                    return done
                actors, reasons = zip(*(_columns(bytes(leaf)) for _, leaf in rows), strict=True)
                values = {"seqs": [seq for seq, _ in rows], "actors": [*actors], "reasons": [*reasons]}
                connection.execute(_FILL, values)
            done += len(rows)
            progress(done)
    except sa_exc.SQLAlchemyError as error:
        raise unavailable(error) from error


def _columns(leaf: bytes) -> tuple[str, str]:
    """Return actor and reason of a leaf; empty where the bytes are no entry, which verification reports."""
    try:
        entry = json.loads(leaf)
        actor, reason = (entry.get("actor") or {}).get("id", ""), entry.get("reason", "")
        f"{actor}{reason}".encode()
    except (ValueError, AttributeError, RecursionError):
        return "", ""
    found = (actor, reason)
    return found if all(isinstance(one, str) and "\0" not in one for one in found) else ("", "")


def _not_filled() -> UnavailableError:
    return UnavailableError(
        Reason.LOG_BEHIND,
        "entries of an earlier version have no actor and reason to search by; the operator runs `pool audit reindex`",
    )


def _matching(query: EntryQuery, columns: "Sequence[sa.ColumnElement[Any]]" = _FOUND) -> "sa.Select[Any]":
    """Return the select of the entries that a query asks for, before it is limited to what the caller may see."""
    table = audit_entry.c
    statement: sa.Select[Any] = sa.select(*columns).where(~table.refused)
    equal: list[tuple[sa.ColumnElement[Any], str | None]] = [
        (table.actor_department, query.department),
        (table.actor, query.actor),
        (table.resource, query.resource),
        (table.purpose, query.purpose),
        (table.case_number, query.case),
        (table.grant_id, query.grant),
        (table.action, query.action),
        (table.decision, query.decision),
        (table.reason, query.reason),
        (table.id, None if query.entry is None else uuid_text(query.entry)),
    ]
    for column, value in equal:
        if value is not None:
            statement = statement.where(column == value)
    # Stated as the indexes state it, so that the planner knows that they hold all that is asked for.
    if query.action is not None and query.action not in RECORD_ACTS:
        statement = statement.where(sa.text(f"audit_entry.{OF_CONTROL}"))
    if query.reason and query.decision is None:
        statement = statement.where(sa.text(f"audit_entry.{DENIED}"))
    if query.since is not None:
        statement = statement.where(table.at >= query.since)
    if query.until is not None:
        statement = statement.where(table.at < query.until)
    if query.after is not None:
        at, row = query.after.at, query.after.row
        statement = statement.where(table.at <= at, sa.or_(table.at < at, table.seq < row))
    return statement


def _newest(statement: "sa.Select[Any]", limit: int) -> "sa.Select[Any]":
    return statement.order_by(audit_entry.c.at.desc(), audit_entry.c.seq.desc()).limit(limit)


def _of_party(query: EntryQuery, party: EntryParty) -> "sa.Select[Any]":
    """Return the select of a department's entries: by its actors, and, index range by index range, of its resources.

    A page of each branch would be read to show one page of all. So each branch first gives a few of its entries; the
    time of the last that a page of those would show is a bound, and only what is not older is read then.
    """
    resources = sorted(party.resources if query.resource is None else party.resources & {query.resource})
    first = _branches(query, party, resources, max(1, query.limit // _FEW), None).subquery("first")
    bound = sa.select(first.c.at).order_by(first.c.at.desc()).offset(query.limit - 1).limit(1).scalar_subquery()
    keys = _branches(query, party, resources, query.limit, sa.func.coalesce(bound, 0)).subquery("keys")
    found = sa.select(keys).order_by(keys.c.at.desc(), keys.c.seq.desc()).limit(query.limit).subquery()
    # As a lateral look-up, since a join could be planned as a walk through the log beside the keys.
    row = sa.select(*_FOUND).where(audit_entry.c.seq == found.c.seq).limit(1).lateral()
    return sa.select(row).select_from(found.join(row, sa.true())).order_by(found.c.at.desc(), found.c.seq.desc())


def _branches(
    query: EntryQuery, party: EntryParty, resources: Sequence[str], limit: int, bound: "sa.ColumnElement[int] | None"
) -> "sa.CompoundSelect[Any]":
    """Return the union of the branches' newest keys, so many of each, none older than the bound."""
    key = (audit_entry.c.at, audit_entry.c.seq)  # what is sorted must be narrow
    matching = _matching(query, key)
    if bound is not None:
        matching = matching.where(audit_entry.c.at >= bound)
    by_actor = _newest(matching.where(audit_entry.c.actor_department == party.department), limit)
    parts: list[sa.Select[Any]] = [sa.select(by_actor.subquery())]
    if resources:
        owned = sa.func.unnest(sa.cast(resources, pg.ARRAY(sa.Text))).table_valued("name").render_derived(name="owned")
        about = sa.or_(*(audit_entry.c.action.startswith(scope, autoescape=True) for scope in RESOURCE_SCOPES))
        each = _newest(matching.where(audit_entry.c.resource == owned.c.name, about), limit).lateral()
        parts.append(sa.select(each).select_from(owned.join(each, sa.true())))
    return sa.union(*parts)
