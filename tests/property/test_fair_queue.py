"""The fair queue, in any order of calls that come, end and go away: nobody is passed over, and no slot is idle.

A department with any number of calls has one running beside those of others: the others' calls meet no more.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.api.admission.fair_queue import ALONE_SECONDS, GROUP, UNKNOWN, FairQueue, Flow, Full, Ticket

DEPARTMENTS, MEMBERS = 5, 3


@dataclass
class Model:
    """A queue beside what must be true of it."""

    slots: int
    share: int
    contended: int
    limit: int
    queue: FairQueue[int] = field(init=False)
    now: float = 0.0
    ended: dict[str, float] = field(default_factory=dict)  # when a department's last call ended
    running: list[Flow] = field(default_factory=list)
    waiting: dict[int, tuple[Flow, Ticket]] = field(default_factory=dict)  # by number, in the order of arrival
    passed: Counter[str] = field(default_factory=Counter)  # turns of others since a department could have run
    number: int = 0

    def __post_init__(self) -> None:
        self.queue = FairQueue(self.slots, self.share, self.limit, contended=self.contended, clock=lambda: self.now)

    def of(self, department: str) -> int:
        return sum(flow.department == department for flow in self.running)

    def alone(self, department: str) -> bool:
        """Whether no other department that is known has a call, nor had one lately."""
        others = {flow.department for flow in self.running} - {department, UNKNOWN}
        lately = (at for one, at in self.ended.items() if one not in {department, UNKNOWN})
        return not others and all(self.now - at >= ALONE_SECONDS for at in lately)

    def least(self, flow: Flow) -> int:
        """How many calls its department may have beside others."""
        return min(self.share if flow.kind == GROUP else min(self.contended, self.share), self.slots)

    def may_run(self) -> set[str]:
        """Departments that wait and have fewer than they may have beside others."""
        return {flow.department for flow, _ in self.waiting.values() if self.of(flow.department) < self.least(flow)}

    def started(self, flow: Flow) -> None:
        of = self.of(flow.department)
        assert of < self.least(flow) or (of < self.share and self.alone(flow.department)), "beside others it has enough"
        self.running.append(flow)

    def come(self, flow: Flow) -> None:
        if self.queue.take(flow):
            assert not any(one == flow for one, _ in self.waiting.values()), "it overtook one of its connector"
            self.started(flow)
            return
        waits = sum(one.department == flow.department for one, _ in self.waiting.values())
        if waits >= self.limit:
            with pytest.raises(Full):
                self.queue.wait(flow, self.number)
            return
        self.waiting[self.number] = flow, self.queue.wait(flow, self.number)
        self.number += 1
        self.serve()

    def later(self, seconds: float) -> None:
        self.now += seconds

    def end(self, index: int) -> None:
        if not self.running:
            return
        flow = self.running.pop(index % len(self.running))
        self.ended[flow.department] = self.now
        self.queue.give_back(flow)
        self.serve()

    def serve(self) -> None:
        while True:
            candidates = self.may_run()
            number = self.queue.next()
            if number is None:
                return
            chosen, _ = self.waiting.pop(number)
            earlier = [one for one, (waits, _) in self.waiting.items() if waits == chosen and one < number]
            assert not earlier, "of one connector the oldest call runs first"
            assert chosen.department in candidates or not candidates, "one alone comes after those that may run"
            self.started(chosen)
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


MEMBER = st.integers(0, MEMBERS - 1).map(lambda number: f"m{number}")
FLOWS = st.one_of(
    st.builds(Flow, st.integers(0, DEPARTMENTS - 3).map(lambda number: f"d{number}"), MEMBER),
    st.builds(Flow, st.just(UNKNOWN), MEMBER, st.just(UNKNOWN)),
    st.just(Flow("topic t", kind=GROUP)),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("come"), FLOWS),
        st.tuples(st.just("end"), st.integers(0, 100)),
        st.tuples(st.just("go"), st.integers(0, 100)),
        st.tuples(st.just("later"), st.sampled_from([0.1, ALONE_SECONDS])),
    ),
    min_size=20,
    max_size=120,
)


@given(STEPS, st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.integers(1, 20))
def test_no_department_is_passed_over_and_no_slot_is_idle(
    steps: list[tuple[str, Flow | float]], slots: int, share: int, contended: int, limit: int
) -> None:
    model = Model(slots, share, contended, limit)
    for what, argument in steps:
        getattr(model, what)(argument)
        model.check()
    while model.running:
        model.end(0)
        model.check()
    assert not model.waiting
    assert not model.queue._running
    assert not model.queue._waiting._items


def a_queue(slots: int, share: int, contended: int, clock: Callable[[], float] = lambda: 0.0) -> FairQueue[int]:
    return FairQueue[int](slots, share, 1_000, contended=contended, clock=clock)


def test_one_department_that_fills_its_queue_leaves_slots_to_others() -> None:
    queue = a_queue(16, 2, 1)
    many = Flow("many", "a")
    for number in range(200):
        if not queue.take(many):
            queue.wait(many, number)
    assert queue.count("many") == (2, 198)
    assert queue.take(Flow("few", "b"))


def test_beside_others_a_department_with_many_calls_has_one_running() -> None:
    now = [0.0]
    queue = a_queue(16, 2, 1, lambda: now[0])
    many, few = Flow("many", "a"), Flow("few", "b")
    for number in range(200):
        if not queue.take(many):
            queue.wait(many, number)
    assert queue.take(few)
    queue.give_back(many)
    assert queue.next() is None, "one of its two runs on, and the other department has a call"
    queue.give_back(few)
    assert queue.next() is None, "the other department had one just now"
    now[0] += ALONE_SECONDS
    assert queue.next() == 2, "the oldest that waits"
    assert queue.next() is None
    assert queue.count("many") == (2, 197)


def test_callers_that_are_not_known_leave_a_department_its_share() -> None:
    queue = a_queue(16, 2, 1)
    assert queue.take(Flow(UNKNOWN, "a", UNKNOWN))
    assert queue.take(Flow("many"))
    assert queue.take(Flow("many"))
    assert not queue.take(Flow(UNKNOWN, "b", UNKNOWN)), "beside a department they have one"


def test_connectors_of_a_department_take_turns() -> None:
    queue = a_queue(1, 1, 1)
    assert queue.take(Flow("d", "first"))
    for number in range(50):
        queue.wait(Flow("d", "busy"), number)
    queue.wait(Flow("d", "calm"), 1_000)
    order = []
    for _ in range(3):
        queue.give_back(Flow("d"))
        order.append(queue.next())
    assert order == [0, 1_000, 1]
