"""Task (待办): one thing that waits for an act of a person; the port of their sources, with its adapter in memory.

A task is derived and never stored: it exists while something is in a state in which the one who looks may act. So it
cannot be lost, it ends with the act, and what somebody may not do is not a task of theirs. Each feature that has such
states has one source; a source reads its own store in its own order, and `exchange.tasks.worklist` puts them together.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Protocol

from typing_extensions import override

from registry.database.unit_of_work import Reader
from schemas.access import Actor

__all__ = ["MemoryTasks", "Portion", "Task", "TaskDue", "TaskKind", "TaskSource", "Urgency", "Viewer"]


class TaskKind(StrEnum):
    """What waits; in the order of the lists."""

    REQUEST = "request"  # 共享申请
    CATALOGUE = "catalogue"  # 目录
    CORRECTION = "correction"  # 数据校核
    NOTICE = "notice"  # of a correction, to be acknowledged
    VIOLATION = "violation"  # 违规
    PROPOSAL = "proposal"  # an account, a token or an invitation that a second person confirms
    APPROVAL = "approval"  # a lowered classification that a second person decides on
    RULES = "rules"  # a calendar or a rule profile that a second person confirms
    ERASURE = "erasure"  # an erasure that a second person confirms


class Urgency(StrEnum):
    """How near the end of the time is."""

    NORMAL = "normal"
    SOON = "soon"  # today or the next working day is the last one
    OVERDUE = "overdue"


@dataclass(frozen=True, slots=True)
class TaskDue:
    """Until when.

    Attributes:
        on: the last day, in Asia/Shanghai. at: the instant from which it is late, aware.
        provisional: it depends on days of a year whose working days are not known yet.
        urgency: how near that is.
    """

    on: date
    at: datetime
    provisional: bool
    urgency: Urgency


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task of one person. It names no person and no value of a record.

    Attributes:
        kind: see TaskKind.
        id: of the thing that waits, by which its own command shows it.
        title: what it is about, such as a topic.
        state: of the thing.
        acts: what the one who looks may do next, by name.
        department: internal id of the other side, or of the department that it concerns; empty = the pool itself.
        since: when it came into its state, aware; None = unknown.
        due: until when it is to be done; None = no clock runs.
    """

    kind: TaskKind
    id: str
    title: str
    state: str
    acts: tuple[str, ...]
    department: str = ""
    since: datetime | None = None
    due: TaskDue | None = None

    @property
    def overdue(self) -> bool:
        """Whether its time is over."""
        return self.due is not None and self.due.urgency is Urgency.OVERDUE


class _Allows(Protocol):
    def __call__(self, action: Any, **about: Any) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """Who looks.

    Attributes:
        actor: the account.
        now: aware.
        allows: whether the account may do an action now, about what (`decide_control` takes it).
        persons: account names → staff numbers, for rules on two persons; a name that is not in the answer is unknown.
    """

    actor: Actor
    now: datetime
    allows: _Allows
    persons: Callable[[Reader, Collection[str]], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Portion:
    """What a source found in a bounded part of its store.

    Attributes:
        tasks: each with the cursor behind it.
        next: cursor behind which the source goes on; None = it has come to its end.
        looked: rows that were read for it.
    """

    tasks: Sequence[tuple[str, Task]]
    next: str | None
    looked: int


class TaskSource(Protocol):
    """Port: things of one kind that wait for acts."""

    @property
    def kind(self) -> TaskKind:
        """What it lists."""
        ...

    def portion(self, reader: Reader, viewer: Viewer, *, after: str, limit: int) -> Portion:
        """Return the tasks of the viewer among the next rows behind a cursor; at most *limit* rows are read.

        A task has at least one act, and all of its acts are such that the viewer may do them now.

        Raises:
            InvalidError: REQUEST_INVALID or NAME_INVALID, the cursor has another form.
        """
        ...


class MemoryTasks(TaskSource):
    """Source in memory: given tasks, and who may do their acts.

    Args:
        kind: of the tasks.
        tasks: account name and task.
    """

    def __init__(self, kind: TaskKind, tasks: Sequence[tuple[str, Task]]) -> None:
        self._kind = kind
        self._tasks = sorted(tasks, key=lambda one: one[1].id)

    @property
    @override
    def kind(self) -> TaskKind:
        return self._kind

    @override
    def portion(self, reader: Reader, viewer: Viewer, *, after: str, limit: int) -> Portion:
        rows = [one for one in self._tasks if one[1].id > after][:limit]
        mine = [(task.id, task) for account, task in rows if account == viewer.actor.id]
        return Portion(mine, rows[-1][1].id if len(rows) == limit else None, len(rows))
