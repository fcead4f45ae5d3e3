"""Which grants a change of a schema touches, and how. Pure.

A grant's view has one output schema, made at approval; the resource's schema goes on changing under it. Records of
the new version reach the view as the old schema would read them (`exchange.access.view.resolve`), so that

    a field is added         no grant shows it; whoever needs it asks again
    a granted field goes     its default is delivered, null if it may be null; else nothing is delivered any more
    a filter's field goes    the filter can no longer be compiled: nothing is delivered any more
    a type changes           the old type must be able to read it, or nothing is delivered any more
    a level rises            above the grant's ceiling every draw is refused until it is asked for again
    a mask changes           the grant keeps the one that was approved
    the rest                 the grant keeps the words that were approved with it

The worst of these per grant and change is what `touched` gives. Grants are read from the documents that the control
API lists (`GET /v1/grants`); of a document only the members named in `GrantUse` are looked at.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from registry.avro.parser import NO_DEFAULT, ParsedSchema
from registry.reports.diff import Change, Kind, Readers
from schemas.access import Level
from schemas.canonical import Json
from schemas.errors import InvalidError, Reason

__all__ = ["ENDED", "GrantUse", "Touch", "Touched", "grant_use", "touched"]

ENDED = frozenset({"rejected", "expired", "terminated", "withdrawn"})
"""States in which a grant delivers nothing and never will again."""


_FORM = frozenset({Kind.ADDED, Kind.REMOVED, Kind.RENAMED, Kind.TYPE})


class Touch(IntEnum):
    """How a grant is touched, from mild to hard."""

    REVIEW = 1  # it goes on as approved; somebody should look at whether that is still right
    DEFAULTED = 2  # it goes on, with a default or null in the place of values
    STOPPED = 3  # nothing is delivered until it is asked for and approved again


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantUse:
    """What a grant uses of a schema.

    Attributes:
        id: the grant's. consumer: department id. state: its state.
        fields: granted, top-level. masks: field → rule. filtered: fields that its row filter names.
        ceiling: highest level that it may show.
    """

    id: str
    consumer: str
    state: str
    fields: frozenset[str]
    masks: Mapping[str, str]
    filtered: frozenset[str]
    ceiling: Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """One grant that one change touches.

    Attributes:
        change: which. grant: the grant's id. consumer: its department.
        touch: how. because: in words.
    """

    change: Change
    grant: str
    consumer: str
    touch: Touch
    because: str

    def to_json(self) -> dict[str, Json]:
        """Return it as JSON."""
        return {
            "grant": self.grant,
            "consumer": self.consumer,
            "kind": self.change.kind.value,
            "path": self.change.path,
            "touch": self.touch.name.lower(),
            "because": self.because,
        }


def grant_use(document: Mapping[str, Any]) -> GrantUse:
    """Read what a grant uses from its document.

    Raises:
        InvalidError: REQUEST_INVALID, when it is not a grant's document.
    """
    try:
        row_filter = document["row_filter"]
        return GrantUse(
            id=str(document["id"]),
            consumer=str(document["consumer"]),
            state=str(document["state"]),
            fields=frozenset(map(str, document["fields"])),
            masks={str(field): str(rule) for field, rule in document["masks"].items()},
            filtered=frozenset(_filtered(row_filter)),
            ceiling=Level[document["ceiling"]],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"got a document that is no grant ({type(error).__name__}: {str(error)[:60]}); expected what the control "
            "API lists under /v1/grants",
        ) from error


def touched(
    changes: Iterable[Change], grants: Sequence[GrantUse], old: ParsedSchema, new: ParsedSchema
) -> list[Touched]:
    """Return the grants that the changes touch, by change and grant.

    Args:
        changes: what `registry.reports.diff.diff` gave for the two schemas.
        grants: of the resource; ended ones are left out.
        old: the schema as it is registered.
        new: as it would follow.
    """
    alive = [grant for grant in grants if grant.state not in ENDED]
    found = []
    for change in changes:
        for grant in alive:
            verdict = _verdict(change, grant, old, new)
            if verdict is not None:
                touch, because = verdict
                found.append(
                    Touched(change=change, grant=grant.id, consumer=grant.consumer, touch=touch, because=because)
                )
    return found


def _verdict(change: Change, grant: GrantUse, old: ParsedSchema, new: ParsedSchema) -> tuple[Touch, str] | None:
    if change.kind is Kind.NAME:
        return None  # a view matches fields, not the record's name
    if change.kind is Kind.KEY:
        shown = set(grant.fields) & {*old.key, *new.key}
        return (Touch.REVIEW, "the view keeps the key that was approved with it") if shown else None
    top = change.was.partition(".")[0]
    granted, filtered = top in grant.fields, top in grant.filtered
    if (change.kind is Kind.ADDED and "." not in change.was) or not (granted or filtered):
        return None  # an added field is in no grant
    if change.kind in _FORM:
        return _of_form(change, old, top, granted=granted, filtered=filtered)
    return _of_words(change, grant, top) if granted else None


def _of_form(  # noqa: PLR0911 - one return a rule
    change: Change, old: ParsedSchema, top: str, *, granted: bool, filtered: bool
) -> tuple[Touch, str]:
    """Judge a change of what stands in the records."""
    nested = "." in change.was
    gone = change.kind in {Kind.REMOVED, Kind.RENAMED}
    if gone and filtered and not nested:
        return Touch.STOPPED, f"its row filter names {top}, which the new schema does not have"
    if gone and not nested:
        return _without(change, old, top)
    if change.readers in {Readers.READERS_FIRST, Readers.BROKEN}:
        if granted:
            return Touch.STOPPED, f"its view has {top} as it was, and does not read what is written now"
        return Touch.STOPPED, f"its row filter compares {top}, whose old and new values do not go together"
    if gone:
        return Touch.DEFAULTED, f"{change.was} is not written any more; its default is delivered in its place"
    if filtered:
        return Touch.REVIEW, f"its row filter compares {top}, whose type changes; look at the filter's values"
    return Touch.REVIEW, f"its view goes on with {top} as it was; what is new in the type does not reach it"


def _of_words(change: Change, grant: GrantUse, top: str) -> tuple[Touch, str] | None:
    """Judge a change of what is said about a granted field."""
    if change.kind is Kind.LEVEL:
        level = Level.__members__.get(change.after)
        if level is not None and level > grant.ceiling:
            return Touch.STOPPED, f"{top} rises to {level.name}, above the grant's ceiling {grant.ceiling.name}"
        return Touch.REVIEW, f"{top} is now {change.after or 'without a level'}, within the ceiling"
    if change.kind in {Kind.PERSONAL, Kind.SENSITIVE, Kind.CODES}:
        return Touch.REVIEW, f"{change.kind.value} of {top} is now {change.after or 'not stated'}"
    if change.kind is Kind.MASK:
        shown = grant.masks.get(top, "none")
        return Touch.REVIEW, f"it keeps its own mask of {top}, {shown}; the schema's is now {change.after or 'none'}"
    return None


def _without(change: Change, old: ParsedSchema, top: str) -> tuple[Touch, str]:
    field = old.field(top)
    verb = f"is called {change.path} now" if change.kind is Kind.RENAMED else "is not written any more"
    if field.default is not NO_DEFAULT:
        return Touch.DEFAULTED, f"{top} {verb}; its default is delivered in its place"
    if field.nullable:
        return Touch.DEFAULTED, f"{top} {verb}; null is delivered in its place"
    return Touch.STOPPED, f"{top} {verb}, and has neither a default nor null"


def _filtered(node: Any) -> Iterator[str]:
    if node is None:
        return
    if "field" in node:
        yield str(node["field"])
    for part in (*node.get("parts", ()), *([node["part"]] if "part" in node else ())):
        yield from _filtered(part)
