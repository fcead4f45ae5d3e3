"""Identity of subjects: identifiers in canonical form, handles as keyed pseudonyms, components of links. Pure.

    identifier   (type, canonical number): `ric18`, `hk_macau_tw_residence`, `foreign_pr`, `passport:<country>`, `uscc`,
                 `address_code`, `parcel`
    handle       HMAC-SHA-256 (RFC 2104) under a key of the hub alone, 16 bytes: the only name that its tables have
    component    handles that links join; a link is what a record of a source says that the rules trust for it

Two writings of one number must give one handle, so an identifier has one canonical form: Unicode NFKC, no spaces or
hyphens, capital letters. Numbers are checked in form only. A check character that does not fit is the business of the
schema's rules (`registry.avro.field_rules`); a number that passed them at its department must not fail here.

A component with two citizen numbers, or with too many identifiers, is joined not at all: duplicate and wrong numbers
(重号、错号) exist, and a wrong join shows one person another's file. Nothing is ever joined by likeness.
"""

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NewType

from schemas.errors import InvalidError, Reason

__all__ = [
    "BUCKETS",
    "CITIZEN",
    "MOST_IDENTIFIERS",
    "Components",
    "Handle",
    "Identifier",
    "Link",
    "SubjectKind",
    "bucket_of",
    "components",
    "handle_of",
    "identifier",
]

Handle = NewType("Handle", bytes)

BUCKETS: Final = 256
MOST_IDENTIFIERS: Final = 8
"""Most identifiers of one subject; a component with more is a mistake of its links."""
CITIZEN: Final = "ric18"
"""Type of the citizen identity number (GB 11643), which names a person for life."""

_HANDLE = 16
_KEY = 32
_VERSION = b"1"  # of the form of handles: another key or form would have another number
_DROPPED = re.compile(r"[\s\-\u2010-\u2015]+")
_ID18 = re.compile(r"[0-9]{17}[0-9X]")


class SubjectKind(StrEnum):
    """Kind of what an identifier names."""

    PERSON = "person"
    ORGANISATION = "organisation"
    PLACE = "place"


_FORMS: Final[Mapping[str, tuple[SubjectKind, re.Pattern[str], str]]] = MappingProxyType(
    {
        CITIZEN: (SubjectKind.PERSON, _ID18, "17 digits and a digit or X"),
        "hk_macau_tw_residence": (SubjectKind.PERSON, _ID18, "17 digits and a digit or X"),
        "foreign_pr": (SubjectKind.PERSON, re.compile(r"[0-9A-Z]{15,18}"), "15 to 18 digits and capital letters"),
        "passport": (SubjectKind.PERSON, re.compile(r"[0-9A-Z]{5,20}"), "5 to 20 digits and capital letters"),
        "uscc": (SubjectKind.ORGANISATION, re.compile(r"[0-9A-Z]{18}"), "18 digits and capital letters"),
        "address_code": (SubjectKind.PLACE, re.compile(r"[0-9A-Z]{1,64}"), "at most 64 digits and capital letters"),
        "parcel": (SubjectKind.PLACE, re.compile(r"[0-9A-Z]{1,64}"), "at most 64 digits and capital letters"),
    }
)
_COUNTRY = re.compile(r"[A-Z]{3}")  # ISO 3166-1 alpha-3, as in machine-readable passports (ICAO 9303)


@dataclass(frozen=True, slots=True)
class Identifier:
    """One name of a subject. Its representation leaves out the number.

    Attributes:
        type: such as `ric18` or `passport:FRA`.
        number: in canonical form.
    """

    type: str
    number: str

    def __repr__(self) -> str:
        return f"Identifier({self.type!r}, …)"

    @property
    def kind(self) -> SubjectKind:
        """Kind of the subject."""
        return _FORMS[self.type.partition(":")[0]][0]

    @property
    def citizen(self) -> bool:
        """Whether it is a citizen number, of which a person has one."""
        return self.type == CITIZEN


