"""Renewal (续期): a grant that goes on where the one that it renews ends. Pure.

A renewal is a request of its own (State Council decree 809, Art. 20), decided on as any other; the grant that it names
stays as it is meanwhile. When the renewal is activated the grant is completed in the same transaction, or has expired
before. Of the two, the renewal inherits:

    record keys    always: the secret is that of the first grant, so a record has the same key as before
    stream         where both show the same: the position and the delivered keys. Nothing is delivered twice, and a row
                   that leaves is withdrawn as before. Where fields, masks, rows or history differ, it has a stream of
                   its own, which begins at the beginning: the target's records count as withdrawn until they come again
    history        SINCE_APPROVAL counts from the approval of the first grant that had it
    quota          what was released under the grant on the day of the activation counts for the renewal's day

A suspended or terminated grant passes nothing on: its renewal is refused, so that nobody gets around a suspension.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date, datetime

from exchange.access.grants.holding import ENDED
from exchange.access.grants.store import unknown_grant
from schemas.access import Grant, GrantState, History
from schemas.errors import ConflictError, InvalidError, Reason

__all__ = [
    "carried_by",
    "check_renewable",
    "check_renewal",
    "delivered_before",
    "describe_renewal",
    "find_successor",
    "quota_of",
    "renewal",
    "takes_the_place_of",
]

_INHERITED_FROM = frozenset({GrantState.ACTIVE, GrantState.EXPIRED})
_DECIDED = frozenset({GrantState.ACTIVE, GrantState.SUSPENDED}) | ENDED
"""States of a request that has been decided on: what ended before it is not asked of it once more."""


def check_renewal(draft: Grant, grant: Grant, at: datetime) -> None:
    """Check that a request may name a grant as the one that it renews.

    Raises:
        InvalidError: GRANT_UNKNOWN, it is another department's; REQUEST_INVALID, it is of another resource, or the
            request ends no later, or begins later.
        ConflictError: TRANSITION_NOT_ALLOWED, the grant is not active.
    """
    if grant.consumer != draft.consumer:
        raise unknown_grant()  # word for word: no word on whether there is one
    if grant.state is not GrantState.ACTIVE:
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED,
            f"the grant to renew is {grant.state}; an active one is renewed, otherwise ask for a new one without "
            "`renews`",
        )
    expected = [
        one
        for wrong, one in (
            (grant.topic.name != draft.topic.name, f"the resource of the renewed grant, {grant.topic.name}"),
            (draft.expires <= grant.expires, f"an end after {grant.expires.isoformat()}, that of the renewed grant"),
            (draft.not_before > at, "a beginning that is not in the future: a renewal begins when it is approved"),
        )
        if wrong
    ]
    if expected:
        raise InvalidError(Reason.REQUEST_INVALID, f"the request renews nothing: expected {'; '.join(expected)}")


def check_renewable(request: Grant, grant: Grant, others: Iterable[Grant]) -> None:
    """Check that a grant still passes on what a renewal inherits, at the activation of the renewal.

    Args:
        request: the renewal.
        grant: the one that it names, locked.
        others: the consumer's other grants on the resource, ended ones too.

    Raises:
        ConflictError: TRANSITION_NOT_ALLOWED, the grant is suspended or was ended by somebody, or another renewal of it
            was activated.
    """
    if grant.consumer != request.consumer or grant.topic.name != request.topic.name:
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED, "the grant to renew has another consumer by now; a new request must be made"
        )
    earlier = [other.id for other in others if other.renews == grant.id and other.id != request.id]
    if earlier:
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED, f"the grant was renewed by {earlier[0]} already; renew that one"
        )
    if grant.state not in _INHERITED_FROM:
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED,
            f"the grant to renew is {grant.state}: a renewal goes on after one that is active or has expired; resume "
            "it first, or ask for a new grant without `renews`",
        )


def renewal(request: Grant, grant: Grant, *, released: int, day: date) -> Grant:
    """Return an approved request with what it inherits of the grant that it renews.

    Args:
        request: about to be activated.
        grant: the one that it names.
        released: records released on the day under the grant, with what it carried itself.
        day: of the activation, as quotas count.
    """
    both_since = request.history is History.SINCE_APPROVAL and grant.history is History.SINCE_APPROVAL
    return replace(
        request,
        first=grant.record_key_id,
        stream=grant.stream_id if _view(request) == _view(grant) else "",
        since=(grant.since or grant.approved_at) if both_since else None,
        carried_on=day.isoformat() if released else "",
        carried=released,
    )


def carried_by(grant: Grant, day: date) -> int:
    """Return the records that count for a grant's day, and were released under the one that it renews."""
    return grant.carried if grant.carried_on == day.isoformat() else 0


