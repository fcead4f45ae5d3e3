"""States of a proposal of an account or an invitation, which commands read without loading its rules."""

from enum import StrEnum

__all__ = ["ProposalState"]


class ProposalState(StrEnum):
    """State of a proposal; one that is open and older than `VALID` has ended."""

    OPEN = "open"
    CONFIRMED = "confirmed"
    REFUSED = "refused"
