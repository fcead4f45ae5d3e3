"""What `/livez` and `/readyz` answer, and that they wait for nothing."""

import asyncio
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from exchange.api.health import HealthCheck, create
from exchange.authorization.restored import OpenRestore, RestoreGuard
from exchange.server import background
from exchange.server.roles import Role, key_paths
from exchange.server.supervision.loop_liveness import LOOPS, STUCK, LoopLiveness, LoopState, LoopStop
from exchange.server.supervision.readiness import STALE, EventLoopWatch, ProbeWatch, live_checks, ready_checks
from schemas.errors import CorruptError, PoolError, Reason, UnavailableError
from tests.kit.patience import PATIENCE, wait_for


def ask(path: str, live: list[HealthCheck], ready: list[HealthCheck]) -> tuple[int, dict[str, Any]]:
    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(create(lambda: live, lambda: ready))
        async with httpx.AsyncClient(transport=transport, base_url="http://pool") as client:
            return await client.get(path)

    answer = asyncio.run(call())
    return answer.status_code, answer.json()


def test_the_body_names_each_check_and_one_that_fails_makes_503() -> None:
    good = HealthCheck(name="keys", ok=True)
    bad = HealthCheck(name="database", ok=False, reason="database_unavailable", detail="it does not answer")
    assert ask("/livez", [good], [bad]) == (200, {"status": "ok", "checks": {"keys": {"ok": True}}})
    status, document = ask("/readyz", [good], [good, bad])
    assert (status, document["status"]) == (503, "failed")
    assert document["checks"]["database"] == {
        "ok": False,
        "reason": "database_unavailable",
        "detail": "it does not answer",
    }


def test_a_loop_that_has_ended_is_found_dead_and_one_in_a_pause_is_not_stuck() -> None:
    liveness, stop = LoopLiveness(), LoopStop()
    ended = threading.Thread(target=lambda: None)
    ended.start()
    ended.join()
    with liveness.reporting("sweeper", ended, stop):
        (state,) = liveness.states()
    assert not state.alive
    assert not state.ok
    assert liveness.states() == []
    waiting = threading.Thread(target=stop.wait, args=(PATIENCE,))
    waiting.start()
    in_a_pause = LoopState(name="sweeper", alive=True, seconds=0.0)
    with liveness.reporting("sweeper", waiting, stop):
        wait_for(lambda: liveness.states() == [in_a_pause], "the thread is in its pause")  # once it has got there
        stop.set()


@pytest.mark.parametrize(("name", "ok"), [("rows", False), ("sequencer", True)])
def test_a_turn_without_an_end_is_stuck_unless_it_may_take_long(name: str, ok: bool) -> None:
    assert LoopState(name=name, alive=True, seconds=STUCK + 1).ok is ok
    assert LoopState(name=name, alive=True, seconds=STUCK - 1).ok


def test_every_loop_of_a_process_is_in_its_livez() -> None:
    async def run() -> tuple[list[str], list[str]]:
        async with background.in_thread("a loop", lambda stop: stop.wait() and None):
            during = [check.name for check in live_checks(EventLoopWatch(), None)]
        return during, [state.name for state in LOOPS.states()]

    during, after = asyncio.run(run())
    assert "a loop" in during
    assert "a loop" not in after


def log(
    database: PoolError | None = None, fault: PoolError | None = None, ago: float = 0.0, clock: PoolError | None = None
) -> Any:
    looked = time.monotonic() - ago
    return SimpleNamespace(database=database, fault=fault or clock, clock_fault=clock, looked=looked, age=lambda: 0.0)


def failing(roles: set[Role], watch: Any, probe: ProbeWatch | None, keys: list[Path]) -> dict[str, str]:
    checks = ready_checks(frozenset(roles), watch, [] if probe is None else [probe], keys)
    return {check.name: check.reason for check in checks if not check.ok}


def test_readyz_names_what_is_wrong_by_role() -> None:
    behind = UnavailableError(Reason.LOG_BEHIND, "an entry has waited")
    corrupt = CorruptError(Reason.LOG_CORRUPT, "an older copy")
    away = UnavailableError(Reason.DATABASE_UNAVAILABLE, "does not answer")
    assert failing({Role.GATEWAY}, log(), None, []) == {}
    assert failing({Role.GATEWAY}, log(fault=behind), None, []) == {"signing": Reason.LOG_BEHIND}
    assert failing({Role.SEQUENCER}, log(fault=corrupt), None, []) == {"log": Reason.LOG_CORRUPT}
    assert failing({Role.REGISTRY}, log(fault=corrupt), None, []) == {}, "it neither signs nor releases"
    assert failing({Role.REGISTRY}, log(database=away), None, []) == {"database": Reason.DATABASE_UNAVAILABLE}


def test_a_clock_that_jumped_is_a_check_of_its_own() -> None:
    jumped = UnavailableError(Reason.CLOCK_JUMPED, "20 days ahead")
    assert failing({Role.GATEWAY}, log(clock=jumped), None, []) == {"clock": Reason.CLOCK_JUMPED}
    assert failing({Role.REGISTRY}, log(clock=jumped), None, []) == {"clock": Reason.CLOCK_JUMPED}


def test_what_has_not_answered_for_long_is_not_ready() -> None:
    assert failing({Role.GATEWAY}, log(ago=STALE + 1), None, []) == {"database": Reason.DATABASE_UNAVAILABLE}


def test_a_broker_that_hangs_is_not_ready_and_holds_no_probe_up() -> None:
    hangs, asked = threading.Event(), threading.Event()

    def probe() -> None:
        asked.set()
        hangs.wait(PATIENCE)

    broker = ProbeWatch("broker", probe, Reason.BROKER_UNAVAILABLE)
    stop = LoopStop()
    thread = threading.Thread(target=broker.watch, args=(stop,))
    thread.start()
    try:
        assert asked.wait(PATIENCE)
        assert failing({Role.GATEWAY}, log(), broker, []) == {"broker": Reason.BROKER_UNAVAILABLE}
    finally:
        stop.set()
        hangs.set()
        thread.join(PATIENCE)
    wait_for(lambda: broker.fault is None, "it has answered")
    assert failing({Role.GATEWAY}, log(), broker, []) == {}


def test_a_restore_that_is_not_settled_is_a_check_of_its_own() -> None:
    found: list[OpenRestore] = [OpenRestore("0198", whole=True)]
    guard = RestoreGuard(lambda: found[0] if found else None, monotonic=iter(range(100)).__next__)
    restore = ProbeWatch("restore", guard.require_release, Reason.RESTORE_UNSETTLED)
    assert failing({Role.GATEWAY}, log(), restore, []) == {"restore": Reason.RESTORE_UNSETTLED}, "it was not asked yet"
    restore.look()
    assert failing({Role.GATEWAY}, log(), restore, []) == {"restore": Reason.RESTORE_UNSETTLED}
    found.clear()
    restore.look()
    assert failing({Role.GATEWAY}, log(), restore, []) == {}


def test_a_key_file_that_is_gone_is_said_before_the_next_start_misses_it(tmp_path: Path) -> None:
    files = key_paths([Role.SEQUENCER], tmp_path)
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("key")
    assert {file.name for file in files} == {"log.key", "named.master"}
    assert failing({Role.SEQUENCER}, log(), None, files) == {}
    (tmp_path / "secrets" / "log.key").unlink()
    assert failing({Role.SEQUENCER}, log(), None, files) == {"keys": Reason.CONFIG_INVALID}
