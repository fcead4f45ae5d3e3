"""Release window: how long after its audit entry a release may leave, and how long a revocation waits for it."""

from typing import Final

__all__ = ["RELEASE_WINDOW"]


RELEASE_WINDOW: Final = 0.5
"""Seconds after the commit of its entry was sent in which a release may leave. A revocation is acknowledged only when
they have passed, on any gateway. So this is a constant and no setting: with a shorter wait than another gateway's
window, a revocation would be acknowledged while that gateway may still send."""
