"""Prometheus alerting rules and the runbook's table, from the table of alarms. Pure.

Prometheus reads deploy/prometheus/rules.yml under `rule_files`; the file is what `rules()` gives
(deploy/checks/generated.py). A counter with labels has no series before its first event, so that `increase` misses
that one: where any event counts, the table compares the counter itself, and the alarm stays until the process ends.
"""

import json
import re
from typing import Final

from exchange.monitoring.alarms import ALARMS, Alarm, Condition, Level, Missing, Rise

__all__ = ["BEGIN", "END", "expression", "rules", "runbook_table", "with_table"]

BEGIN: Final = "<!-- alarms: made by deploy/checks/generated.py --write -->"
END: Final = "<!-- end of alarms -->"
_HEAD = "# Made by deploy/checks/generated.py --write from exchange/monitoring/alarms.py; do not edit.\n"
_RUNBOOK = "docs/runbook.md"


def expression(condition: Condition) -> str:
    """Return a condition in PromQL."""
    match condition:
        case Level():
            series = condition.metric + _matcher(condition)
            above = condition.above is not None
            return f"{series} {'>' if above else '<'} {_number(condition.above if above else condition.below)}"
        case Rise():
            series = f"{condition.metric}{_matcher(condition)}[{_duration(condition.within)}]"
            return f"sum(increase({series})) > {_number(condition.above)}"
        case Missing():
            return f"absent({condition.metric})"


def rules() -> str:
    """Return the file of rules, YAML."""
    lines = [_HEAD + "groups:", "  - name: pool", "    rules:"]
    for alarm in ALARMS:
        lines += [
            f"      - alert: {alarm.name}",
            f"        expr: {json.dumps(expression(alarm.condition))}",
            f"        for: {_duration(alarm.lasts)}",
            "        labels:",
            f"          severity: {alarm.severity}",
            "        annotations:",
            f"          summary: {json.dumps(alarm.meaning)}",
            f"          runbook: {_RUNBOOK}#{alarm.section}",
        ]
    return "\n".join(lines) + "\n"


def runbook_table() -> str:
    """Return the runbook's table, Markdown."""
    rows = ["| alarm | severity | meaning | when | do |", "|---|---|---|---|---|", *map(_row, ALARMS)]
    return "\n".join(rows) + "\n"


def with_table(page: str) -> str:
    """Return the runbook's text with the table between its two marks.

    Raises:
        ValueError: it lacks the marks.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{_RUNBOOK} lacks the lines {BEGIN!r} and {END!r} round its table of alarms")
    return f"{head}{BEGIN}\n\n{runbook_table()}\n{END}{tail}"


def _row(alarm: Alarm) -> str:
    when = expression(alarm.condition).replace("|", "\\|")
    lasts = f", for {_duration(alarm.lasts)}" if alarm.lasts else ""
    return (
        f"| `{alarm.name}` | {alarm.severity} | {alarm.meaning} | `{when}`{lasts} "
        f"| [{_heading(alarm.section)}](#{alarm.section}) |"
    )


def _heading(section: str) -> str:
    return re.sub(r"\bpostgresql\b", "PostgreSQL", section.replace("-", " "))


def _matcher(condition: Level | Rise) -> str:
    if not condition.label:
        return ""
    if len(condition.values) == 1:
        return f'{{{condition.label}="{condition.values[0]}"}}'
    return f'{{{condition.label}=~"{"|".join(condition.values)}"}}'


def _number(value: float | None) -> str:
    return f"{value or 0:.10g}"


def _duration(seconds: int) -> str:
    for unit, size in (("h", 3_600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
