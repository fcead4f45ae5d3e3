"""Back-off of restarts, and the bound after which a server is given up."""

import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from exchange.server.supervision.postgres_supervisor import PostgresSupervisor
from exchange.server.supervision.restart_policy import STABLE, RestartPolicy
from schemas.errors import Reason, UnavailableError


class Server:
    """A server that starts as often as it is told, and runs for some seconds each time."""

    def __init__(self, *lives: float) -> None:
        self.lives = list(lives)  # seconds; 0 = it does not start
        self.now = 100.0
        self.ends = 0.0
        self.attempts: list[float] = []

    def running(self) -> bool:
        return self.now < self.ends

    def restart(self) -> None:
        self.attempts.append(self.now)
        life = self.lives.pop(0) if self.lives else 0.0
        if not life:
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "pg_ctl ended with 1")
        self.ends = self.now + life

    def supervise(self, bound: float, until: float) -> PostgresSupervisor:
        supervisor = PostgresSupervisor(self, bound, lambda: self.now)
        while self.now < until and not supervisor.gave_up:
            self.now += supervisor.turn()
        return supervisor


def test_the_first_attempt_is_made_at_once_and_the_pauses_double() -> None:
    server = Server()
    supervisor = server.supervise(bound=300, until=1_000)
    assert supervisor.gave_up
    pauses = [later - earlier for earlier, later in pairwise(server.attempts)]
    assert server.attempts[0] == 100.0
    assert pauses[:8] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert 300 <= server.now - 100.0 <= 331


def test_a_server_that_comes_back_is_not_given_up_and_the_next_outage_begins_anew() -> None:
    server = Server(0, 0, 0, 60, 60)
    assert not server.supervise(bound=30, until=230).gave_up
    first, second = server.attempts[3], server.attempts[4]
    assert 60 <= second - first <= 62, "the next outage is mended at once"


def test_a_server_that_dies_at_each_start_is_given_up() -> None:
    server = Server(*[STABLE / 2] * 1_000)
    assert server.supervise(bound=120, until=10_000).gave_up
    assert len(server.attempts) < 20, "it is not started again and again without a pause"


def test_each_outcome_is_said() -> None:
    with capture_logs() as lines:
        Server(0, 3).supervise(bound=2, until=110)
    assert [line["event"] for line in lines] == [
        "embedded_postgres_ended",
        "embedded_postgres_restart_failed",
        "embedded_postgres_restarted",
        "embedded_postgres_given_up",
    ]


@given(lives=st.lists(st.sampled_from([0.0, 0.5, 4.0, 6.0, 40.0]), max_size=40), bound=st.sampled_from([10.0, 300.0]))
def test_it_is_given_up_only_after_an_outage_of_the_bound(lives: list[float], bound: float) -> None:
    server = Server(*lives)
    supervisor = server.supervise(bound, until=100 + 60 * len(lives) + 2 * bound)
    assert supervisor.gave_up, "in the end it never starts again"
    assert server.now - 100 >= bound


def test_giving_up_ends_the_process_after_a_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = PostgresSupervisor(Server(), 0.0, iter([1.0, 1.0, 2.0, 3.0]).__next__)
    monkeypatch.setattr("exchange.server.supervision.postgres_supervisor._FAREWELL", 0.0)
    ended = threading.Event()
    supervisor.supervise(ended.set, threading.Event())
    assert ended.is_set()


def test_a_policy_without_an_outage_waits_for_nothing() -> None:
    policy = RestartPolicy(10)
    policy.found_running(5.0)
    assert (policy.pause(), policy.outage(6.0), policy.is_over(6.0)) == (0.0, 0.0, False)
