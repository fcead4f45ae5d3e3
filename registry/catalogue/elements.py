"""Data elements (数据元): the dictionary to which data items refer, and the one source department of each (一数一源).

A data item names an element, and may say that its entry is the element's source. Of two departments that would publish
one element as its source, the second is refused until the data authority has named the lead (数源部门; State Council
decree 809, Art. 19). Then the lead alone is.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from registry.catalogue.code_lists import code_lists
from registry.catalogue.metadata import Metadata
from registry.catalogue.metadata_rules import LONGEST_ITEM
from registry.governance.element_rules import ElementDefinition
from schemas.access import Level, MaskRule
from schemas.errors import ConflictError, InvalidError, Reason
from schemas.names import Topic

__all__ = [
    "ELEMENT_CODE",
    "Claim",
    "DataElement",
    "Duplicate",
    "ElementUse",
    "check_source",
    "duplicates",
    "sources_of",
]

ELEMENT_CODE: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}"
"""Code of a data element."""
_CODE: Final = re.compile(ELEMENT_CODE, re.ASCII)
_TEXT: Final = 400  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class DataElement:
    """One version of a data element.

    Attributes:
        code: such as `DE00001`; forever. version: 1, 2, 3 …
        zh, en: its names.
        type: id of the list `item_types`. length: characters or digits; None = not stated.
        value_domain: in words, or the codes of a closed one, such as `1|2|9`. unit: of a quantity; empty = none.
        level: grade. personal: N, P or D (direct identifier). sensitive: whether sensitive personal information.
        mask: default rule.
        standard: where it is defined, such as `GB 11643`.
        lead: internal id of the lead department; empty = none is named.

    Raises:
        InvalidError: NAME_INVALID or REQUEST_INVALID, saying which member.
    """

    code: str
    version: int = 1
    zh: str
    en: str
    type: str
    length: int | None = None
    value_domain: str = ""
    unit: str = ""
    level: Level = Level.G1
    personal: str = "N"
    sensitive: bool = False
    mask: MaskRule = MaskRule.NONE
    standard: str = ""
    lead: str = ""

    def __post_init__(self) -> None:
        if not _CODE.fullmatch(self.code):
            raise InvalidError(
                Reason.NAME_INVALID,
                f"got the code {self.code[:40]!r}; expected letters, digits, '.', '_' and '-', such as DE00001",
            )
        for name, needed in (("zh", True), ("en", True), ("value_domain", False), ("unit", False), ("standard", False)):
            text = getattr(self, name)
            if len(text) > _TEXT or (needed and not text.strip()):
                raise InvalidError(
                    Reason.REQUEST_INVALID, f"{name} is missing or longer than {_TEXT} characters; expected some words"
                )
        if code_lists().term("item_types", self.type) is None:
            known = ", ".join(term.id for term in code_lists().terms("item_types"))
            raise InvalidError(Reason.REQUEST_INVALID, f"got the type {self.type[:40]!r}; expected one of {known}")
        if self.length is not None and not 1 <= self.length <= LONGEST_ITEM:
            raise InvalidError(Reason.REQUEST_INVALID, f"got another length than one from 1 to {LONGEST_ITEM}")
        if self.personal not in {"N", "P", "D"}:
            raise InvalidError(Reason.REQUEST_INVALID, f"got personal {self.personal[:10]!r}; expected N, P or D")

    @property
    def definition(self) -> ElementDefinition:
        """What a field of a schema that names the element must fit."""
        codes = frozenset(code.strip() for code in self.value_domain.split("|")) if "|" in self.value_domain else None
        return ElementDefinition(
            code=self.code,
            type=self.type,
            length=self.length,
            codes=codes,
            standard=self.standard,
            level=self.level,
            personal=self.personal,
            sensitive="S" if self.sensitive else "N",
        )


@dataclass(frozen=True, slots=True)
class ElementUse:
    """A field of a subject's newest version that names an element."""

    subject: str
    path: str
    version: int


@dataclass(frozen=True, slots=True)
class Claim:
    """An entry in force that is the source of an element."""

    element: str
    topic: Topic
    provider: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """An element, or a data item of one name, that several departments have.

    Attributes:
        element: its code; empty for items that name none. name: of the element or the items.
        lead: department; empty = none is named.
        entries: topic and department of each.
        kind: `contested`: several are its source, or want to be; `against_lead`: another one than the lead;
            `same_name`: items of one name, without an element.
    """

    element: str
    name: str
    lead: str
    entries: Sequence[tuple[Topic, str]]
    kind: str


def sources_of(metadata: Metadata) -> list[str]:
    """Return the codes of the elements of which an entry is the source, sorted, each once."""
    return sorted({item.element for item in metadata.items if item.element and item.source})


def check_source(element: DataElement, provider: str, claims: Iterable[Claim]) -> None:
    """Check that a department may publish an element as its source.

    Args:
        element: current version.
        provider: the department.
        claims: entries in force that are its source.

    Raises:
        ConflictError: ELEMENT_HAS_LEAD, another department is the lead; ELEMENT_CONTESTED, another one publishes it,
            and no lead is named.
    """
    if element.lead and element.lead != provider:
        raise ConflictError(
            Reason.ELEMENT_HAS_LEAD,
            f"the lead of the data element {element.code} is another department ({element.lead}); refer to the element "
            "without `source`, and take the data from the lead (decree 809, Art. 19)",
        )
    others = sorted({str(claim.topic) for claim in claims if claim.provider != provider})
    if others and not element.lead:
        raise ConflictError(
            Reason.ELEMENT_CONTESTED,
            f"the data element {element.code} is published by another department ({others[0]}); the data authority "
            "names the lead first: `pool element lead` (decree 809, Art. 19)",
        )


def duplicates(elements: Iterable[DataElement], entries: Iterable[tuple[Topic, str, Metadata]]) -> list[Duplicate]:
    """Return the report of duplicates: of elements by code, then of items by name.

    Args:
        elements: of the dictionary.
        entries: topic, department and metadata of every entry that has not ended.
    """
    known = {element.code: element for element in elements}
    sources: dict[str, set[tuple[Topic, str]]] = {}
    names: dict[str, set[tuple[Topic, str]]] = {}
    for topic, provider, metadata in entries:
        for code in sources_of(metadata):
            sources.setdefault(code, set()).add((topic, provider))
        for item in metadata.items:
            if not item.element:
                names.setdefault(item.name, set()).add((topic, provider))
    found = []
    for code, claimed in sorted(sources.items()):
        element = known.get(code)
        lead = "" if element is None else element.lead
        wrong = sorted(one for one in claimed if one[1] != lead) if lead else sorted(claimed)
        if wrong and (lead or len({provider for _, provider in claimed}) > 1):
            kind = "against_lead" if lead else "contested"
            name = "" if element is None else element.zh
            found.append(Duplicate(element=code, name=name, lead=lead, entries=wrong, kind=kind))
    for name, having in sorted(names.items()):
        if len({provider for _, provider in having}) > 1:
            found.append(Duplicate(element="", name=name, lead="", entries=sorted(having), kind="same_name"))
    return found
