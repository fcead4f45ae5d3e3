"""Grant impact analysis: which grants a schema change affects, and how. Pure.

A grant's view has one output schema, made at approval; the resource's schema goes on changing under it. Records of
the new version reach the view as the old schema would read them (`exchange.access.view.resolve`), so that

    a field is added         no grant shows it; a consumer that needs it asks again
    a granted field goes     its default is delivered, null if it may be null; else nothing is delivered any more
    a filter's field goes    the filter can no longer be compiled: nothing is delivered any more
    a type changes           the old type must be able to read it, or nothing is delivered any more
    a level rises            above the grant's ceiling every draw is refused until it is asked for again; of a field
                             of its filter too
    a mask changes           the grant keeps the one that was approved; where the new one hides more and the request did
                             not write its own out, the grant is suspended after a time
    the rest                 the grant keeps the descriptions that were approved with it

`grant_impacts` returns the worst of these per grant and change. Grants are read from the documents that the control
API lists (`GET /v1/grants`); of a document only the members named in `GrantUsage` are used.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from registry.avro.parser import NO_DEFAULT, ParsedSchema
from registry.governance.mask_order import hides_at_least
from registry.reports.diff import ChangeKind, ReaderImpact, SchemaChange
from schemas.access import Level
from schemas.canonical import Json
from schemas.errors import InvalidError, Reason

__all__ = ["GrantImpact", "GrantUsage", "ImpactSeverity", "grant_impacts", "read_grant_usage"]

_ENDED = frozenset({"rejected", "expired", "terminated", "withdrawn"})
"""States in which a grant delivers nothing and never will again."""

_STRUCTURE = frozenset({ChangeKind.ADDED, ChangeKind.REMOVED, ChangeKind.RENAMED, ChangeKind.TYPE})


class ImpactSeverity(IntEnum):
    """Severity of a change for a grant, in ascending order."""

    REVIEW = 1  # it goes on as approved; a person should check whether that is still right
    DEFAULTED = 2  # it goes on, with a default or null instead of values
    STOPPED = 3  # nothing is delivered until it is asked for and approved again


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantUsage:
    """Parts of a schema that a grant uses.

    Attributes:
        id: the grant's. consumer: department id. state: its state.
        fields: granted, top-level. masks: field → rule. filtered: fields that its row filter names.
        written_out: fields whose form or disclosure the request wrote out, and the approvers agreed to.
        ceiling: highest level that it may show.
    """

    id: str
    consumer: str
    state: str
    fields: frozenset[str]
    masks: Mapping[str, str]
    filtered: frozenset[str]
    ceiling: Level
    written_out: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantImpact:
    """Impact of one change on one grant.

    Attributes:
        change: which. grant: the grant's id. consumer: its department.
        severity: how much. because: the reason, as text.
    """

    change: SchemaChange
    grant: str
    consumer: str
    severity: ImpactSeverity
    because: str

    def to_json(self) -> dict[str, Json]:
        """Return it as JSON."""
        return {
            "grant": self.grant,
            "consumer": self.consumer,
            "kind": self.change.kind.value,
            "path": self.change.path,
            "touch": self.severity.name.lower(),
            "because": self.because,
        }


def read_grant_usage(document: Mapping[str, Any]) -> GrantUsage:
    """Read the usage of a schema from a grant's document.

    Raises:
        InvalidError: REQUEST_INVALID, for anything but a grant's document.
    """
    try:
        row_filter = document["row_filter"]
        return GrantUsage(
            id=str(document["id"]),
            consumer=str(document["consumer"]),
            state=str(document["state"]),
            fields=frozenset(map(str, document["fields"])),
            masks={str(field): str(rule) for field, rule in document["masks"].items()},
            filtered=frozenset(_filtered(row_filter)),
            ceiling=Level[document["ceiling"]],
            written_out=frozenset(map(str, (*document.get("unmasked", ()), *document.get("filter_discloses", ())))),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"got a document that is no grant ({type(error).__name__}: {str(error)[:60]}); expected what the control "
            "API lists under /v1/grants",
        ) from error


def grant_impacts(
    changes: Iterable[SchemaChange], grants: Sequence[GrantUsage], old: ParsedSchema, new: ParsedSchema
) -> list[GrantImpact]:
    """Return the impact of each change on each grant that it affects.

    Args:
        changes: what `registry.reports.diff.diff` gave for the two schemas.
        grants: of the resource; ended ones are left out.
        old: the schema as it is registered.
        new: as it would follow.
    """
    alive = [grant for grant in grants if grant.state not in _ENDED]
    found = []
    for change in changes:
        for grant in alive:
            verdict = _verdict(change, grant, old, new)
            if verdict is not None:
                severity, because = verdict
                found.append(
                    GrantImpact(
                        change=change, grant=grant.id, consumer=grant.consumer, severity=severity, because=because
                    )
                )
    return found


def _verdict(
    change: SchemaChange, grant: GrantUsage, old: ParsedSchema, new: ParsedSchema
) -> tuple[ImpactSeverity, str] | None:
    if change.kind is ChangeKind.NAME:
        return None  # a view matches fields, not the record's name
    if change.kind is ChangeKind.KEY:
        shown = set(grant.fields) & {*old.key, *new.key}
        return (ImpactSeverity.REVIEW, "the view keeps the key that was approved with it") if shown else None
    top = change.was.partition(".")[0]
    granted, filtered = top in grant.fields, top in grant.filtered
    if (change.kind is ChangeKind.ADDED and "." not in change.was) or not (granted or filtered):
        return None  # an added field is in no grant
    if change.kind in _STRUCTURE:
        return _of_structure(change, old, top, granted=granted, filtered=filtered)
    return _of_description(change, grant, top, granted=granted)


def _of_structure(  # noqa: PLR0911 - one return a rule
    change: SchemaChange, old: ParsedSchema, top: str, *, granted: bool, filtered: bool
) -> tuple[ImpactSeverity, str]:
    """Assess a change of the records' structure."""
    nested = "." in change.was
    gone = change.kind in {ChangeKind.REMOVED, ChangeKind.RENAMED}
    if gone and filtered and not nested:
        return ImpactSeverity.STOPPED, f"its row filter names {top}, which the new schema does not have"
    if gone and not nested:
        return _without(change, old, top)
    if change.readers in {ReaderImpact.READERS_FIRST, ReaderImpact.BROKEN}:
        if granted:
            return ImpactSeverity.STOPPED, f"its view has {top} as it was, and does not read what is written now"
        return ImpactSeverity.STOPPED, f"its row filter compares {top}, whose old and new values do not go together"
    if gone:
        return ImpactSeverity.DEFAULTED, f"{change.was} is not written any more; its default is delivered in its place"
    if filtered:
        return ImpactSeverity.REVIEW, f"its row filter compares {top}, whose type changes; look at the filter's values"
    return ImpactSeverity.REVIEW, f"its view goes on with {top} as it was; what is new in the type does not reach it"


