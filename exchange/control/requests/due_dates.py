"""Due dates of requests under the rules in force: limits, extensions and pauses are what the rule profiles say."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from exchange.deadlines.clock import AfterPause, Due
from exchange.deadlines.clock import Pause as ClockPause
from exchange.deadlines.in_force import RulesInForce
from exchange.deadlines.profile import RuleId, Ruling
from exchange.requests.due_dates import DueDates, Limit, Pause
from exchange.requests.guards import limit_of
from exchange.requests.model import RequestState, ShareRequest
from exchange.requests.rules import Clock
from registry.directory.model import ShareType

__all__ = ["CLOCKS", "RulesDue", "due_of", "reply_due"]

_RULES: Final[Mapping[Limit, RuleId]] = MappingProxyType(
    {
        Limit.UNCONDITIONAL_REPLY: RuleId.REPLY_UNCONDITIONAL,
        Limit.CONDITIONAL_REPLY: RuleId.REPLY_CONDITIONAL,
        Limit.DELIVERY: RuleId.DELIVERY,
        Limit.SUPPLEMENT: RuleId.SUPPLEMENT_REPLY,
    }
)

CLOCKS: Final[Mapping[RequestState, Clock]] = MappingProxyType(
    {
        RequestState.SUBMITTED: Clock.REPLY,
        RequestState.COUNTERSIGNED: Clock.REPLY,
        RequestState.SUPPLEMENT: Clock.SUPPLEMENT,
        RequestState.APPROVED: Clock.DELIVERY,
    }
)
"""States in which a clock runs, and which one."""


class RulesDue(DueDates):
    """Due dates of the requests of one share type.

    Args:
        rules: in force.
        share_type: of the resource, by which the rule of the reply is chosen.
    """

    def __init__(self, rules: RulesInForce, share_type: ShareType) -> None:
        self._rules = rules
        unconditional = share_type is ShareType.UNCONDITIONAL
        self._reply = rules.book.find(_RULES[Limit.UNCONDITIONAL_REPLY if unconditional else Limit.CONDITIONAL_REPLY])

    @property
    def profile(self) -> str:
        """Names and versions of the profiles in force, by precedence."""
        return " ".join(f"{one.profile}/{one.version}" for one in self._rules.book.profiles)

    @property
    def most_extension(self) -> int:
        """See `DueDates.most_extension`; 0 where the rule knows no extension."""
        extension = None if self._reply is None else self._reply.rule.extension
        return 0 if extension is None else extension.most

    @property
    def supplement_restarts(self) -> bool:
        """See `DueDates.supplement_restarts`."""
        pause = None if self._reply is None else self._reply.rule.pause
        return pause is not None and pause.then is AfterPause.RESTART

    def find(self, limit: Limit) -> Ruling | None:
        """Return the rule of a limit; None where no profile has it."""
        return self._rules.book.find(_RULES[limit])

    def ruling(self, limit: Limit) -> Ruling:
        """Return the rule of a limit.

        Raises:
            ConflictError: TRANSITION_NOT_ALLOWED, no profile has it.
        """
        return self._rules.rule(_RULES[limit])

    def due(self, limit: Limit, start: datetime, *, extension: int = 0, pauses: tuple[Pause, ...] = ()) -> Due:
        """Return the deadline: its day, the instant from which it is late, and whether that is provisional.

        Raises:
            ConflictError: TRANSITION_NOT_ALLOWED, no profile has the rule.
        """
        clock = self.ruling(limit).clock(start)
        # Of a clock that restarts the request keeps the new start, so that pauses are those of one that goes on.
        standing = tuple(ClockPause(since, until) for since, until in pauses)
        clock = replace(clock, extension=extension, pauses=standing, after_pause=AfterPause.CONTINUE)
        due = clock.due(self._rules.calendar)
        assert due is not None  # noqa: S101 - only a clock that stands still has none
        return due

    def due_at(self, limit: Limit, start: datetime, *, extension: int = 0, pauses: tuple[Pause, ...] = ()) -> datetime:
        """See `DueDates.due_at`. Where no profile has a rule, its clock never runs out: nothing is late by no law."""
        if self._rules.book.find(_RULES[limit]) is None:
            return datetime.max.replace(tzinfo=UTC)
        return self.due(limit, start, extension=extension, pauses=pauses).at


def reply_due(request: ShareRequest, rules: RulesInForce) -> Due | None:
    """Return until when the reply of a request is due, or was; None where it has no such clock, or no rule."""
    span = limit_of(request, Clock.REPLY)
    if span is None or rules.book.find(_RULES[span.limit]) is None:
        return None
    due = RulesDue(rules, request.share_type)
    return due.due(span.limit, span.start, extension=span.extension, pauses=span.pauses)


def due_of(request: ShareRequest, rules: RulesInForce) -> tuple[Clock, Due] | None:
    """Return which clock of a request runs, and until when; None where none does, or no profile has its rule."""
    clock = CLOCKS.get(request.state)
    span = None if clock is None else limit_of(request, clock)
    if clock is None or span is None or rules.book.find(_RULES[span.limit]) is None:
        return None
    due = RulesDue(rules, request.share_type).due(span.limit, span.start, extension=span.extension, pauses=span.pauses)
    return clock, due
