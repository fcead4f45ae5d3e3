"""See the package. Exit code 0: everything held; a control has been found out. 1: it did not, it was not."""

import argparse
import contextlib
import random
import signal
import sys
import time
from collections.abc import Callable

import sqlalchemy as sa

from tests.torture import checks
from tests.torture.doubles import CONTROLS
from tests.torture.stage import stage
from tests.torture.storm import Storm, say


def torture(faults: int, seed: int, control: str = "", *, keep: bool = False) -> list[str]:
    """Set up, hurt, let everything come to rest, look; give what is wrong, in sentences."""
    began = time.monotonic()

    def told(text: str) -> None:
        say(f"[{time.monotonic() - began:5.0f} s] {text}")

    told(f"seed {seed}{f', control {control}' if control else ''}: setting up")
    with stage(seed, control, keep=keep) as running:
        for clerk in running.clerks.values():
            clerk.start()
        storm = Storm(running, told)
        storm.start()
        try:
            _wait(lambda: "" if checks.sunk(running) and checks.received(running) else "nothing has arrived yet", told)
            since = checks.checkpoint(running)
            told("records flow; now the faults")
            storm.run(faults, patience=60 + 20 * faults)
            told(f"{storm.tally.told()}; {storm.tally.strange}")
            for clerk in running.clerks.values():
                clerk.stop()
            storm.calm()
            for rest in (checks.settled, checks.swept, checks.sequenced):
                # What does not come to rest is a finding of the checks, which tell more.
                with contextlib.suppress(TimeoutError):
                    _wait(lambda rest=rest: rest(running), told)  # type: ignore[misc]
        finally:
            storm.close()
        found = [*checks.findings(running, since), *(f"unexpected end: {end}" for end in storm.tally.strange)]
        batches = len(running.acknowledged)
        for unknown, count in checks.unknown_errors(running).items():
            told(f"an error that the gateway had no word for: {unknown}, {count} times")
        told(
            f"seed {seed}: {storm.tally.told()}; {storm.tally.missed.total()} more hit no such batch; "
            f"{running.ledgers_lost} ledgers lost, {batches} batches acknowledged; {len(found)} findings"
        )
        if keep:
            told(f"kept: {running.folder}")
        return found


def _wait(under_way: Callable[[], str], told: Callable[[str], None], patience: float = 120.0) -> None:
    give_up, spoken = time.monotonic() + patience, time.monotonic()
    while True:
        try:
            left = under_way()
        except sa.exc.OperationalError as error:
            left = f"PostgreSQL: {type(error.orig).__name__}"
        if not left:
            return
        if time.monotonic() > give_up:
            raise TimeoutError(f"not within {patience:.0f} s: {left}")
        if time.monotonic() - spoken > 5:
            spoken = time.monotonic()
            told(f"waiting: {left}")
        time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--faults", type=int, default=200, help="that hit a lane with an unacknowledged batch")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument(
        "--control", choices=CONTROLS, default="", help="run a wrong gateway instead; must be found out"
    )
    parser.add_argument("--controls", action="store_true", help="afterwards, both wrong gateways with 12 faults each")
    parser.add_argument("--keep", action="store_true", help="leave the folder with logs and data")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is cleaned up
    found = torture(options.faults, seed, options.control, keep=options.keep)
    print("\n".join(found) or "nothing is wrong")
    failed = bool(found) != bool(options.control)
    for control in CONTROLS if options.controls else ():
        found = torture(12, seed, control)
        print("\n".join(found) or f"NOT FOUND OUT: {control}")
        failed = failed or not found
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
