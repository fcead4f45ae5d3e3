"""Rules of the metadata: every fault of every element, with its reason and clause. Pure.

A draft may lack what is needed only for its review (`Stage`); nothing that is there may be wrong. Names and texts of
elements and faults, in both languages, are data (`metadata_elements.json`).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any, Final

from registry.catalogue.code_lists import CLASS_CODE, RESOURCE_CODE, CodeLists
from registry.catalogue.metadata import DataItem, Metadata
from schemas.reason_texts import Language

__all__ = ["LONGEST_ITEM", "Fault", "FaultCode", "Stage", "element_name", "element_names", "fault_of", "faults_of"]


class Stage(StrEnum):
    """For what the metadata must be complete."""

    DRAFT = "draft"
    REVIEW = "review"


class FaultCode(StrEnum):
    """What is wrong with an element."""

    MISSING = "missing"
    MISSING_FOR_SUBMISSION = "missing_for_submission"
    TOO_LONG = "too_long"
    UNKNOWN = "unknown"
    MALFORMED = "malformed"
    NOT_ALLOWED = "not_allowed"
    NO_LEGAL_BASIS = "no_legal_basis"
    DUPLICATE = "duplicate"
    CONTRADICTION = "contradiction"
    EXISTS = "exists"
    UNREADABLE = "unreadable"
    SECRET = "secret"  # noqa: S105 - a fault code, not a secret


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of one element.

    Attributes:
        element: id of the element, such as `share_scope`; `items[2].type` within the third data item.
        code: what is wrong.
        clause: the rule that it breaks.
    """

    element: str
    code: FaultCode
    clause: str

    def text(self, language: Language) -> str:
        """Return it in words: the element's name, what is wrong, the clause."""
        words = _document()["faults"][self.code][language]
        gap = " " if language is Language.ENGLISH else ""
        name = element_name(self.element, language)
        if self.element.startswith("items["):
            name = f"{name} {self.element}"
        return f"{name}{gap}{words} ({self.clause})"


LONGEST_ITEM: Final = 1_000_000_000
"""Characters or digits of a data item at most: what PostgreSQL could store of one value."""
_TITLE: Final = 200  # characters
_TEXT: Final = 2_000
_ITEMS: Final = 2_000
_NEEDED: Final = ("title", "abstract", "class_code", "theme", "format", "share_type", "open_type", "update_cycle",
                  "contact_name", "level")  # fmt: skip
_FOR_REVIEW: Final = ("title_en", "abstract_en", "pia_id", "secrecy_assessment_id")
_LISTED: Final = {
    "theme": "themes",
    "format": "formats",
    "share_type": "share_types",
    "open_type": "open_types",
    "update_cycle": "update_cycles",
    "level": "levels",
}
_CONDITIONS: Final = {
    "unconditional": (),
    "conditional": ("share_scope", "use_purpose"),
    "none": ("refuse_reason", "legal_basis"),
}
_CLASS: Final = re.compile(CLASS_CODE, re.ASCII)
_RESOURCE: Final = re.compile(RESOURCE_CODE, re.ASCII)
_LAW: Final = re.compile("《[^《》]{2,}》")
_EMAIL: Final = re.compile(r"[^@\s]{1,64}@[^@\s]{1,190}")
_PHONE: Final = re.compile(r"[0-9+()\- ]{3,30}", re.ASCII)
_ELEMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", re.ASCII)  # as `registry.catalogue.elements` has it


def faults_of(metadata: Metadata, lists: CodeLists, stage: Stage = Stage.DRAFT) -> list[Fault]:
    """Return every fault, in the order of the elements; empty = it is complete for the stage.

    Args:
        metadata: normalized.
        lists: the code lists.
        stage: what it must be complete for.
    """
    found = {*_presence(metadata, stage), *_lengths(metadata), *_terms(metadata, lists), *_codes(metadata, lists)}
    found |= {*_sharing(metadata), *_opening(metadata), *_items(metadata, lists), *_contact(metadata)}
    if metadata.secrecy != "none":
        found.add(("secrecy", FaultCode.SECRET))
    order = [*element_names()]
    faults = (Fault(element, code, _clause(element)) for element, code in found)
    return sorted(faults, key=lambda fault: (order.index(_base(fault.element)), _place(fault.element), fault.code))


_Found = tuple[str, FaultCode]


def _presence(metadata: Metadata, stage: Stage) -> Iterator[_Found]:
    for name in _NEEDED:
        if not getattr(metadata, name):
            yield name, FaultCode.MISSING
    if stage is Stage.REVIEW:
        for name in _FOR_REVIEW:
            if not getattr(metadata, name):
                yield name, FaultCode.MISSING_FOR_SUBMISSION


def _lengths(metadata: Metadata) -> Iterator[_Found]:
    for name in element_names():
        value = getattr(metadata, name)
        if isinstance(value, str) and len(value) > (_TITLE if name.startswith("title") else _TEXT):
            yield name, FaultCode.TOO_LONG


