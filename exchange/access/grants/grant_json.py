"""Grant serialization: canonical JSON (RFC 8785), and its hash in the audit log.

One grant version has one text and one hash: members are all present and in canonical order, times are UTC with
microseconds, masks are in the order of their fields' names. Members that came later are absent where they hold what a
grant of before holds, so that its text and its hash stay what they were. Parsing is strict. An unknown or missing
member, a mask or state that is not in the closed lists, a time without an offset: none of it is a grant.

The hash, SHA-256 of the text, is in the audit entry of the event that made the version. A row that is edited in the
database no longer fits it.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from exchange.access.view.filter import filter_from_json, filter_to_json
from schemas.access import AccessMode, CaseRule, Grant, GrantState, History, Level, MaskRule
from schemas.canonical import Json, canonical
from schemas.errors import InvalidError, PoolError, Reason
from schemas.names import Topic

__all__ = ["from_json", "from_text", "grant_hash", "to_json", "to_text"]

_FORM = "grant/1"
_MEMBERS = frozenset(
    {
        "form", "id", "version", "pool_id", "consumer", "provider", "topic", "fields", "masks", "row_filter", "purpose",
        "legal_basis", "case_rule", "case", "not_before", "expires", "history", "quota_per_day", "ceiling", "zone",
        "withdrawals", "requested_by", "approved_by", "approved_at", "view_schema_id", "state",
    }
)  # fmt: skip
_LATER = frozenset(
    {
        "unmasked", "unmasked_reason", "filter_discloses", "disclosure_reason", "confirmed_by", "together_with",
        "suspend_after", "source_zone", "zone_reason", "duty", "renews", "first", "stream", "since", "carried_on",
        "carried", "access_mode", "predicates", "batch_max", "provenance", "as_of", "places",
    }
)  # fmt: skip


def to_json(grant: Grant) -> dict[str, Json]:
    """Return the JSON form.

    Raises:
        InvalidError: REQUEST_INVALID, for a time without an offset from UTC.
    """
    return {
        "form": _FORM,
        "id": grant.id,
        "version": grant.version,
        "pool_id": grant.pool_id,
        "consumer": grant.consumer,
        "provider": grant.provider,
        "topic": str(grant.topic),
        "fields": list(grant.fields),
        "masks": {field: rule.value for field, rule in grant.masks},
        "row_filter": None if grant.row_filter is None else filter_to_json(grant.row_filter),
        "purpose": grant.purpose,
        "legal_basis": grant.legal_basis,
        "case_rule": grant.case_rule.value,
        "case": grant.case,
        "not_before": _time_to_text(grant.not_before),
        "expires": _time_to_text(grant.expires),
        "history": grant.history.value,
        "quota_per_day": grant.quota_per_day,
        "ceiling": grant.ceiling.name,
        "zone": grant.zone,
        "withdrawals": grant.withdrawals,
        "requested_by": grant.requested_by,
        "approved_by": grant.approved_by,
        "approved_at": None if grant.approved_at is None else _time_to_text(grant.approved_at),
        "view_schema_id": grant.view_schema_id,
        "state": grant.state.value,
        **{name: member for name, member in _later(grant).items() if member},
    }


def _later(grant: Grant) -> dict[str, Json]:
    return {
        "unmasked": list(grant.unmasked),
        "unmasked_reason": grant.unmasked_reason,
        "filter_discloses": list(grant.filter_discloses),
        "disclosure_reason": grant.disclosure_reason,
        "confirmed_by": grant.confirmed_by,
        "together_with": list(grant.together_with),
        "suspend_after": None if grant.suspend_after is None else _time_to_text(grant.suspend_after),
        "source_zone": grant.source_zone,
        "zone_reason": grant.zone_reason,
        "duty": grant.duty,
        "renews": grant.renews,
        "first": grant.first,
        "stream": grant.stream,
        "since": None if grant.since is None else _time_to_text(grant.since),
        "carried_on": grant.carried_on,
        "carried": grant.carried,
        "access_mode": "" if grant.access_mode is AccessMode.STREAM else grant.access_mode.value,
        "predicates": list(grant.predicates),
        "batch_max": grant.batch_max,
        "provenance": grant.provenance,
        "as_of": grant.as_of,
        "places": grant.places,
    }


def to_text(grant: Grant) -> str:
    """Return the canonical text.

    Raises:
        InvalidError: REQUEST_INVALID, for a time without an offset or a number without a canonical form.
    """
    return canonical(to_json(grant)).decode()


def grant_hash(grant: Grant) -> bytes:
    """Return the SHA-256 of the canonical text: 32 bytes."""
    return hashlib.sha256(to_text(grant).encode()).digest()


def from_text(text: str) -> Grant:
    """Read the canonical text.

    Raises:
        InvalidError: REQUEST_INVALID, when it is no JSON or not a grant.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise _not_a_grant("JSON text") from error
    return from_json(value)


