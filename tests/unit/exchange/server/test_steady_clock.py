"""A jump ahead of the machine's clock is held; which one is found wrong, and which is taken for right."""

import pytest
import sqlalchemy as sa

from exchange.server.clock import TOLERANCE, SteadyClock
from exchange.server.supervision.clock_check import ClockReading, clock_fault, is_independent
from schemas.errors import Reason

NOW = 1_795_000_000_000_000
SECOND, HOUR, DAY = 1_000_000, 3_600_000_000, 86_400_000_000


class Machine:
    """A machine's two clocks."""

    def __init__(self) -> None:
        self.wall, self.passed = NOW, 7 * HOUR
        self.clock = SteadyClock(lambda: self.wall, lambda: self.passed)

    def wait(self, microseconds: int) -> None:
        self.wall += microseconds
        self.passed += microseconds


def test_a_jump_ahead_is_held_and_time_goes_on() -> None:
    machine = Machine()
    machine.wall += 20 * DAY
    assert machine.clock.now() == NOW
    assert machine.clock.ahead() == 20 * DAY
    machine.wait(3 * SECOND)
    assert machine.clock.now() == NOW + 3 * SECOND
    machine.wall -= 20 * DAY
    assert machine.clock.now() == NOW + 3 * SECOND == machine.wall
    assert machine.clock.ahead() == 0


def test_small_steps_and_steps_back_are_followed() -> None:
    machine = Machine()
    machine.wall += TOLERANCE
    assert machine.clock.now() == machine.wall
    machine.wall -= 20 * DAY
    assert machine.clock.now() == machine.wall
    assert machine.clock.ahead() == 0
    machine.wall += 20 * DAY
    assert machine.clock.ahead() == 20 * DAY, "the way forward again is a jump"


def test_a_jump_that_is_taken_for_right_is_followed() -> None:
    machine = Machine()
    machine.wall += DAY
    assert machine.clock.ahead() == DAY
    machine.clock.accept()
    assert (machine.clock.now(), machine.clock.ahead()) == (NOW + DAY, 0)


def test_a_thread_that_waits_between_its_two_readings_sees_no_jump() -> None:
    machine = Machine()
    machine.wait(SECOND)
    assert machine.clock.now() == NOW + SECOND

    def slow() -> int:
        read = machine.wall
        machine.wait(60 * SECOND)  # after the clock was read, and before the time that has passed is
        return read

    machine.clock.machine = slow
    machine.clock.now()
    machine.clock.machine = lambda: machine.wall
    assert machine.clock.ahead() == 0
    assert machine.clock.now() == machine.wall


def fault(*, ahead: int = 0, database: int | None = 0, independent: bool = False, synchronised: bool = False) -> str:
    """Return the reason, of a machine that is *ahead* by a jump, and a database's clock relative to the machine's."""
    machine = NOW + ahead
    found = clock_fault(
        ClockReading(
            before=machine,
            after=machine + SECOND,
            database=None if database is None else machine + database,
            ahead=ahead,
            independent=independent,
            synchronised=synchronised,
        )
    )
    if found is None:
        return ""
    assert found.reason is Reason.CLOCK_JUMPED
    return found.message.partition(" is ahead")[0].partition(" went ahead")[0]


def test_clocks_that_differ_are_a_fault_and_the_one_that_is_ahead_is_named() -> None:
    assert fault() == ""
    assert fault(database=5 * SECOND) == ""
    assert fault(database=-5 * SECOND) == ""
    assert fault(database=DAY) == "the database's clock"
    assert fault(database=-DAY) == "this machine's clock"
    assert fault(ahead=DAY, database=-DAY, synchronised=True) == "this machine's clock"


def test_what_takes_a_jump_for_right() -> None:
    assert fault(ahead=20 * DAY) == "this machine's clock"
    assert fault(ahead=20 * DAY, independent=True) == "", "another machine's clock agrees"
    assert fault(ahead=20 * DAY, synchronised=True) == "", "a time service keeps it"
    assert fault(ahead=20 * DAY, database=None, independent=True) == "this machine's clock", "nobody was asked"
    assert fault(ahead=HOUR) == "", "a virtual machine that was paused"
    assert fault(ahead=HOUR + 1) == "this machine's clock"


@pytest.mark.parametrize(
    ("url", "independent"),
    [
        (None, False),
        ("postgresql://pool@/pool?host=/run/postgresql", False),
        ("postgresql://pool@localhost/pool", False),
        ("postgresql://pool@127.0.0.1:5432/pool", False),
        ("postgresql://pool@db.example.gov/pool", True),
    ],
)
def test_whose_clock_a_database_has(url: str | None, independent: bool) -> None:
    assert is_independent(None if url is None else sa.make_url(url)) is independent