@dataclass(frozen=True, slots=True, order=True)
class Link:
    """Two identifiers of one subject, as a record says; `Link.of` puts them in order.

    Attributes:
        left: the lesser handle.
        right: the greater one.
        left_citizen: whether it stands for a citizen number.
        right_citizen: the same of the other.
    """

    left: Handle
    right: Handle
    left_citizen: bool
    right_citizen: bool

    @classmethod
    def of(cls, one: Handle, other: Handle, *, citizen: bool, other_citizen: bool) -> "Link":
        """Return the link of two handles, whichever is named first."""
        if one <= other:
            return cls(one, other, citizen, other_citizen)
        return cls(other, one, other_citizen, citizen)


@dataclass(frozen=True, slots=True)
class Components:
    """What a set of links says.

    Attributes:
        representative: of each handle that is joined with others; a handle that is missing stands alone.
        conflicts: components that were not joined, each as its handles.
    """

    representative: Mapping[Handle, Handle]
    conflicts: frozenset[frozenset[Handle]]

    def of(self, handle: Handle) -> Handle:
        """Return the handle under which a subject's golden record stands."""
        return self.representative.get(handle, handle)

    def members(self, handle: Handle) -> frozenset[Handle]:
        """Return the handles of a subject, that handle among them."""
        head = self.of(handle)
        return frozenset(one for one, its in self.representative.items() if its == head) | {handle}


def identifier(type_: str, number: str) -> Identifier:
    """Return an identifier in canonical form.

    Raises:
        InvalidError: IDENTIFIER_INVALID, for a type that does not exist, or a number that is not of its form.
    """
    name, colon, country = type_.partition(":")
    form = _FORMS.get(name)
    if form is None or bool(colon) != (name == "passport") or (colon and not _COUNTRY.fullmatch(country)):
        raise InvalidError(
            Reason.IDENTIFIER_INVALID,
            f"got an identifier of type {type_[:40]!r}; expected {', '.join(sorted(set(_FORMS) - {'passport'}))}, or "
            "passport: with the three letters of its country",
        )
    canonical = _DROPPED.sub("", unicodedata.normalize("NFKC", number)).upper()
    if not form[1].fullmatch(canonical):
        raise InvalidError(
            Reason.IDENTIFIER_INVALID,
            f"got a number of {len(canonical)} characters as {name}; expected {form[2]}",
            details={"type": name},
        )
    return Identifier(type_, canonical)


def handle_of(key: bytes, name: Identifier) -> Handle:
    """Return the handle of an identifier under the hub's key.

    Raises:
        ValueError: the key has not 32 bytes.
    """
    if len(key) != _KEY:
        raise ValueError(f"got a key of {len(key)} bytes; expected {_KEY}")
    message = _VERSION + name.type.encode() + b"\x1f" + name.number.encode()
    return Handle(hmac.digest(key, message, hashlib.sha256)[:_HANDLE])


def bucket_of(handle: Handle) -> int:
    """Return the bucket of a handle, its first byte: order and known time are counted per bucket."""
    return handle[0]


def components(links: Iterable[Link]) -> Components:
    """Return the components of links, by their representatives: the citizen number's handle, or else the least.

    The result depends on the set of links and on nothing else; without a link, what it had joined is apart again.
    """
    parent: dict[Handle, Handle] = {}
    citizens: set[Handle] = set()

    def root(one: Handle) -> Handle:
        while (above := parent.setdefault(one, one)) != one:
            parent[one] = parent[above]
            one = above
        return one

    for link in links:
        citizens |= {link.left} if link.left_citizen else set()
        citizens |= {link.right} if link.right_citizen else set()
        parent[root(link.left)] = root(link.right)
    groups: dict[Handle, set[Handle]] = {}
    for one in list(parent):
        groups.setdefault(root(one), set()).add(one)
    representative: dict[Handle, Handle] = {}
    conflicts: set[frozenset[Handle]] = set()
    for group in groups.values():
        named = group & citizens
        if len(named) > 1 or len(group) > MOST_IDENTIFIERS:
            conflicts.add(frozenset(group))
            continue
        representative |= dict.fromkeys(group, min(named or group))
    return Components(MappingProxyType(representative), frozenset(conflicts))
