"""`make bench`: our figures as ratios to named baselines in the same run, on a real Kafka, every check on.

Mutual TLS, signature, schema check, grant and audit entry are on; client, gateway and broker are processes of their
own. Five paired runs, ours and the baseline in turn; medians and spreads go to docs/benchmarks.md and build/bench.json.

    python -m tests.bench [--records 200000] [--runs 5] [--subscribers 1000] [--memory 2000000] [--only publish,fetch]
                          [--line 50000] [--subjects 10000]
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
from kafka.admin import NewTopic

from exchange.broker.kafka.settings import admin
from exchange.client import Identity
from tests.bench import line, memory, registry, subscribers
from tests.bench.report import Row, write
from tests.bench.workload import HALF, MASKS, SCHEMA, VIEW
from tests.e2e.conftest import kafka_section
from tests.kit.world import kafka
from tests.kit.world.world import Office, World

TOPIC = "population.v1"
PLAIN = "plain.v1"
WARM = 6  # pairs that are not counted
ENGINES = 1  # engine processes where speed is measured; where memory is, none


class Bench:
    """A world with a Kafka, and what is run in it."""

    def __init__(self, stack: ExitStack, records: int, *, engines: int) -> None:
        self.records = records
        self.engines = engines
        self.node = stack.enter_context(kafka.node(kafka.SHIPPED_JAVA))
        limits = f"[limits]\nthreads = 16\nworkers = {engines}\n"
        self.world = stack.enter_context(World.start(f"{kafka_section(self.node)}\n{limits}"))
        self.police, self.labour = self.world.department("公安局"), self.world.department("人社局")
        self.police.offer(TOPIC, SCHEMA)
        self.source, self.sink = self.police.enrol("source"), self.labour.enrol("sink")
        self.grant = self.ask()
        self._offices: list[tuple[Office, Identity]] = []
        with admin(self.node.settings(self.node.operator)) as operator:
            operator.create_topics([NewTopic(PLAIN, num_partitions=4, replication_factor=1)])
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

    def ask(self, **terms: Any) -> str:
        """Request and approve four fields, one masked, of all rows if no filter is given."""
        terms = {**terms, "masks": MASKS, "unmasked_reason": "the baselines deliver these fields as they are"}
        grant_id = self.labour.request(TOPIC, list(VIEW), **terms)
        self.police.approve(grant_id)
        return grant_id

    def consumers(self, count: int) -> list[tuple[Office, Identity]]:
        """Return other departments, each with a connector: none may hold many grants on one resource."""
        while len(self._offices) < count:
            office = self.world.department(f"部门{len(self._offices)}")
            self._offices.append((office, office.enrol("sink")))
        return self._offices[:count]

    def ask_masked(self, office: Office) -> str:
        """Request and approve the four fields as the schema masks them, for another department."""
        grant_id = office.request(TOPIC, list(VIEW))
        self.police.approve(grant_id)
        return grant_id

    def settings(self, **values: Any) -> str:
        """Write a settings file for a process; give its path."""
        file = self.folder / f"{time.monotonic_ns()}.json"
        file.write_text(json.dumps(values, default=str))
        return str(file)

    def client(self, office_id: str, connector: str, **values: Any) -> str:
        """Return settings of one of our clients."""
        identity = self.world.folder / "identities" / office_id / connector
        return self.settings(identity=identity, gateway=self.world.addresses["gateway"], topic=TOPIC, **values)

    def librdkafka(self, topic: str, strip: int, **values: Any) -> str:
        """Return settings of a baseline, with the gateway's own certificate."""
        who = self.node.operator
        client = {
            "bootstrap.servers": self.node.bootstrap,
            "security.protocol": "ssl",
            "ssl.ca.location": who.ca,
            "ssl.certificate.location": who.certificate,
            "ssl.key.location": who.key,
        }
        return self.settings(client=client, topic=topic, strip=strip, **values)

    def processors(self) -> dict[str, float]:
        """Return the processor seconds that the processes have used, by what they are."""
        assert self.world.process is not None
        gateway = psutil.Process(self.world.process.pid)
        engines = [each for each in gateway.children() if "python" in each.name()]
        used = {"gateway": [gateway], "engine process": engines, "kafka": [psutil.Process(self.node.pid)]}
        return {what: sum(_used(each) for each in processes) for what, processes in used.items()}

    def resident(self) -> dict[str, float]:
        """Return the resident memory of the gateway and of its engine processes, in MB."""
        assert self.world.process is not None
        gateway = psutil.Process(self.world.process.pid)
        engines = [each for each in gateway.children() if "python" in each.name()]
        parts = {"gateway": [gateway], "engine process": engines}
        return {what: sum(each.memory_info().rss for each in processes) / 1e6 for what, processes in parts.items()}


