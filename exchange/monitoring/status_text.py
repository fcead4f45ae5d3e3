"""Status of a pool as text for a terminal of 80 columns. Pure."""

import textwrap
from collections.abc import Iterator
from datetime import datetime

from exchange.monitoring.alarms import OpenAlarm
from exchange.monitoring.status import Health, PoolStatus, ProcessStatus

__all__ = ["status_lines"]

_WIDTH = 80
_HEAD = 14  # columns of the names at the left
_NAMED = 10  # connectors that are named


def status_lines(status: PoolStatus) -> list[str]:
    """Return the lines, none wider than 80 columns (a path may be)."""
    word = {Health.NOT_RUNNING: "NOT RUNNING", Health.DEGRADED: "DEGRADED"}.get(status.health, "healthy")
    lines = [f"{status.pool}: {word}".ljust(_WIDTH - 25) + status.at.isoformat(timespec="seconds").rjust(25)]
    for head, text in _rows(status):
        lines += textwrap.wrap(
            text,
            _WIDTH,
            initial_indent=f"{head:<{_HEAD}}",
            subsequent_indent=" " * _HEAD,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


def _rows(status: PoolStatus) -> Iterator[tuple[str, str]]:
    for number, process in enumerate(status.processes):
        yield "" if number else "processes", _process(process)
        for name, why in process.failing.items():
            yield "", f"FAILS {name}: {why}"
    if not status.processes:
        yield "processes", "none of this folder runs on this machine"
    counts = status.database
    signed = "none" if status.signed is None else f"{_short(status.signed)} ({_ago(status.at, status.signed)})"
    if counts is None:
        yield "signing", f"last signature {signed}"
        yield "database", f"FAILS {status.fault}"
    else:
        waiting = f", the oldest for {status.unsigned:.0f} s" if counts.waiting else ""
        yield "signing", f"last signature {signed}; {counts.waiting} entries wait{waiting}"
        if status.unsigned > status.unsigned_seconds:
            yield "", f"FAILS expected {status.unsigned_seconds} s at most: nothing is released meanwhile"
        yield "database", _size(counts.size)
    free, total = status.disk
    yield "disk", f"{_size(free)} of {_size(total)} free ({free / total:.0%}), {status.folder}"
    if counts is not None:
        parties = f"{counts.departments} departments, {counts.connectors} connectors"
        grants = f"{counts.grants} grants in force, {counts.suspended} suspended, {counts.requests} open requests"
        yield "at a glance", f"{parties}, {grants}"
    if status.lanes_stopped is not None:
        yield "lanes", f"{status.lanes_stopped} stopped"
    yield from _certificates(status)
    backup = status.backup
    yield (
        "backup",
        "none was made of this folder"
        if backup is None
        else f"{_short(backup.at)} ({_ago(status.at, backup.at)}), {backup.folder}",
    )
    for number, alarm in enumerate(status.alarms):
        yield "" if number else "alarms", _alarm(alarm)
    if not status.alarms:
        yield "alarms", "none is open"


def _process(process: ProcessStatus) -> str:
    if not process.running:
        return f"{', '.join(process.roles)}: GONE (was process {process.pid}, from {process.started[:19]}Z)"
    about = f"{', '.join(process.roles)}: process {process.pid}, version {process.version or 'unknown'}"
    since = f", since {process.started[:19]}Z"
    if process.checks is None:
        return f"{about}{since}; set listen.metrics to see its checks"
    passed = [name for name, one in process.checks.items() if one["ok"]]
    return f"{about}{since}; ready: {', '.join(passed) or 'nothing'}"


def _certificates(status: PoolStatus) -> Iterator[tuple[str, str]]:
    for number, (use, ends) in enumerate(sorted(status.certificates.items())):
        yield "" if number else "certificates", f"of the {use}: ends {_short(ends)}"
    if not status.certificates:
        yield "certificates", "none of the pool's own ends within 30 days"
    late = () if status.database is None else status.database.not_renewed
    for who, ends in late[:_NAMED]:
        yield "", f"connector {who} has not renewed: ends {_short(ends)}"
    if len(late) > _NAMED:
        yield "", f"and {len(late) - _NAMED} connectors more (--json lists them)"


def _alarm(found: OpenAlarm) -> str:
    labels = ", ".join(f"{name} {value}" for name, value in sorted(found.labels.items()))
    about = f" [{labels}]" if labels else ""
    alarm = found.alarm
    return f"{alarm.severity} {alarm.name}{about}: {alarm.meaning}: docs/runbook.md#{alarm.section}"


def _short(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _ago(now: datetime, then: datetime) -> str:
    seconds = (now - then).total_seconds()
    if seconds < 0:
        return f"{-seconds:.0f} s ahead"
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _size(count: int) -> str:
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1000:.0f} kB"
