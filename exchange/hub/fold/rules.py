"""Survivorship rules of a library as data: which resource leads each field (一数一源), as canonical JSON. Pure.

    {"library": "population", "version": 2,
     "links": ["travel-permits.v1"],
     "codes": {"sex": {"男": "1", "女": "2"}},
     "fields": {"full_name":   {"rule": "lead", "order": ["population.v1", "marriages.v1"]},
                "sex_code":    {"rule": "lead", "order": ["population.v1"], "strict": true, "normalise": "code:sex"},
                "mobile_phone": {"rule": "newest", "order": ["population.v1", "insured.v2"]},
                "age_class":   {"rule": "derived", "function": "age_class", "of": ["birth_date"]}}}

    lead       of the first resource in order that states a value; `strict`: of the first one alone
    newest     of the claim with the latest valid_from among the resources named
    set        every distinct value of the resources named, each with its source
    derived    a named function of other fields, computed when it is read and never stored

Resources are named as topics, that is with the major version of their schema: while a department moves from v1 to v2,
the order says which of the two counts. A resource that a field's order does not name says nothing about the field. A
field whose order names none is not folded at all, and rules with such a field cannot be activated (State Council
decree 809, Art. 19: one source for each item of data). Members that are absent have their defaults, and the canonical
text leaves defaults out, so that a member that is added later changes no hash.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, cast

from exchange.hub.fold.normalise import NORMALISERS, Normaliser, normaliser
from schemas.canonical import Json, canonical, digest
from schemas.errors import InvalidError, PoolError, Reason
from schemas.names import Topic

__all__ = ["LIBRARIES", "FieldRule", "Kind", "Rules", "leads_that_differ", "parse", "require_leads", "without_lead"]

LIBRARIES: Final = ("population", "legal-entity", "address", "credit", "e-licence", "service-request", "service-case")
DERIVED_FUNCTIONS: Final = ("age_class",)

_MOST_FIELDS = 500
_MOST_SOURCES = 64
_MOST_TABLES = 100
_MOST_CODES = 10_000
_MOST_DAYS = 36_500
_TEXT = 200


class Kind(StrEnum):
    """Kind of a field's rule."""

    LEAD = "lead"
    NEWEST = "newest"
    SET = "set"
    DERIVED = "derived"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRule:
    """The rule of one field.

    Attributes:
        kind: how it is filled.
        order: resources that may fill it; of `lead`, the first one leads.
        strict: of `lead`: no other resource than the first fills it, though others are compared.
        normalise: name of the normaliser with which values are compared.
        fresh_days: days after which a value is answered as stale; 0 for never.
        sensitive_presence: whether it must not be told that there is a value.
        function: of `derived`.
        of: fields that a derived one is made from.
    """

    kind: Kind
    order: tuple[str, ...] = ()
    strict: bool = False
    normalise: str = "exact"
    fresh_days: int = 0
    sensitive_presence: bool = False
    function: str = ""
    of: tuple[str, ...] = ()

    @property
    def lead(self) -> str:
        """Resource that leads the field; empty for another kind of rule, or none."""
        return self.order[0] if self.kind is Kind.LEAD and self.order else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of one library.

    Attributes:
        library: whose.
        version: from 1.
        links: resources whose records may join identifiers.
        codes: tables for `code:` normalisers.
        fields: rules by field, in order of the names.
    """

    library: str
    version: int
    links: tuple[str, ...] = ()
    codes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    fields: Mapping[str, FieldRule]

    @property
    def stored(self) -> tuple[str, ...]:
        """Names of the fields that a golden record stores, in order."""
        return tuple(name for name, rule in self.fields.items() if rule.kind is not Kind.DERIVED)

    @property
    def resources(self) -> frozenset[str]:
        """Every resource that the rules name."""
        return frozenset(self.links).union(*(rule.order for rule in self.fields.values()))

    def normaliser_of(self, field: str) -> Normaliser:
        """Return a field's normaliser."""
        found = normaliser(self.fields[field].normalise, self.codes)
        if found is None:
            raise ValueError(f"the rules of {self.library} were not parsed: {field} has no normaliser")
        return found

    def document(self) -> dict[str, Json]:
        """Return the document, without members that have their defaults."""
        found: dict[str, Json] = {
            "library": self.library,
            "version": self.version,
            "fields": {name: _field_document(rule) for name, rule in self.fields.items()},
        }
        if self.links:
            found["links"] = [*self.links]
        if self.codes:
            found["codes"] = {name: dict(table) for name, table in self.codes.items()}
        return found

    def text(self) -> bytes:
        """Return the canonical JSON (RFC 8785), as it is stored and agreed."""
        return canonical(self.document())

    def hash(self) -> bytes:
        """Return the SHA-256 of the canonical text."""
        return digest(self.document())


