"""Tasks of several sources as one list: pages of any size give all of them, once, in one order."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.tasks.model import MemoryTasks, Task, TaskKind, Viewer
from exchange.tasks.worklist import MOST_ROWS, collect_tasks
from registry.database.unit_of_work import MemoryDatabase
from schemas.access import Actor, ActorKind, Role
from schemas.errors import InvalidError

ME = Actor(kind=ActorKind.HUMAN, id="me", department="d-1", role=Role.SHARING_OFFICE_HEAD)
VIEWER = Viewer(actor=ME, now=datetime(2026, 5, 4, tzinfo=UTC), allows=lambda *_, **__: True, persons=lambda *_: {})
OWNERS = st.lists(st.sampled_from(["me", "you"]), max_size=12)


def task(kind: TaskKind, number: int) -> Task:
    return Task(kind=kind, id=f"{number:04}", title="t", state="s", acts=("approve",))


def source(kind: TaskKind, owners: list[str]) -> MemoryTasks:
    return MemoryTasks(kind, [(owner, task(kind, number)) for number, owner in enumerate(owners)])


def pages(sources: list[MemoryTasks], limit: int, keep: str = "") -> list[tuple[str, str]]:
    found, after = [], ""
    with MemoryDatabase().read() as reader:
        while True:
            page = collect_tasks(
                reader, VIEWER, sources, after=after, limit=limit, keep=lambda one: one.id.endswith(keep)
            )
            assert len(page.tasks) <= limit
            found += [(str(one.kind), one.id) for one in page.tasks]
            if not page.next:
                return found
            assert page.next != after
            after = page.next


@given(
    st.lists(st.tuples(st.sampled_from(list(TaskKind)), OWNERS), max_size=4, unique_by=lambda one: one[0]),
    st.integers(1, 13),
    st.sampled_from(["", "1", "3"]),
)
def test_pages_of_any_size_are_the_tasks_of_one_person_in_the_order_of_kinds(
    kinds: list[tuple[TaskKind, list[str]]], limit: int, keep: str
) -> None:
    order = [*TaskKind]
    expected = [
        (str(kind), f"{number:04}")
        for kind, owners in sorted(kinds, key=lambda one: order.index(one[0]))
        for number, owner in enumerate(owners)
        if owner == "me" and f"{number:04}".endswith(keep)
    ]
    assert pages([source(kind, owners) for kind, owners in kinds], limit, keep) == expected


def test_a_page_reads_so_many_rows_at_most_and_says_where_it_goes_on() -> None:
    rows = ["you"] * (MOST_ROWS + 200) + ["me"]
    with MemoryDatabase().read() as reader:
        first = collect_tasks(reader, VIEWER, [source(TaskKind.REQUEST, rows)], after="", limit=100)
    assert (first.tasks, first.next) == ([], f"request/{MOST_ROWS - 1:04}")
    assert pages([source(TaskKind.REQUEST, rows)], 100) == [("request", f"{MOST_ROWS + 200:04}")]


@pytest.mark.parametrize("cursor", ["request", "nothing/1", "/1"])
def test_a_cursor_of_another_form_is_refused(cursor: str) -> None:
    with MemoryDatabase().read() as reader, pytest.raises(InvalidError):
        collect_tasks(reader, VIEWER, [source(TaskKind.REQUEST, ["me"])], after=cursor, limit=1)