def _of_description(
    change: SchemaChange, grant: GrantUsage, top: str, *, granted: bool
) -> tuple[ImpactSeverity, str] | None:
    """Assess a change of the description of a granted field, or of one of the row filter."""
    if change.kind is ChangeKind.LEVEL:
        level = Level.__members__.get(change.after)
        if level is not None and level > grant.ceiling:
            return (
                ImpactSeverity.STOPPED,
                f"{top} rises to {level.name}, above the grant's ceiling {grant.ceiling.name}",
            )
        return ImpactSeverity.REVIEW, f"{top} is now {change.after or 'without a level'}, within the ceiling"
    if granted and change.kind in {ChangeKind.PERSONAL, ChangeKind.SENSITIVE, ChangeKind.TAGS, ChangeKind.CODES}:
        return ImpactSeverity.REVIEW, f"{change.kind.value} of {top} is now {change.after or 'not stated'}"
    if change.kind is ChangeKind.MASK:
        return _of_mask(change, grant, top, granted=granted)
    return None


def _of_mask(change: SchemaChange, grant: GrantUsage, top: str, *, granted: bool) -> tuple[ImpactSeverity, str] | None:
    after = change.after or "none"
    if "." in change.was and after != "none":
        after = "drop"  # a view shows a record with a masked field as a whole or not at all
    if granted:
        shown = grant.masks.get(top, "none")
        keeps = f"it keeps its own mask of {top}, {shown}; the schema's is now {after}"
        undecided = not hides_at_least(shown, after) and top not in grant.written_out
    else:
        keeps = f"its row filter tells {top}, which the schema now shows as {after}"
        undecided = after != "none" and top not in grant.written_out
        if not undecided:
            return None
    if undecided:
        return ImpactSeverity.REVIEW, f"{keeps}; no request wrote that out, and it is suspended after a time"
    return ImpactSeverity.REVIEW, keeps


def _without(change: SchemaChange, old: ParsedSchema, top: str) -> tuple[ImpactSeverity, str]:
    field = old.field(top)
    verb = f"is called {change.path} now" if change.kind is ChangeKind.RENAMED else "is not written any more"
    if field.default is not NO_DEFAULT:
        return ImpactSeverity.DEFAULTED, f"{top} {verb}; its default is delivered in its place"
    if field.nullable:
        return ImpactSeverity.DEFAULTED, f"{top} {verb}; null is delivered in its place"
    return ImpactSeverity.STOPPED, f"{top} {verb}, and has neither a default nor null"


def _filtered(node: Any) -> Iterator[str]:
    if node is None:
        return
    if "field" in node:
        yield str(node["field"])
    for part in (*node.get("parts", ()), *([node["part"]] if "part" in node else ())):
        yield from _filtered(part)
