"""A gateway as a process of its own, which stops dead in the middle of an append: for tests of what others see then.

    python -m tests.kit.faults.stalled_gateway <settings> <lane> <sequence> <moment>

It appends one batch; at the moment named it stops itself (SIGSTOP), and whoever started it wakes or kills it. Its
last line on stdout is what became of the append: `appended`, `duplicate`, or the error's reason.
"""

import os
import pickle
import signal
import subprocess
import sys
import time
from base64 import b85decode, b85encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from exchange.broker.kafka import transaction
from exchange.broker.kafka.broker import KafkaBroker, KafkaSettings
from schemas.errors import PoolError
from schemas.names import Lane
from tests.kit.cases.broker import KEY, append, batch

MOMENTS = ("begun", "produced", "sent", "committed")
SALT = "of the sleeper"
PEOPLE = 400


@contextmanager
def stopped(settings: KafkaSettings, lane: Lane, sequence: int, moment: str) -> Iterator["Sleeper"]:
    """Start the process and wait until it stands still at its moment; killed at the end if it is still there."""
    arguments = [b85encode(pickle.dumps(settings)).decode(), str(lane), str(sequence), moment]
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.kit.faults.stalled_gateway", *arguments],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            limit = time.monotonic() + 60
            while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
                assert process.poll() is None, f"it ended before its moment: {process.communicate()[0]}"
                assert time.monotonic() < limit
                time.sleep(0.01)
            yield Sleeper(process)
        finally:
            process.kill()


class Sleeper:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def wake(self) -> str:
        """Let it go on; give what became of its append."""
        self._process.send_signal(signal.SIGCONT)
        output, _ = self._process.communicate(timeout=60)
        return output.split()[-1]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)


def main(settings: str, lane: str, sequence: str, moment: str) -> None:
    broker = KafkaBroker(pickle.loads(b85decode(settings)), key=KEY)
    steps = {"begun": "produce", "sent": "commit", "produced": "send_receipts"}
    if moment in steps:
        stop_at(steps[moment])
    else:
        stop_after("commit")
    try:
        sent = batch(Lane.parse(lane), int(sequence), range(PEOPLE), salt=SALT)
        (appended,) = append(broker, sent)
        sys.stdout.write("duplicate\n" if appended.duplicate else "appended\n")
    except PoolError as error:
        sys.stdout.write(f"{error.reason}\n")
    sys.stdout.flush()
    os._exit(0)


def stop_at(name: str) -> None:
    real: Callable[..., Any] = getattr(transaction, name)

    def step(producer: Any, *arguments: Any, **named: Any) -> Any:
        sleep_once()
        return real(producer, *arguments, **named)

    setattr(transaction, name, step)


def stop_after(name: str) -> None:
    real: Callable[..., Any] = getattr(transaction, name)

    def step(*arguments: Any) -> Any:
        answer = real(*arguments)
        sleep_once()
        return answer

    setattr(transaction, name, step)


def sleep_once() -> None:
    if not slept:
        slept.append(True)
        os.kill(os.getpid(), signal.SIGSTOP)


slept: list[bool] = []

if __name__ == "__main__":
    main(*sys.argv[1:])
