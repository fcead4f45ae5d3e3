"""Bodies of erasures: the proposal, and the document of one."""

from pydantic import Field

from exchange.api.bodies.base import Body
from exchange.erasure.erasures import Erasure
from schemas.canonical import Json

__all__ = ["ErasureBody", "erasure_json"]


class ErasureBody(Body):
    """An erasure to propose."""

    topic: str
    key: list[str] = Field(
        min_length=1, description="parts of the record key, in the clear; only its pseudonym is kept"
    )
    reason: str


def erasure_json(erasure: Erasure) -> dict[str, Json]:
    """Return an erasure's document."""
    return {
        "id": erasure.id,
        "topic": str(erasure.topic),
        "pseudonym": erasure.key.hex(),
        "state": str(erasure.state),
        "reason": erasure.reason,
        "proposed_by": erasure.proposed_by,
        "proposed_at": erasure.proposed_at.isoformat(),
        "decided_by": erasure.decided_by,
        "decided_at": None if erasure.decided_at is None else erasure.decided_at.isoformat(),
        "destroyed": erasure.destroyed,
        "done_at": None if erasure.done_at is None else erasure.done_at.isoformat(),
    }
