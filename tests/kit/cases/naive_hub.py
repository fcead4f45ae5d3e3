"""The oracle of the hub's fold: golden values written from the rules of the design alone, in the slowest plain way.

It imports neither fold nor rules of the hub. A record is a dictionary; sources are names.
"""

import re
import unicodedata
from typing import Any

Record = dict[str, Any]


def versions_of(records: list[Record], resource: str, item: Any) -> list[Record]:
    found = {
        (one["generation"], one["offset"]): one for one in records if (one["resource"], one["item"]) == (resource, item)
    }
    return [found[place] for place in sorted(found)]


def current_version(versions: list[Record], instant: int) -> Record | None:
    """Return the version that is current at an instant, of all that exist, with `start` filled in."""
    best = None
    for number, one in enumerate(versions):
        if one["op"] == "void":
            continue
        start = one["valid_from"]
        if start is None and one["op"] == "correct":
            corrected = current_version(versions[:number], one["recorded_at"])
            start = None if corrected is None else corrected["start"]
        start = one["recorded_at"] if start is None else start
        voids = [late for late in versions[number + 1 :] if late["op"] == "void"]
        gone = any(late["valid_from"] is None or late["valid_from"] <= instant for late in voids)
        ended = one["valid_to"] is not None and one["valid_to"] <= instant
        if start <= instant and not ended and not gone and (best is None or start >= best["start"]):
            best = {**one, "start": start}
    return best


def normal(kind: str, value: Any) -> Any:
    if kind == "nfkc_space":
        return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", value).strip())
    return re.sub(r"\D", "", value) if kind == "digits" else value


def naive_golden(rules: Record, records: list[Record], instant: int) -> tuple[Record, set[tuple[str, Any, Any]]]:
    """Return (value, place of its source) of each field, and the conflicts as (field, winner, loser)."""
    now = [
        found
        for resource, item in sorted({(one["resource"], one["item"]) for one in records})
        if (found := current_version(versions_of(records, resource, item), instant)) is not None
    ]
    golden: Record = {}
    conflicts = set()
    for field, rule in rules["fields"].items():
        order = rule["order"]
        ranked = []
        for one in now:
            if one["resource"] in order and one["values"].get(field) is not None:
                rank = order.index(one["resource"]) if rule["rule"] == "lead" else 0
                ties = (
                    -one["start"],
                    -one["recorded_at"],
                    one["number"],
                    one["partition"],
                    -one["offset"],
                    one["item"],
                )
                ranked.append((rank, *ties, one))
        ranked.sort(key=lambda each: each[:-1])
        kind = rule.get("normalise", "exact")
        if rule["rule"] == "set":
            kept: Record = {}
            for *_, one in ranked:
                kept.setdefault(normal(kind, one["values"][field]), (one["values"][field], one["place"]))
            golden[field] = list(kept.values()) or None
            continue
        winner = next((each[-1] for each in ranked if not (rule.get("strict") and each[0] > 0)), None)
        golden[field] = None if winner is None else (winner["values"][field], winner["place"])
        for *_, one in ranked:
            if winner is not None and normal(kind, one["values"][field]) != normal(kind, winner["values"][field]):
                conflicts.add((field, winner["place"], one["place"]))
    return golden, conflicts
