"""The same position again and again: bounded, and no loss of a consumer that follows, replays or crashes."""

from exchange.records.reading.repeated_releases import DEFAULT_REPEATS, RepeatedReleases


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def draw(limiter: RepeatedReleases, position: int, grant: str = "g", generation: int = 1) -> bool:
    """Fetch, where that may be; return whether it might."""
    if limiter.wait(grant, generation, (position, position)):
        return False
    limiter.released(grant, generation, (position, position))
    return True


def test_a_position_is_drawn_so_often_a_minute_and_the_wait_is_told() -> None:
    clock = Clock()
    limiter = RepeatedReleases(60, clock)
    assert sum(draw(limiter, 7) for _ in range(200)) == 1 + 60
    wait = limiter.wait("g", 1, (7, 7))
    assert 0 < wait <= 1
    clock.now += wait
    assert draw(limiter, 7)
    assert not draw(limiter, 7)


def test_positions_in_a_circle_are_repetitions_too() -> None:
    limiter = RepeatedReleases(60, Clock())
    assert sum(draw(limiter, number % 10) for number in range(1_000)) == 10 + 60


def test_following_and_one_replay_of_the_history_spend_nothing() -> None:
    limiter = RepeatedReleases(1, Clock())
    assert all(draw(limiter, number) for number in range(10_000))
    limiter = RepeatedReleases(1, Clock())
    assert not limiter.wait("g", 1, (0, 0))


def test_a_consumer_that_crashes_twice_a_second_is_served() -> None:
    clock = Clock()
    limiter = RepeatedReleases(DEFAULT_REPEATS, clock)
    for _ in range(3_600):
        assert draw(limiter, 7)
        clock.now += 0.5


def test_grants_and_generations_have_their_own() -> None:
    limiter = RepeatedReleases(1, Clock())
    assert draw(limiter, 7)
    assert draw(limiter, 7)
    assert not draw(limiter, 7)
    assert draw(limiter, 7, grant="other")
    assert draw(limiter, 7, generation=2)


def test_only_releases_count() -> None:
    limiter = RepeatedReleases(1, Clock())
    assert not any(limiter.wait("g", 1, (7, 7)) for _ in range(1_000))
