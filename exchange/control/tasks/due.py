"""Due dates of tasks, from the clocks of the rules in force."""

from datetime import datetime

from exchange.deadlines.clock import SHANGHAI, Due
from exchange.deadlines.in_force import RulesInForce
from exchange.tasks.model import TaskDue, Urgency

__all__ = ["instant_due", "task_due"]


def task_due(due: Due, now: datetime, rules: RulesInForce) -> TaskDue:
    """Return a due date with how near it is."""
    return TaskDue(due.day, due.at, due.provisional, Urgency(due.state(now, rules.calendar).value))


def instant_due(at: datetime, now: datetime, rules: RulesInForce) -> TaskDue:
    """Return the due date of what ends at an instant."""
    return task_due(Due(day=at.astimezone(SHANGHAI).date(), at=at, provisional=False), now, rules)
