"""One program as a process that is shot, stopped, woken and started again."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FIRED = "FAILPOINT "


@dataclass
class Program:
    """A process that is started again whenever it ends.

    Attributes:
        name: of the process; its log is `<name>.log`.
        command, environment: asked again at each start.
        before: called before each start but the first, with their number.
        ends: what became of each start: "ours", a failpoint's name, or the exit code.
    """

    name: str
    folder: Path
    command: Callable[[], Sequence[str]]
    environment: Callable[[], dict[str, str]] = dict
    before: Callable[[int], None] = lambda _: None
    ends: list[str] = field(default_factory=list)
    starts: int = 0
    process: "subprocess.Popen[bytes] | None" = None
    paused: bool = False
    shot: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        with self.lock:
            if self.starts:
                self.before(self.starts)
            self.starts += 1
            self.paused = self.shot = False
            with self.log.open("ab") as log:
                log.write(f"--- start {self.starts}\n".encode())
                log.flush()
                self.process = subprocess.Popen(
                    list(self.command()),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **self.environment()},
                    start_new_session=True,  # an interrupt at the keyboard is the harness's to deal with
                )

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def running(self) -> bool:
        return self.alive() and not self.paused

    def said(self, text: str) -> bool:
        """Return whether the present start has written this."""
        return text.encode() in self._present()

    def last_words(self) -> str:
        """Return the end of what the present start has written."""
        return " | ".join(self._present().decode(errors="replace").splitlines()[-3:])[-600:]

    def reap(self) -> str | None:
        """Return how it ended, once; None while it runs."""
        with self.lock:
            if self.process is None or self.process.poll() is None:
                return None
            fired = [line for line in self._present().decode(errors="replace").splitlines() if line.startswith(FIRED)]
            if fired:
                end = fired[-1].removeprefix(FIRED).split(":")[0]
            else:
                end = "ours" if self.shot else f"exit {self.process.returncode}"
            self.ends.append(end)
            self.process = None
            return end

    def kill(self) -> bool:
        return self._signal(signal.SIGKILL)

    def terminate(self) -> bool:
        return self._signal(signal.SIGTERM)

    def pause(self) -> bool:
        with self.lock:
            self.paused = self._signal(signal.SIGSTOP)
            return self.paused

    def wake(self) -> None:
        with self.lock:
            if self.paused:
                self._signal(signal.SIGCONT)
                self.paused = False

    def close(self) -> None:
        """End it permanently: asked first, then killed."""
        with self.lock:
            self.wake()
            if self.terminate():
                assert self.process is not None
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(10)
                self.kill()
            if self.process is not None:
                self.process.wait(10)

    def wait_for(self, text: str, patience: float = 120.0) -> None:
        give_up = time.monotonic() + patience
        while not self.said(text):
            if not self.alive() or time.monotonic() > give_up:
                raise AssertionError(f"{self.name} did not say {text!r}:\n{self._present().decode()[-3000:]}")
            time.sleep(0.05)

    def _signal(self, number: int) -> bool:
        with self.lock:
            if self.process is None or self.process.poll() is not None:
                return False
            if number in (signal.SIGKILL, signal.SIGTERM):
                self.shot = True
            self.process.send_signal(number)
            return True

    def _present(self) -> bytes:
        if not self.log.exists():
            return b""
        return self.log.read_bytes().rpartition(f"--- start {self.starts}\n".encode())[2]
