"""Which fields of a record name its subject, and how they become identifiers. Pure.

IdentifierFields(number="id_number", type_field="id_type", country_field="nationality_code")     population
IdentifierFields(number="uscc", type="uscc")                                                     legal entity
"""

from collections.abc import Mapping
from dataclasses import dataclass

from exchange.hub.fold.claim import Value
from exchange.hub.fold.identity import Identifier, identifier
from schemas.errors import InvalidError, Reason

__all__ = ["IdentifierFields"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentifierFields:
    """Fields that hold one identifier.

    Attributes:
        number: field of the number.
        type: of the identifier, where it is always the same.
        type_field: field of the type, where it is not.
        country_field: field of the country of a passport, three letters.
    """

    number: str
    type: str = ""
    type_field: str = ""
    country_field: str = ""

    def read(self, values: Mapping[str, Value]) -> Identifier | None:
        """Return the identifier of a record; None where it states no number.

        Raises:
            InvalidError: IDENTIFIER_INVALID.
        """
        number = values.get(self.number)
        if number is None or number == "":
            return None
        kind = self.type or values.get(self.type_field)
        if not isinstance(number, str) or not isinstance(kind, str):
            raise InvalidError(
                Reason.IDENTIFIER_INVALID,
                f"got an identifier without a type, or of another form, in {self.number}; expected text of both",
            )
        if kind == "passport":
            kind = f"passport:{values.get(self.country_field) or ''}"
        return identifier(kind, number)
