"""See the package. Exit code 0: every bound held. 1: one was passed, or something was lost."""

import argparse
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.load.attacks import ROWS
from tests.load.stage import Stage, stage
from tests.load.table import Line, lines_of, table

_MOST_MB = 1_500.0  # of the gateway: what the defaults of [limits] allow it to hold, beside the process itself


class Working:
    """The process of the department that works beside."""

    def __init__(self, settings: Path) -> None:
        command = [sys.executable, "-m", "tests.load.beside", str(settings)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def tell(self, command: str) -> Any:
        """Send a command, and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process beside has ended; see its messages")
        return json.loads(line)


@contextmanager
def attacked(row: str, settings: Path, processes: int) -> Iterator[None]:
    """Attack within the block."""
    command = [sys.executable, "-m", "tests.load.attacks", row, str(settings)]
    running = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(processes)]
    try:
        time.sleep(3)  # to connect
        yield
        if ended := [one.poll() for one in running if one.poll() is not None]:
            raise RuntimeError(f"{row}: clients of the attack ended with {ended}")
    finally:
        for one in running:
            one.kill()
            one.wait()


@contextmanager
def most_memory(on: Stage) -> Iterator[list[float]]:
    """Note the most memory that the pool has within the block."""
    most, over = [on.resident()], threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            most[0] = max(most[0], on.resident())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def measure(on: Stage, beside: Working, row: str, seconds: float, idle_seconds: float, processes: int) -> list[Line]:
    """Replay a row; return its lines."""
    idle = beside.tell(f"measure {idle_seconds}")
    with most_memory(on) as most, attacked(row, on.attacks, processes):
        busy = beside.tell(f"measure {seconds}")
    rest = beside.tell("draw")
    if busy["refused"]:
        print(f"{row}: refused and tried again: {busy['refused']}", file=sys.stderr, flush=True)
    return lines_of(row, idle["times"], busy["times"], most[0], rest["published"] - rest["drawn"])


def main() -> int:
    """Run what is asked for and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each row")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds without an attack, before each row")
    parser.add_argument("--only", default=",".join(ROWS), help="rows, separated by commas")
    parser.add_argument("--processes", type=int, default=1, help="of the attacker")
    parser.add_argument("--pool", choices=("one", "several"), default="several", help="processes of the pool")
    parser.add_argument("--records", type=int, default=20_000, help="of the topic that the attacker draws")
    parser.add_argument("--config", default="", help="lines for pool.toml")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is ended
    lines: list[Line] = []
    with stage(given.config, given.records, given.pool) as on, closing(Working(on.beside)) as beside:
        for row in given.only.split(","):
            lines += measure(on, beside, row, given.seconds, given.idle, given.processes)
            print(table(lines[-4:]), file=sys.stderr, flush=True)
    print(table(lines))
    wrong = [sentence for one in lines for sentence in one.wrong(_MOST_MB)]
    print("\n".join(wrong) or "every bound held")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
