"""Worklist: the tasks of all sources as one list with one cursor. Keyset pagination over several stores; pure.

Tasks come by kind, and within a kind in the order of its store. The cursor is `kind/cursor of the source`, so a page
begins where the one before ended, in whatever source that was. A page reads so many rows at most: where many rows are
looked at and few of them are tasks of the one who looks, it ends early, and names where the next one begins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from exchange.tasks.model import Task, TaskKind, TaskSource, Viewer
from registry.database.keyset import MAX_PAGE
from registry.database.unit_of_work import Reader
from schemas.errors import InvalidError, Reason

__all__ = ["MOST_ROWS", "TaskPage", "collect_tasks"]

MOST_ROWS: Final = 2_000
"""Rows of stores that are read for one page, about."""


@dataclass(frozen=True, slots=True)
class TaskPage:
    """A page of tasks. `next`: cursor of the next page; empty = there is none."""

    tasks: Sequence[Task]
    next: str


def collect_tasks(
    reader: Reader,
    viewer: Viewer,
    sources: Sequence[TaskSource],
    *,
    after: str,
    limit: int,
    keep: Callable[[Task], bool] = lambda _: True,
) -> TaskPage:
    """Return the tasks behind a cursor, at most *limit*; fewer where the list, or what one page may read, ends.

    Args:
        reader: to read with.
        viewer: who looks.
        sources: one a kind.
        after: cursor, empty = from the beginning.
        limit: at least 1.
        keep: which tasks to list.

    Raises:
        InvalidError: REQUEST_INVALID or NAME_INVALID, the cursor has another form.
    """
    ordered = sorted(sources, key=lambda source: [*TaskKind].index(source.kind))
    kind, place = _parsed(after)
    tasks: list[Task] = []
    looked = 0
    for source in ordered:
        if kind is not None and [*TaskKind].index(source.kind) < [*TaskKind].index(kind):
            continue
        cursor: str | None = place if source.kind is kind else ""
        rows = limit
        while cursor is not None:
            if looked >= MOST_ROWS:
                return TaskPage(tasks, f"{source.kind}/{cursor}")
            portion = source.portion(reader, viewer, after=cursor, limit=min(rows, MOST_ROWS - looked))
            looked += portion.looked
            rows = min(2 * rows, max(limit, MAX_PAGE))  # what is rare is found with fewer queries
            for behind, task in portion.tasks:
                if not keep(task):
                    continue
                tasks.append(task)
                if len(tasks) == limit:
                    return TaskPage(tasks, f"{source.kind}/{behind}")
            cursor = portion.next
    return TaskPage(tasks, "")


def _parsed(cursor: str) -> tuple[TaskKind | None, str]:
    if not cursor:
        return None, ""
    kind, slash, place = cursor.partition("/")
    if not slash or kind not in {str(one) for one in TaskKind}:
        raise InvalidError(
            Reason.REQUEST_INVALID, 'after: got a cursor of another form; expected that of a `Link: rel="next"`'
        )
    return TaskKind(kind), place
