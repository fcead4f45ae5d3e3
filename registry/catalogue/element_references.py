"""Data elements as the registration of schemas needs them: adapter of its port over the dictionary."""

from collections.abc import Sequence

from typing_extensions import override

from registry.catalogue.element_store import ElementStore
from registry.database.unit_of_work import Reader, UnitOfWork
from registry.governance.element_references import ElementReferences
from registry.governance.element_rules import ElementDefinition

__all__ = ["DictionaryReferences"]


class DictionaryReferences(ElementReferences):
    """References to the elements of a dictionary.

    Args:
        store: of data elements.
    """

    def __init__(self, store: ElementStore) -> None:
        self._store = store

    @override
    def definition(self, reader: Reader, code: str) -> ElementDefinition | None:
        element = self._store.get(reader, code)
        return None if element is None else element.definition

    @override
    def record(self, work: UnitOfWork, subject: str, version: int, uses: Sequence[tuple[str, str]]) -> None:
        self._store.replace_uses(work, subject, version, uses)
