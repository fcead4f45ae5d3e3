"""Records of a release as lines of JSON or CSV: the values of each, and the records that such a line cannot hold. Pure.

CSV for spreadsheets: `neutralise_formulas` puts an apostrophe before texts that a spreadsheet would execute (CWE-1236).
JSON has no number for NaN and infinity.
"""

import base64
import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import numpy as np

from connectors.port import DecodedRelease, RejectCode, RejectedRecord
from connectors.sinks.latest_records import values_of
from connectors.state.quarantine import escape_formula

__all__ = ["csv_lines", "json_lines", "release_lines"]

Line = Mapping[str, Any]


def release_lines(release: DecodedRelease, *, as_json: bool) -> tuple[list[Line], list[RejectedRecord]]:
    """Return a line for each record, with key, time and operation before its fields, and the records that have none."""
    indexes = np.flatnonzero(~np.array(release.withdrawn, np.bool_))
    values, rejected = values_of(release.records, np.arange(len(release.records)), indexes)
    rows = dict(zip(indexes.tolist(), values, strict=True))
    lines: list[Line] = []
    for index, (key, at) in enumerate(zip(release.keys, release.recorded_at, strict=True)):
        own = {"_record_key": key.hex(), "_recorded_at": _iso_time(at)}
        if release.withdrawn[index]:
            lines.append({**own, "_operation": "withdrawn"})
            continue
        row = rows[index]
        if row is None:
            continue
        unfit = next((name for name, value in row.items() if as_json and _is_unfit(value)), None)
        if unfit is not None:
            message = "JSON has no number for it: NaN or infinity"
            rejected.append(RejectedRecord(index=index, code=RejectCode.TARGET_TYPE, field=unfit, message=message))
            continue
        lines.append({**own, "_operation": "upsert", **{name: _json_value(each) for name, each in row.items()}})
    return lines, sorted(rejected, key=lambda each: each.index)


def json_lines(lines: Sequence[Line]) -> str:
    """Return the lines as JSON, one object a line."""
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def csv_lines(lines: Sequence[Line], names: Sequence[str], *, header: bool, neutralise_formulas: bool) -> str:
    """Return the lines as CSV with these columns, after a line of their names where it is asked for."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    if header:
        writer.writerow(names)
    for line in lines:
        writer.writerow([_cell(line.get(name), neutralise_formulas=neutralise_formulas) for name in names])
    return buffer.getvalue()


def _is_unfit(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_is_unfit, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_is_unfit, value))
    return isinstance(value, float) and not math.isfinite(value)


def _cell(value: Any, *, neutralise_formulas: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return escape_formula(value) if neutralise_formulas else value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)


def _iso_time(at: int) -> str:
    return datetime.fromtimestamp(at // 1_000_000, UTC).replace(microsecond=at % 1_000_000).isoformat()


def _json_value(value: Any) -> Any:
    """Return a value for JSON: decimals as text, so that no reader rounds them; bytes in base64."""
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {name: _json_value(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(each) for each in value]
    return value
