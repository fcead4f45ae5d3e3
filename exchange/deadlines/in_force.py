"""Rules in force: the rule book that a pool follows and its calendar, as a port and as what comes with the program.

A caller asks for both at once, by one reader, so that a deadline and the entry that names its rule are
of one state of the pool:

    rules = source.rules(reader)
    rules.due(RuleId.DELIVERY, approved_at)
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from exchange.deadlines.calendar import Calendar
from exchange.deadlines.clock import Due
from exchange.deadlines.profile import RuleBook, RuleId, Ruling
from exchange.deadlines.shipped import shipped_calendar, shipped_rules
from registry.database.unit_of_work import Reader

__all__ = ["RulesInForce", "RulesSource", "ShippedRules"]


@dataclass(frozen=True, slots=True)
class RulesInForce:
    """The rules that a pool follows at one moment.

    Attributes:
        book: its profiles, by precedence.
        calendar: its working days.
    """

    book: RuleBook
    calendar: Calendar

    def rule(self, rule_id: RuleId) -> Ruling:
        """Return a rule, as `RuleBook.rule` does.

        Raises:
            ConflictError: TRANSITION_NOT_ALLOWED, no profile has it.
        """
        return self.book.rule(rule_id)

    def due(self, rule_id: RuleId, started_at: datetime) -> Due:
        """Return the deadline of a clock that was neither paused nor extended.

        Raises:
            ConflictError: TRANSITION_NOT_ALLOWED, no profile has the rule.
        """
        due = self.rule(rule_id).clock(started_at).due(self.calendar)
        assert due is not None  # noqa: S101 - only a clock that stands still has none
        return due


class RulesSource(Protocol):
    """Where the rules in force are read."""

    def rules(self, reader: Reader) -> RulesInForce:
        """Return the rules that the pool follows now.

        Raises:
            CorruptError: ROW_FORGED, a row of them is not the one that the pool wrote.
        """
        ...


class ShippedRules:
    """The rules that come with the program."""

    def rules(self, reader: Reader) -> RulesInForce:
        """Return them, whatever the reader."""
        del reader
        return RulesInForce(shipped_rules(), shipped_calendar())
