"""Kinds and states of rule changes, which commands read without loading their rules."""

from enum import StrEnum

__all__ = ["ChangeState", "RuleKind"]


class RuleKind(StrEnum):
    """What a change is of."""

    CALENDAR = "calendar"  # the arrangement of one year
    PROFILE = "profile"  # one rule profile
    ORDER = "order"  # which profiles are followed, the first with the highest precedence


class ChangeState(StrEnum):
    """State of a change."""

    PROPOSED = "proposed"
    IN_FORCE = "in_force"
    SUPERSEDED = "superseded"
    REJECTED = "rejected"
