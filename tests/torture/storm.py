"""The faults: what is done, when, and which of it counts.

A fault counts only if a source that runs had a batch without a receipt at that moment: its ledger's outbox is looked
at before and after the blow, and the same batch must be there both times. Failpoints are looked at when they have
fired.
"""

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.torture.stage import GATEWAYS, PUBLISHING, RELEASING, SOURCES, WRITING, Stage

NAMED = (*PUBLISHING, *RELEASING, WRITING)
_NAMED_SHARE = 0.33  # at least 0.3 is asked for
_MOST_STRANGE = 5  # ends that nobody has brought about; each is a finding, so many end the run
_TOLERATED = ("ours", *NAMED, "exit 2")  # 2: the pool was away for a program that cannot wait, such as a start
_RESTS = {"fast": "PostgreSQL restart", "immediate": "PostgreSQL crash", "stop": "Kafka restart", "kill": "Kafka crash"}


@dataclass
class Tally:
    """What has been done so far; `counted` are the faults that hit an unacknowledged batch."""

    counted: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    strange: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.counted.total()

    @property
    def named(self) -> int:
        return sum(self.counted[name] for name in NAMED)

    def told(self) -> str:
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(self.counted.items()))
        return f"{self.total} faults on unacknowledged batches, {self.named} of them at failpoints: {kinds}"


class Storm:
    """Keeps every program running, and hurts them."""

    def __init__(self, stage: Stage, say: Callable[[str], None]) -> None:
        self.stage = stage
        self.tally = Tally()
        self._draw = stage.draw
        self._say = say
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._wakes: dict[str, float] = {}

    def start(self) -> None:
        for name in self.stage.children:
            if not self.stage.children[name].starts:
                self.stage.children[name].start()
        self._keeper.start()

    def run(self, faults: int, patience: float) -> None:
        """Hurt until so many faults have counted."""
        give_up, told = time.monotonic() + patience, 0.0
        while self.tally.total < faults:
            assert time.monotonic() < give_up, f"not within {patience} s: {faults} faults; {self.tally.told()}"
            # A pool that does not work is hit by nothing: what is counted from here on would be hollow.
            assert self.stage.node.running(), "Kafka is gone, and not by our hand"
            assert len(self.tally.strange) < _MOST_STRANGE, self.tally.strange
            if time.monotonic() - told > 5:
                told = time.monotonic()
                self._say(f"{self.tally.total:4d} of {faults} faults, {self.tally.named} named")
            if self.tally.total > 4 and self.tally.named < _NAMED_SHARE * (self.tally.total + 1):
                self._await_named()
            else:
                self._strike()
                time.sleep(self._draw.uniform(0.1, 0.8))

    def calm(self) -> None:
        """No more faults: wake who sleeps, arm nothing any more, start the armed ones again."""
        self.stage.armed = False
        self._wakes.clear()
        for name, program in self.stage.children.items():
            program.wake()
            if name in (*GATEWAYS, *SOURCES, "sink"):
                program.kill()

    def close(self) -> None:
        self._stop.set()
        self._keeper.join()

    # -- keeping -----------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        while not self._stop.wait(0.02):
            now = time.monotonic()
            for name, program in self.stage.children.items():
                if self._wakes.get(name, now + 1) <= now:
                    del self._wakes[name]
                    program.wake()
                end = program.reap()
                if end is None:
                    continue
                if end in NAMED:
                    hit = self.stage.unacknowledged()
                    (self.tally.counted if hit else self.tally.missed)[end] += 1
                elif end not in _TOLERATED:
                    self.tally.strange.append(f"{name}: {end}: {program.last_words()}")
                program.start()

    # -- hurting -----------------------------------------------------------------------------------------------

    def _await_named(self) -> None:
        """Leave it to the failpoints for a while; if none fires, let a gateway draw another one."""
        before, give_up = self.tally.named, time.monotonic() + 10
        while time.monotonic() < give_up:
            if self.tally.named > before:
                return
            time.sleep(0.05)
        self._kill(self.stage.unacknowledged(), self._draw.choice(GATEWAYS))

    def _strike(self) -> None:
        """Wait for a batch in flight, then strike."""
        give_up = time.monotonic() + 3
        while not (before := self.stage.unacknowledged()):
            if time.monotonic() > give_up:
                return
            time.sleep(0.005)
        roll = self._draw.random()
        if roll < 0.04:
            how = self._draw.choice(("fast", "immediate"))
            self._rest(before, how, self.stage.restart_postgres)
        elif roll < 0.06:
            how = self._draw.choice(("stop", "kill"))
            self._rest(before, how, self.stage.restart_kafka)
        else:
            victim = self._draw.choice((*GATEWAYS, *before, *SOURCES, "sink"))
            if roll < 0.35:
                self._kill(before, victim)
            else:
                self._pause(before, victim)

    def _kill(self, before: dict[str, int], victim: str) -> None:
        program = self.stage.children[victim]
        with program.lock:  # nobody starts it again before it was looked at
            if self._works(victim) and program.kill():
                assert program.process is not None
                program.process.wait(10)
                self._judge(f"SIGKILL {_kind(victim)}", before, dead=victim)

    def _pause(self, before: dict[str, int], victim: str) -> None:
        program = self.stage.children[victim]
        if self._works(victim) and program.pause():
            seconds = self._draw.choice((0.3, 1.0, 2.0, 4.0))
            if victim in GATEWAYS and self._draw.random() < 0.5:
                # Long enough for its lanes to be taken over by the other one before it wakes.
                seconds += 4.0
            self._wakes[victim] = time.monotonic() + seconds
            self._judge(f"SIGSTOP {_kind(victim)}", before)
            if victim in GATEWAYS and seconds > 4:
                self._kill(self.stage.unacknowledged(), self._draw.choice(SOURCES))

    def _works(self, name: str) -> bool:
        """Return whether a program can be hurt: it runs, and a gateway serves, for what has not begun loses nothing."""
        program = self.stage.children[name]
        return program.running() and (name not in GATEWAYS or program.said("ready "))

    def _rest(self, before: dict[str, int], how: str, restart: Callable[[str], None]) -> None:
        # Looked at before and after the whole restart: a batch that waits all the while was certainly hit.
        restart(how)
        self._judge(_RESTS[how], before)

    def _judge(self, fault: str, before: dict[str, int], dead: str = "") -> None:
        after = self.stage.unacknowledged(dead)
        hit = any(after.get(name) == sequence for name, sequence in before.items())
        (self.tally.counted if hit else self.tally.missed)[fault] += 1


def _kind(name: str) -> str:
    return name.partition("-")[0]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
