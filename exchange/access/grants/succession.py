"""Succession of a party: a grant or a request goes over to the department that has taken over the duties. Pure.

What was decided stays as it was decided: fields, masks, rows, purpose, basis, end and signatures. Only the party
changes, and the code of the duty where the successor's list has the item under another one. The id stays too, and with
it record keys, position and delivered keys: a target of the successor goes on where that of the department ended.

A request of a department that ends without a successor is closed: nobody would use what it asks for.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from schemas.access import Grant, GrantState
from schemas.errors import ConflictError, Reason

__all__ = ["CLOSED_WITH_A_PARTY", "MOVED", "close", "succeed"]

MOVED: Final = frozenset(
    {
        GrantState.SUBMITTED,
        GrantState.SUPPLEMENT,
        GrantState.COUNTERSIGNED,
        GrantState.APPROVED,
        GrantState.ACTIVE,
        GrantState.SUSPENDED,
        GrantState.IN_DISPUTE,
    }
)
"""States in which a grant or a request has active parties."""

CLOSED_WITH_A_PARTY: Final = MOVED - {GrantState.ACTIVE, GrantState.SUSPENDED}
"""States that are closed; an active or suspended grant is terminated."""


def succeed(grant: Grant, department: str, into: str, duties: Mapping[str, str]) -> Grant:
    """Return the next version of a grant, in which a department's successor is the party in its place.

    Args:
        grant: current version.
        department: that has ended.
        into: its successor.
        duties: code in the department's duty list → code in the successor's.

    Raises:
        ConflictError: TRANSITION_NOT_ALLOWED, the department is no party, or the grant has ended, or the successor
            would be on both sides.
    """
    if grant.state not in MOVED or department not in {grant.consumer, grant.provider}:
        raise ConflictError(Reason.TRANSITION_NOT_ALLOWED, "the grant has ended, or has another party by now")
    consumer = into if grant.consumer == department else grant.consumer
    provider = into if grant.provider == department else grant.provider
    if consumer == provider:
        raise ConflictError(Reason.TRANSITION_NOT_ALLOWED, "the successor is the other party; the grant ends")
    duty = duties.get(grant.duty, grant.duty) if grant.consumer == department else grant.duty
    return replace(grant, version=grant.version + 1, consumer=consumer, provider=provider, duty=duty)


def close(grant: Grant) -> Grant:
    """Return the next version of a request that ends with one of its parties.

    Raises:
        ConflictError: TRANSITION_NOT_ALLOWED, it is no request any more.
    """
    if grant.state not in CLOSED_WITH_A_PARTY:
        raise ConflictError(Reason.TRANSITION_NOT_ALLOWED, f"the grant is {grant.state}; only a request is closed")
    return replace(grant, version=grant.version + 1, state=GrantState.WITHDRAWN)
