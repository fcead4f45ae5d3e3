"""The hub's worker: what one resource meets does not stop the others, and what is missing is not passed over."""

import threading
from collections.abc import Callable

import pytest

from exchange.hub.drawing.step import StepResult
from exchange.hub.drawing.worker import DrawState, Worker
from schemas.errors import (
    ConflictError,
    CorruptError,
    GoneError,
    InvalidError,
    PoolError,
    Reason,
    RefusedError,
    UnavailableError,
)
from tests.kit.cases.hub_drawing import TOPICS, Hub
from tests.kit.twins.hub_pool import MemoryPool

SECOND = 1_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


class Resource:
    """A resource whose next steps are given."""

    def __init__(self, *outcomes: StepResult | PoolError) -> None:
        self.outcomes = list(outcomes)
        self.steps = 0

    def __call__(self) -> StepResult:
        self.steps += 1
        outcome = self.outcomes.pop(0) if self.outcomes else StepResult(caught_up=True)
        if isinstance(outcome, PoolError):
            raise outcome
        return outcome


def worker(clock: Callable[[], int], **resources: Resource) -> Worker:
    return Worker(resources, clock)


def test_a_resource_with_more_is_drawn_at_once_and_one_at_its_end_a_second_later() -> None:
    clock = Clock()
    more = Resource(StepResult(claims=3), StepResult(claims=2, unnamed=1, set_aside=1, caught_up=True))
    made = worker(clock, more=more)
    assert made.turn() == 0
    assert made.turn() == SECOND
    state = made.states["more"]
    assert (state.state, state.claims, state.unnamed, state.set_aside) == (DrawState.IDLE, 5, 1, 1)
    made.turn()
    assert more.steps == 2, "it is not due yet"
    clock.now = SECOND
    made.turn()
    assert more.steps == 3


@pytest.mark.parametrize(
    "error",
    [
        UnavailableError(Reason.GATEWAY_UNAVAILABLE, "away"),
        RefusedError(Reason.GRANT_SUSPENDED, "suspended"),
        ConflictError(Reason.VERSION_CONFLICT, "moved"),
        ConflictError(Reason.TRANSITION_NOT_ALLOWED, "no rules"),
    ],
    ids=lambda error: error.reason,
)
def test_what_may_pass_is_tried_again_later_each_time_and_once_a_minute_at_least(error: PoolError) -> None:
    clock = Clock()
    resource = Resource(*[error] * 9)
    made = worker(clock, one=resource, other=Resource())
    pauses = []
    for _ in range(9):
        made.turn()
        state = made.states["one"]
        assert (state.state, state.reason) == (DrawState.WAITING, error.reason.value)
        assert state.due is not None
        pauses.append(state.due - clock.now)
        clock.now = state.due
    assert pauses == sorted(pauses)
    assert pauses[0] == SECOND // 2
    assert pauses[-1] == 60 * SECOND
    made.turn()
    state = made.states["one"]
    assert (state.state, state.reason, state.failures) == (DrawState.IDLE, "", 0)
    assert made.states["other"].state is DrawState.IDLE


@pytest.mark.parametrize(
    "error",
    [
        GoneError(Reason.POSITION_GONE, "gone"),
        CorruptError(Reason.ROW_FORGED, "forged"),
        CorruptError(Reason.LOG_CORRUPT, "taken"),
        InvalidError(Reason.CONFIG_INVALID, "no places"),
        ConflictError(Reason.TOPIC_GENERATION_CHANGED, "restored"),
    ],
    ids=lambda error: error.reason,
)
def test_what_does_not_pass_stops_its_resource_alone(error: PoolError) -> None:
    clock = Clock()
    bad, good = Resource(error), Resource()
    made = worker(clock, bad=bad, good=good)
    made.turn()
    clock.now = 10 * SECOND
    made.turn()
    assert (made.states["bad"].state, made.states["bad"].reason) == (DrawState.STOPPED, error.reason.value)
    assert (bad.steps, good.steps) == (1, 2)


def test_it_runs_until_it_is_told_to_stop_or_nothing_is_left() -> None:
    made = worker(Clock(), bad=Resource(GoneError(Reason.POSITION_GONE, "gone")))
    made.run(threading.Event())
    assert made.states["bad"].state is DrawState.STOPPED
    stop = threading.Event()
    stop.set()
    good = Resource()
    worker(Clock(), good=good).run(stop)
    assert good.steps == 0


def test_it_draws_what_a_pool_has() -> None:
    pool = MemoryPool()
    for topic in TOPICS:
        pool.add(topic)
    hub = Hub.new(pool)
    pool.publish(TOPICS[0], "a", {"id_type": "ric18", "id_number": "1" * 18, "full_name": "A"})
    clock = Clock()
    made = Worker.of({topic: hub.step(topic) for topic in TOPICS}, clock)
    made.turn()
    assert made.states[TOPICS[0]].claims == 1
    assert {one.state for one in made.states.values()} == {DrawState.IDLE}
