"""Description of a grant or a request in words, for the person who decides on it. Pure: documents in, lines out.

Everything that the grant says is in it: who asks whom for what, in which form, which rows and what the filter tells,
for which purpose on which basis, for how long, how much a day, and how it came to its state.
"""

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

__all__ = ["describe_filter", "describe_grant"]

_HISTORY: Final = {
    "all": "everything that the resource keeps, from before the approval too",
    "since_approval": "what is published from the approval on",
}
_CASES: Final = {
    "standing": "{case}, for every call",
    "each_call": "a case number with every call",
}
_USES: Final = {
    "lookup": "looking up subjects that are named",
    "verify": "verifying registered predicates about subjects that are named",
    "list": "the list of subjects for whom a registered predicate holds",
}
_FLOWS: Final = {
    "horizontal": "horizontal: between departments of one level, or of areas apart",
    "vertical_up": "vertical, up: to a higher level",
    "vertical_down": "vertical, down: to a lower level",
    "public": "public: to or from outside the government",
}
_WIDTH: Final = 14


def describe_grant(
    document: Mapping[str, Any], departments: Mapping[str, str], purposes: Mapping[str, str]
) -> Iterator[str]:
    """Yield the lines of a grant's description.

    Args:
        document: the answer of `GET /v1/grants/{id}`.
        departments: short names by internal id; an id without a name is shown as it is.
        purposes: names by id.
    """
    review = document.get("review", {})
    labels, levels = review.get("labels", {}), review.get("levels", {})

    def department(name: str) -> str:
        known = departments.get(document[name])
        return f"{known} ({document[name]})" if known else str(document[name])

    yield f"grant {document['id']}, version {document['version']}"
    yield ""
    yield from _row("state", _state(document))
    yield from _row("asked for by", f"{department('consumer')}, account {document['requested_by']}")
    yield from _row("provider", department("provider"))
    yield from _row("resource", document["topic"])
    yield from _ways(document, review.get("flow"))
    for at, field in enumerate(document["fields"]):
        yield from _row("fields" if at == 0 else "", f"{_named(field, labels, levels)}: {_shown(document, field)}")
    yield from _row("rows", _rows(document, labels))
    if document.get("filter_discloses"):
        told = ", ".join(_named(field, labels) for field in document["filter_discloses"])
        yield from _row("rows tell", f"{told}, which the fields hide; reason: {document.get('disclosure_reason', '')}")
    yield from _row("purpose", f"{purposes.get(document['purpose'], '')} ({document['purpose']})".strip())
    yield from _stated(document, "renews", "duty")
    yield from _row("legal basis", document["legal_basis"])
    yield from _row("case", _CASES.get(document["case_rule"], "{case}").format(case=document["case"] or "none"))
    yield from _uses(document)
    yield from _row("history", _HISTORY.get(document["history"], document["history"]))
    quota = document["quota_per_day"]
    yield from _row("quota", "no limit a day" if quota is None else f"{quota:,} records a day")
    yield from _row("highest level", document["ceiling"])
    yield from _row("withdrawals", "delivered" if document["withdrawals"] else "not delivered")
    yield from _row("in force", f"from {_time(document['not_before'])}", f"until {_time(document['expires'])}")
    if document.get("confirmed_by"):
        yield from _row("confirmed by", document["confirmed_by"])
    if document.get("approved_by"):
        yield from _row("approved by", f"{document['approved_by']}, {_time(document['approved_at'])}")
    if document.get("suspend_after"):
        yield from _row("suspended", f"after {_time(document['suspend_after'])}, unless decided again")
    for at, one in enumerate(review.get("versions", ())):
        line = f"{one['version']}  {one['state']:<10} {_time(one['at'])}  entry {one['entry']}"
        yield from _row("versions" if at == 0 else "", line)
    yield from _similar(review, departments)
    if review.get("words"):
        yield ""
        yield "To know before a decision:"
        yield from (f"- {sentence}" for sentence in review["words"])


def _stated(document: Mapping[str, Any], *names: str) -> Iterator[str]:
    """Yield members that not every grant has."""
    for name in names:
        if document.get(name):
            yield from _row(name, document[name])


