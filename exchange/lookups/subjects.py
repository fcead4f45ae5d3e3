"""Subjects of a call: identifiers checked in their form alone, and never repeated in an error. Pure.

Whether there is such a subject is not asked here: a number of a right form that nobody has is answered as absent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from exchange.hub.fold.identity import Identifier, identifier
from schemas.errors import InvalidError, Reason

__all__ = ["Subject", "read_subjects"]


@dataclass(frozen=True, slots=True)
class Subject:
    """A subject as a caller names it. Its representation leaves out what the caller wrote.

    Attributes:
        type: of the identifier, such as `ric18`.
        number: as it was written.
    """

    type: str
    number: str

    def __repr__(self) -> str:
        return "Subject(…)"


def read_subjects(subjects: Sequence[Subject], most: int) -> list[Identifier]:
    """Return identifiers in canonical form, in order.

    Args:
        subjects: of the call.
        most: subjects that a call under the grant may name.

    Raises:
        InvalidError: REQUEST_INVALID, none or too many; IDENTIFIER_INVALID, with the place of the first wrong one.
    """
    if not 1 <= len(subjects) <= most:
        raise InvalidError(
            Reason.REQUEST_INVALID, f"got {len(subjects)} subjects; expected 1 to {most} in a call under this grant"
        )
    found = []
    for at, one in enumerate(subjects):
        try:
            found.append(identifier(one.type, one.number))
        except InvalidError:
            # Not the error of the form: who swaps type and number must not read the number in it.
            raise InvalidError(
                Reason.IDENTIFIER_INVALID,
                f"got an identifier of another form as subject {at + 1} of {len(subjects)}; expected a type such as "
                "ric18 or uscc and a number of its form",
                details={"subject": str(at)},
            ) from None
    return found
