"""The release window: how long after its entry a release may leave, and how long a revocation waits for it."""

from typing import Final

__all__ = ["RELEASE_WINDOW"]


RELEASE_WINDOW: Final = 0.5
"""Seconds after the commit of its entry was sent within which a release may leave. A revocation is acknowledged only
when they have passed, on whichever gateway it came in: so this is no setting. A gateway that waited less than another
one takes to send would promise too much."""
