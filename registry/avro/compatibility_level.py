"""Compatibility levels, Confluent's, and the directions of comparison that each requires. Pure."""

from enum import StrEnum

from schemas.errors import InvalidError, Reason

__all__ = ["Compatibility", "Direction"]


class Compatibility(StrEnum):
    """Compatibility level: what a new version of a subject must guarantee towards the earlier ones."""

    NONE = "NONE"
    BACKWARD = "BACKWARD"
    BACKWARD_TRANSITIVE = "BACKWARD_TRANSITIVE"
    FORWARD = "FORWARD"
    FORWARD_TRANSITIVE = "FORWARD_TRANSITIVE"
    FULL = "FULL"
    FULL_TRANSITIVE = "FULL_TRANSITIVE"

    @classmethod
    def parse(cls, text: str) -> "Compatibility":
        """Parse a level's name, in any case.

        Raises:
            InvalidError: COMPATIBILITY_INVALID.
        """
        try:
            return cls(text.upper())
        except ValueError as error:
            raise InvalidError(
                Reason.COMPATIBILITY_INVALID, f"got the level {text[:40]!r}; expected one of {', '.join(cls)}"
            ) from error

    @property
    def transitive(self) -> bool:
        """Whether every earlier version counts, not only the latest."""
        return self.value.endswith("_TRANSITIVE")

    @property
    def directions(self) -> tuple["Direction", ...]:
        """The comparisons that the level requires."""
        if self is Compatibility.NONE:
            return ()
        word = self.value.partition("_")[0]
        return tuple(Direction) if word == "FULL" else (Direction[word],)


class Direction(StrEnum):
    """Direction of a comparison: which schema reads the other's records."""

    BACKWARD = "backward"  # the new schema reads what the old one wrote
    FORWARD = "forward"  # the old schema reads what the new one writes
