"""A pool whose machine's or database's clock jumps as a file says, while it runs.

    python -m tests.kit.faults.jumping_clock FILE serve --data DIR

FILE holds JSON, seconds by which each clock is ahead: {"machine": 0, "database": 0}. It is read at every look.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from exchange import cli
from exchange.audit.postgres_log import PostgresLog
from exchange.audit.store import SigningState
from exchange.server import clock
from tests.kit.world.short_periods import shorten


def ahead(file: Path, which: str) -> int:
    """Return by how much a clock is ahead, microseconds."""
    return int(json.loads(file.read_text())[which] * 1e6)


def inject(file: Path) -> None:
    """Shift the clocks of this process by what a file says."""
    machine, passed, read = clock.CLOCK.machine, clock.CLOCK._passed, PostgresLog.signing_state

    def signing_state(self: PostgresLog) -> SigningState:
        state = read(self)
        return replace(state, now=state.now + ahead(file, "database"))

    clock.CLOCK = clock.SteadyClock(lambda: machine() + ahead(file, "machine"), passed)  # type: ignore[misc]
    PostgresLog.signing_state = signing_state  # type: ignore[method-assign]


if __name__ == "__main__":
    shorten()
    inject(Path(sys.argv.pop(1)))
    cli.main()