def parse(document: Json) -> Rules:
    """Return the rules that a document describes.

    Raises:
        InvalidError: RULES_INVALID; the message names the place in the document, such as fields.sex_code.order.
    """
    whole = _object(document, "rules", {"library", "version", "links", "codes", "fields"})
    library = _one_of(whole.get("library"), "library", LIBRARIES)
    version = _number(whole.get("version"), "version", 1, 2**31 - 1)
    codes = {
        name: _table(table, f"codes.{name}")
        for name, table in sorted(_members(whole.get("codes", {}), "codes", _MOST_TABLES).items())
    }
    listed = _members(whole.get("fields"), "fields", _MOST_FIELDS)
    if not listed:
        raise _wrong("fields", "an empty object", "at least one field")
    rules = Rules(
        library=library,
        version=version,
        links=_resources(whole.get("links", []), "links"),
        codes=MappingProxyType(codes),
        fields=MappingProxyType({name: _field(rule, name, codes) for name, rule in sorted(listed.items())}),
    )
    for name, rule in rules.fields.items():
        for source in rule.of:
            if source not in rules.stored:
                raise _wrong(f"fields.{name}.of", _shown(source), "names of fields that the rules fill")
    return rules


def without_lead(rules: Rules) -> tuple[str, ...]:
    """Return the fields that no resource may fill."""
    return tuple(name for name in rules.stored if not rules.fields[name].order)


def require_leads(rules: Rules) -> None:
    """Check that each field has a source, before rules are activated.

    Raises:
        InvalidError: NO_LEAD, with the fields.
    """
    missing = without_lead(rules)
    if missing:
        raise InvalidError(
            Reason.NO_LEAD,
            f"got rules of {rules.library} in which no resource fills {', '.join(missing[:20])}; name the source "
            "department's resource under `order` (decree 809, Art. 19), or leave the field out",
            details={"fields": ",".join(missing[:20])},
        )


def leads_that_differ(before: Rules | None, after: Rules) -> frozenset[str]:
    """Return the resources whose department has to agree: those that lead a field in one of the two versions alone.

    Of `newest` and `set`, each resource named counts as one that leads. For the trust in links the same holds.
    """
    return frozenset(name for name, _ in _claims_of(before) ^ _claims_of(after))


def _claims_of(rules: Rules | None) -> frozenset[tuple[str, str]]:
    if rules is None:
        return frozenset()
    found = {(name, "links") for name in rules.links}
    for name, rule in rules.fields.items():
        leading = rule.order[:1] if rule.kind is Kind.LEAD else rule.order
        found |= {(topic, f"{rule.kind} {name}") for topic in leading}
    return frozenset(found)


