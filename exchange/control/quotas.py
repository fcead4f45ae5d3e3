"""Quotas of departments: what one may have at a time, so that nobody fills the database or others' lists.

A quota is checked in the transaction of the act, before anything is stored. Of acts that run at the same time each
counts what is stored, so that a quota may be passed by as many as there are threads.
"""

from exchange.config import Quotas
from schemas.errors import ConflictError, Reason

__all__ = ["Quotas", "check_quota"]


def check_quota(name: str, count: int, limit: int, remedy: str) -> None:
    """Check that one more fits.

    Args:
        name: of the quota, as in the configuration.
        count: what is there.
        limit: what may be there.
        remedy: what the caller can do.

    Raises:
        ConflictError: DEPARTMENT_QUOTA.
    """
    if count >= limit:
        raise ConflictError(
            Reason.DEPARTMENT_QUOTA,
            f"got one more than the {limit} that are allowed (quotas.{name}); {remedy}, or have the operator raise it",
            details={"quota": name, "limit": str(limit)},
        )
