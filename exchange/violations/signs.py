"""Signs of violations in the log: which entry shows which violation, of which department. Pure.

    a read for another purpose, or with another case, than the granted one, or with none        C2    refused
    a read under another department's grant                                                     C2    refused
    publication as the source of a data element that has a lead (一数一源)                        C1    failed
    a request that is not answered in time, or an approved one that is not provided in time      P4    the timer's entry
    a request for correction that is not answered in time                                       P6    the timer's entry

The same log gives the same occurrences. A call that is repeated on a day of Asia/Shanghai is the same occurrence; how
often, the log says. A refusal without a clause, or a request outside the duty list, is refused alone: it did nothing.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any, Final

from exchange.violations.codes import ViolationCode
from exchange.violations.model import Occurrence, Sign
from schemas.access import Action, GrantState
from schemas.audit import is_done
from schemas.errors import Reason

__all__ = ["ACTIONS", "REASONS", "day_of", "is_refused_call", "occurrences_in"]

_SHANGHAI: Final = timezone(timedelta(hours=8))
_READS: Final = frozenset({Action.FETCH, Action.COMMIT})
_REFUSED_READS: Final[Mapping[str, Sign]] = MappingProxyType(
    {
        Reason.PURPOSE_MISSING: Sign.PURPOSE,
        Reason.PURPOSE_MISMATCH: Sign.PURPOSE,
        Reason.CASE_MISSING: Sign.CASE,
        Reason.CASE_MISMATCH: Sign.CASE,
        Reason.GRANT_OTHER_CONSUMER: Sign.SCOPE,
    }
)
REASONS: Final = frozenset(map(str, _REFUSED_READS))
"""Reasons of denials that may be a sign."""
ACTIONS: Final = frozenset({str(Action.CATALOGUE_PUBLISH), str(Action.CORRECTION_OVERDUE), str(Action.REQUEST_OVERDUE)})
"""Actions of other entries that may be one."""


def day_of(microseconds: int) -> date:
    """Return the day of Asia/Shanghai of a time in microseconds UTC."""
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC).astimezone(_SHANGHAI).date()


def is_refused_call(entry: Mapping[str, Any], sign: Sign) -> bool:
    """Return whether an entry is one of the refused calls that a sign counts."""
    reason = entry.get("reason")
    return entry.get("action") in _READS and isinstance(reason, str) and _REFUSED_READS.get(reason) is sign


def occurrences_in(entry: Mapping[str, Any], provider_of: Callable[[str], str | None]) -> list[Occurrence]:
    """Return what an entry shows: nothing, one occurrence, or one for each grant of calls that are folded into it.

    Args:
        entry: a leaf's JSON object, proven to be the pool's.
        provider_of: returns the department that provides a topic; None where there is none.
    """
    if entry.get("decision") == "deny":
        return _refused_reads(entry)
    if entry.get("action") == Action.CATALOGUE_PUBLISH:
        return _repeated_collection(entry, provider_of)
    if is_done(entry, Action.CORRECTION_OVERDUE):
        return _overdue_correction(entry)
    if is_done(entry, Action.REQUEST_OVERDUE):
        return _overdue_request(entry, provider_of)
    return []


def _refused_reads(entry: Mapping[str, Any]) -> list[Occurrence]:
    sign = _REFUSED_READS.get(entry.get("reason", ""))
    department = (entry.get("actor") or {}).get("department", "")
    if sign is None or entry.get("action") not in _READS or not department:
        return []
    resource = entry.get("resource", "")
    named = [(entry.get("grant") or {}).get("id", ""), *(entry.get("data") or {}).get("grants", ())]
    return [
        Occurrence(
            code=ViolationCode.C2,
            sign=sign,
            respondent=department,
            day=day_of(entry["at"]),
            subject=grant or resource or "*",
            grant="" if sign is Sign.SCOPE else grant,  # in that case it is another department's
            resource=resource,
            entry=entry["id"],
            since=entry["at"],
        )
        for grant in [one for one in named if one] or [""]
    ]


def _repeated_collection(entry: Mapping[str, Any], provider_of: Callable[[str], str | None]) -> list[Occurrence]:
    if (entry.get("data") or {}).get("failed") != Reason.ELEMENT_HAS_LEAD:
        return []
    topic = entry.get("resource", "")
    provider = provider_of(topic)
    if provider is None:
        return []
    found = Occurrence(
        code=ViolationCode.C1,
        sign=Sign.REPEATED_COLLECTION,
        respondent=provider,
        day=day_of(entry["at"]),
        subject=topic,
        resource=topic,
        entry=entry["id"],
        since=entry["at"],
    )
    return [found]


def _overdue_request(entry: Mapping[str, Any], provider_of: Callable[[str], str | None]) -> list[Occurrence]:
    """Return the late reply or delivery; the timer records each of them once."""
    topic, request = entry.get("resource", ""), (entry.get("grant") or {}).get("id", "")
    provider = provider_of(topic)
    if provider is None or not request:
        return []
    approved = (entry.get("data") or {}).get("state") == GrantState.APPROVED
    found = Occurrence(
        code=ViolationCode.P4,
        sign=Sign.OVERDUE_DELIVERY if approved else Sign.OVERDUE_REPLY,
        respondent=provider,
        day=day_of(entry["at"]),
        subject=request,
        resource=topic,
        entry=entry["id"],
        since=entry["at"],
    )
    return [found]


def _overdue_correction(entry: Mapping[str, Any]) -> list[Occurrence]:
    data = entry.get("data") or {}
    ticket, source, due = (data.get(name, "") for name in ("ticket", "source", "due_at"))
    if not (ticket and source and due):
        return []
    found = Occurrence(
        code=ViolationCode.P6,
        sign=Sign.OVERDUE_CORRECTION,
        respondent=source,
        day=_last_day(due),
        subject=ticket,
        resource=entry.get("resource", ""),
        entry=entry["id"],
        since=entry["at"],
    )
    return [found]


def _last_day(due_at: str) -> date:
    """Return the last day in time; a deadline is the end of it."""
    return (datetime.fromisoformat(due_at) - timedelta.resolution).astimezone(_SHANGHAI).date()
