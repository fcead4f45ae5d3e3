"""The department that works beside an attack: `python -m tests.load.beside SETTINGS.json`, in a process of its own.

    measure SECONDS    on standard input: work for so long, then print one JSON line with the times of all calls
    draw               draw what is left, and print how much was published and drawn since it was asked before

It publishes a record and draws it, again and again, and at the same time asks the control API and the registry, each
with a pause in between. A call that the pool refuses for load is counted and tried again; its time is that of all
attempts together.
"""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx

from exchange.client import Identity, PoolClient
from exchange.demo.people import persons
from schemas import library
from schemas.errors import PoolError
from schemas.names import Topic
from tests.kit.world.publisher import Publisher, framed

_T = TypeVar("_T")
_PAUSE = 0.02  # seconds between calls of one kind
PURPOSE, CASE = "eligibility", "STANDING-1"
_GIVE_UP = 60.0  # seconds after which a call that is refused again and again fails


class Beside:
    """The clients of the department, their positions and what they have measured."""

    def __init__(self, settings: dict[str, Any]) -> None:
        source, sink = (Identity.load(Path(settings[name])) for name in ("source", "sink"))
        self.topic, self.grant, self.person = Topic.parse(settings["topic"]), settings["grant"], next(iter(persons(1)))
        self.publisher = PoolClient(source, address=settings["gateway"])
        self.consumer = PoolClient(sink, address=settings["gateway"])
        self.lane = Publisher(source.pool_id, source.department, source.connector, str(self.topic), source.signing_key)
        self.schema_id, _ = self.publisher.schema(self.topic)
        head = self.publisher.resume(self.topic)
        self.lane.sequence, self.lane.root = head.sequence, head.root
        self.position, self.published, self.drawn = b"", 0, 0
        self.times: defaultdict[str, list[float]] = defaultdict(list)
        self.refused: defaultdict[str, int] = defaultdict(int)
        headers = {"authorization": settings["token"]}
        self.http = httpx.Client(
            base_url=f"https://{settings['http']}", verify=settings["authority"], headers=headers, timeout=120
        )
        self.registry = httpx.Client(
            base_url=f"https://{settings['registry']}", verify=settings["authority"], headers=headers, timeout=120
        )

    def measure(self, seconds: float) -> dict[str, Any]:
        """Work for so long; return times in milliseconds by kind of call, and refusals by reason."""
        self.times.clear()
        self.refused.clear()
        until = time.monotonic() + seconds
        work = (self._records, self._control, self._schemas)
        with ThreadPoolExecutor(len(work)) as threads:
            for ended in [threads.submit(self._repeat, one, until) for one in work]:
                ended.result()
        return {"times": self.times, "refused": self.refused}

    def _repeat(self, work: Callable[[], None], until: float) -> None:
        while time.monotonic() < until:
            work()
            time.sleep(_PAUSE)

    def _records(self) -> None:
        values = framed(self.schema_id, library.text("population"), [self.person])
        batch = self.lane.batch(values)
        receipts = self._timed("publish", lambda: list(self.publisher.publish(self.topic, [batch])))
        self.published += len(receipts)
        time.sleep(_PAUSE)
        result = self._timed(
            "fetch",
            lambda: self.consumer.fetch(self.grant, position=self.position, wait=30, purpose=PURPOSE, case=CASE),
        )
        self.drawn += len(result.record_keys) // 16
        self.position = result.next_position

    def _control(self) -> None:
        self._timed("control", lambda: _ok(self.http.get("/v1/grants", params={"limit": 10})))

    def _schemas(self) -> None:
        self._timed("registry", lambda: _ok(self.registry.get(f"/subjects/{self.topic}-value/versions/latest")))

    def _timed(self, kind: str, call: Callable[[], _T]) -> _T:
        started = time.perf_counter()
        while True:
            try:
                done = call()
            except PoolError as error:
                if time.perf_counter() - started > _GIVE_UP:
                    raise
                self.refused[str(error.reason)] += 1
                time.sleep(error.retry_after or 0.05)
                continue
            self.times[kind].append(1000 * (time.perf_counter() - started))
            return done

    def draw(self) -> dict[str, int]:
        """Draw what is left; return what was published and drawn since the last time."""
        while self.drawn < self.published:
            result = self.consumer.fetch(self.grant, position=self.position, wait=2, purpose=PURPOSE, case=CASE)
            if not len(result.record_keys):
                break
            self.drawn += len(result.record_keys) // 16
            self.position = result.next_position
        done = {"published": self.published, "drawn": self.drawn}
        self.published = self.drawn = 0
        return done


def _ok(answer: httpx.Response) -> None:
    answer.raise_for_status()


def main() -> None:
    """Do what standard input says."""
    beside = Beside(json.loads(Path(sys.argv[1]).read_text()))
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        command, *arguments = line.split()
        done = beside.measure(float(arguments[0])) if command == "measure" else beside.draw()
        print(json.dumps(done), flush=True)


if __name__ == "__main__":
    main()