def _uses(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield how the grant is used, where it is not by fetching records."""
    if document.get("access_mode"):
        yield from _row("used by", _USES.get(document["access_mode"], document["access_mode"]))
    for at, predicate in enumerate(document.get("predicates", ())):
        yield from _row("predicates" if at == 0 else "", predicate)
    if document.get("batch_max"):
        yield from _row("subjects", f"{document['batch_max']:,} a call at most")
    told = {
        "provenance": "the source of each field",
        "as_of": "what held at an earlier time",
        "places": f"each record's place in the topic; reason: {document.get('disclosure_reason', '')}",
    }
    for at, name in enumerate(name for name in told if document.get(name)):
        yield from _row("also tells" if at == 0 else "", told[name])


def _ways(document: Mapping[str, Any], flow: str | None) -> Iterator[str]:
    """Yield between which parties, and across which zones, records go."""
    if flow:
        yield from _row("flow", _FLOWS.get(flow, flow))
    if document.get("source_zone"):
        zones = f"from {document['source_zone']} into {document['zone']}; reason: {document.get('zone_reason', '')}"
        yield from _row("across zones", zones)


def describe_filter(row_filter: Mapping[str, Any] | None, labels: Mapping[str, str]) -> str:  # noqa: PLR0911 - one return a form
    """Return a row filter in words: `household_division_code 户籍 = "330102" and not (…)`."""
    if row_filter is None:
        return "all rows"
    field = _named(row_filter["field"], labels) if "field" in row_filter else ""
    match row_filter["op"]:
        case "eq":
            return f"{field} = {_value(row_filter['value'])}"
        case "ne":
            return f"{field} is not {_value(row_filter['value'])}"
        case "in":
            return f"{field} is one of {', '.join(map(_value, row_filter['values']))}"
        case "range":
            low, high = row_filter["low"], row_filter["high"]
            parts = [f"from {_value(low)}"] * (low is not None) + [f"to {_value(high)}"] * (high is not None)
            return f"{field} {' '.join(parts)}"
        case "prefix":
            return f"{field} begins with {_value(row_filter['value'])}"
        case "exists":
            return f"{field} has a value"
        case "not":
            return f"not ({describe_filter(row_filter['part'], labels)})"
        case joint:
            within = [describe_filter(part, labels) for part in row_filter["parts"]]
            return f" {joint} ".join(f"({part})" if " and " in part or " or " in part else part for part in within)


def _rows(document: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    return describe_filter(document["row_filter"], labels)


def _similar(review: Mapping[str, Any], departments: Mapping[str, str]) -> Iterator[str]:
    for at, one in enumerate(review.get("similar", ())):
        consumer = departments.get(one["consumer"], one["consumer"])
        line = f"{one['state']}: {consumer}, {one['purpose']}: {', '.join(one['fields'])} ({one['grant']})"
        yield from _row("similar" if at == 0 else "", line)


def _shown(document: Mapping[str, Any], field: str) -> str:
    rule = document["masks"].get(field, "none")
    shown = "in clear" if rule == "none" else "left out" if rule == "drop" else f"masked, {rule}"
    if field in document.get("unmasked", ()):
        shown += f"; more than the schema shows, reason: {document.get('unmasked_reason', '')}"
    return shown


def _state(document: Mapping[str, Any]) -> str:
    words = {
        "submitted": "submitted: waits for the provider's decision",
        "approved": "approved, not yet in force",
        "active": "active: records are released under it",
        "suspended": "suspended: nothing is released under it",
    }
    said = words.get(document["state"], str(document["state"]))
    if document.get("due") is None:
        return said
    provisional = "" if document["due_confirmed"] else ", provisional: the working days of that year are not known yet"
    return f"{said}; due by {document['due_at']} ({document['due']}{provisional})"


def _named(field: str, labels: Mapping[str, str], levels: Mapping[str, str] = MappingProxyType({})) -> str:
    return " ".join(filter(None, (field, labels.get(field), levels.get(field))))


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _time(text: str) -> str:
    """Return a time as the documents have it, without a fraction of zero."""
    return text.replace(".000000", "")


def _row(label: str, *lines: str) -> Iterator[str]:
    """Yield a row; a line break within a text begins no line: the text could look like another row."""
    for at, line in enumerate(lines):
        yield f"{label if at == 0 else '':<{_WIDTH}}{line}".rstrip()