def from_json(value: Json) -> Grant:
    """Read the JSON form.

    Raises:
        InvalidError: REQUEST_INVALID, naming what was expected and never what was got.
    """
    if not isinstance(value, dict) or value.keys() - _LATER != _MEMBERS or value["form"] != _FORM:
        raise _not_a_grant(f"exactly the members of the form {_FORM!r}")
    if not all(value[name] for name in value.keys() & _LATER):
        raise _not_a_grant("a later member only where it says something")
    row_filter = value["row_filter"]
    try:
        return Grant(
            id=_member(value, "id", str),
            version=_member(value, "version", int),
            pool_id=_member(value, "pool_id", str),
            consumer=_member(value, "consumer", str),
            provider=_member(value, "provider", str),
            topic=Topic.parse(_member(value, "topic", str)),
            fields=tuple(_string(field, "fields") for field in _member(value, "fields", list)),
            masks=tuple(sorted((field, MaskRule(rule)) for field, rule in _member(value, "masks", dict).items())),
            row_filter=None if row_filter is None else filter_from_json(row_filter),
            purpose=_member(value, "purpose", str),
            legal_basis=_member(value, "legal_basis", str),
            case_rule=CaseRule(_member(value, "case_rule", str)),
            case=_member(value, "case", str),
            not_before=_time_from_text(_member(value, "not_before", str)),
            expires=_time_from_text(_member(value, "expires", str)),
            history=History(_member(value, "history", str)),
            quota_per_day=_optional(value, "quota_per_day", int),
            ceiling=Level[_member(value, "ceiling", str)],
            zone=_member(value, "zone", str),
            withdrawals=_member(value, "withdrawals", bool),
            requested_by=_member(value, "requested_by", str),
            approved_by=_optional(value, "approved_by", str),
            approved_at=None if value["approved_at"] is None else _time_from_text(_member(value, "approved_at", str)),
            view_schema_id=_optional(value, "view_schema_id", int),
            state=GrantState(_member(value, "state", str)),
            unmasked=_names(value, "unmasked"),
            unmasked_reason=_member({"unmasked_reason": "", **value}, "unmasked_reason", str),
            filter_discloses=_names(value, "filter_discloses"),
            disclosure_reason=_member({"disclosure_reason": "", **value}, "disclosure_reason", str),
            confirmed_by=_optional({"confirmed_by": None, **value}, "confirmed_by", str),
            together_with=_names(value, "together_with"),
            suspend_after=_time_from_text(_member(value, "suspend_after", str)) if "suspend_after" in value else None,
            source_zone=_member({"source_zone": "", **value}, "source_zone", str),
            zone_reason=_member({"zone_reason": "", **value}, "zone_reason", str),
            duty=_member({"duty": "", **value}, "duty", str),
            renews=_member({"renews": "", **value}, "renews", str),
            first=_member({"first": "", **value}, "first", str),
            stream=_member({"stream": "", **value}, "stream", str),
            since=_time_from_text(_member(value, "since", str)) if "since" in value else None,
            carried_on=_member({"carried_on": "", **value}, "carried_on", str),
            carried=_member({"carried": 0, **value}, "carried", int),
            access_mode=_access_mode(value),
            predicates=_names(value, "predicates"),
            batch_max=_member({"batch_max": 0, **value}, "batch_max", int),
            provenance=_member({"provenance": False, **value}, "provenance", bool),
            as_of=_member({"as_of": False, **value}, "as_of", bool),
            places=_member({"places": False, **value}, "places", bool),
        )
    except (KeyError, ValueError) as error:
        raise _not_a_grant("values of the closed lists, and times in UTC with microseconds") from error
    except PoolError as error:
        if error.reason is Reason.REQUEST_INVALID:
            raise
        raise _not_a_grant("a topic and a row filter of their own forms") from error


def _member(value: Mapping[str, Json], member: str, kind: type[Any]) -> Any:
    item = value[member]
    if type(item) is not kind:  # exactly: a truth value is no number here
        raise _not_a_grant(f"{member} as {kind.__name__}")
    return item


def _optional(value: Mapping[str, Json], member: str, kind: type[Any]) -> Any:
    return None if value[member] is None else _member(value, member, kind)


def _names(value: Mapping[str, Json], member: str) -> tuple[str, ...]:
    return tuple(_string(name, member) for name in _member({member: [], **value}, member, list))


def _access_mode(value: Mapping[str, Json]) -> AccessMode:
    if "access_mode" not in value:
        return AccessMode.STREAM
    mode = AccessMode(_member(value, "access_mode", str))
    if mode is AccessMode.STREAM:  # one grant, one text
        raise _not_a_grant("a later member only where it says something")
    return mode


def _string(item: Json, member: str) -> str:
    if not isinstance(item, str):
        raise _not_a_grant(f"{member} of text")
    return item


def _time_to_text(moment: datetime) -> str:
    if moment.utcoffset() is None:
        raise InvalidError(
            Reason.REQUEST_INVALID, "got a grant with a time without an offset from UTC; times are aware"
        )
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _time_from_text(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.utcoffset() is None or _time_to_text(moment) != text:
        raise ValueError(text)
    return moment


def _not_a_grant(expected: str) -> InvalidError:
    return InvalidError(Reason.REQUEST_INVALID, f"got something that is not a grant; expected {expected}")
