"""The program `pool` with short periods, so that no test waits 10 s for a turn of a loop, or 5 s after a wrong token.

    python -m tests.kit.world.short_periods serve --data DIR

A period is no promise of the product: what a loop does, and how it ends, is the same. Tests of the program itself start
`pool` as it is installed.
"""

from typing import Final

from exchange import cli
from exchange.api.admission import grpc_calls
from exchange.identity import failure_limiter
from exchange.server import background
from exchange.server.supervision import log_watch, readiness

LONGEST_DELAY: Final = 2.0
"""Seconds for which a source that fails again and again has to wait, at most."""
_PERIODS: Final = {  # seconds
    "_SEQUENCER_PERIOD": 0.25,
    "_SCHEMAS_PERIOD": 0.25,
    "_SWEEPER_PERIOD": 1.0,
    "_ERASURES_PERIOD": 0.5,
    "_FIGURES_PERIOD": 0.5,
    "_CORRECTIONS_PERIOD": 0.5,
}


def shorten() -> None:
    """Shorten the periods of the loops of this process."""
    for name, seconds in _PERIODS.items():
        assert getattr(background, name) > seconds
        setattr(background, name, seconds)
    readiness._PROBE_PERIOD = 1.0
    log_watch._START = 5.0
    grpc_calls._REFUSAL_SECONDS = grpc_calls._DELAY_SECONDS = 2.0
    failure_limiter.LONGEST = LONGEST_DELAY  # type: ignore[misc]


if __name__ == "__main__":
    shorten()
    cli.main()