def quota_of(grant: Grant, day: date) -> int | None:
    """Return how many records may be released under the grant itself on a day; None = no limit."""
    return None if grant.quota_per_day is None else max(0, grant.quota_per_day - carried_by(grant, day))


def find_successor(grant: Grant, others: Iterable[Grant]) -> Grant | None:
    """Return the active grant among others that goes on where a grant has ended, over any number of renewals."""
    for other in others:
        renewed = other.renews and other.record_key_id == grant.record_key_id
        if renewed and other.id != grant.id and other.state is GrantState.ACTIVE:
            return other
    return None


def describe_renewal(request: Grant, grant: Grant) -> list[str]:
    """Return what a request changes of the grant that it renews, in sentences for who decides."""
    changes = [
        *_difference("fields", grant.fields, request.fields),
        *(["the masks"] if dict(request.masks) != dict(grant.masks) else []),
        *(["the rows"] if request.row_filter != grant.row_filter else []),
        *(["the version of the schema"] if request.topic != grant.topic else []),
        *(["how much of the history"] if request.history is not grant.history else []),
        *(["whether withdrawals are told"] if request.withdrawals is not grant.withdrawals else []),
        *(["the purpose"] if request.purpose != grant.purpose else []),
        *(["the access mode"] if request.access_mode is not grant.access_mode else []),
        *_difference("predicates", grant.predicates, request.predicates),
        *(["how many subjects a call names"] if request.batch_max != grant.batch_max else []),
        *(["whether sources are named"] if request.provenance is not grant.provenance else []),
        *(["whether earlier times are answered"] if request.as_of is not grant.as_of else []),
        *(["whether places are told"] if request.places is not grant.places else []),
    ]
    beginning = f"it renews grant {grant.id}, valid until {grant.expires.isoformat()}, "
    if not changes:
        return [f"{beginning}and changes nothing but its end"]
    return [f"{beginning}and changes {', '.join(changes)}"]


def _difference(name: str, before: Sequence[str], after: Sequence[str]) -> list[str]:
    added, removed = [one for one in after if one not in before], [one for one in before if one not in after]
    signed = [f"+{one}" for one in added] + [f"-{one}" for one in removed]
    if not signed:
        return [f"the order of the {name}"] if tuple(before) != tuple(after) else []
    return [f"{name} ({' '.join(signed)})"]


def takes_the_place_of(request: Grant, grant: Grant) -> bool:
    """Return whether a request renews a grant and delivers the same: then the two are not held beside each other.

    A renewal with another view has the same record keys, so that what the grant delivered can be joined with it. One
    that asks other predicates can bracket a value with the answers that are there.
    """
    return request.renews == grant.id and _delivers_the_same(request, grant)


def delivered_before(request: Grant, others: Sequence[Grant]) -> tuple[Grant, ...]:
    """Return the ended grants whose keys a request goes on with, and which delivered something else.

    It is the one that it renews, if that has expired meanwhile, and those that this one has renewed in its turn.

    Args:
        request: not active yet.
        others: all grants of its consumer on the resource.
    """
    renewed = next((one for one in others if one.id == request.renews), None)
    if renewed is None or request.state in _DECIDED:
        return ()
    return tuple(
        one
        for one in others
        if one.id != request.id
        and one.state in ENDED
        and one.record_key_id == renewed.record_key_id
        and not _delivers_the_same(request, one)
    )


def _delivers_the_same(request: Grant, grant: Grant) -> bool:
    return _view(request) == _view(grant) and set(request.predicates) == set(grant.predicates)


def _view(grant: Grant) -> tuple[object, ...]:
    """Return what decides what a grant delivers."""
    return (
        grant.topic,
        grant.fields,
        dict(grant.masks),
        grant.row_filter,
        grant.history,
        grant.withdrawals,
        grant.access_mode,
        grant.places,
    )
