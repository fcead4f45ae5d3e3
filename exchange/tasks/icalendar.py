"""iCalendar feed of due dates (RFC 5545): each task with a due date as an event of one day. Pure.

    UID       kind and id of the task, and the pool: the same at every download, so that a calendar moves the event
    DTSTART   the last day, in Asia/Shanghai, as a date: no time zone data are needed
    STATUS    TENTATIVE while the date is provisional (the year's working days are not known yet), else CONFIRMED

An event names a kind, a state and what the task is about, and no person. Lines end with CRLF, have 75 octets at most
and are folded between characters (section 3.1); texts are escaped (section 3.3.11).
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from exchange.tasks.model import Task, TaskDue, TaskKind

__all__ = ["MEDIA_TYPE", "calendar_text"]

MEDIA_TYPE: Final = "text/calendar; charset=utf-8"
_OCTETS: Final = 75
_DAY: Final = timedelta(days=1)
_NAMES: Final = {
    TaskKind.REQUEST: "共享申请",
    TaskKind.CATALOGUE: "目录",
    TaskKind.CORRECTION: "数据校核",
    TaskKind.NOTICE: "更正通知",
    TaskKind.VIOLATION: "违规",
    TaskKind.PROPOSAL: "账号与邀请",
    TaskKind.APPROVAL: "降级审批",
    TaskKind.RULES: "日历与规则",
    TaskKind.ERASURE: "删除",
}


def calendar_text(tasks: Iterable[Task], *, pool_id: str, now: datetime) -> str:
    """Return a calendar of the tasks that have a due date.

    Args:
        tasks: in any order.
        pool_id: names the calendar, and is part of the events' ids.
        now: aware; the time of the download.
    """
    lines = [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//Data Exchange Pool//Due dates//EN",
        "CALSCALE:GREGORIAN",
        "METHOD:PUBLISH",
        f"X-WR-CALNAME:{_escaped(f'Data Exchange Pool {pool_id}')}",
    ]
    for task in tasks:
        if task.due is not None:
            lines += _event(task, task.due, pool_id, now)
    lines.append("END:VCALENDAR")
    return "".join(f"{part}\r\n" for line in lines for part in _folded(line))


def _event(task: Task, due: TaskDue, pool_id: str, now: datetime) -> list[str]:
    summary = f"{_NAMES[task.kind]} {task.title} ({', '.join(task.acts)})"
    if due.provisional:
        summary = f"暂定 provisional: {summary}"
    return [
        "BEGIN:VEVENT",
        f"UID:{_escaped(f'{task.kind}-{task.id}@{pool_id}')}",
        f"DTSTAMP:{now.astimezone(UTC):%Y%m%dT%H%M%SZ}",
        f"DTSTART;VALUE=DATE:{due.on:%Y%m%d}",
        f"DTEND;VALUE=DATE:{due.on + _DAY:%Y%m%d}",
        f"SUMMARY:{_escaped(summary)}",
        f"DESCRIPTION:{_escaped(f'{task.kind} {task.id}: {task.state}, {due.urgency}')}",
        f"CATEGORIES:{_escaped(str(task.kind))}",
        f"STATUS:{'TENTATIVE' if due.provisional else 'CONFIRMED'}",
        "TRANSP:TRANSPARENT",
        "END:VEVENT",
    ]


def _escaped(text: str) -> str:
    """Return a text as a value of the type TEXT; control characters, which it must not have, become spaces."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    for special in ("\\", ";", ","):
        text = text.replace(special, f"\\{special}")
    text = text.replace("\n", "\\n")
    return "".join(" " if ord(character) < 32 or ord(character) == 127 else character for character in text)


def _folded(line: str) -> Iterator[str]:
    """Yield the parts of a line; each but the first begins with a space, which counts."""
    part, size = "", 0
    for character in line:
        octets = len(character.encode())
        if size + octets > _OCTETS:
            yield part
            part, size = " ", 1
        part += character
        size += octets
    yield part
