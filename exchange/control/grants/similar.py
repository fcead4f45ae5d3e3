"""Similar decisions: what was decided on other departments' requests for the same resource, for who decides on one.

The resource's provider reads it and the pool's own roles, never the department that asks: it names other consumers.
"""

from collections.abc import Sequence
from typing import Final

from exchange.access.grants.store import AccessStore, GrantOrder, GrantQuery
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader
from schemas.access import Grant, GrantState

__all__ = ["similar_decisions"]

_DECIDED: Final = frozenset(
    {
        GrantState.ACTIVE,
        GrantState.SUSPENDED,
        GrantState.EXPIRED,
        GrantState.TERMINATED,
        GrantState.COMPLETED,
        GrantState.REJECTED,
    }
)
_LOOKED_AT: Final = 100  # of the newest
_SHOWN: Final = 5


def similar_decisions(access: AccessStore, reader: Reader, grant: Grant) -> Sequence[Grant]:
    """Return the decided grants of other consumers on a grant's resource that are most like it, the nearest first.

    Like it is one of the same purpose, then one with more of its fields, then a newer one. Of the newest 100 at most 5.
    """
    query = GrantQuery(resource=grant.topic.name, states=_DECIDED, order=GrantOrder.NEWEST, limit=_LOOKED_AT)
    wanted = set(grant.fields)
    found = [
        one
        for one in access.page(reader, query)
        if not isinstance(one, DamagedRow) and one.consumer != grant.consumer and wanted & set(one.fields)
    ]
    found.sort(key=lambda one: (one.purpose == grant.purpose, len(wanted & set(one.fields))), reverse=True)
    return found[:_SHOWN]
