"""Answers of a look-up and of a verification, as they leave the pool."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from exchange.access.predicates.evaluation import Answer

__all__ = ["LookupAnswer", "VerifyAnswer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answered:
    """What both have.

    Attributes:
        basis: number of the last batch of each bucket of the hub that was asked.
        rules: version of the library's rules.
        entry_id: of the audit entry, durable before anything left; leaf_hash: its hash.
        salt: with which answers are hashed into the entry's root.
        deadline: `time.monotonic()` until which the answer may leave.
    """

    basis: Mapping[int, int]
    rules: int
    entry_id: str
    leaf_hash: bytes
    salt: bytes
    deadline: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupAnswer(_Answered):
    """Answer to a look-up.

    Attributes:
        schema_id: of the grant's view.
        values: of each subject in order, framed by that schema; empty where it is absent.
    """

    schema_id: int
    values: Sequence[bytes] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyAnswer(_Answered):
    """Answer to a verification.

    Attributes:
        predicate: as `name/version`.
        answers: of each subject in order.
    """

    predicate: str
    answers: Sequence[Answer] = field(repr=False)