def _field(value: Json, name: str, codes: Mapping[str, Mapping[str, str]]) -> FieldRule:
    place = f"fields.{name}"
    if not name.isidentifier() or not name.isascii():
        raise _wrong(place, "this name", "a name of an Avro field")
    members = _object(
        value,
        place,
        {"rule", "order", "strict", "normalise", "fresh_days", "sensitive_presence", "function", "of"},
    )
    kind = Kind(_one_of(members.get("rule"), f"{place}.rule", tuple(Kind)))
    derived = kind is Kind.DERIVED
    for member in ("order", "strict", "normalise") if derived else ("function", "of"):
        if member in members:
            raise _wrong(f"{place}.{member}", "it", f"no such member with the rule {kind}")
    if "strict" in members and kind is not Kind.LEAD:
        raise _wrong(f"{place}.strict", "it", "no such member except with the rule lead")
    normalise = members.get("normalise", "exact")
    if not isinstance(normalise, str) or normaliser(normalise, codes) is None:
        tables = "".join(f", code:{table}" for table in sorted(codes))
        raise _wrong(f"{place}.normalise", _shown(normalise), f"one of {', '.join(NORMALISERS)}{tables}")
    return FieldRule(
        kind=kind,
        order=_resources(members.get("order", []), f"{place}.order"),
        strict=_flag(members.get("strict", False), f"{place}.strict"),
        normalise=normalise,
        fresh_days=_number(members.get("fresh_days", 0), f"{place}.fresh_days", 0, _MOST_DAYS),
        sensitive_presence=_flag(members.get("sensitive_presence", False), f"{place}.sensitive_presence"),
        function=_one_of(members.get("function"), f"{place}.function", DERIVED_FUNCTIONS) if derived else "",
        of=_texts(members.get("of"), f"{place}.of") if derived else (),
    )


def _field_document(rule: FieldRule) -> dict[str, Json]:
    found: dict[str, Json] = {"rule": rule.kind.value}
    if rule.order:
        found["order"] = [*rule.order]
    if rule.strict:
        found["strict"] = True
    if rule.normalise != "exact":
        found["normalise"] = rule.normalise
    if rule.fresh_days:
        found["fresh_days"] = rule.fresh_days
    if rule.sensitive_presence:
        found["sensitive_presence"] = True
    if rule.kind is Kind.DERIVED:
        found["function"] = rule.function
        found["of"] = [*rule.of]
    return found


def _resources(value: Json, place: str) -> tuple[str, ...]:
    names = _texts(value, place)
    for at, name in enumerate(names):
        try:
            Topic.parse(name)
        except PoolError as error:
            raise _wrong(
                f"{place}[{at}]", _shown(name), "a resource and its major version, such as population.v1"
            ) from error
    return names


def _texts(value: Json, place: str) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MOST_SOURCES or not all(isinstance(one, str) for one in value):
        raise _wrong(place, _shown(value), f"a list of at most {_MOST_SOURCES} names")
    names = cast("list[str]", value)
    if len(set(names)) != len(names):
        raise _wrong(place, "a name twice", "each name once")
    return tuple(names)


def _table(value: Json, place: str) -> Mapping[str, str]:
    table = _members(value, place, _MOST_CODES)
    for code, meaning in table.items():
        if not isinstance(meaning, str):
            raise _wrong(f"{place}.{code[:_TEXT]}", _shown(meaning), "a text")
    return MappingProxyType(cast("dict[str, str]", dict(sorted(table.items()))))


def _members(value: Json, place: str, most: int) -> dict[str, Json]:
    if not isinstance(value, dict) or len(value) > most:
        raise _wrong(place, _shown(value), f"an object of at most {most} members")
    return value


def _object(value: Json, place: str, known: set[str]) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise _wrong(place, _shown(value), "an object")
    for name in value:
        if name not in known:
            raise _wrong(f"{place}.{name[:_TEXT]}", "it", f"one of {', '.join(sorted(known))}")
    return value


def _one_of(value: Json, place: str, known: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in known:
        raise _wrong(place, _shown(value), f"one of {', '.join(known)}")
    return value


def _number(value: Json, place: str, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise _wrong(place, _shown(value), f"a whole number from {least} to {most}")
    return value


def _flag(value: Json, place: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(place, _shown(value), "true or false")
    return value


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    return repr(value[:_TEXT]) if isinstance(value, str) else f"a {type(value).__name__}"


def _wrong(place: str, got: str, expected: str) -> InvalidError:
    return InvalidError(Reason.RULES_INVALID, f"{place}: got {got}; expected {expected}", details={"place": place})
