"""Rules in force of a pool: what two persons have confirmed, over what comes with the program.

A confirmed year replaces that year of the shipped calendar, a confirmed profile the shipped one of its name, and the
confirmed order the default one. They are read and their tags checked at every call; parsed once, as what a change says
never changes.
"""

from collections.abc import Mapping, Sequence

from exchange.deadlines.calendar_csv import parse_year
from exchange.deadlines.changes import RuleChange, RuleChangeStore, RuleKind
from exchange.deadlines.in_force import RulesInForce
from exchange.deadlines.profile import RuleBook, RuleProfile
from exchange.deadlines.profile_yaml import parse_profile
from exchange.deadlines.shipped import DEFAULT_PROFILES, SHIPPED_PROFILES, shipped_calendar, shipped_profile
from registry.database.unit_of_work import Reader
from schemas.errors import InvalidError, Reason

__all__ = ["StoredRules", "profiles_of", "rules_of"]


class StoredRules:
    """Source of the rules in force (`RulesSource`). Thread-safe."""

    def __init__(self, store: RuleChangeStore) -> None:
        self._store = store
        self._latest: tuple[tuple[str, ...], RulesInForce] | None = None

    def rules(self, reader: Reader) -> RulesInForce:
        """Return the rules that the pool follows now.

        Raises:
            CorruptError: ROW_FORGED, a row of them is not one that the pool wrote.
        """
        changes = self._store.in_force(reader)
        ids = tuple(one.id for one in changes)
        latest = self._latest
        if latest is None or latest[0] != ids:
            latest = self._latest = ids, rules_of(changes)
        return latest[1]


def rules_of(changes: Sequence[RuleChange]) -> RulesInForce:
    """Return the rules that these changes make, over what comes with the program.

    Raises:
        InvalidError: CONFIG_INVALID, a change cannot be parsed; NOT_FOUND, the order names a profile that is not there.
    """
    calendar = shipped_calendar()
    for one in changes:
        if one.kind is RuleKind.CALENDAR:
            calendar = calendar.with_year(parse_year(one.content, int(one.subject), name=one.subject))
    profiles, order = profiles_of(changes), [*DEFAULT_PROFILES]
    for one in changes:
        if one.kind is RuleKind.ORDER:
            order = one.content.split()
    missing = [name for name in order if name not in profiles]
    if missing:
        raise InvalidError(
            Reason.NOT_FOUND,
            f"got the profile {missing[0][:40]!r}, which is not there; expected some of {', '.join(sorted(profiles))}",
        )
    return RulesInForce(RuleBook([profiles[name] for name in order]), calendar)


def profiles_of(changes: Sequence[RuleChange]) -> Mapping[str, RuleProfile]:
    """Return every profile that can be followed, by name: the shipped ones, and confirmed ones in their place."""
    profiles = {name: shipped_profile(name) for name in SHIPPED_PROFILES}
    for one in changes:
        if one.kind is RuleKind.PROFILE:
            profiles[one.subject] = parse_profile(one.content, name=one.subject)
    return profiles
