"""Monthly report of the log: who drew what for which purpose, refusals, changes of rights, erasures, integrity.

One pass over the log's files verifies every entry and sums those of the month, so that each figure is of entries whose
hashes lead to the signed root. Memory grows with grants, reasons and resources, not with entries: lists of single acts
end after 1,000, and the report says how many it leaves out.

A month is one of Asia/Shanghai (UTC+8), as the days of quotas are.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from exchange.audit.log_invariants import LogInvariants, ReportFinding
from exchange.audit.note import NoteKey
from exchange.audit.search.entry_rows import iso_time
from exchange.audit.verify import VerificationReport, verify_files
from schemas.access import Action
from schemas.audit import read_leaf
from schemas.errors import InvalidError, Reason

__all__ = ["MonthlySums", "month_bounds", "monthly_report"]

_SHANGHAI: Final = timezone(timedelta(hours=8))
_MOST_ACTS: Final = 1_000
_ERASURES: Final = frozenset(
    {Action.ERASURE_PROPOSE, Action.ERASURE_CONFIRM, Action.ERASURE_REJECT, Action.ERASURE_COMPLETE}
)
_RIGHTS: Final = frozenset(
    {
        Action.GRANT_SUBMIT,
        Action.GRANT_CONFIRM,
        Action.GRANT_APPROVE,
        Action.GRANT_PROVISION,
        Action.GRANT_REJECT,
        Action.GRANT_SUSPEND,
        Action.GRANT_SUSPEND_UNMASKED,
        Action.GRANT_RESUME,
        Action.GRANT_TERMINATE,
        Action.GRANT_EXPIRE,
        Action.GRANT_SUPERSEDE,
        Action.GRANT_SUCCEED,
        Action.GRANT_COUNTERSIGN,
        Action.GRANT_WITHDRAW_SIGNATURE,
        Action.GRANT_CONCLUDE,
        Action.GRANT_COMPLETE,
        Action.GRANT_END_BY_AGREEMENT,
        Action.REQUEST_OVERTURN,
        Action.USER_ADD,
        Action.USER_REVOKE,
        Action.PROPOSAL_CONFIRM,
        Action.PROPOSAL_REFUSE,
        Action.DEPARTMENT_REGISTER,
        Action.DEPARTMENT_CHANGE,
        Action.DEPARTMENT_SUCCEED,
        Action.DEPARTMENT_INVITE,
        Action.CONNECTOR_ENROL,
        Action.CONNECTOR_REVOKE,
        Action.APPROVAL_DECIDE,
        Action.CATALOGUE_PUBLISH,
        Action.CATALOGUE_ARCHIVE,
        Action.CATALOGUE_RETAIN,
        Action.SCHEMA_CONFIGURE,
        Action.AUDIT_KEYS_PRUNE,
        Action.RULES_CONFIRM,
    }
)
_READS_OF_THE_LOG: Final = frozenset({"audit:log:read", "audit:log:prove", "audit:log:export"})


def month_bounds(month: str) -> tuple[int, int]:
    """Return the beginning and the end of a month (YYYY-MM) of UTC+8, in microseconds since 1970 UTC.

    Raises:
        InvalidError: REQUEST_INVALID, for another form.
    """
    try:
        first = datetime.strptime(month, "%Y-%m").replace(tzinfo=_SHANGHAI)
        following = (first + timedelta(days=31)).replace(day=1)
    except (ValueError, OverflowError) as error:  # no month follows the last one of the calendar
        raise _no_month(month) from error
    if month != f"{first.year:04}-{first.month:02}":  # as figures are stored; 2026-1 would find none
        raise _no_month(month)
    return int(first.timestamp()) * 1_000_000, int(following.timestamp()) * 1_000_000


def _no_month(month: str) -> InvalidError:
    return InvalidError(Reason.REQUEST_INVALID, f"got the month {month[:20]!r}; expected YYYY-MM")


@dataclass(slots=True)
class _Drawn:
    releases: int = 0
    records: int = 0
    withdrawn: int = 0
    repeated: int = 0


@dataclass(slots=True)
class _Refused:
    refusals: int = 0
    departments: set[str] = field(default_factory=set)


class MonthlySums:
    """Sums the entries of a month; takes every entry of the log, in order.

    Args:
        since: beginning of the month, microseconds since 1970 UTC.
        until: its end.
    """

    def __init__(self, since: int, until: int) -> None:
        self._since = since
        self._until = until
        self._providers: dict[str, str] = {}  # by resource
        self._drawn: dict[tuple[str, str, str, str], _Drawn] = {}  # by consumer, resource, grant, purpose
        self._published: dict[tuple[str, str], list[int]] = {}  # by department and resource: batches, records
        self._refused: dict[tuple[str, str], _Refused] = {}  # by reason and action
        self._failed: Counter[tuple[str, str]] = Counter()
        self._acts: dict[str, Counter[str]] = {"rights": Counter(), "erasures": Counter()}
        self._listed: dict[str, list[dict[str, Any]]] = {"rights": [], "erasures": []}
        self._readers: Counter[tuple[str, str, str]] = Counter()
        self._entries = 0
        self._first: int | None = None
        self._last: int | None = None
        self.pool = ""

    def take(self, index: int, entry: Mapping[str, Any]) -> None:
        """Take an entry (`schemas.audit.read_leaf`) with its index."""
        action, data = entry["action"], entry.get("data") or {}
        actor, resource = entry.get("actor") or {}, entry.get("resource", "")
        department = actor.get("department", "")
        allowed = entry["decision"] == "allow" and "failed" not in data
        self.pool = entry["pool"]
        if allowed and department and action in {Action.PUBLISH, Action.CATALOGUE_DRAFT}:
            self._providers[resource] = department
        if not self._since <= entry["at"] < self._until:
            return
        self._entries += 1
        self._first = index if self._first is None else self._first
        self._last = index
        if entry["decision"] == "deny":
            refused = self._refused.setdefault((entry.get("reason", ""), action), _Refused())
            refused.refusals += data.get("folded", 1)
            refused.departments.add(department)
        elif "failed" in data:
            self._failed[data["failed"], action] += 1
        elif action == Action.FETCH:
            self._take_release(department, resource, entry, data)
        elif action == Action.PUBLISH:
            published = self._published.setdefault((department, resource), [0, 0])
            published[0] += 1
            published[1] += data.get("count", 0)
        elif action in _READS_OF_THE_LOG:
            self._readers[actor.get("id", ""), department, action] += data.get("folded", 1)
        elif action in _RIGHTS:
            self._list("rights", index, entry, actor, data)
        elif action in _ERASURES:
            self._list("erasures", index, entry, actor, data)

    def _take_release(self, department: str, resource: str, entry: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        key = department, resource, (entry.get("grant") or {}).get("id", ""), entry.get("purpose", "")
        drawn = self._drawn.setdefault(key, _Drawn())
        drawn.releases += 1
        drawn.records += data.get("count", 0)
        drawn.withdrawn += data.get("withdrawn_count", 0)
        drawn.repeated += data.get("count", 0) if data.get("again") else 0

    def _list(
        self, what: str, index: int, entry: Mapping[str, Any], actor: Mapping[str, Any], data: Mapping[str, Any]
    ) -> None:
        self._acts[what][entry["action"]] += 1
        if len(self._listed[what]) < _MOST_ACTS:
            self._listed[what].append(
                {
                    "time": iso_time(entry["at"]),
                    "action": entry["action"],
                    "actor": actor.get("id", ""),
                    "role": actor.get("role", ""),
                    "department": actor.get("department", ""),
                    "resource": entry.get("resource", ""),
                    "grant": (entry.get("grant") or {}).get("id", ""),
                    "state": str(data.get("state", "")),
                    "index": index,
                    "entry": entry["id"],
                }
            )

    def document(self, names: Mapping[str, str], titles: Mapping[str, str]) -> dict[str, Any]:
        """Return the sums as a document, largest first; *names* are of departments, *titles* of resources."""
        drawn = [
            {
                "consumer": consumer,
                "consumer_name": names.get(consumer, ""),
                "provider": self._providers.get(resource, ""),
                "provider_name": names.get(self._providers.get(resource, ""), ""),
                "resource": resource,
                "title": titles.get(resource, ""),
                "grant": grant,
                "purpose": purpose,
                "releases": one.releases,
                "records": one.records,
                "withdrawn": one.withdrawn,
                "repeated": one.repeated,
            }
            for (consumer, resource, grant, purpose), one in self._drawn.items()
        ]
        return {
            "entries": self._entries,
            "first_index": self._first,
            "last_index": self._last,
            "consumers": _by(drawn, "consumer", names),
            "providers": _by(drawn, "provider", names),
            "purposes": _by(drawn, "purpose", {}),
            "drawn": sorted(drawn, key=lambda row: (-int(row["records"]), str(row["consumer"]), str(row["grant"]))),
            "published": [
                {
                    "department": department,
                    "name": names.get(department, ""),
                    "resource": resource,
                    "title": titles.get(resource, ""),
                    "batches": batches,
                    "records": records,
                }
                for (department, resource), (batches, records) in sorted(
                    self._published.items(), key=lambda item: -item[1][1]
                )
            ],
            "refusals": [
                {
                    "reason": reason,
                    "action": action,
                    "refusals": one.refusals,
                    "departments": [names.get(who) or who or "-" for who in sorted(one.departments)],
                }
                for (reason, action), one in sorted(self._refused.items(), key=lambda item: -item[1].refusals)
            ],
            "failures": [
                {"reason": reason, "action": action, "failures": count}
                for (reason, action), count in self._failed.most_common()
            ],
            "rights": self._acts_document("rights", names),
            "erasures": self._acts_document("erasures", names),
            "readers": [
                {"actor": actor, "department": names.get(who) or who, "action": action, "acts": count}
                for (actor, who, action), count in self._readers.most_common(_MOST_ACTS)
            ],
        }

    def _acts_document(self, what: str, names: Mapping[str, str]) -> dict[str, Any]:
        counts, listed = self._acts[what], self._listed[what]
        return {
            "counts": [{"action": action, "acts": count} for action, count in counts.most_common()],
            "acts": [{**act, "department_name": names.get(act["department"], "")} for act in listed],
            "left_out": counts.total() - len(listed),
        }


def _by(drawn: Sequence[Mapping[str, Any]], member: str, names: Mapping[str, str]) -> list[dict[str, Any]]:
    sums: dict[str, _Drawn] = {}
    for row in drawn:
        one = sums.setdefault(row[member], _Drawn())
        one.releases += row["releases"]
        one.records += row["records"]
        one.withdrawn += row["withdrawn"]
    return [
        {
            member: key,
            "name": names.get(key, ""),
            "releases": one.releases,
            "records": one.records,
            "withdrawn": one.withdrawn,
        }
        for key, one in sorted(sums.items(), key=lambda item: (-item[1].records, item[0]))
    ]


class _SummedInvariants(LogInvariants):
    """The verifier's invariants, with sums of the same leaves."""

    def __init__(self, report: ReportFinding, sums: MonthlySums) -> None:
        super().__init__(report)
        self._sums = sums

    @override
    def check(self, index: int, leaf: bytes) -> None:
        super().check(index, leaf)
        try:
            self._sums.take(index, read_leaf(leaf))
        except (InvalidError, KeyError, TypeError, ValueError, AttributeError):
            return  # reported by the invariants as entry.form


