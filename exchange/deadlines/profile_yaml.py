"""YAML form of a rule profile: parsed and checked, with every fault by file, line and column. Pure.

Findings look so:

    city.yaml:14:5: the key "clause" is missing
    city.yaml:21:3: unknown rule "reply.conditonal" - did you mean "reply.conditional"?
    city.yaml:30:5: reply.unconditional has 12 working days, reply.conditional has 10 working days; expected …
"""

import difflib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from exchange.deadlines.profile import Extension, PauseRule, Rule, RuleId, RuleProfile, Words, contradictions
from schemas.errors import InvalidError, Reason

__all__ = ["LONGEST", "parse_profile"]

LONGEST: Final = 100_000
"""Characters of a profile at most."""

_DEEPEST: Final = 20
"""Levels of a profile at most; it needs five."""

_MODELS: Final[Sequence[type[BaseModel]]] = (RuleProfile, Rule, Extension, PauseRule, Words)


def parse_profile(text: str, *, name: str) -> RuleProfile:
    """Parse a profile.

    Args:
        text: the file.
        name: its name in messages.

    Raises:
        InvalidError: CONFIG_INVALID: no YAML, an unknown or a missing key, a rule without a clause, an unknown rule, a
            limit of another form, or rules that contradict each other; with each fault as NAME:LINE:COLUMN.
    """
    if len(text) > LONGEST:
        raise InvalidError(Reason.CONFIG_INVALID, f"{name}: got {len(text)} characters; expected {LONGEST} at most")
    data = _load(text, name)
    try:
        profile = RuleProfile.model_validate(data)
    except ValidationError as error:
        raise _refusal(name, (_fault(data, one) for one in error.errors(include_input=False))) from error
    faults = [(*_place(data, path), message) for path, message in contradictions(profile)]
    if faults:
        raise _refusal(name, iter(faults))
    return profile


def _refusal(name: str, faults: Iterator[tuple[int, int, str]]) -> InvalidError:
    return InvalidError(
        Reason.CONFIG_INVALID,
        "\n".join(f"{name}:{line}:{column}: {message}" for line, column, message in sorted(set(faults))),
    )


def _load(text: str, name: str) -> Mapping[str, Any]:
    from ruamel.yaml import YAML  # noqa: PLC0415 - a command that parses no profile does not load it
    from ruamel.yaml.error import MarkedYAMLError, YAMLError  # noqa: PLC0415

    try:
        unused = _unused_notation(YAML(typ="rt", pure=True).parse(io.StringIO(text)))
        if unused is not None:
            raise _refusal(name, iter([unused]))
        data = YAML(typ="rt", pure=True).load(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = (error.problem or "cannot be read as YAML").split("\n")[0]
        raise _refusal(name, iter([(mark.line + 1 if mark else 1, mark.column + 1 if mark else 1, what)])) from error
    except YAMLError as error:
        raise _refusal(name, iter([(1, 1, "cannot be read as YAML")])) from error
    except ValueError as error:  # InvalidError is none
        message = "a date that there is not, or a number of thousands of digits; expected what a rule may have"
        raise _refusal(name, iter([(1, 1, message)])) from error
    if not isinstance(data, dict):
        raise _refusal(name, iter([(1, 1, "expected keys `profile:`, `version:`, `title:` and `rules:`")]))
    return data


def _unused_notation(events: Iterator[Any]) -> tuple[int, int, str] | None:
    """Return the first place of what YAML has and a profile needs not: what it builds may be large, or no value."""
    from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent  # noqa: PLC0415

    depth = 0
    for event in events:
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        what = (
            f"more than {_DEEPEST} levels"
            if depth > _DEEPEST
            else "an anchor or an alias"
            if isinstance(event, AliasEvent) or getattr(event, "anchor", None)
            else "a tag"
            if getattr(event, "tag", None) is not None
            else "a merge key"
            if getattr(event, "value", None) == "<<"
            else None
        )
        if what is not None:
            mark = event.start_mark
            return mark.line + 1, mark.column + 1, f"got {what}; expected keys and values alone"
    return None


def _fault(data: Mapping[str, Any], error: Any) -> tuple[int, int, str]:
    path = [step for step in error["loc"] if step != "[key]"]
    last, message = str(path[-1]) if path else "file", str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "missing":
        message = f'the key "{last}" is missing'
    elif error["type"] == "extra_forbidden":
        message = f'unknown key "{last}"{_meant(last, [key for model in _MODELS for key in model.model_fields])}'
    elif "[key]" in error["loc"]:
        message = f'unknown rule "{last}"{_meant(last, list(RuleId))}'
    else:
        message = f"{last}: {message}"
    return (*_place(data, path), message)


def _meant(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f' - did you mean "{close[0]}"?' if close else ""


def _place(data: Any, path: Sequence[Any]) -> tuple[int, int]:
    """Return line and column, from 1, of a key, or of the last key above it that the file has."""
    node, place = data, (1, 1)
    for step in path:
        if not isinstance(node, dict) or step not in node:
            break
        line, column = node.lc.key(step)  # type: ignore[attr-defined] # of ruamel's mapping
        place = (line + 1, column + 1)
        node = node[step]
    return place
