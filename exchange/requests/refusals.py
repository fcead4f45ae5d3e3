"""Refusals of share requests: to share is the rule, so a refusal says why, and by which law and article. Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from exchange.requests.model import Ground
from schemas.errors import InvalidError, Reason

__all__ = ["GROUND_WORDS", "check_clause", "check_ground"]

_UNCONDITIONAL_GROUNDS = frozenset({Ground.OUT_OF_DUTY, Ground.INCOMPLETE_SCOPE})


GROUND_WORDS: Final[Mapping[Ground, tuple[str, str]]] = MappingProxyType(
    {
        Ground.OUT_OF_DUTY: ("the records are not needed for a duty of the consumer", "超出申请部门履职需要"),
        Ground.INCOMPLETE_SCOPE: (
            "the request does not say completely what for and to what extent",
            "申请材料不完整、使用范围不明确",
        ),
        Ground.CONDITIONS_NOT_MET: ("the conditions of sharing are not met", "不符合有条件共享的条件"),
        Ground.NOT_SHARED: ("a law forbids to share the resource", "依法不予共享"),
    }
)
"""Each ground in English and in Chinese, as the consumer reads it."""


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
