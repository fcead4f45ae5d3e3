"""Task service: what waits for an account, what of it is overdue, what changed, and its due dates as a calendar.

A task is listed only with acts that the account may do now: each is decided on as the act itself would be
(`decide_control`), and rules on two persons are asked too. Reading one's own tasks changes nothing and leaves no entry.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from exchange.access.decision.roles import decide_control
from exchange.audit.store import EntryPlace
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.tasks.changes import TaskChange, TaskChanges
from exchange.tasks.icalendar import calendar_text
from exchange.tasks.model import Task, TaskKind, TaskSource, Viewer
from exchange.tasks.worklist import TaskPage, collect_tasks
from registry.database.unit_of_work import Database
from schemas.access import Action, Actor, Allow
from schemas.errors import InvalidError, Reason

__all__ = ["MOST_EVENTS", "TaskService"]

MOST_EVENTS = 1_000
"""Events of a calendar at most."""


class TaskService:
    """Lists of an account's tasks.

    Args:
        database: of the pool.
        enforcer: enforces and records.
        attributes: standing of actors, their persons, the time.
        sources: one a kind.
        changes: of the log.
        pool_id: names the calendar.
    """

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        sources: Sequence[TaskSource],
        changes: TaskChanges,
        pool_id: str,
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._sources = sources
        self._changes = changes
        self._pool_id = pool_id

    def waiting(self, actor: Actor, call: RequestContext, *, after: str = "", limit: int) -> TaskPage:
        """List what waits for an act of the actor, by kind.

        Raises:
            RefusedError: the actor is not in standing.
            InvalidError: REQUEST_INVALID or NAME_INVALID, the cursor has another form.
        """
        return self._collect(self._viewer(actor, call), after, limit, lambda _: True)

    def overdue(self, actor: Actor, call: RequestContext, *, after: str = "", limit: int) -> TaskPage:
        """List what waits for an act of the actor and should have been done by now; see `waiting`."""
        return self._collect(self._viewer(actor, call), after, limit, lambda task: task.overdue)

    def one(self, actor: Actor, call: RequestContext, kind: TaskKind, task_id: str) -> Task:
        """Return one task of the actor.

        Raises:
            RefusedError: the actor is not in standing.
            InvalidError: NOT_FOUND, nothing of this kind and id waits for the actor.
        """
        viewer, after = self._viewer(actor, call), f"{kind}/"
        while after:
            page = self._collect(viewer, after, 1, lambda task: task.id == task_id, kind=kind)
            if page.tasks:
                return page.tasks[0]
            after = page.next
        raise InvalidError(
            Reason.NOT_FOUND, "nothing of this kind and id waits for you; `pool task list` shows what does"
        )

    def changes(
        self, actor: Actor, call: RequestContext, since: datetime, *, after: EntryPlace | None = None, limit: int
    ) -> Sequence[TaskChange]:
        """List what changed since an instant among what the actor's role takes part in, newest first.

        Raises:
            RefusedError: the actor is not in standing.
        """
        self._viewer(actor, call)
        return self._changes.since(actor, int(since.timestamp() * 1_000_000), after=after, limit=limit)

    def calendar(self, actor: Actor, call: RequestContext) -> str:
        """Return the due dates of the actor's tasks as iCalendar, MOST_EVENTS at most.

        Raises:
            RefusedError: the actor is not in standing.
        """
        viewer = self._viewer(actor, call)
        tasks: list[Task] = []
        after = ""
        while len(tasks) < MOST_EVENTS:
            page = self._collect(viewer, after, MOST_EVENTS - len(tasks), lambda task: task.due is not None)
            tasks += page.tasks
            after = page.next
            if not after:
                break
        return calendar_text(tasks, pool_id=self._pool_id, now=viewer.now)

    def _collect(
        self, viewer: Viewer, after: str, limit: int, keep: Callable[[Task], bool], kind: TaskKind | None = None
    ) -> TaskPage:
        sources = [one for one in self._sources if kind in {None, one.kind}]
        with self._database.read() as reader:
            return collect_tasks(reader, viewer, sources, after=after, limit=limit, keep=keep)

    def _viewer(self, actor: Actor, call: RequestContext) -> Viewer:
        with self._database.read() as reader:
            standing = self._attributes.standing_of(reader, actor)
            now = self._attributes.now(reader)  # by which requests and grants are decided on too
        decide = partial(decide_control, actor, standing=standing)
        self._enforcer.admit(actor, Action.TASK_READ, "*", call, decide(Action.TASK_READ))
        return Viewer(
            actor=actor,
            now=now,
            allows=lambda action, **about: isinstance(decide(action, **about), Allow),
            persons=self._attributes.persons_of,
        )
