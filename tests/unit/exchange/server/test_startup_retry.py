"""A start beside a database that is itself still starting."""

import asyncio
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg2
import pytest
import uvloop
from psycopg2 import errors as pg
from sqlalchemy import exc as sa_exc
from structlog.testing import capture_logs

from exchange.config import Limits
from exchange.server.listeners import serve
from exchange.server.roles import Part, Role
from exchange.server.supervision.startup_retry import retry_until_available
from registry.database.errors import unavailable
from schemas.errors import InvalidError, Reason, UnavailableError
from schemas.process import allocator


def watched() -> dict[str, Any]:
    """Return what a process watches, with nothing wrong."""
    log = SimpleNamespace(wait_until_signed=lambda _: None, watch=lambda stop: stop.wait())
    restored = SimpleNamespace(require_release=lambda: None)
    return {"embedded": None, "broker": SimpleNamespace(ping=lambda: None), "log_watch": log, "restored": restored}


class Clock:
    """Seconds that pass when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Coming:
    """Something that is there from its n-th call on."""

    def __init__(self, calls: int, reason: Reason = Reason.DATABASE_UNAVAILABLE) -> None:
        self.left, self.reason, self.calls = calls, reason, 0

    def __call__(self) -> str:
        self.calls += 1
        self.left -= 1
        if self.left > 0:
            raise UnavailableError(self.reason, "away")
        return "here"


@pytest.mark.parametrize("reason", [Reason.DATABASE_UNAVAILABLE, Reason.BROKER_UNAVAILABLE, Reason.OVERLOADED])
def test_a_start_waits_for_what_it_needs_and_says_so_now_and_then(reason: Reason) -> None:
    clock, coming = Clock(), Coming(26, reason)
    with capture_logs() as lines:
        assert retry_until_available(coming, timeout=60, clock=clock, sleep=clock.sleep) == "here"
    assert (coming.calls, clock.now) == (26, 125.0)
    assert [(line["event"], line["reason"], line["seconds"]) for line in lines] == [
        ("start_waits", reason, left) for left in (60, 50, 40)
    ]


def test_it_ends_with_its_timeout() -> None:
    clock, coming = Clock(), Coming(1000)
    with pytest.raises(UnavailableError, match="away"):
        retry_until_available(coming, timeout=30, clock=clock, sleep=clock.sleep)
    assert clock.now == 130.0


@pytest.mark.parametrize("reason", [Reason.DISK_FULL, Reason.SHUTTING_DOWN])
def test_what_waiting_does_not_mend_is_told_at_once(reason: Reason) -> None:
    coming = Coming(2, reason)
    with pytest.raises(UnavailableError):
        retry_until_available(coming, sleep=lambda _: pytest.fail("waited"))

    def wrong() -> None:
        raise InvalidError(Reason.CONFIG_INVALID, "wrong")

    with pytest.raises(InvalidError):
        retry_until_available(wrong, sleep=lambda _: pytest.fail("waited"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_start_that_waits_ends_when_it_is_told_to(number: signal.Signals) -> None:
    asked = 0

    def away() -> None:
        nonlocal asked
        asked += 1
        os.kill(os.getpid(), number)
        raise UnavailableError(Reason.BROKER_UNAVAILABLE, "away")

    app: Any = SimpleNamespace(
        **watched(),
        config=SimpleNamespace(limits=Limits(), folder=Path()),
        pool=SimpleNamespace(administration=SimpleNamespace(reconcile_topics=away)),
    )
    with pytest.raises(UnavailableError) as stopped:
        asyncio.run(
            asyncio.wait_for(serve(app, Part(roles=frozenset({Role.GATEWAY})), lambda _: pytest.fail("ready")), 20)
        )
    assert stopped.value.reason is Reason.SHUTTING_DOWN
    assert asked == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_once_the_listeners_are_closed_the_same_signal_ends_the_process(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is closed after them may take long, and then nobody listens to the signal any more."""
    monkeypatch.setattr(allocator, "freeze_startup_objects", lambda: None)
    app: Any = SimpleNamespace(
        **watched(),
        config=SimpleNamespace(limits=Limits(), listen=SimpleNamespace(metrics=None), folder=Path()),
        row_watch=SimpleNamespace(step=lambda: None),
        schemas_topic=None,
        addresses={},
    )

    async def served() -> Any:
        await asyncio.wait_for(serve(app, Part(roles=frozenset()), lambda _: os.kill(os.getpid(), number)), 20)
        return signal.getsignal(number)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as `pool serve` does
        left = runner.run(served())
    assert left is {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}[number]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (pg.AdminShutdown(), Reason.DATABASE_UNAVAILABLE),
        (psycopg2.OperationalError("the database system is shutting down"), Reason.DATABASE_UNAVAILABLE),
        (psycopg2.InterfaceError("connection already closed"), Reason.DATABASE_UNAVAILABLE),
        (sa_exc.OperationalError("SELECT 1", None, psycopg2.OperationalError()), Reason.DATABASE_UNAVAILABLE),
        (sa_exc.DisconnectionError("closed"), Reason.DATABASE_UNAVAILABLE),
        (sa_exc.TimeoutError("QueuePool limit"), Reason.OVERLOADED),
    ],
)
def test_errors_of_circumstances_are_told_as_such(error: psycopg2.Error, reason: Reason) -> None:
    told = unavailable(error)
    assert isinstance(told, UnavailableError)
    assert told.reason is reason


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("53100", Reason.DISK_FULL),
        ("53200", Reason.OVERLOADED),
        ("53300", Reason.OVERLOADED),
        ("25006", Reason.DATABASE_UNAVAILABLE),
        ("57P03", Reason.DATABASE_UNAVAILABLE),
        ("08006", Reason.DATABASE_UNAVAILABLE),
    ],
)
def test_so_are_the_servers_codes(code: str, reason: Reason) -> None:
    driver = pg.lookup(code)()
    driver.__setstate__({"pgcode": code})
    told = unavailable(sa_exc.DBAPIError("INSERT", None, driver))
    assert isinstance(told, UnavailableError)
    assert told.reason is reason


def test_a_defect_stays_one() -> None:
    defect = sa_exc.ProgrammingError("SELEC", None, pg.SyntaxError())
    assert unavailable(defect) is defect
