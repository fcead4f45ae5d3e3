"""Stored form of share requests: canonical JSON with every member, its history too. Pure."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from exchange.requests.model import Event, Mode, Office, RequestState, ShareRequest, Signature, Step
from registry.directory.model import ShareType
from schemas.access import Level
from schemas.canonical import Json, canonical
from schemas.errors import InvalidError, Reason

__all__ = ["from_text", "step_json", "to_json", "to_text"]

_FORM: Final = "request/1"  # a later one has members that this one lacks
_TEXTS: Final = (
    "id", "consumer", "provider", "resource", "duty", "purpose", "legal_basis", "scenario", "requested_by",
)  # fmt: skip
_PLAIN: Final = ("version", "sensitive", "truthful", "renews", "extension", "overturned", "disputes")
_MOMENTS: Final = ("use_until", "received_at", "noticed_at", "approved_at", "rectify_until")
_LISTS: Final = ("fields", "missing", "overdue")
_SAID: Final = ("late", "violation", "reason", "clause", "reference", "ground")
# Looked up in a dictionary: a list reads the histories of hundreds of requests, and an enumeration's own call is slow.
_EVENTS: Final = {one.value: one for one in Event}
_STATES: Final = {one.value: one for one in RequestState}
_MOST_PARSED: Final = 4_096  # parsed requests in the cache
_LONGEST_PARSED: Final = 16_384  # characters of a text that is cached, so that the cache is bounded in bytes too


def to_json(request: ShareRequest) -> dict[str, Json]:
    """Return the form as a document; times are in UTC."""
    return {
        "form": _FORM,
        **{name: getattr(request, name) for name in (*_TEXTS, *_PLAIN)},
        **{name: _optional_text(getattr(request, name)) for name in _MOMENTS},
        **{name: list(getattr(request, name)) for name in _LISTS},
        "share_type": str(request.share_type),
        "level": request.level.name,
        "mode": None if request.mode is None else str(request.mode),
        "state": str(request.state),
        "pauses": [[_text(since), _text(until)] for since, until in request.pauses],
        "signatures": [
            {"office": str(one.office), "account": one.account, "at": _text(one.at)} for one in request.signatures
        ],
        "history": [step_json(step) for step in request.history],
    }


def step_json(step: Step) -> dict[str, Json]:
    """Return one event of a history as a document; a member that says nothing is left out."""
    said: dict[str, Json] = {
        "late": step.late,
        "violation": step.violation,
        "reason": step.reason,
        "clause": step.clause,
        "reference": step.reference,
        "ground": step.ground,
    }
    return {
        "event": str(step.event),
        "state": str(step.state),
        "by": step.by,
        "at": _text(step.at),
        "article": step.article,
        "profile": step.profile,
        **{name: value for name, value in said.items() if value},
    }


def to_text(request: ShareRequest) -> str:
    """Return the canonical text.

    Raises:
        InvalidError: REQUEST_INVALID, for a time without an offset.
    """
    return canonical(to_json(request)).decode()


def from_text(text: str) -> ShareRequest:
    """Read the canonical text. Requests are frozen and the text is their identity, so that short ones are cached.

    Raises:
        InvalidError: REQUEST_INVALID, it is not of this form.
    """
    return _cached(text) if len(text) <= _LONGEST_PARSED else _parsed(text)


def _parsed(text: str) -> ShareRequest:
    try:
        value = json.loads(text)
        members: dict[str, Any] = {name: value[name] for name in (*_TEXTS, *_PLAIN)}
        members |= {name: None if value[name] is None else datetime.fromisoformat(value[name]) for name in _MOMENTS}
        members |= {name: tuple(value[name]) for name in _LISTS}
        return ShareRequest(
            **members,
            share_type=ShareType(value["share_type"]),
            level=Level[value["level"]],
            mode=None if value["mode"] is None else Mode(value["mode"]),
            state=_STATES[value["state"]],
            pauses=_pauses(value["pauses"]),
            signatures=tuple(
                Signature(Office(one["office"]), one["account"], datetime.fromisoformat(one["at"]))
                for one in value["signatures"]
            ),
            history=tuple(_step(one) for one in value["history"]),
        )
    except (KeyError, TypeError, ValueError) as error:  # not of this form
        raise InvalidError(
            Reason.REQUEST_INVALID, f"got something that is not a stored request; expected the form {_FORM!r}"
        ) from error


_cached = lru_cache(maxsize=_MOST_PARSED)(_parsed)


def _pauses(value: Sequence[Sequence[str]]) -> tuple[tuple[datetime, datetime], ...]:
    return tuple((datetime.fromisoformat(since), datetime.fromisoformat(until)) for since, until in value)


def _step(value: Mapping[str, Any]) -> Step:
    return Step(
        event=_EVENTS[value["event"]],
        state=_STATES[value["state"]],
        by=value["by"],
        at=datetime.fromisoformat(value["at"]),
        article=value["article"],
        profile=value["profile"],
        **{name: value[name] for name in _SAID if name in value},
    )


def _optional_text(moment: datetime | None) -> str | None:
    return None if moment is None else _text(moment)


def _text(moment: datetime) -> str:
    if moment.utcoffset() is None:
        raise InvalidError(Reason.REQUEST_INVALID, "got a request with a time without an offset; times are aware")
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
