"""Single flight: concurrent calls share one execution, and never get a result from before."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import pytest

from exchange.records.submission import RowsRefusedError
from exchange.single_flight import SingleFlight
from registry.codec.codec import RowError
from schemas.errors import Reason, UnavailableError


class Seen(str):
    """A key that tells how often it was looked up: a caller that has looked it up is in a flight."""

    __slots__ = ("looks",)

    def __new__(cls, text: str) -> Self:
        made = super().__new__(cls, text)
        made.looks = threading.Semaphore(0)
        return made

    def __hash__(self) -> int:
        self.looks.release()
        return super().__hash__()


class Register:
    """Answers slowly: only when it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.state = "stands"
        self.begun = threading.Semaphore(0)
        self.let = threading.Semaphore(0)

    def __call__(self, key: str) -> str:
        self.asked.append(key)
        state = self.state
        self.begun.release()
        assert self.let.acquire(timeout=10)
        if state == "away":
            raise TimeoutError
        return state


def test_those_who_come_during_a_question_share_the_next() -> None:
    register = Register()
    flight = SingleFlight(register)
    with ThreadPoolExecutor(9) as callers:
        first = callers.submit(flight, "a")
        assert register.begun.acquire(timeout=10)
        later = _all_in_a_flight(callers, flight, 8)
        register.state = "revoked"
        register.let.release()
        assert first.result(10) == "stands"
        register.let.release()
        # Who asked after the revocation learns of it, though the answer before was still under way.
        assert [each.result(10) for each in later] == ["revoked"] * 8
    assert register.asked == ["a", "a"]


def test_nothing_is_kept_and_other_keys_do_not_wait() -> None:
    register = Register()
    flight = SingleFlight(register)
    with ThreadPoolExecutor(2) as callers:
        slow = callers.submit(flight, "a")
        assert register.begun.acquire(timeout=10)
        other = callers.submit(flight, "b")
        assert register.begun.acquire(timeout=10)
        register.let.release(2)
        assert {slow.result(10), other.result(10)} == {"stands"}
    register.let.release()
    assert flight("a") == "stands"
    assert register.asked.count("a") == 2


def test_an_error_reaches_its_flight_and_no_other() -> None:
    register = Register()
    flight = SingleFlight(register)
    register.state = "away"
    with ThreadPoolExecutor(2) as callers:
        first = callers.submit(flight, "a")
        assert register.begun.acquire(timeout=10)
        [second] = _all_in_a_flight(callers, flight, 1)
        register.state = "stands"
        register.let.release(2)
        with pytest.raises(TimeoutError):
            first.result(10)
        assert second.result(10) == "stands"


@pytest.mark.parametrize(
    "error",
    [
        UnavailableError(Reason.DATABASE_UNAVAILABLE, "away", details={"since": "noon"}, retry_after=2.5),
        RowsRefusedError([RowError(index=3, reason=Reason.RECORD_INVALID, field="ward", message="no number")]),
        ValueError("plain"),
    ],
)
def test_every_caller_of_a_flight_gets_an_error_of_its_own(error: Exception) -> None:
    register = Register()
    asked = threading.Event()

    def ask(key: str) -> str:
        if not asked.is_set():
            asked.set()
            return register(key)
        raise error

    flight = SingleFlight(ask)
    with ThreadPoolExecutor(5) as callers:
        first = callers.submit(flight, "a")
        assert register.begun.acquire(timeout=10)
        later = _all_in_a_flight(callers, flight, 4)
        register.let.release()
        assert first.result(10) == "stands"
        got = [each.exception(10) for each in later]
    assert len({id(each) for each in got}) == 4
    assert sum(each is error for each in got) == 1  # who asked
    for each in got:
        assert each is not None
        assert (type(each), each.args, vars(each)) == (type(error), error.args, vars(error))
        assert each is error or each.__cause__ is error


def _all_in_a_flight(callers: ThreadPoolExecutor, flight: SingleFlight[str, str], count: int) -> list[Future[str]]:
    keys = [Seen("a") for _ in range(count)]
    asking = [callers.submit(flight, key) for key in keys]
    assert all(key.looks.acquire(timeout=10) for key in keys)
    return asking
