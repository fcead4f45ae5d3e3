"""The limit of failed authentications, over histories of failures, successes and time."""

import hypothesis.strategies as st
from hypothesis import given

from exchange.identity.failure_limiter import FORGOTTEN, FREE, LONGEST, FailureLimiter, source_of

SOURCES = ("source:10.0.0.1", "source:10.0.0.2")
TOKENS = (b"a" * 32, b"b" * 32)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("fail"), st.sampled_from(SOURCES)),
        st.tuples(st.just("succeed"), st.sampled_from(TOKENS)),
        st.tuples(st.just("pass"), st.floats(0, 2 * FORGOTTEN)),
    ),
    max_size=60,
)


class Timed:
    def __init__(self, capacity: int = 100) -> None:
        self.now = 1_000.0
        self.limiter = FailureLimiter(lambda: self.now, capacity=capacity)

    def run(self, steps: list[tuple[str, object]]) -> None:
        for what, value in steps:
            match what:
                case "fail":
                    self.limiter.failed([str(value)])
                case "succeed":
                    assert isinstance(value, bytes)
                    self.limiter.succeeded(value)
                case _:
                    assert isinstance(value, float)
                    self.now += value


@given(STEPS)
def test_a_new_token_waits_for_the_longest_delay_at_most_and_then_passes(steps: list[tuple[str, object]]) -> None:
    timed = Timed()
    timed.run(steps)
    wait = timed.limiter.wait(SOURCES, b"new")
    assert 0.0 <= wait <= LONGEST
    timed.now += wait
    assert timed.limiter.wait(SOURCES, b"new") == 0.0


@given(STEPS)
def test_a_token_that_was_right_lately_never_waits(steps: list[tuple[str, object]]) -> None:
    timed = Timed()
    timed.run(steps)
    timed.limiter.succeeded(TOKENS[0])
    for _ in range(3 * FREE):
        timed.limiter.failed(SOURCES)
    assert timed.limiter.wait(SOURCES, TOKENS[0]) == 0.0
    assert timed.limiter.wait(SOURCES, b"new") > 0.0


@given(STEPS, st.integers(1, 500))
def test_failures_elsewhere_delay_nobody(steps: list[tuple[str, object]], failures: int) -> None:
    timed = Timed()
    timed.run(steps)
    for _ in range(failures):
        timed.limiter.failed(["source:203.0.113.7", "account:zhang"])
    assert timed.limiter.wait(["source:198.51.100.1"], b"new") == 0.0


@given(st.integers(1, 1_500))
def test_the_delay_grows_with_each_failure_and_is_forgotten(failures: int) -> None:
    timed = Timed()
    waits = []
    for _ in range(failures):
        timed.limiter.failed(SOURCES[:1])
        waits.append(timed.limiter.wait(SOURCES[:1], b""))
    assert waits == sorted(waits)
    assert waits[:FREE] == [0.0] * min(failures, FREE)
    assert all(wait > 0 for wait in waits[FREE:])
    timed.now += FORGOTTEN
    timed.limiter.failed(SOURCES[:1])
    assert timed.limiter.wait(SOURCES[:1], b"") == 0.0


@given(st.lists(st.integers(0, 10_000), max_size=400))
def test_memory_is_bounded_whatever_is_tried(keys: list[int]) -> None:
    timed = Timed(capacity=10)
    for key in keys:
        timed.limiter.failed([f"source:{key}", f"account:{key}"])
        timed.limiter.succeeded(str(key).encode())
        assert timed.limiter.size() <= 20


def test_a_source_is_an_address_without_its_port_or_a_subscriber_s_network() -> None:
    assert source_of("10.1.2.3") == source_of("10.1.2.3:4711") == source_of("ipv4:10.1.2.3:4711") == "10.1.2.3"
    assert source_of("2001:db8::1") == source_of("ipv6:%5B2001:db8::ffff%5D:443") == "2001:db8::/64"
    assert source_of("2001:db8:0:1::1") != source_of("2001:db8::1")
    assert source_of("::ffff:10.1.2.3") == "10.1.2.3"
    assert source_of("") == source_of("unix:/run/pool") == source_of("testclient") == "unknown"
