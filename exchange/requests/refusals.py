"""Refusals of share requests: to share is the rule, so a refusal says why, and by which law and article. Pure."""

from dataclasses import dataclass

from exchange.requests.model import Ground
from schemas.errors import InvalidError, Reason

__all__ = ["Refusal", "check_clause", "check_ground"]

_UNCONDITIONAL_GROUNDS = frozenset({Ground.OUT_OF_DUTY, Ground.INCOMPLETE_SCOPE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What a refusal says beside its reason.

    Attributes:
        clause: law and article that is cited.
        ground: see Ground; None = not said.
    """

    clause: str = ""
    ground: Ground | None = None


def check_clause(*, reason: str, clause: str) -> None:
    """Check that a refusal says why, in words, and cites a law and its article (decree 809, Art. 21).

    Raises:
        InvalidError: CLAUSE_MISSING.
    """
    if not clause.strip() or not reason.strip():
        raise InvalidError(
            Reason.CLAUSE_MISSING,
            "got a refusal without reason and clause; to share is the rule: expected why, in words, and the law and "
            "article that forbids it",
        )


def check_ground(ground: Ground | None, *, unconditional: bool) -> None:
    """Check the ground of a refusal: what is shared without conditions, or returned, is refused on two grounds alone.

    Raises:
        InvalidError: REQUEST_INVALID.
    """
    if ground is None:
        raise InvalidError(
            Reason.REQUEST_INVALID, f"got a refusal without a ground; expected one of {', '.join(Ground)}"
        )
    if unconditional and ground not in _UNCONDITIONAL_GROUNDS:
        expected = " or ".join(sorted(_UNCONDITIONAL_GROUNDS))
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"got the ground {ground} for a resource that is shared without conditions, or for rows that return to "
            f"their own area (decree 809, Art. 24); expected {expected}",
        )
