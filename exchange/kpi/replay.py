"""Replay (复算) of the KPI figures from the files of the log alone: no database, no pool, and none of the pool's code.

One pass verifies the log against its signed root and counts the measures of one month, by code that shares nothing
with what the pool counts (`exchange.kpi.facts`) but the published definitions (`schemas.supervision.kpi`). An import
contract holds it to the reader of the log. So an auditor can compare what the pool shows with what its log says:

    pool report kpi --month 2026-11 --json                               what the pool shows
    pool report kpi --month 2026-11 --json --from-log log --key log.pub  what its log says
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from exchange.audit.log_invariants import LogInvariants, ReportFinding
from exchange.audit.note import NoteKey
from exchange.audit.verify import VerificationReport, verify_files
from schemas.audit import read_leaf
from schemas.errors import InvalidError, Reason
from schemas.supervision.kpi import Count, Standing, figures_of, measures_of_reason, moment_text, unused_days

__all__ = ["LogReplay", "replay_log"]

_ZONE: Final = timezone(timedelta(hours=8))
_REPLIES: Final = "reply."
_ENDS: Final = {"delivery": "delivered", "catalogue.update": "updated", "catalogue.review": "reviewed"}


class LogReplay:
    """Counts what the entries of a log say of one month.

    Args:
        month: YYYY-MM, of UTC+8.
        size: entries that count; None for all.

    Raises:
        InvalidError: REQUEST_INVALID, for another form of the month.
    """

    def __init__(self, month: str, size: int | None = None) -> None:
        self._month = month
        self._begin, self._end = _bounds(month)
        self._size = size
        self._taken = 0
        self._newest = 0
        self._pool = ""
        self._counts: dict[str, dict[tuple[str, str], Count]] = {}
        self._owner: dict[str, str] = {}  # of a resource
        self._consumer: dict[str, str] = {}  # of a grant, as are the next ones
        self._provider: dict[str, str] = {}
        self._fields: dict[str, list[str]] = {}
        self._times: dict[str, list[list[Any]]] = {}  # [from, until, index, entry, consumer, resource, fields]
        self._drawn_at: dict[str, int] = {}

    def take(self, index: int, leaf: bytes) -> None:
        """Count a leaf with its index; the leaves of a log come in its order."""
        if self._size is not None and index >= self._size:
            return
        entry = read_leaf(leaf)
        self._taken = index + 1
        self._newest = max(self._newest, entry["at"])
        self._pool = entry["pool"]
        data = entry.get("data", {})
        who = entry.get("actor", {}).get("department", "")
        if entry["decision"] == "deny":
            self._refused(index, entry, who, entry.get("reason", ""), data, denied=True)
        elif "failed" in data:
            self._refused(index, entry, who, data["failed"], data, denied=False)
        else:
            self._done(index, entry, who, data)

    def _refused(
        self, index: int, entry: Mapping[str, Any], who: str, reason: str, data: Mapping[str, Any], *, denied: bool
    ) -> None:
        times = data.get("folded", 1)
        if denied:
            self._count(index, entry, who, "denied", reason, times)
        for measure in measures_of_reason(reason):
            self._count(index, entry, who, measure, reason, times)

    def _done(self, index: int, entry: Mapping[str, Any], who: str, data: Mapping[str, Any]) -> None:
        action, resource = entry["action"], entry.get("resource", "")
        grant = entry.get("grant", {}).get("id", "")
        if action in {"exchange:records:publish", "registry:catalogue:draft"} and who and resource:
            self._owner[resource] = who
        if grant:
            self._learn(grant, action, who, resource, data)
        provider = self._provider[grant] if grant else self._owner.get(resource, "")
        if action in {"exchange:records:publish", "exchange:records:fetch"}:
            self._moved(index, entry, who, provider, data)
        elif grant:
            self._asked_or_decided(index, entry, provider, data)
        else:
            self._corrected_or_violated(index, entry, who, data)
        clock = data.get("clock")
        if action in {"exchange:request:overdue", "exchange:correction:overdue"}:
            rule = (clock or {}).get("rule") or data.get("rule") or ""
            self._ran_out(index, entry, data.get("source") or provider, rule)
        elif isinstance(clock, dict) and clock and data.get("violation"):
            self._ran_out(index, entry, "" if clock.get("rule") == "catalogue.review" else provider, clock["rule"])
        elif isinstance(clock, dict) and clock.get("late") is not None:
            self._clock_ended(index, entry, provider, clock)
        if grant and action != "exchange:records:fetch":
            self._standing_changed(index, entry, grant, resource, data)

    def _moved(self, index: int, entry: Mapping[str, Any], who: str, provider: str, data: Mapping[str, Any]) -> None:
        records = data.get("count", 0)
        if entry["action"] == "exchange:records:publish":
            self._count(index, entry, who, "published", "", records)
            return
        self._count(index, entry, who, "drawn", "", records)
        self._count(index, entry, provider, "provided", "", records)
        if entry["at"] <= self._end:
            grant = entry["grant"]["id"]
            self._drawn_at[grant] = max(self._drawn_at.get(grant, 0), entry["at"])

    def _asked_or_decided(self, index: int, entry: Mapping[str, Any], provider: str, data: Mapping[str, Any]) -> None:
        if entry["action"] == "exchange:grant:submit":
            self._count(index, entry, self._consumer.get(entry["grant"]["id"], ""), "filed")
            self._count(index, entry, provider, "received")
        if entry["action"] == "exchange:grant:approve" if "events" not in data else "conclude" in data["events"]:
            self._count(index, entry, provider, "approved")
        if entry["action"] == "exchange:grant:reject":
            self._count(index, entry, provider, "refused", "clause" if data.get("clause") else "no_clause")

    def _corrected_or_violated(self, index: int, entry: Mapping[str, Any], who: str, data: Mapping[str, Any]) -> None:
        action = entry["action"]
        if action == "exchange:correction:open":
            self._count(index, entry, data.get("source") or who, "doubted")
        elif action.startswith("exchange:correction:") and isinstance(data.get("late"), bool):
            self._count(index, entry, who, "corrected", "late" if data["late"] else "on_time")
        elif action == "exchange:violation:confirm":
            self._count(index, entry, entry.get("resource", ""), "violation", data.get("code") or "")

    def _learn(self, grant: str, action: str, who: str, resource: str, data: Mapping[str, Any]) -> None:
        if isinstance(data.get("consumer"), str):
            self._consumer[grant] = data["consumer"]
        elif not self._consumer.get(grant) and action in {"exchange:grant:submit", "exchange:records:fetch"}:
            self._consumer[grant] = who
        if isinstance(data.get("provider"), str):
            self._provider[grant] = data["provider"]
        self._provider.setdefault(grant, self._owner.get(resource, ""))
        if isinstance(data.get("fields"), list):
            self._fields[grant] = data["fields"]

    def _ran_out(self, index: int, entry: Mapping[str, Any], whose: str, rule: str) -> None:
        self._count(index, entry, whose, "overdue", rule)
        if rule == "delivery" or rule.startswith(_REPLIES):
            self._count(index, entry, whose, "delivered" if rule == "delivery" else "replied", "late")

    def _clock_ended(self, index: int, entry: Mapping[str, Any], provider: str, clock: Mapping[str, Any]) -> None:
        rule = clock.get("rule", "")
        whose = "" if rule == "catalogue.review" else provider
        measure = "replied" if rule.startswith(_REPLIES) else _ENDS.get(rule)
        of_catalogue = rule in {"catalogue.update", "catalogue.review"}
        if clock["late"] and not of_catalogue and "events" in entry.get("data", {}):
            return  # an entry before this one says that the time had run out
        if measure is not None:
            self._count(index, entry, whose, measure, "late" if clock["late"] else "on_time")
        if clock["late"] and of_catalogue:
            self._count(index, entry, whose, "overdue", rule)

    def _standing_changed(
        self, index: int, entry: Mapping[str, Any], grant: str, resource: str, data: Mapping[str, Any]
    ) -> None:
        begins = entry["action"] == "exchange:grant:provision" or data.get("state") == "active"
        times = self._times.setdefault(grant, [])
        lasts = bool(times) and times[-1][1] is None
        if begins and not lasts:
            consumer, fields = self._consumer.get(grant, ""), self._fields.get(grant, [])
            times.append([entry["at"], None, index, entry["id"], consumer, resource, list(fields)])
        elif not begins and lasts and data.get("state") is not None:
            times[-1][1] = entry["at"]

    def _count(
        self, index: int, entry: Mapping[str, Any], who: str, measure: str, detail: str = "", amount: int = 1
    ) -> None:
        if self._begin <= entry["at"] < self._end:
            self._counts.setdefault(who, {}).setdefault((measure, detail), Count()).add(index, entry["id"], amount)

    def document(self) -> dict[str, Any]:
        """Return the month's figures."""
        days = unused_days()
        until = min(self._end, self._newest)
        standing = {} if self._newest < self._begin else self._standing(until, until - days * 86_400_000_000)
        return {
            "month": self._month,
            "pool": self._pool,
            "entries": self._taken,
            "until": moment_text(until),
            "over": self._newest >= self._end,
            "unused_days": days,
            "departments": [
                {"department": who, "figures": figures_of(self._counts.get(who, {}), standing.get(who, Standing()))}
                for who in sorted({*self._counts, *standing})
            ],
        }

    def _standing(self, until: int, since: int) -> dict[str, Standing]:
        lasting: dict[str, list[tuple[str, list[Any]]]] = {}
        for grant, times in self._times.items():
            for one in times:
                if one[0] <= since and (one[1] is None or one[1] > until):
                    lasting.setdefault(one[4], []).append((grant, one))
        found = {}
        for consumer, grants in lasting.items():
            every, used, unused = set(), set(), []
            for grant, one in grants:
                fields = {(one[5], name) for name in one[6]}
                every |= fields
                if self._drawn_at.get(grant, 0) > since:
                    used |= fields
                else:
                    unused.append((one[2], one[3]))
            found[consumer] = Standing(
                in_force=sorted((one[2], one[3]) for _, one in grants),
                unused=sorted(unused),
                fields=len(every),
                fields_unused=len(every - used),
            )
        return found


