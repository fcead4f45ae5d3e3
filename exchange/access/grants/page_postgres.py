"""Pages of the list of grants in PostgreSQL: keyset pagination, each branch one index range with its own LIMIT.

A department is the consumer of some grants and the provider of others, and a list asks for several states. With `OR` or
`= ANY`, a department with few grants would cost a walk through all. So each side and each state is a branch; the
branches carry keys alone, and the page's rows are read at the end.
"""

from datetime import datetime
from itertools import product
from typing import Any

import sqlalchemy as sa

from exchange.access.grants.store import GrantOrder, GrantQuery
from schemas.access import GrantState
from schemas.errors import InvalidError, Reason

__all__ = ["select_counts", "select_page"]

_FIRST_YEAR, _LAST_YEAR = 1, 9999  # a time of a zone in one of these may be out of the range of times in UTC


def select_page(grant: sa.Table, query: GrantQuery) -> "sa.Select[Any]":
    """Return the statement of a page: id, text, hash, seal and expires, in the order of the query.

    Raises:
        InvalidError: REQUEST_INVALID, for a cursor of another form.
    """
    sides: list[sa.ColumnElement[bool] | None] = [None]
    if query.party is not None:
        sides = [grant.c.consumer == query.party, grant.c.provider == query.party]
    states = [None] if query.states is None else sorted(state.value for state in query.states)
    branches = []
    for side, state in product(sides, states):
        branch = _matching(grant, query)
        if side is not None:
            branch = branch.where(side)
        if state is not None:
            branch = branch.where(grant.c.state == state)
        branches.append(sa.select(branch.order_by(*_order(grant.c, query)).limit(query.limit).subquery()))
    keys = (branches[0] if len(branches) == 1 else sa.union(*branches)).subquery("keys")
    found = sa.select(keys).order_by(*_order(keys.c, query)).limit(query.limit).subquery("found")
    # As a lateral look-up, since a join could be planned as a walk through all grants beside the keys.
    columns = (grant.c.id, grant.c.text, grant.c.hash, grant.c.seal, grant.c.expires)
    row = sa.select(*columns).where(grant.c.id == found.c.id).limit(1).lateral("stored")
    return sa.select(row).select_from(found.join(row, sa.true())).order_by(*_order(found.c, query))


def select_counts(grant: sa.Table, party: str | None, most: int) -> "sa.CompoundSelect[Any]":
    """Return the statement that counts grants by state, `state` and `found`: each side of each state up to *most*."""
    sides: list[list[sa.ColumnElement[bool]]] = [[]]
    if party is not None:
        sides = [[grant.c.consumer == party], [grant.c.provider == party, grant.c.consumer != party]]
    counts = []
    for state in GrantState:
        found: sa.ColumnElement[int] = sa.literal(0)
        for side in sides:
            some = sa.select(grant.c.state).where(grant.c.state == state.value, *side).limit(most).subquery()
            found += sa.select(sa.func.count()).select_from(some).scalar_subquery()
        counts.append(sa.select(sa.literal(state.value).label("state"), found.label("found")))
    return sa.union_all(*counts)


def _matching(grant: sa.Table, query: GrantQuery) -> "sa.Select[Any]":
    statement = sa.select(grant.c.id, grant.c.expires)
    for column, value in (
        (grant.c.consumer, query.consumer),
        (grant.c.provider, query.provider),
        (grant.c.topic, None if query.topic is None else str(query.topic)),
    ):
        if value is not None:
            statement = statement.where(column == value)
    if query.resource is not None:
        statement = statement.where(grant.c.topic.startswith(f"{query.resource}.v", autoescape=True))
    if query.expires_from is not None:
        statement = statement.where(grant.c.expires >= query.expires_from)
    if query.expires_before is not None:
        statement = statement.where(grant.c.expires < query.expires_before)
    return statement if not query.after else statement.where(_behind(grant, query))


def _behind(grant: sa.Table, query: GrantQuery) -> sa.ColumnElement[bool]:
    """Return the condition of the rows behind the cursor."""
    if query.order is GrantOrder.ID:
        return grant.c.id > query.after
    if query.order is GrantOrder.NEWEST:
        return grant.c.id < query.after
    end, _, grant_id = query.after.partition("/")
    try:
        at = datetime.fromisoformat(end)
    except ValueError:
        at = None
    if at is None or at.utcoffset() is None or not _FIRST_YEAR < at.year < _LAST_YEAR:
        raise InvalidError(
            Reason.REQUEST_INVALID, 'after: got a cursor of another order; expected that of a `Link: rel="next"`'
        )
    return sa.tuple_(grant.c.expires, grant.c.id) > sa.tuple_(sa.literal(at), sa.literal(grant_id))


def _order(columns: Any, query: GrantQuery) -> "tuple[sa.ColumnElement[Any], ...]":
    if query.order is GrantOrder.EXPIRES:
        return (columns.expires, columns.id)
    return (columns.id.desc() if query.order is GrantOrder.NEWEST else columns.id,)
