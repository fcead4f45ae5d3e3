"""Description of a request in words: its clock, whose signature is missing, its refusal, every event. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["describe_request"]

_WIDTH: Final = 14
_SHARE_TYPES: Final = {"unconditional": "无条件共享", "conditional": "有条件共享", "none": "不予共享"}
_NEAR: Final = {"overdue": "超期 overdue", "soon": "临近 soon", "normal": "in time"}
_OFFICES: Final = {
    "head": "the head of the provider's sharing office",
    "security_officer": "the provider's security officer",
    "authority": "the data authority",
}


def describe_request(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a request's description.

    Args:
        document: the answer of `GET /v1/requests/{id}`.
    """
    yield ""
    yield "The request:"
    kind = document["share_type"]
    yield _row("shared", f"{_SHARE_TYPES.get(kind, '')} {kind}".strip())
    yield _row("scenario", document["scenario"])
    yield _row("mode", document["mode"] or "not said")
    if document["clock"]:
        provisional = "" if document["due_confirmed"] else ", provisional"
        near = _NEAR.get(document["due"], document["due"])
        yield _row("clock", f"{document['clock']}, until {document['due_at']}{provisional}: {near}")
    for office in document["waits_for"]:
        yield _row("waits for", _OFFICES.get(office, office))
    for at, item in enumerate(document["missing"]):
        yield _row("lacks" if at == 0 else "", item)
    refusal = document["refusal"]
    if refusal:
        yield _row("refused", f"{refusal['reason']}, by {refusal['clause']}")
        if refusal["ground"]:
            yield _row("", f"{refusal['ground']}: {refusal['ground_en']} {refusal['ground_zh']}")
    for at, step in enumerate(document.get("history", ())):
        yield _row("history" if at == 0 else "", _step(step))


def _step(step: Mapping[str, Any]) -> str:
    said = [step["article"], "late" if step.get("late") else "", step.get("reason", ""), step.get("clause", "")]
    if step.get("violation"):
        said[1] = f"a violation, {step['violation']}"
    if step.get("reference"):
        said.append(f"reference {step['reference']}")
    words = "; ".join(dict.fromkeys(text for text in said if text))
    return f"{step['at'][:19]}Z  {step['event']} → {step['state']} by {step['by']}" + (f" ({words})" if words else "")


def _row(name: str, text: str) -> str:
    return f"{name:<{_WIDTH}}{text}".rstrip()