class _Counted(LogInvariants):
    """The verifier's invariants, with the replay of the same leaves."""

    def __init__(self, report: ReportFinding, replay: LogReplay) -> None:
        super().__init__(report)
        self._replay = replay

    @override
    def check(self, index: int, leaf: bytes) -> None:
        super().check(index, leaf)
        try:
            self._replay.take(index, leaf)
        except (InvalidError, KeyError, TypeError, ValueError, AttributeError):
            return  # reported by the invariants as entry.form


def replay_log(
    folder: Path, *, key: NoteKey | Sequence[NoteKey], month: str, size: int | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Verify the log in a folder; return the figures of a month, and what is wrong with the log.

    Args:
        folder: the log's folder, or a copy.
        key: what checkpoints are signed with.
        month: YYYY-MM, of UTC+8.
        size: entries that count, to compare with figures of that size; None for all.

    Raises:
        InvalidError: REQUEST_INVALID, for another form of the month.
    """
    replay = LogReplay(month, size)
    report = VerificationReport()
    verify_files(folder, key=key, invariants=_Counted(report.add, replay), report=report)
    return replay.document(), list(_findings(report))


def _findings(report: VerificationReport) -> Iterator[str]:
    for finding in report.findings:
        where = "" if finding.index is None else f" [{finding.index}]"
        yield f"{finding.kind}{where}: {finding.message}"


def _bounds(month: str) -> tuple[int, int]:
    try:
        first = datetime.strptime(month, "%Y-%m").replace(tzinfo=_ZONE)
        following = (first + timedelta(days=31)).replace(day=1)
    except (ValueError, OverflowError) as error:
        raise _no_month(month) from error
    if month != f"{first.year:04}-{first.month:02}":
        raise _no_month(month)
    return int(first.timestamp()) * 1_000_000, int(following.timestamp()) * 1_000_000


def _no_month(month: str) -> InvalidError:
    return InvalidError(Reason.REQUEST_INVALID, f"got the month {month[:20]!r}; expected YYYY-MM")