def _terms(metadata: Metadata, lists: CodeLists) -> Iterator[_Found]:
    for name, known in _LISTED.items():
        value = getattr(metadata, name)
        if value and lists.term(known, value) is None:
            yield name, FaultCode.UNKNOWN
    if any(lists.term("share_modes", mode) is None for mode in metadata.share_modes):
        yield "share_modes", FaultCode.UNKNOWN
    if len({*metadata.share_modes}) < len(metadata.share_modes):
        yield "share_modes", FaultCode.DUPLICATE


def _codes(metadata: Metadata, lists: CodeLists) -> Iterator[_Found]:
    if metadata.class_code:
        if not _CLASS.fullmatch(metadata.class_code) or len(metadata.class_code) > 40:
            yield "class_code", FaultCode.MALFORMED
        elif lists.class_terms(metadata.class_code) is None:
            yield "class_code", FaultCode.UNKNOWN
    if metadata.code:
        if not _RESOURCE.fullmatch(metadata.code):
            yield "code", FaultCode.MALFORMED
        elif metadata.class_code and metadata.code.partition("/")[0] != metadata.class_code:
            yield "code", FaultCode.CONTRADICTION
    related = metadata.related_codes
    if any(not _RESOURCE.fullmatch(code) for code in related):
        yield "related_codes", FaultCode.MALFORMED
    if len({*related}) < len(related) or (metadata.code and metadata.code in related):
        yield "related_codes", FaultCode.DUPLICATE


def _sharing(metadata: Metadata) -> Iterator[_Found]:
    needed = _CONDITIONS.get(metadata.share_type)
    if needed is None:
        return
    for name in ("share_scope", "use_purpose", "refuse_reason", "legal_basis"):
        if bool(getattr(metadata, name)) != (name in needed):
            yield name, FaultCode.MISSING if name in needed else FaultCode.NOT_ALLOWED
    if metadata.share_type == "none":
        if metadata.legal_basis and not _LAW.search(metadata.legal_basis):
            yield "legal_basis", FaultCode.NO_LEGAL_BASIS
        if metadata.share_modes:
            yield "share_modes", FaultCode.NOT_ALLOWED
    elif not metadata.share_modes:
        yield "share_modes", FaultCode.MISSING


def _opening(metadata: Metadata) -> Iterator[_Found]:
    if metadata.share_type == "none" and metadata.open_type in {"unconditional", "conditional"}:
        yield "open_type", FaultCode.CONTRADICTION
    if metadata.open_type == "conditional" and not metadata.open_conditions:
        yield "open_conditions", FaultCode.MISSING
    if metadata.open_type in {"unconditional", "none"} and metadata.open_conditions:
        yield "open_conditions", FaultCode.NOT_ALLOWED


def _items(metadata: Metadata, lists: CodeLists) -> Iterator[_Found]:
    if not metadata.items:
        yield "items", FaultCode.MISSING
    if len(metadata.items) > _ITEMS:
        yield "items", FaultCode.TOO_LONG
        return
    names: set[str] = set()
    for number, item in enumerate(metadata.items):
        for member, code in _item(item, lists):
            yield f"items[{number}].{member}", code
        if item.name and item.name in names:
            yield f"items[{number}].name", FaultCode.DUPLICATE
        names.add(item.name)


def _item(item: DataItem, lists: CodeLists) -> Iterator[_Found]:
    if not item.name:
        yield "name", FaultCode.MISSING
    if not item.type:
        yield "type", FaultCode.MISSING
    elif lists.term("item_types", item.type) is None:
        yield "type", FaultCode.UNKNOWN
    for member in ("name", "name_en"):
        if len(getattr(item, member)) > _TITLE:
            yield member, FaultCode.TOO_LONG
    if item.length is not None and not 1 <= item.length <= LONGEST_ITEM:
        yield "length", FaultCode.MALFORMED
    if item.source and not item.element:
        yield "element", FaultCode.MISSING
    if item.element and not _ELEMENT.fullmatch(item.element):
        yield "element", FaultCode.MALFORMED


def _contact(metadata: Metadata) -> Iterator[_Found]:
    if not metadata.contact_phone and not metadata.contact_email:
        yield "contact_phone", FaultCode.MISSING
    if metadata.contact_phone and not _PHONE.fullmatch(metadata.contact_phone):
        yield "contact_phone", FaultCode.MALFORMED
    if metadata.contact_email and not _EMAIL.fullmatch(metadata.contact_email):
        yield "contact_email", FaultCode.MALFORMED


def fault_of(element: str, code: FaultCode) -> Fault:
    """Return a fault of an element, with its clause."""
    return Fault(element, code, _clause(element))


def element_name(element: str, language: Language) -> str:
    """Return the name of an element in a language."""
    return element_names()[_base(element)][language]


@cache
def element_names() -> Mapping[str, Mapping[str, str]]:
    """Return id → the element's row: names by language, and its clause; in the order of the guide."""
    return {row["id"]: row for row in _document()["elements"]}


def _clause(element: str) -> str:
    return element_names()[_base(element)]["clause"]


def _base(element: str) -> str:
    return element.partition("[")[0]


def _place(element: str) -> int:
    found = re.match(r"items\[(\d+)\]", element)
    return -1 if found is None else int(found[1])


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        files("registry.catalogue").joinpath("metadata_elements.json").read_text(encoding="utf-8")
    )
    return document
