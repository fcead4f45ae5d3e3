"""Entries as rows of a table: the columns of lists and of CSV (RFC 4180), safe from spreadsheet formulas. Pure."""

import csv
import io
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

__all__ = ["COLUMNS", "DAMAGED", "csv_line", "entry_row", "iso_time", "neutralised"]

COLUMNS: Final = (
    "index",
    "proof",
    "at",
    "action",
    "decision",
    "department",
    "resource",
    "purpose",
    "case",
    "grant",
    "count",
    "actor",
    "role",
    "on_behalf_of",
    "reason",
    "entry",
)
"""New columns go to the end: programs read the earlier ones by their place."""

DAMAGED: Final = "damaged"
"""Action and decision of a row of the log that is not what the pool wrote; nothing else of it is shown."""

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def entry_row(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry's row: who did what, when, to what, with which outcome, and the id of the entry.

    Args:
        document: an entry as the control API returns it.
    """
    entry = document["entry"]
    actor, grant, data = entry.get("actor") or {}, entry.get("grant") or {}, entry.get("data") or {}
    outcome = entry["decision"] if entry["decision"] in {"allow", DAMAGED} else f"deny: {entry.get('reason', '')}"
    return {
        "index": document["index"],
        "proof": document["proof"],
        "at": iso_time(entry["at"]),
        "action": entry["action"],
        "decision": f"failed: {data['failed']}" if "failed" in data else outcome,
        "department": actor.get("department", ""),
        "resource": entry.get("resource", ""),
        "purpose": entry.get("purpose", ""),
        "case": entry.get("case", ""),
        "grant": f"{grant['id']} v{grant['version']}" if grant else "",
        "count": data.get("count", data.get("folded", "")),
        "actor": actor.get("id", ""),
        "role": actor.get("role", ""),
        "on_behalf_of": actor.get("on_behalf_of", ""),
        "reason": entry.get("reason", data.get("failed", "")),
        "entry": entry["id"],
    }


def iso_time(microseconds: int) -> str:
    """Return a time as ISO 8601 in UTC, to the microsecond."""
    return (_EPOCH + timedelta(microseconds=microseconds)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def csv_line(cells: Iterable[object]) -> str:
    """Return a line of CSV with its end; texts are neutralised, numbers stay numbers."""
    line = io.StringIO()
    csv.writer(line).writerow([cell if isinstance(cell, int) else neutralised(cell) for cell in cells])
    return line.getvalue()


def neutralised(value: object) -> str:
    """Return the text of a value, with an apostrophe before what a spreadsheet would run as a formula."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
