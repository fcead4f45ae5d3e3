"""Grants that an order to rectify keeps suspended: nobody resumes one but the data authority, by accepting the case."""

from exchange.violations.store import ViolationStore
from registry.database.unit_of_work import Reader
from schemas.errors import ConflictError, Reason

__all__ = ["check_not_held"]


def check_not_held(violations: ViolationStore, reader: Reader, grant_id: str) -> None:
    """Check that no order to rectify keeps a grant suspended.

    Raises:
        ConflictError: RECTIFICATION_ORDERED; `details` names the case.
        CorruptError: ROW_FORGED, a case of the grant is not one that the pool wrote.
    """
    for case in violations.holding(reader, grant_id):
        raise ConflictError(
            Reason.RECTIFICATION_ORDERED,
            f"the case {case.id} keeps the grant suspended; the data authority resumes it when it accepts what was "
            "rectified (`pool violation accept`, decree 809, Art. 27)",
            details={"case": case.id},
        )