_ROWS = "publish,fetch,fetch_filtered,line,line_cdc,snapshot,sink,subscribers,memory,registry"


def main() -> int:
    """Run what is asked for and write it down."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--subscribers", type=int, default=1_000)
    parser.add_argument("--memory", type=int, default=2_000_000)
    parser.add_argument("--only", default=_ROWS, help="also line_memory, line_cdc_memory")
    parser.add_argument("--line", type=int, default=50_000, help="rows of the table of the line and its ends")
    parser.add_argument("--subjects", type=int, default=10_000)
    parser.add_argument("--engines", type=int, default=ENGINES, help="engine processes while publishing and fetching")
    given = parser.parse_args()
    only = given.only.split(",")
    rows: list[Row] = []
    if "registry" in only:
        rows += registry.measure(given.runs, given.subjects)
    if {"publish", "fetch", "fetch_filtered"} & {*only}:
        with ExitStack() as stack:
            bench = Bench(stack, given.records, engines=given.engines)
            rows.append(_publish(bench, given.runs))
            if "fetch" in only:
                rows.append(_fetch(bench, given.runs))
            if "fetch_filtered" in only:
                rows.append(_fetch_filtered(bench, given.runs))
    if line.ROWS & {*only}:
        with ExitStack() as stack:
            bench = Bench(stack, given.records, engines=given.engines)
            rows += line.measure(bench, only, given.line, given.runs)
    if {"subscribers", "memory"} & {*only}:
        with ExitStack() as stack:
            bench = Bench(stack, given.records, engines=0)
            if "subscribers" in only:
                rows += subscribers.measure(bench, given.subscribers)
            if "memory" in only:
                rows += memory.measure(bench, given.memory)
    write(rows, f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}", sys.argv[1:])
    return 0


def _publish(bench: Bench, runs: int) -> Row:
    ours = bench.client(bench.police.id, "source")
    plain = bench.librdkafka(PLAIN, 0)
    return _pairs(bench, "publish", runs, ours, plain)


def _fetch(bench: Bench, runs: int) -> Row:
    ours = bench.client(bench.labour.id, "sink", grant=bench.grant, records=10_000)
    plain = bench.librdkafka(TOPIC, 5)
    return _pairs(bench, "fetch", runs, ours, plain)


def _fetch_filtered(bench: Bench, runs: int) -> Row:
    """Measure a grant that shows half of the records; both sides count those of the topic."""
    field, value = HALF
    grant = bench.ask(row_filter={"op": "eq", "field": field, "value": value})
    ours = bench.client(bench.labour.id, "sink", grant=grant, records=10_000, one_of=2)
    plain = bench.librdkafka(TOPIC, 5, filter=HALF)
    return _pairs(bench, "fetch_filtered", runs, ours, plain)


def _pairs(bench: Bench, what: str, runs: int, ours: str, plain: str) -> Row:
    """Run ours and the baseline in turn, after the pairs in which Kafka's compiler is still at work."""
    speeds: list[tuple[float, float]] = []
    used: list[dict[str, float]] = []
    for number in range(1 - WARM, runs + 1):
        does = what.partition("_")[0]
        base = _process("tests.bench.baseline", does, plain, bench.records)
        before = bench.processors()
        mine = _process("tests.bench.client", does, ours, bench.records)
        after = bench.processors()
        used.append({"client": mine["cpu"], **{name: after[name] - before[name] for name in after}})
        speeds.append((mine["records"] / mine["seconds"], base["records"] / base["seconds"]))
        _tell(f"{what} {number}/{runs}: ours {speeds[-1][0]:,.0f}/s, baseline {speeds[-1][1]:,.0f}/s")
    speeds, used = speeds[WARM:], used[WARM:]
    processors = {name: statistics.median(one[name] for one in used) for name in used[0]}
    return Row.paired(what, speeds, unit="records/s", notes=_cpu(bench, processors))


def _cpu(bench: Bench, processors: dict[str, float]) -> str:
    seconds = ", ".join(f"{name} {value:.2f} s" for name, value in processors.items())
    memory = ", ".join(f"{name} {value:,.0f} MB" for name, value in bench.resident().items())
    return (
        f"{bench.records:,} records a run, publishing with 32 batches in flight; {bench.engines} engine process beside "
        f"the gateway, for checks and views; CPU: {seconds}; resident: {memory}"
    )


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _process(module: str, what: str, settings: str, records: int) -> dict[str, float]:
    command = [sys.executable, "-m", module, what, settings, str(records)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{module} {what} ended with {done.returncode}: {done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
