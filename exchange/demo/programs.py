"""Processes of the demonstration: `pool serve` and `pool-connect`."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import PoolError, Reason, UnavailableError

__all__ = ["Programs"]

_BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that ended with 0: the seconds that it took, and what it printed."""

    seconds: float
    output: str  # standard output
    notices: str  # standard error


class Programs:
    """Starts `pool serve`, runs `pool-connect`, and stops what it started."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "programs.log"
        self._pool: subprocess.Popen[str] | None = None

    def serve(self, data: Path) -> dict[str, str]:
        """Start the pool, and return its addresses when it is ready.

        Raises:
            UnavailableError: the pool ended before it was ready.
        """
        with self._log.open("a") as log:
            self._pool = subprocess.Popen(
                [str(_BIN / "pool"), "serve", "--data", str(data)], stdout=subprocess.PIPE, stderr=log, text=True
            )
        line = self._pool.stdout.readline() if self._pool.stdout else ""
        if not line.startswith("ready "):
            raise UnavailableError(Reason.GATEWAY_UNAVAILABLE, f"the pool did not start:\n{self._log_tail()}")
        addresses: dict[str, str] = json.loads(line.removeprefix("ready "))
        return addresses

    def connect(self, *arguments: str, environment: dict[str, str] | None = None, stdin: str = "") -> Ended:
        """Run `pool-connect` to its end.

        Raises:
            PoolError: the program ended with another exit code than 0.
        """
        started = time.monotonic()
        result = subprocess.run(
            [str(_BIN / "pool-connect"), *arguments],
            env={**os.environ, **(environment or {})},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            output = (result.stdout + result.stderr)[-2000:]
            raise PoolError(Reason.INTERNAL, f"pool-connect {arguments[0]} ended with {result.returncode}:\n{output}")
        return Ended(time.monotonic() - started, result.stdout, result.stderr)

    def wait(self) -> None:
        """Wait until the user interrupts."""
        try:
            if self._pool is not None:
                self._pool.wait()
        except KeyboardInterrupt:
            return

    def stop(self) -> None:
        """Stop the pool's process."""
        if self._pool is None:
            return
        self._pool.send_signal(signal.SIGTERM)
        try:
            self._pool.wait(20)
        except subprocess.TimeoutExpired:
            self._pool.kill()
            self._pool.wait()
        if self._pool.stdout:
            self._pool.stdout.close()

    def _log_tail(self) -> str:
        return "\n".join(self._log.read_text().splitlines()[-15:])
