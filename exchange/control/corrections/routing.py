"""Routing of corrections: which department answers for a field, by the dictionary of data elements.

It is the lead department (数源部门) of the data element that the field is an item of, where the catalogue entry says so
and a lead is named (decree 809, Art. 19); else the provider of the resource.
"""

from registry.catalogue.element_store import ElementStore
from registry.catalogue.store import RecordStore
from registry.database.unit_of_work import Reader
from schemas.names import Topic

__all__ = ["CorrectionRouting"]


class CorrectionRouting:
    """Finds source departments.

    Args:
        entries: catalogue entries with full metadata.
        elements: data elements and their leads.
    """

    def __init__(self, entries: RecordStore, elements: ElementStore) -> None:
        self._entries = entries
        self._elements = elements

    def source(self, reader: Reader, topic: Topic, field: str, provider: str) -> str:
        """Return the department that answers for a field of a resource.

        Raises:
            CorruptError: ROW_FORGED.
        """
        entry = self._entries.get(reader, topic)
        items = () if entry is None else entry.metadata.items
        for item in items:
            if item.element and field in {item.name_en, item.name}:
                element = self._elements.get(reader, item.element)
                if element is not None and element.lead:
                    return element.lead
        return provider
