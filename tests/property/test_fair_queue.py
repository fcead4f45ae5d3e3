"""The fair queue, in any order of calls that come, end and go away: nobody is passed over, and no slot is idle."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.api.admission.fair_queue import FairQueue, Flow, Full, Ticket

DEPARTMENTS, MEMBERS = 5, 3


@dataclass
class Model:
    """A queue beside what must be true of it."""

    slots: int
    share: int
    limit: int
    queue: FairQueue[int] = field(init=False)
    running: list[Flow] = field(default_factory=list)
    waiting: dict[int, tuple[Flow, Ticket]] = field(default_factory=dict)  # by number, in the order of arrival
    passed: Counter[str] = field(default_factory=Counter)  # turns of others since a department could have run
    number: int = 0

    def __post_init__(self) -> None:
        self.queue = FairQueue(self.slots, self.share, self.limit)

    def of(self, department: str) -> int:
        return sum(flow.department == department for flow in self.running)

    def may_run(self) -> set[str]:
        """Departments that wait and have fewer than their share."""
        waiting = {flow.department for flow, _ in self.waiting.values()}
        return {one for one in waiting if self.of(one) < min(self.share, self.slots)}

    def come(self, flow: Flow) -> None:
        if self.queue.take(flow):
            self.running.append(flow)
            return
        waits = sum(one.department == flow.department for one, _ in self.waiting.values())
        if waits >= self.limit:
            with pytest.raises(Full):
                self.queue.wait(flow, self.number)
            return
        self.waiting[self.number] = flow, self.queue.wait(flow, self.number)
        self.number += 1

    def end(self, index: int) -> None:
        if not self.running:
            return
        flow = self.running.pop(index % len(self.running))
        self.queue.give_back(flow.department)
        while True:
            candidates = self.may_run()
            number = self.queue.next()
            if number is None:
                return
            chosen, _ = self.waiting.pop(number)
            earlier = [one for one, (waits, _) in self.waiting.items() if waits == chosen and one < number]
            assert not earlier, "of one connector the oldest call runs first"
            assert chosen.department in candidates
            self.running.append(chosen)
            for department in candidates - {chosen.department}:
                self.passed[department] += 1
                assert self.passed[department] < DEPARTMENTS, "a department was passed over by a whole round"
            self.passed[chosen.department] = 0

    def go(self, index: int) -> None:
        if self.waiting:
            number = list(self.waiting)[index % len(self.waiting)]
            _, ticket = self.waiting.pop(number)
            assert self.queue.discard(ticket)
            assert not self.queue.discard(ticket)

    def check(self) -> None:
        assert len(self.running) == self.queue.running <= self.slots
        assert len(self.waiting) == self.queue.waiting
        for department in {flow.department for flow in self.running}:
            assert self.of(department) <= self.share
        if len(self.running) < self.slots:
            assert not self.may_run(), "a slot is idle while a department could use it"
        for department in list(self.passed):
            if department not in self.may_run():  # it waits for itself
                del self.passed[department]


FLOWS = st.builds(
    Flow,
    st.integers(0, DEPARTMENTS - 1).map(lambda number: f"d{number}"),
    st.integers(0, MEMBERS - 1).map(lambda number: f"m{number}"),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("come"), FLOWS),
        st.tuples(st.just("end"), st.integers(0, 100)),
        st.tuples(st.just("go"), st.integers(0, 100)),
    ),
    max_size=120,
)


@given(STEPS, st.integers(1, 6), st.integers(1, 4), st.integers(1, 20))
def test_no_department_is_passed_over_and_no_slot_is_idle(
    steps: list[tuple[str, Flow | int]], slots: int, share: int, limit: int
) -> None:
    model = Model(slots, share, limit)
    for what, argument in steps:
        getattr(model, what)(argument)
        model.check()
    while model.running:
        model.end(0)
        model.check()
    assert not model.waiting
    assert not model.queue._running
    assert not model.queue._waiting._items


def test_one_department_that_fills_its_queue_leaves_slots_to_others() -> None:
    queue = FairQueue[int](16, 2, 1_000)
    many = Flow("many", "a")
    for number in range(200):
        if not queue.take(many):
            queue.wait(many, number)
    assert queue.count("many") == (2, 198)
    assert queue.take(Flow("few", "b"))


def test_connectors_of_a_department_take_turns() -> None:
    queue = FairQueue[str](1, 1, 1_000)
    assert queue.take(Flow("d", "first"))
    for number in range(50):
        queue.wait(Flow("d", "busy"), f"busy {number}")
    queue.wait(Flow("d", "calm"), "calm")
    order = []
    for _ in range(3):
        queue.give_back("d")
        order.append(queue.next())
    assert order == ["busy 0", "calm", "busy 1"]
