"""Timeout of every wait in the tests for something that has to happen; a busy machine needs many times the usual.

It is no promise about speed: what waits so long has failed. Where a test shows that something happens *before*
something else would, the other thing gets a longer time than this.
"""

import time
from collections.abc import Callable

PATIENCE = 120.0  # seconds


def wait_for(condition: Callable[[], object], what: str, *, every: float = 0.05) -> None:
    """Wait until the condition holds; fail after the timeout."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, f"not within {PATIENCE:.0f} s: {what}"
        time.sleep(every)
