"""The TTL cache: no answer is used longer than it may be, and a refusal is never used again."""

import pytest

from exchange.api.registry.ttl_cache import TTL, TtlCache
from schemas.errors import Reason, RefusedError, UnavailableError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def refuse() -> str:
    raise RefusedError(Reason.CERTIFICATE_REVOKED, "revoked")


def fail() -> str:
    raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "away", retry_after=1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> TtlCache[str, str]:
    return TtlCache(lambda value: value != "inactive", clock=clock)


def test_an_answer_is_used_for_less_than_a_second() -> None:
    assert TTL < 1


def test_an_answer_ends_when_its_time_is_over(cache: TtlCache[str, str], clock: Clock) -> None:
    assert cache.get("a") is None
    assert cache.ask("a", lambda: "x") == "x"
    assert (cache.get("a"), cache.get("b")) == ("x", None)
    clock.now += TTL
    assert cache.get("a") is None


def test_its_age_is_counted_from_the_question(cache: TtlCache[str, str], clock: Clock) -> None:
    def slow() -> str:
        clock.now += TTL
        return "x"

    assert cache.ask("a", slow) == "x"
    assert cache.get("a") is None


def test_an_answer_that_came_late_does_not_replace_a_newer_one(cache: TtlCache[str, str], clock: Clock) -> None:
    def slow() -> str:
        clock.now += 0.1
        cache.ask("a", lambda: "new")
        return "old"

    assert cache.ask("a", slow) == "old"
    assert cache.get("a") == "new"


def test_one_caller_refreshes_an_answer_and_the_others_use_it(cache: TtlCache[str, str], clock: Clock) -> None:
    cache.ask("a", lambda: "x")
    clock.now += TTL / 2
    assert [cache.get("a") for _ in range(3)] == [None, "x", "x"]
    cache.ask("a", lambda: "y")
    clock.now += TTL / 2 - 0.01
    assert cache.get("a") == "y"


def test_a_refusal_is_not_cached_and_removes_what_was(cache: TtlCache[str, str]) -> None:
    cache.ask("a", lambda: "x")
    with pytest.raises(RefusedError):
        cache.ask("a", refuse)
    assert cache.get("a") is None
    cache.ask("b", lambda: "x")
    assert cache.ask("b", lambda: "inactive") == "inactive"
    assert cache.get("b") is None


def test_a_database_that_is_away_leaves_an_answer_its_time_and_no_more(cache: TtlCache[str, str], clock: Clock) -> None:
    cache.ask("a", lambda: "x")
    clock.now += TTL / 2
    with pytest.raises(UnavailableError):
        cache.ask("a", fail)
    assert [cache.get("a") for _ in range(2)] == [None, "x"]
    clock.now += TTL / 2
    assert cache.get("a") is None


def test_it_holds_so_many_entries_and_forgets_the_oldest(clock: Clock) -> None:
    cache: TtlCache[int, str] = TtlCache(clock=clock, most=3)
    for key in (1, 2, 3):
        cache.ask(key, lambda: "x")
    cache.ask(1, lambda: "y")
    cache.ask(4, lambda: "x")
    assert [cache.get(key) for key in (1, 2, 3, 4)] == ["y", None, "x", "x"]