def monthly_report(
    folder: Path,
    *,
    key: NoteKey | Sequence[NoteKey],
    month: str,
    now: datetime,
    since: str | None = None,
    names: Mapping[str, str] | None = None,
    titles: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Verify the log in a folder, and return the report of a month as a document.

    Args:
        folder: the log's folder, or a copy.
        key: what checkpoints are signed with.
        month: YYYY-MM, of UTC+8.
        now: aware; when the verification was made.
        since: text of a checkpoint that was kept outside the pool.
        names: of departments, by id.
        titles: of resources, by topic.

    Raises:
        InvalidError: REQUEST_INVALID, for another form of the month.
    """
    bounds = month_bounds(month)
    sums = MonthlySums(*bounds)
    verification = VerificationReport()
    invariants = _SummedInvariants(verification.add, sums)
    verify_files(folder, key=key, since=since, invariants=invariants, report=verification)
    checkpoint = verification.checkpoint
    return {
        "month": month,
        "from": iso_time(bounds[0]),
        "to": iso_time(bounds[1]),
        "made_at": now.isoformat(timespec="seconds"),
        "over": now.timestamp() * 1_000_000 >= bounds[1],
        "pool": sums.pool,
        **sums.document(names or {}, titles or {}),
        "integrity": {
            "whole": verification.ok,
            "verified_at": now.isoformat(timespec="seconds"),
            "entries_read": verification.entries,
            "origin": checkpoint.origin if checkpoint else "",
            "size": checkpoint.size if checkpoint else 0,
            "root": checkpoint.root.hex() if checkpoint else "",
            "compared_with_kept_checkpoint": since is not None,
            "gaps": sum(count for kind, count in verification.counts.items() if kind.endswith(".gap")),
            "findings": [
                {"kind": finding.kind, "index": finding.index, "message": finding.message}
                for finding in verification.findings[:_MOST_ACTS]
            ],
            "counts": dict(verification.counts),
        },
    }
