"""Clock of a ticket: until when its answer is due under the rules in force (decree 809, Art. 26)."""

from dataclasses import dataclass
from datetime import datetime

from exchange.corrections.model import OPEN, CorrectionTicket, TicketState
from exchange.deadlines.clock import Due, DueState
from exchange.deadlines.in_force import RulesInForce
from exchange.deadlines.profile import RuleId

__all__ = ["TicketDue", "due_of"]

_WAITS = OPEN - {TicketState.CORRECTED}  # the answer is given


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketDue:
    """A ticket and its clock.

    Attributes:
        ticket: as it is.
        due: until when its answer is or was due.
        state: how near that is; None once it is answered.
    """

    ticket: CorrectionTicket
    due: Due
    state: DueState | None


def due_of(ticket: CorrectionTicket, rules: RulesInForce, now: datetime) -> TicketDue:
    """Return a ticket with its clock, which runs from its first receipt.

    Raises:
        ConflictError: TRANSITION_NOT_ALLOWED, no rule profile in force has the rule.
    """
    due = rules.due(RuleId.CORRECTION, ticket.received_at)
    state = due.state(now, rules.calendar) if ticket.state in _WAITS else None
    return TicketDue(ticket=ticket, due=due, state=state)
