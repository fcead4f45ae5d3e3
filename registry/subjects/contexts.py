"""Contexts: namespaces of subjects, as in `:.police:holders-value`. Pure.

    holders-value              the subject of that name in the default context
    :.:holders-value           the same
    :.police:holders-value     another subject, in the context `.police`
    :.police:                  no subject: the scope of the context's settings
    :*:holders                 in a prefix: the name in any context

A context belongs to a department: its name is a dot and the department's id, and rights on a subject of the context
are decided for that department (`owner_of`). Ids are one space over all contexts: a record's frame has only the id, so
its meaning may not depend on the context.
"""

import re
from typing import NamedTuple

from schemas.errors import InvalidError, Reason

__all__ = [
    "DEFAULT",
    "EVERY",
    "MAX_SUBJECT",
    "Qualified",
    "context_of",
    "matches",
    "normal",
    "owner_of",
    "qualify",
    "relative",
    "scopes",
    "split",
]

DEFAULT = "."
EVERY = ":*:"
"""The prefix that matches every subject of every context."""

MAX_SUBJECT = 500  # characters, its context included
_QUALIFIED = re.compile(r":(\.[^:]*):(.*)", re.DOTALL)


class Qualified(NamedTuple):
    """A subject's context and its name within."""

    context: str
    name: str


def split(subject: str) -> Qualified:
    """Return a subject's context and its name within."""
    found = _QUALIFIED.fullmatch(subject)
    return Qualified(found[1], found[2]) if found else Qualified(DEFAULT, subject)


def qualify(context: str, name: str) -> str:
    """Return the subject of a name in a context."""
    return name if context == DEFAULT else f":{context}:{name}"


def normal(subject: str) -> str:
    """Return the normal form of a subject's name: without the default context."""
    return qualify(*split(subject))


def relative(subject: str, parent: str) -> str:
    """Return a subject named in a schema of *parent*: without a context, it is in the parent's."""
    if _QUALIFIED.fullmatch(subject):
        return normal(subject)
    return qualify(split(parent).context, subject)


def scopes(subject: str) -> tuple[str, ...]:
    """Return the scopes whose settings a subject inherits: its context, then the global one."""
    context, name = split(subject)
    if not subject or (context == DEFAULT and not name):
        return ()
    outer = (qualify(context, ""),) if context != DEFAULT and name else ()
    return (*outer, "")


def matches(subject: str, prefix: str) -> bool:
    """Return whether a prefix matches a subject; a prefix without a context is in the default one."""
    if prefix == EVERY:
        return True
    if prefix.startswith(EVERY):
        return split(subject).name.startswith(prefix[len(EVERY) :])
    context, name = split(prefix)
    mine = split(subject)
    return mine.context == context and mine.name.startswith(name)


def owner_of(subject: str) -> str:
    """Return the id of the department whose context a subject is in; empty in the default context."""
    return split(subject).context[1:]


def context_of(text: str) -> str:
    """Read a context from a path: `.police`, `:.police:` or `police`.

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
