"""Rights on subjects: who may do what under which names, beside what a role carries. Pure.

    profile      what every account may do without a right of its own
    rights       a list: who, which operations, which subjects
    restricted   subjects whose reads need a right even so, and leave an entry each

Denied is what nothing allows. Names are matched by patterns in which `*` stands for any text; nothing else is special,
so that a pattern says what it says. A right is given to an account, a connector, a department, a role or to everybody:

    account:li.editor     connector:<department id>/<name>     department:<id>     role:security_officer     *

A right never lifts what is forbidden to a role, nor makes a program decide on an approval: that is the gate's to know.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from schemas.access import Action, Actor, ActorKind, Role
from schemas.errors import InvalidError, Reason

__all__ = ["OPERATIONS", "Operation", "Profile", "Right", "Rights", "matches", "principals"]

_MOST_PATTERN = 500  # characters


class Operation(StrEnum):
    """What a right allows."""

    READ = "read"  # lists, versions, look-ups, checks, searches
    READ_BY_ID = "read_by_id"  # what an id stands for
    REGISTER = "register"
    CONFIGURE = "configure"
    DELETE = "delete"
    ASK = "ask"  # that a classification may be taken back


OPERATIONS = {
    Action.SCHEMA_READ: Operation.READ,
    Action.SCHEMA_READ_BY_ID: Operation.READ_BY_ID,
    Action.SCHEMA_REGISTER: Operation.REGISTER,
    Action.SCHEMA_CONFIGURE: Operation.CONFIGURE,
    Action.SCHEMA_DELETE: Operation.DELETE,
    Action.APPROVAL_ASK: Operation.ASK,
}
"""What an act on the registry needs. Deciding on an approval is no right: it goes with a role."""


class Profile(StrEnum):
    """What every account and connector may do without a right."""

    CLOSED = "closed"  # nothing
    IDS = "ids"  # read by id: what a deserializer needs
    CATALOGUE = "catalogue"  # read everything that is not restricted

    def opens(self, operation: Operation) -> bool:
        """Return whether the profile opens an operation."""
        if self is Profile.CATALOGUE:
            return operation in {Operation.READ, Operation.READ_BY_ID}
        return self is Profile.IDS and operation is Operation.READ_BY_ID


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """One right.

    Attributes:
        who: see the module's text.
        operations: what it allows.
        subjects: patterns of names.
    """

    who: str
    operations: frozenset[Operation]
    subjects: tuple[str, ...]

    @classmethod
    def read(cls, who: str, operations: Iterable[str], subjects: Iterable[str]) -> "Right":
        """Read a right from words.

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
            allowed = frozenset(map(Operation, operations))
        except ValueError as error:
            raise InvalidError(
                Reason.CONFIG_INVALID, f"{who[:80]}: {error}; expected operations of {', '.join(Operation)}"
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
    """Every right, and what holds without one.

    Attributes:
        profile: what is open to every account.
        rights: given to some.
        restricted: patterns of subjects that a profile does not open.
    """

    profile: Profile = Profile.CATALOGUE
    rights: tuple[Right, ...] = ()
    restricted: tuple[str, ...] = ()

    def give(self, actor: Actor, operation: Operation, subject: str) -> bool:
        """Return whether an actor has a right of its own to an operation.

        Args:
            actor: who acts.
            operation: what for.
            subject: its name; empty for an act on all of them, which only the pattern `*` covers.
        """
        names = principals(actor)
        return any(
            operation in right.operations
            and right.who in names
            and any(matches(pattern, subject) for pattern in right.subjects)
            for right in self.rights
        )

    def give_some(self, actor: Actor, operation: Operation) -> bool:
        """Return whether an actor has a right of its own to an operation under any subject."""
        names = principals(actor)
        return any(operation in right.operations and right.who in names for right in self.rights)

    def open(self, operation: Operation, subject: str) -> bool:
        """Return whether the profile opens an operation under a subject."""
        return self.profile.opens(operation) and not self.restrict(subject)

    def restrict(self, subject: str) -> bool:
        """Return whether a subject is restricted."""
        return any(matches(pattern, subject) for pattern in self.restricted)


def principals(actor: Actor) -> frozenset[str]:
    """Return the names under which an actor may have rights."""
    person = actor.kind is ActorKind.HUMAN
    own = f"account:{actor.id}" if person else f"connector:{actor.department}/{actor.id}"
    names = {"*", own, f"role:{actor.role.value}"}
    if actor.department:
        names.add(f"department:{actor.department}")
    return frozenset(names)


def matches(pattern: str, name: str) -> bool:
    """Return whether a name fits a pattern, in which `*` stands for any text. Never takes longer than both are long."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    if not name.startswith(first):
        return False
    place = len(first)
    for part in rest[:-1]:
        found = name.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return name.endswith(rest[-1]) and len(name) - len(rest[-1]) >= place
