"""Grants under an order to rectify: none is resumed or renewed but when the data authority accepts the case.

A case names the grant under which the violation was. Where that was renewed, its renewal is what the consumer has now:
an order suspends it, and it is held by the cases of the grants before it, so that a renewal is no way around an order.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Final

from exchange.access.grants.store import AccessStore, GrantQuery
from exchange.violations.model import CaseState, Outcome, ViolationCase
from exchange.violations.store import CaseQuery, ViolationStore
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader
from schemas.access import Grant, GrantState
from schemas.errors import ConflictError, CorruptError, Reason

__all__ = ["check_not_held", "check_not_referred", "held_grants", "holding_cases", "in_force"]

_PASSED_ON: Final = frozenset({GrantState.COMPLETED, GrantState.EXPIRED})
_HELD: Final = frozenset({GrantState.ACTIVE, GrantState.SUSPENDED})
_REFERRED: Final = frozenset({CaseState.ESCALATED, CaseState.CLOSED})


def in_force(access: AccessStore, reader: Reader, grant_id: str) -> Grant:
    """Return the grant itself, or the renewal, over any number of them, that goes on in its place.

    Raises:
        InvalidError: GRANT_UNKNOWN.
        CorruptError: GRANT_FORGED, of the grant itself.
    """
    grant = access.get(reader, grant_id)
    if grant.state not in _PASSED_ON:
        return grant
    # Of any consumer: a renewal may have gone over to a department's successor.
    query = GrantQuery(resource=grant.topic.name, states=_HELD)
    while page := access.page(reader, query):
        for one in page:
            if not isinstance(one, DamagedRow) and one.renews and one.record_key_id == grant.record_key_id:
                return one
        last = page[-1]
        query = replace(query, after=last.cursor if isinstance(last, DamagedRow) else last.id)
    return grant


def holding_cases(
    violations: ViolationStore, access: AccessStore, reader: Reader, grant_id: str
) -> list[ViolationCase]:
    """Return the cases whose order keeps a grant suspended: its own, and those of the grants that it renews.

    Raises:
        CorruptError: ROW_FORGED, GRANT_FORGED.
    """
    return [case for one in _renewals(access, reader, grant_id) for case in violations.holding(reader, one)]


def held_grants(
    violations: ViolationStore, access: AccessStore, reader: Reader, grants: Collection[Grant]
) -> frozenset[str]:
    """Return the ids of the grants of a list that an order keeps suspended, with few queries.

    One whose earlier grant is not one that the pool wrote is among them: nobody resumes it.
    """
    chains: dict[str, list[str]] = {}
    unproven = set()
    for grant in grants:
        chains[grant.id] = [grant.id]
        if grant.first and grant.renews:
            try:
                chains[grant.id] = [*_renewals(access, reader, grant.id)]
            except CorruptError:
                unproven.add(grant.id)
    held = violations.held(reader, {one for chain in chains.values() for one in chain})
    return frozenset(unproven | {grant for grant, chain in chains.items() if held.intersection(chain)})


def check_not_held(violations: ViolationStore, access: AccessStore, reader: Reader, grant_id: str) -> None:
    """Check that no order to rectify keeps a grant suspended.

    Raises:
        ConflictError: RECTIFICATION_ORDERED; `details` names the case.
        CorruptError: ROW_FORGED, a case of the grant is not one that the pool wrote.
    """
    for case in holding_cases(violations, access, reader, grant_id):
        raise ConflictError(
            Reason.RECTIFICATION_ORDERED,
            f"the case {case.id} keeps the grant suspended; the data authority resumes it when it accepts what was "
            "rectified (`pool violation accept`, decree 809, Art. 27)",
            details={"case": case.id},
        )


def check_not_referred(violations: ViolationStore, access: AccessStore, reader: Reader, grant_id: str) -> None:
    """Check that no case of a grant, or of those that it renews, was escalated: that ends what it was about.

    Raises:
        ConflictError: TRANSITION_NOT_ALLOWED.
        CorruptError: ROW_FORGED.
    """
    for one in _renewals(access, reader, grant_id):
        query = CaseQuery(grant=one, states=_REFERRED)
        while page := violations.page(reader, query):
            for case in page:
                if isinstance(case, DamagedRow):
                    raise CorruptError(
                        Reason.ROW_FORGED, f"a case of the grant {one} is not one that the pool wrote; see the auditor"
                    )
                if case.concerns_grant and (case.state is CaseState.ESCALATED or case.outcome is Outcome.REFERRED):
                    raise ConflictError(
                        Reason.TRANSITION_NOT_ALLOWED,
                        f"the case {case.id} of the grant to renew was escalated; ask for a new grant without `renews`",
                    )
            last = page[-1]
            query = replace(query, before=last.cursor if isinstance(last, DamagedRow) else last.id)


def _renewals(access: AccessStore, reader: Reader, grant_id: str) -> Iterator[str]:
    """Yield the id of a grant, and of those that it renews, the newest first; a request has renewed nothing yet."""
    yield grant_id
    grant = access.get(reader, grant_id)
    while grant.first and grant.renews:
        yield grant.renews
        grant = access.get(reader, grant.renews)
