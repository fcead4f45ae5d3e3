"""Holding: all that one department has of one resource, taken together. Pure.

A department can put the deliveries of its grants on a resource together: record by record, by their order, by the
times of the records, by the steps of their positions (ADR 0048). So a grant is decided on as if its fields, rows and
masks were in one grant with those of every other grant that the department holds of the resource, in any major version
of its schema:

    level       highest level of any field, of any filter too; the grant's ceiling must reach it
    sensitive   anything in it is shown beyond the schema's masks, delivered into another zone or with its place, or
                several predicates are answered: a second person of the provider must have confirmed
    adds        what the grant adds to the others; nothing, perhaps, and then it is not needed

A grant holds from its approval until it ends, while it is suspended too; one that is renewed is held beside its renewal
where this delivers something else (`exchange.access.grants.renewal`). What ended grants have delivered may still be
at the department; they are named, and decided nothing on, but where a request goes on with their record keys.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from exchange.access.grants.exposure import Exposure, SchemaMasks, undecided_exposure
from schemas.access import Grant, GrantState, Level
from schemas.errors import ConflictError, Reason, RefusedError
from schemas.names import Topic

__all__ = [
    "ENDED",
    "HOLDING",
    "MOST_HELD",
    "Holding",
    "Part",
    "check_asked",
    "check_ceiling",
    "check_decided",
    "check_resumption",
]

HOLDING = frozenset({GrantState.APPROVED, GrantState.ACTIVE, GrantState.SUSPENDED})
"""States in which a grant is part of a holding."""

MOST_HELD = 200
"""Grants that one department may hold on one resource: each names the others, in its text and in an entry."""

ENDED = frozenset({GrantState.EXPIRED, GrantState.TERMINATED, GrantState.COMPLETED})
"""States of a grant that may have delivered, and delivers no more."""


_MOST_NAMED = 10  # in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One grant of a holding.

    Attributes:
        grant: its current version.
        level: highest level of its fields and of its filter's fields now; None = unknown.
        exposure: what it shows beyond the schema's masks now.
    """

    grant: Grant
    level: Level | None
    exposure: Exposure


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A grant that is decided on, together with the others of its consumer on the resource.

    Attributes:
        part: the grant itself.
        others: those that hold, without the grant itself, by id.
        ended: those that have ended, by id.
        masks: how the current schema of each topic in it masks its fields.
    """

    part: Part
    others: tuple[Part, ...] = ()
    ended: tuple[Grant, ...] = ()
    masks: Mapping[Topic, SchemaMasks]

    @property
    def grant(self) -> Grant:
        """The grant that is decided on."""
        return self.part.grant

    @property
    def together_with(self) -> tuple[str, ...]:
        """Ids of the other grants."""
        return tuple(other.grant.id for other in self.others)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The grant and the others."""
        return (self.part, *self.others)

    @property
    def level(self) -> Level | None:
        """Highest level of all; None where the grant's own is unknown.

        Another grant's level is unknown when the schema has lost a field of it: it then counts as its ceiling, the
        highest that it can have shown.
        """
        if self.part.level is None:
            return None
        return max([self.part.level, *(other.level or other.grant.ceiling for other in self.others)])

    @property
    def unmasked(self) -> tuple[str, ...]:
        """Fields that any of the grants shows beyond the schema's mask."""
        return _names(part.exposure.unmasked for part in self.parts)

    @property
    def disclosed(self) -> tuple[str, ...]:
        """Fields that the filter of any of the grants tells."""
        return _names(part.exposure.disclosed for part in self.parts)

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of all the grants."""
        return _names(part.grant.fields for part in self.parts)

    @property
    def sensitive(self) -> bool:
        """Whether a second person must confirm it; see the module."""
        apart = any(part.grant.source_zone or part.grant.places for part in self.parts)
        # Two predicates may bracket a value, in one grant or in two; which fields they share is not asked here.
        several = len({predicate for part in self.parts for predicate in part.grant.predicates}) > 1
        return bool(self.unmasked or self.disclosed or apart or several)

    @property
    def adds(self) -> tuple[str, ...]:
        """Fields of the grant that no other grant has."""
        held = {field for other in self.others for field in other.grant.fields}
        return tuple(field for field in self.grant.fields if field not in held)

    @property
    def undecided(self) -> Exposure:
        """What the grant itself shows beyond the schema's masks without that its request wrote it out."""
        return undecided_exposure(self.grant, self.masks[self.grant.topic])


