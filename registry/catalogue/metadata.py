"""Metadata of a catalogue entry (元数据), by the compilation guide of 2017 and decree 809, Art. 13 to 15. Pure.

Terms of code lists are stored by their ids. Here everything may be missing: a draft is filled in step by step.
`registry.catalogue.metadata_rules` says what is wrong with it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from registry.catalogue.code_lists import CodeLists

__all__ = ["DataItem", "Metadata"]

_LISTED = {
    "theme": "themes",
    "format": "formats",
    "share_type": "share_types",
    "open_type": "open_types",
    "update_cycle": "update_cycles",
    "level": "levels",
    "secrecy": "secrecy",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataItem:
    """A data item (数据项).

    Attributes:
        name: in Chinese. name_en: in English, or the field's name.
        type: id of the list `item_types`. length: characters or digits; None = not stated.
        element: code of the data element (数据元) that it is an item of; empty = none.
        source: the entry is the element's source (数源); else it refers to it.
    """

    name: str = ""
    name_en: str = ""
    type: str = ""
    length: int | None = None
    element: str = ""
    source: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What the catalogue says of a resource; an empty text is missing.

    Attributes:
        title, abstract: in Chinese; title_en, abstract_en in English.
        class_code: class, item, sub-item and detail, such as `101001`.
        code: resource code, such as `101001/000001`; empty = the pool assigns the next one of the class.
        theme, format, share_type, open_type, update_cycle, level, secrecy: ids of the lists of these names.
        items: data items.
        share_modes: ids of `share_modes` (decree 809, Art. 22).
        share_scope, use_purpose: conditions of conditional sharing. refuse_reason, legal_basis: of none (Art. 15).
        open_conditions: of conditional opening.
        contact_name, contact_phone, contact_email: of the office that answers for the resource, not of a person.
        pia_id, secrecy_assessment_id: of the two assessments before the review (Art. 13).
        related_codes: resource codes of related resources.
    """

    title: str = ""
    title_en: str = ""
    abstract: str = ""
    abstract_en: str = ""
    class_code: str = ""
    code: str = ""
    theme: str = ""
    format: str = ""
    items: tuple[DataItem, ...] = ()
    share_type: str = ""
    share_modes: tuple[str, ...] = ()
    share_scope: str = ""
    use_purpose: str = ""
    refuse_reason: str = ""
    legal_basis: str = ""
    open_type: str = ""
    open_conditions: str = ""
    update_cycle: str = ""
    contact_name: str = ""
    contact_phone: str = ""
    contact_email: str = ""
    level: str = ""
    secrecy: str = "none"
    pia_id: str = ""
    secrecy_assessment_id: str = ""
    related_codes: tuple[str, ...] = ()

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Return the metadata of a document of `to_document`."""
        known = {one.name for one in fields(cls)}
        values: dict[str, Any] = {name: value for name, value in document.items() if name in known}
        values["items"] = tuple(DataItem(**item) for item in document.get("items", ()))
        for name in ("share_modes", "related_codes"):
            values[name] = tuple(document.get(name, ()))
        return cls(**values)

    def to_document(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        values = asdict(self)
        return values | {name: list(values[name]) for name in ("items", "share_modes", "related_codes")}

    def normalized(self, lists: CodeLists) -> Self:
        """Return it with the ids of the terms that it names by code, Chinese or English name, and without white space.

        What is none of a list stays as it is.
        """

        def term(name: str, text: str) -> str:
            found = lists.find(name, text) if text.strip() else None
            return text.strip() if found is None else found.id

        members = {one.name: getattr(self, one.name) for one in fields(self)}
        texts = {name: value.strip() for name, value in members.items() if isinstance(value, str)}
        listed = {name: term(lists_name, getattr(self, name)) for name, lists_name in _LISTED.items()}
        items = tuple(
            replace(
                item,
                name=item.name.strip(),
                name_en=item.name_en.strip(),
                type=term("item_types", item.type),
                element=item.element.strip(),
            )
            for item in self.items
        )
        modes = tuple(term("share_modes", mode) for mode in self.share_modes)
        related = tuple(code.strip() for code in self.related_codes)
        return replace(self, **(texts | listed), items=items, share_modes=modes, related_codes=related)
