"""Contexts: namespaces of subjects, as in `:.police:holders-value`. Pure.

    holders-value              the subject of that name in the default context
    :.:holders-value           the same
    :.police:holders-value     another subject, in the context `.police`
    :.police:                  no subject: the scope of the context's settings
    :.__GLOBAL:                no subject: the scope of the settings for all, as without a subject
    :*:holders                 in a prefix: the name in any context

A context belongs to a department: its name is a dot and the department's id, and the right to register under a subject
of the context is that department's (`owning_department`). Ids are unique over all contexts: a record's frame carries
only the id, so its meaning must not depend on a context.
"""

import re
from typing import NamedTuple

from schemas.errors import InvalidError, Reason

__all__ = [
    "ALL_CONTEXTS",
    "DEFAULT",
    "GLOBAL_CONTEXT",
    "MAX_SUBJECT",
    "Qualified",
    "matches",
    "normalize_subject",
    "owning_department",
    "parse_context",
    "qualify",
    "resolve_subject",
    "scopes",
    "split",
]

DEFAULT = "."
GLOBAL_CONTEXT = ".__GLOBAL"
"""Confluent's name of the scope around all contexts; it holds no subject."""

ALL_CONTEXTS = ":*:"
"""Prefix that matches every subject of every context."""

MAX_SUBJECT = 500  # characters, its context included
_QUALIFIED = re.compile(r":(\.[^:]*):(.*)", re.DOTALL)


class Qualified(NamedTuple):
    """Context of a subject, and its name within."""

    context: str
    name: str


def split(subject: str) -> Qualified:
    """Return a subject's context and its name within."""
    found = _QUALIFIED.fullmatch(subject)
    return Qualified(found[1], found[2]) if found else Qualified(DEFAULT, subject)


def qualify(context: str, name: str) -> str:
    """Return the subject of a name in a context."""
    return name if context == DEFAULT else f":{context}:{name}"


def normalize_subject(subject: str) -> str:
    """Return a subject in its canonical form: without the default context; the scope of all is empty."""
    context, name = split(subject)
    return "" if context == GLOBAL_CONTEXT and not name else qualify(context, name)


def resolve_subject(subject: str, parent: str) -> str:
    """Return the subject that a schema of *parent* refers to: without a context, it is in that of the parent."""
    if _QUALIFIED.fullmatch(subject):
        return normalize_subject(subject)
    return qualify(split(parent).context, subject)


def scopes(subject: str) -> tuple[str, ...]:
    """Return the scopes around a subject, whose settings are its defaults: its context, then the global one."""
    context, name = split(subject)
    if not subject or (context == DEFAULT and not name):
        return ()
    outer = (qualify(context, ""),) if context != DEFAULT and name else ()
    return (*outer, "")


def matches(subject: str, prefix: str) -> bool:
    """Return whether a subject matches a prefix; a prefix without a context is in the default one."""
    if prefix == ALL_CONTEXTS:
        return True
    if prefix.startswith(ALL_CONTEXTS):
        return split(subject).name.startswith(prefix[len(ALL_CONTEXTS) :])
    context, name = split(prefix)
    qualified = split(subject)
    return qualified.context == context and qualified.name.startswith(name)


def owning_department(subject: str) -> str:
    """Return the id of the department to which a subject's context belongs; empty for the default context."""
    return split(subject).context[1:]


def parse_context(text: str) -> str:
    """Return the context that a path names: `.police`, `:.police:` or `police`.

    Raises:
        InvalidError: SUBJECT_INVALID.
    """
    name = text.removeprefix(":").removesuffix(":")
    name = name if name.startswith(".") else f".{name}"
    if ":" in name or not name.isprintable() or len(name) > 100:
        raise InvalidError(
            Reason.SUBJECT_INVALID, "got a context that holds a colon or control characters; expected .name"
        )
    return name
