"""Port of the data elements to which schemas refer: their definitions, and which schema uses which."""

from collections.abc import Sequence
from typing import Protocol

from registry.database.unit_of_work import Reader, UnitOfWork
from registry.governance.element_rules import ElementDefinition

__all__ = ["ElementReferences"]


class ElementReferences(Protocol):
    """Port: the dictionary as registration needs it."""

    def definition(self, reader: Reader, code: str) -> ElementDefinition | None:
        """Return what a field that names an element must fit; None = there is no such element."""
        ...

    def record(self, work: UnitOfWork, subject: str, version: int, uses: Sequence[tuple[str, str]]) -> None:
        """Record the elements of a subject's newest version, code and path of each field, in place of earlier ones."""
        ...
