"""Bodies of calls on the log: evidence bundles, and the destruction of keys of the trace."""

from collections.abc import Callable

from pydantic import Field

from exchange.api.bodies.base import Body
from exchange.audit.store import EntryQuery

__all__ = ["BundleBody", "BundleQueryBody", "PruningBody"]


class PruningBody(Body):
    """The month before which the keys of the trace shall be destroyed."""

    before: str = Field(description="YYYY-MM, six months ago or earlier")


class BundleQueryBody(Body):
    """Criteria of the entries of a bundle, as those of a search."""

    department: str | None = None
    actor: str | None = None
    resource: str | None = None
    purpose: str | None = None
    case: str | None = None
    grant: str | None = None
    action: str | None = None
    decision: str | None = None
    reason: str | None = None
    party: str | None = None
    from_: str | None = Field(None, alias="from")
    to: str | None = None

    def to_query(self, parse_moment: Callable[[str, str], int]) -> EntryQuery:
        """Return the query of the log.

        Args:
            parse_moment: returns the microseconds of a member's text.

        Raises:
            InvalidError: REQUEST_INVALID, for a time of another form.
        """
        members = self.model_dump(exclude={"party", "from_", "to"})
        since = None if self.from_ is None else parse_moment("from", self.from_)
        until = None if self.to is None else parse_moment("to", self.to)
        return EntryQuery(**members, since=since, until=until)


class BundleBody(Body):
    """An evidence bundle to make: of these entries, or of all that match a query."""

    entries: list[str] = Field([], max_length=1000, description="ids of entries")
    query: BundleQueryBody | None = None