def check_ceiling(holding: Holding) -> None:
    """Check that the grant's ceiling reaches the level of all that its consumer would hold, and their number.

    Raises:
        RefusedError: LEVEL_ABOVE_CEILING.
        ConflictError: TRANSITION_NOT_ALLOWED, the department holds too many grants on the resource.
    """
    if len(holding.others) >= MOST_HELD:
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED,
            f"the department holds {len(holding.others)} grants on {holding.grant.topic.name}; expected fewer than "
            f"{MOST_HELD}: end some of them, or ask for one grant in their place",
        )
    _check_ceiling(holding, holding.grant.ceiling)


def check_asked(holding: Holding) -> None:
    """Check what of `check_decided` holds before everybody has signed.

    Raises:
        RefusedError, ConflictError: as `check_decided`, but CONFIRMATION_MISSING.
    """
    _check_undecided(holding)
    check_ceiling(holding)


def check_decided(holding: Holding) -> None:
    """Check that the holding may be brought about by the grant's own approval or activation.

    Raises:
        RefusedError: MASK_WEAKER or FILTER_DISCLOSES, the schema masks more than when it was asked for;
            LEVEL_ABOVE_CEILING; CONFIRMATION_MISSING, it is sensitive, and nobody of the provider has confirmed it
            together with these other grants.
    """
    check_asked(holding)
    if holding.sensitive and not _is_confirmed(holding.grant, set(holding.together_with)):
        raise _unconfirmed(holding)


def check_resumption(holding: Holding) -> None:
    """Check that a suspended grant may be resumed beside the others.

    The newest grant of a holding was decided on with all the others, unless they are of before this rule.

    Raises:
        RefusedError: as `check_decided`.
    """
    _check_undecided(holding)
    ids = {part.grant.id for part in holding.parts}
    deciding = [part.grant for part in holding.parts if ids - {part.grant.id} <= set(part.grant.together_with)] or [
        holding.grant
    ]
    _check_ceiling(holding, max(grant.ceiling for grant in deciding))
    if holding.sensitive and not any(_is_confirmed(grant, ids - {grant.id}) for grant in deciding):
        raise _unconfirmed(holding)


def _check_ceiling(holding: Holding, ceiling: Level) -> None:
    level = holding.level
    if level is None or level > ceiling:
        graded = "is not known" if level is None else f"is {level.name}"
        together = f", together with {_listed(holding.together_with)}," if holding.others else ""
        raise RefusedError(
            Reason.LEVEL_ABOVE_CEILING,
            f"the highest level of what the department would hold of the resource{together} {graded}, the ceiling "
            f"{ceiling.name}; ask with a higher ceiling, or end the other grants first",
        )


def _check_undecided(holding: Holding) -> None:
    undecided = holding.undecided
    if undecided.unmasked:
        raise RefusedError(
            Reason.MASK_WEAKER,
            f"the schema masks {_listed(undecided.unmasked)} more than the grant, which did not write that out; a new "
            "request must",
            details={"fields": ",".join(undecided.unmasked)},
        )
    if undecided.disclosed:
        raise RefusedError(
            Reason.FILTER_DISCLOSES,
            f"the row filter tells {_listed(undecided.disclosed)}, which the schema masks, and the grant does not name "
            "that as a disclosure; a new request must",
            details={"fields": ",".join(undecided.disclosed)},
        )


def _is_confirmed(grant: Grant, others: set[str]) -> bool:
    return grant.confirmed_by is not None and others <= set(grant.together_with)


def _unconfirmed(holding: Holding) -> RefusedError:
    others = f" together with {_listed(holding.together_with)}" if holding.others else ""
    return RefusedError(
        Reason.CONFIRMATION_MISSING,  # also where an officer has signed, and the consumer holds more since then
        f"the grant{others} shows more than the schema's masks, delivers into another zone, tells places or "
        "answers several predicates; a security officer of the providing department must confirm it first (`pool "
        "grant confirm`)",
    )


def _names(groups: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
