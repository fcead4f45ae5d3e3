"""Access rights on subjects: who may do what under which names, beyond what a role allows. Pure.

    profile      what every account may do without a right of its own
    rights       a list: who, which operations, which subjects
    restricted   subjects that the profile does not open; each read of them leaves an audit entry

What nothing allows is denied. Names are matched by patterns in which `*` matches any text; nothing else is special.
A right is given to an account, a connector, a department, a role or to everybody:

    account:li.editor     connector:<department id>/<name>     department:<id>     role:security_officer     *

A right never lifts what is forbidden to a role, nor does it let a program decide on an approval: the enforcer checks
both (`exchange.api.registry.enforcement`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from schemas.access import Action, Actor, ActorKind, Role
from schemas.errors import InvalidError, Reason

__all__ = ["OPERATIONS", "Profile", "Right", "Rights", "SubjectOperation", "matches", "principals"]

_MOST_PATTERN = 500  # characters


class SubjectOperation(StrEnum):
    """Operation on subjects that a right allows."""

    READ = "read"  # lists, versions, look-ups, checks, searches
    READ_BY_ID = "read_by_id"  # a schema by its id
    REGISTER = "register"
    CONFIGURE = "configure"
    DELETE = "delete"
    ASK = "ask"  # for approval to lower a classification


OPERATIONS = {
    Action.SCHEMA_READ: SubjectOperation.READ,
    Action.SCHEMA_READ_BY_ID: SubjectOperation.READ_BY_ID,
    Action.SCHEMA_REGISTER: SubjectOperation.REGISTER,
    Action.SCHEMA_CONFIGURE: SubjectOperation.CONFIGURE,
    Action.SCHEMA_DELETE: SubjectOperation.DELETE,
    Action.APPROVAL_ASK: SubjectOperation.ASK,
}
"""Operation that each action on the registry needs. Deciding on an approval depends on the role alone."""


class Profile(StrEnum):
    """Profile: what every account and connector may do without a right of its own."""

    CLOSED = "closed"  # nothing
    IDS = "ids"  # read by id: what a deserializer needs
    CATALOGUE = "catalogue"  # read everything that is not restricted

    def allows(self, operation: SubjectOperation) -> bool:
        """Return whether the profile allows an operation."""
        if self is Profile.CATALOGUE:
            return operation in {SubjectOperation.READ, SubjectOperation.READ_BY_ID}
        return self is Profile.IDS and operation is SubjectOperation.READ_BY_ID


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """One right of one principal or group.

    Attributes:
        who: principal, in one of the forms above.
        operations: what it allows.
        subjects: patterns of names.
    """

    who: str
    operations: frozenset[SubjectOperation]
    subjects: tuple[str, ...]

    @classmethod
    def parse(cls, who: str, operations: Iterable[str], subjects: Iterable[str]) -> "Right":
        """Parse a right from the configuration.

        Raises:
            InvalidError: CONFIG_INVALID, an unknown word.
        """
        kind, _, name = who.partition(":")
        known = who == "*" or (
            (kind == "role" and name in set(Role))
            or (kind in {"account", "department"} and bool(name))
            or (kind == "connector" and all(name.partition("/")))
        )
        if not known:
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"got the right of {who[:80]!r}; expected *, account:NAME, connector:DEPARTMENT/NAME, department:ID or "
                f"role: with one of {', '.join(Role)}",
            )
        try:
            allowed = frozenset(map(SubjectOperation, operations))
        except ValueError as error:
            raise InvalidError(
                Reason.CONFIG_INVALID, f"{who[:80]}: {error}; expected operations of {', '.join(SubjectOperation)}"
            ) from error
        patterns = tuple(subjects)
        if not allowed or not patterns or any(not one or len(one) > _MOST_PATTERN for one in patterns):
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{who[:80]}: got a right without operations or subjects; expected at least one of each",
            )
        return cls(who=who, operations=allowed, subjects=patterns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """All rights, and the profile that applies without one.

    Attributes:
        profile: what every account may do.
        rights: of single principals and groups.
        restricted: patterns of subjects that the profile does not open.
    """

    profile: Profile = Profile.CATALOGUE
    rights: tuple[Right, ...] = ()
    restricted: tuple[str, ...] = ()

    def allows(self, actor: Actor, operation: SubjectOperation, subject: str) -> bool:
        """Return whether an actor has a right of its own to an operation.

        Args:
            actor: who acts.
            operation: which.
            subject: its name; empty for an act on all of them, which only the pattern `*` covers.
        """
        names = principals(actor)
        return any(
            operation in right.operations
            and right.who in names
            and any(matches(pattern, subject) for pattern in right.subjects)
            for right in self.rights
        )

    def allows_anywhere(self, actor: Actor, operation: SubjectOperation) -> bool:
        """Return whether an actor has a right of its own to an operation under any subject."""
        names = principals(actor)
        return any(operation in right.operations and right.who in names for right in self.rights)

    def profile_allows(self, operation: SubjectOperation, subject: str) -> bool:
        """Return whether the profile allows an operation under a subject."""
        return self.profile.allows(operation) and not self.is_restricted(subject)

    def is_restricted(self, subject: str) -> bool:
        """Return whether a subject is restricted."""
        return any(matches(pattern, subject) for pattern in self.restricted)


def principals(actor: Actor) -> frozenset[str]:
    """Return the principal names under which an actor may have rights."""
    person = actor.kind is ActorKind.HUMAN
    own = f"account:{actor.id}" if person else f"connector:{actor.department}/{actor.id}"
    names = {"*", own, f"role:{actor.role.value}"}
    if actor.department:
        names.add(f"department:{actor.department}")
    return frozenset(names)


def matches(pattern: str, name: str) -> bool:
    """Return whether a name matches a pattern, in which `*` matches any text. Linear in the lengths of both."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    if not name.startswith(first):
        return False
    start = len(first)
    for part in rest[:-1]:
        found = name.find(part, start)
        if found < 0:
            return False
        start = found + len(part)
    return name.endswith(rest[-1]) and len(name) - len(rest[-1]) >= start
