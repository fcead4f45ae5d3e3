"""Monthly report as CSV (RFC 4180): one row for each figure, the first column names the section. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from exchange.audit.search.entry_rows import csv_line

__all__ = ["report_csv"]

_COLUMNS: Final = (
    "section",
    "department",
    "department_name",
    "provider",
    "provider_name",
    "resource",
    "grant",
    "purpose",
    "action",
    "reason",
    "releases",
    "records",
    "withdrawn",
    "times",
    "time",
    "actor",
    "role",
    "entry",
    "value",
)


def report_csv(report: Mapping[str, Any]) -> str:
    """Return a report's CSV; texts are neutralised, so that a spreadsheet runs none of them as a formula."""
    return csv_line(_COLUMNS) + "".join(csv_line(row.get(column, "") for column in _COLUMNS) for row in _rows(report))


def _rows(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name in ("month", "from", "to", "made_at", "pool", "entries"):
        yield {"section": "report", "action": name, "value": report[name]}
    yield from _sums(report)
    for section in ("rights", "erasures"):
        for row in report[section]["acts"]:
            yield {"section": section, **row, "value": row["state"]}
        if report[section]["left_out"]:
            yield {"section": section, "action": "left out here", "times": report[section]["left_out"]}
    for row in report["readers"]:
        yield {"section": "readers", **row, "times": row["acts"], "department_name": row["department"]}
    yield from _integrity(report["integrity"])


def _sums(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for row in report["drawn"]:
        yield {"section": "drawn", **row, "department": row["consumer"], "department_name": row["consumer_name"]}
    for row in report["published"]:
        yield {"section": "published", **row, "department_name": row["name"], "times": row["batches"]}
    for row in report["refusals"]:
        named = "; ".join(row["departments"])
        yield {"section": "refused", **row, "times": row["refusals"], "department_name": named}
    for row in report["failures"]:
        yield {"section": "failed", **row, "times": row["failures"]}


def _integrity(integrity: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name in ("whole", "verified_at", "entries_read", "origin", "size", "root", "gaps"):
        yield {"section": "integrity", "action": name, "value": str(integrity[name])}
    for finding in integrity["findings"]:
        index = "" if finding["index"] is None else f" [{finding['index']}]"
        yield {"section": "integrity", "action": f"{finding['kind']}{index}", "value": finding["message"]}
