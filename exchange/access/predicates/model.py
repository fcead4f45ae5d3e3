"""Registered predicates (核验条件): what may be asked about a subject, named by callers, never written by them. Pure.

A caller who could choose a threshold would read any number by asking often enough (age ≥ 80, ≥ 79 …). So a predicate is
registered: proposed by one person, confirmed by another, and then never changed. A changed one is another version;
grants name `id/version`.

    proposed ──confirm──▶ confirmed        proposed ──reject──▶ rejected

The expression is a row filter over the fields of its library, and over those that are derived from them and from the
day (`exchange.access.predicates.evaluation`).
"""

import re
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from exchange.access.predicates.evaluation import check_expression, source_fields
from exchange.access.view.filter import filter_to_json
from schemas.access import RowFilter
from schemas.canonical import Json
from schemas.errors import ConflictError, InvalidError, Reason

__all__ = [
    "MAX_OPEN",
    "PredicateState",
    "RegisteredPredicate",
    "check_predicate",
    "decided_before",
    "definition",
    "shared_fields",
]

MAX_OPEN: Final = 100
"""Proposed predicates that nobody has decided on, at most."""

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
_CERTIFICATE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MOST_TEXT: Final = 200  # characters
_MOST_REPLACED: Final = 20


class PredicateState(StrEnum):
    """State of a predicate."""

    PROPOSED = "proposed"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredPredicate:
    """One version of a predicate, and the decision on it.

    Attributes:
        id: UUIDv7, of this version's proposal.
        name: by which grants call it; version: 1, 2, 3 …
        library: about whose golden records it is.
        expression: what must be true.
        answers: the question in words, as a case officer reads it.
        replaces: codes of the certificates (证明) in whose place it is answered.
        state: see PredicateState.
        proposed_by, proposed_at: account name; aware.
        decided_by, decided_at, reason: account name, time and reason of the decision; empty and None before.
    """

    id: str
    name: str
    version: int
    library: str
    expression: RowFilter
    answers: str
    replaces: tuple[str, ...] = ()
    state: PredicateState = PredicateState.PROPOSED
    proposed_by: str
    proposed_at: datetime
    decided_by: str = ""
    decided_at: datetime | None = None
    reason: str = ""

    @property
    def reference(self) -> str:
        """By which a grant names it."""
        return f"{self.name}/{self.version}"

    @property
    def fields(self) -> frozenset[str]:
        """Fields of the library of which it tells something."""
        return source_fields(self.expression)

    def decide(self, *, confirmed: bool, by: str, at: datetime, reason: str = "") -> "RegisteredPredicate":
        """Return it as somebody has decided.

        Raises:
            ConflictError: TRANSITION_NOT_ALLOWED, it was decided before.
        """
        if self.state is not PredicateState.PROPOSED:
            raise decided_before(self)
        state = PredicateState.CONFIRMED if confirmed else PredicateState.REJECTED
        return replace(self, state=state, decided_by=by, decided_at=at, reason=reason)


def decided_before(predicate: RegisteredPredicate) -> ConflictError:
    """Return the error of a decision on a predicate that is decided."""
    return ConflictError(
        Reason.TRANSITION_NOT_ALLOWED,
        f"the predicate {predicate.reference} is {predicate.state} already; what is decided stays decided",
    )


def check_predicate(predicate: RegisteredPredicate) -> None:
    """Check what a predicate says.

    Raises:
        InvalidError: REQUEST_INVALID, with everything that is wrong; FILTER_INVALID, its expression does not suit the
            library.
    """
    replaced = predicate.replaces
    expected = [
        one
        for wrong, one in (
            (not _NAME.fullmatch(predicate.name), "a name of small letters, digits and hyphens, such as alive-80"),
            (
                not 0 < len(predicate.answers.strip()) <= _MOST_TEXT,
                f"`answers` in words, up to {_MOST_TEXT} characters",
            ),
            (len(replaced) > _MOST_REPLACED or len(set(replaced)) != len(replaced), "up to 20 certificates, each once"),
            (
                not all(map(_CERTIFICATE.fullmatch, replaced)),
                "codes of certificates, of letters, digits, dots, hyphens",
            ),
        )
        if wrong
    ]
    if expected:
        raise InvalidError(
            Reason.REQUEST_INVALID, f"the predicate cannot be registered: expected {'; '.join(expected)}"
        )
    check_expression(predicate.library, predicate.expression)


def definition(predicate: RegisteredPredicate) -> dict[str, Json]:
    """Return what a predicate says, without the decision on it: this is hashed into the entries of both persons."""
    return {
        "name": predicate.name,
        "version": predicate.version,
        "library": predicate.library,
        "expression": filter_to_json(predicate.expression),
        "answers": predicate.answers,
        "replaces": list(predicate.replaces),
    }


def shared_fields(predicates: tuple[RegisteredPredicate, ...]) -> frozenset[str]:
    """Return the fields of which two or more of these predicates tell something: together they bracket a value."""
    seen: set[str] = set()
    shared: set[str] = set()
    for one in predicates:
        shared |= seen & one.fields
        seen |= one.fields
    return frozenset(shared)
