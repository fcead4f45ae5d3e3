"""The whole line: a department's table → source connector → pool on Kafka → sink connector → another one's table.

Both connectors are fresh processes as a department runs them, at once, with every check on. The clock starts when the
source's process is started and stops when the last row stands in the target. The baseline does the same work in one
process without any check, on the same Kafka and the same PostgreSQL (`tests.bench.line_parts`).

`line_cdc` is the same line for changes: the source follows the log of a table into which transactions of 1,000 rows are
inserted. The clock starts at the first transaction and stops when the last row stands in the target.

`line_memory` and `line_cdc_memory` are one run each of the two, in which the source's memory is looked at: it must not
grow with the rows.

Two rows measure the ends alone, each in a process of its own: `snapshot` reads the table up to Avro, against COPY of
the same table to csv; `sink` writes releases of four fields, against COPY of the same values into the same table.
"""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import sqlalchemy as sa
from kafka.admin import NewTopic

from exchange.broker.kafka.settings import admin
from tests.bench.line_parts import TABLE, create_table, fill
from tests.bench.report import Row
from tests.bench.workload import MASKS, SCHEMA, VIEW
from tests.kit.world import postgres

if TYPE_CHECKING:
    from tests.bench.__main__ import Bench

ROWS = frozenset({"line", "line_cdc", "line_memory", "line_cdc_memory", "snapshot", "sink"})
_BIN = Path(sys.executable).parent
_TRANSACTION = 1_000  # rows
_MEMORY_LIMIT = 300  # MB
_AHEAD = 500_000  # rows
_WARM = 1  # pairs of the line that are not counted


@dataclass
class _Run:
    """One run: seconds, the processor seconds of each process, and the most memory that it had, in MB.

    `early` is the most memory of the source when a tenth of the rows had come.
    """

    rows: int
    seconds: float
    processors: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    early: float = 0.0


@dataclass
class _Drawn:
    """How many rows the target has, and whether nobody looks any more."""

    rows: int = 0
    ended: bool = False


def measure(bench: "Bench", only: list[str], records: int, runs: int) -> list[Row]:
    """Measure those of `ROWS` that are asked for."""
    with ExitStack() as stack:
        by_log = {"line_cdc", "line_cdc_memory"} & {*only}
        server = stack.enter_context(postgres.logical_cluster() if by_log else postgres.cluster())
        url = stack.enter_context(postgres.fresh_database(server))
        if "line_cdc_memory" in only:  # the target's own log counts for the slot as well
            engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
            with engine.connect() as operator:
                operator.exec_driver_sql("ALTER SYSTEM SET max_slot_wal_keep_size = '40GB'")
                operator.exec_driver_sql("SELECT pg_reload_conf()")
        _tell(f"line: filling a table with {records:,} rows")
        with sa.create_engine(url).begin() as connection:
            create_table(connection, TABLE)
            fill(connection, records)
        rows = []
        if "snapshot" in only:
            rows.append(_ends(bench, "snapshot", url, records, runs))
        if "sink" in only:
            rows.append(_ends(bench, "sink", url, records, runs))
        if "line" in only:
            rows.append(_line(bench, url, "line", records, runs))
        if "line_cdc" in only:
            rows.append(_line(bench, url, "line_cdc", records, runs))
        if "line_memory" in only:
            rows.append(_memory("line_memory", _ours(bench, url, records, 0)))
        if "line_cdc_memory" in only:
            rows.append(_memory("line_cdc_memory", _ours_by_log(bench, url, records, 0)))
        return rows


def _memory(what: str, run: _Run) -> Row:
    """Return the source's memory at the end against that at a tenth of the rows."""
    return Row(
        name=f"{what}: the source's most memory at {run.rows:,} rows against {run.rows // 10:,}",
        ours=run.memory["source"],
        baseline=run.early,
        ratio=run.memory["source"] / run.early,
        unit="MB",
        spread="one run",
        notes=(
            f"limit {_MEMORY_LIMIT} MB; {run.rows / run.seconds:,.0f} rows/s and {_micros(run):.0f} µs of CPU a row; "
            "most memory: " + ", ".join(f"{name} {value:,.0f} MB" for name, value in run.memory.items())
        ),
    )


def _line(bench: "Bench", url: sa.URL, what: str, records: int, runs: int) -> Row:
    pairs = []
    move = _ours if what == "line" else _ours_by_log
    for number in range(1 - _WARM, runs + 1):
        base = _baseline(bench, url, records, f"{what}-{number + _WARM}")
        ours = move(bench, url, records, number + _WARM)
        pairs.append((ours, base))
        _tell(
            f"{what} {number}/{runs}: ours {ours.rows / ours.seconds:,.0f} rows/s and {_micros(ours):.0f} µs of CPU a "
            f"row, baseline {base.rows / base.seconds:,.0f} and {_micros(base):.0f}"
        )
    pairs = pairs[_WARM:]
    mine = [ours for ours, _ in pairs]
    used = {
        name: statistics.median(1e6 * run.processors[name] / run.rows for run in mine) for name in mine[0].processors
    }
    most = {name: max(run.memory[name] for run in mine) for name in mine[0].memory}
    plain = statistics.median(_micros(base) for _, base in pairs)
    drawn = "20 columns drawn by 4, both ends at once"
    return Row.paired(
        what,
        [(ours.rows / ours.seconds, base.rows / base.seconds) for ours, base in pairs],
        unit="rows/s",
        notes=(
            f"{records:,} rows of {drawn}, "
            + (f"in transactions of {_TRANSACTION:,}" if what == "line_cdc" else "start of the processes included")
            + f"; CPU a row: {statistics.median(_micros(run) for run in mine):.0f} µs in all processes, of it "
            + ", ".join(f"{name} {value:.1f}" for name, value in used.items())
            + f"; the baseline {plain:.0f} µs; most memory: "
            + ", ".join(f"{name} {value:,.0f} MB" for name, value in most.items())
        ),
    )


def _ours(bench: "Bench", url: sa.URL, records: int, number: int) -> _Run:
    """Publish the table as a new resource and draw it under a new grant, by two fresh connectors."""
    topic, table = f"line{number}.v1", f"drawn_{number}"
    sink = _drawing(bench, url, topic, table, f"line-sink-{number}")
    source = _config(bench, bench.police, f"line-source-{number}", {
        "source": {"kind": "sql", "url": url.render_as_string(hide_password=False)},
        "publish": [{"resource": topic, "table": TABLE}],
    })  # fmt: skip
    with _connector(sink) as drawing:
        _wait_for_table(url, table)
        before = _processors(bench, url)
        started = time.perf_counter()
        with _connector(source, "--once") as publishing:
            memory, early = _watch(url, table, records, publishing, drawing)
            seconds = time.perf_counter() - started
            publishing.wait()
        after = _processors(bench, url)
    used = {"source": publishing.processor, "sink": drawing.processor}
    used |= {name: after[name] - before[name] for name in after}
    return _Run(rows=records, seconds=seconds, processors=used, memory=memory, early=early)


def _ours_by_log(bench: "Bench", url: sa.URL, records: int, number: int) -> _Run:
    """Publish what is inserted into an empty table, in transactions, from the database's log, and draw it."""
    topic, table, changed = f"changes{number}.v1", f"drawn_by_log_{number}", f"changed_{number}"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        create_table(connection, changed)
        connection.exec_driver_sql(f"ALTER TABLE {changed} REPLICA IDENTITY FULL")
        numbered = f"SELECT (row_number() OVER () - 1) / {_TRANSACTION} AS part, * FROM {TABLE}"
        connection.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS numbered AS {numbered}")
        connection.exec_driver_sql("CREATE INDEX IF NOT EXISTS numbered_part ON numbered (part)")
        columns = ", ".join(each["name"] for each in sa.inspect(connection).get_columns(changed))
    sink = _drawing(bench, url, topic, table, f"log-sink-{number}")
    source = _config(bench, bench.police, f"log-source-{number}", {
        "source": {
            "kind": "sql", "url": url.render_as_string(hide_password=False), "cdc": {"slot": f"line_{number}"},
        },
        "publish": [{"resource": topic, "table": f"public.{changed}", "mode": "cdc", "on_delete": "retract"}],
    })  # fmt: skip
    command = [str(_BIN / "pool-connect"), "setup", str(source), "--print-sql"]
    statements = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    with engine.begin() as connection:
        connection.exec_driver_sql(statements)
    with _connector(sink) as drawing, _connector(source) as publishing:
        _wait_for_table(url, table)
        _wait_for_slot(engine, f"line_{number}")
        before, own = _processors(bench, url), publishing.used() + drawing.used()
        started = time.perf_counter()
        drawn = _Drawn()
        writing = threading.Thread(target=_write, args=(engine, changed, columns, records // _TRANSACTION, drawn))
        writing.start()
        try:
            memory, early = _watch(url, table, records, publishing, drawing, drawn)
        finally:
            drawn.ended = True
        seconds = time.perf_counter() - started
        writing.join()
        after, own = _processors(bench, url), publishing.used() + drawing.used() - own
    subprocess.run([str(_BIN / "pool-connect"), "teardown", str(source)], capture_output=True, check=True)
    engine.dispose()
    used = {"connectors": own} | {name: after[name] - before[name] for name in after}
    return _Run(rows=records, seconds=seconds, processors=used, memory=memory, early=early)


def _write(engine: sa.Engine, table: str, columns: str, transactions: int, drawn: _Drawn) -> None:
    """Write as fast as it goes, but no further ahead of the target than the log that the database keeps."""
    for part in range(transactions):
        while part * _TRANSACTION - drawn.rows > _AHEAD and not drawn.ended:
            time.sleep(0.05)
        with engine.begin() as connection:
            connection.exec_driver_sql(
                f"INSERT INTO {table} ({columns}) SELECT {columns} FROM numbered WHERE part = {part}"
            )


def _wait_for_slot(engine: sa.Engine, slot: str) -> None:
    active = sa.text("SELECT count(*) FROM pg_replication_slots WHERE slot_name = :slot AND active")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.execute(active, {"slot": slot}).scalar_one():
            time.sleep(0.1)
    time.sleep(1.0)


def _drawing(bench: "Bench", url: sa.URL, topic: str, table: str, connector: str) -> Path:
    """Offer a topic and grant a part of it; return the configuration of the connector that draws it into a table."""
    bench.police.offer(topic, SCHEMA)
    terms = {"masks": MASKS, "unmasked_reason": "the baselines deliver these fields as they are"}
    grant = bench.labour.request(topic, list(VIEW), **terms)
    bench.police.approve(grant)
    address = url.render_as_string(hide_password=False)
    return _config(bench, bench.labour, connector, {
        "subscribe": [{
            "grant": grant, "purpose": "eligibility", "case": "STANDING-1", "wait": "5s",
            "into": {"kind": "sql", "url": address, "table": table, "create_table": True},
        }],
    })  # fmt: skip


def _config(bench: "Bench", office: Any, connector: str, content: dict[str, Any]) -> Path:
    office.enrol(connector)
    identity = bench.world.folder / "identities" / office.id / connector
    file = bench.folder / connector / "connector.yaml"
    file.parent.mkdir()
    exchange = {"identity": str(identity), "gateway": bench.world.addresses["gateway"]}
    # Addresses with a password stand in a file of their own, as `lint` demands.
    for section in (content.get("source", {}), *(each["into"] for each in content.get("subscribe", []))):
        if "url" in section:
            (file.parent / "address").write_text(section["url"])
            section["url"] = f"${{file:{file.parent / 'address'}}}"
    file.write_text(json.dumps({"version": 1, "connector": connector, "exchange": exchange, **content}))
    return file


class _Connector:
    """A running `pool-connect run`; `processor` has its processor seconds once it has ended."""

    def __init__(self, config: Path, *arguments: str) -> None:
        self.log = (config.parent / "output").open("w+")
        command = [str(_BIN / "pool-connect"), "run", str(config), *arguments]
        self._process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        self.pid = self._process.pid
        self.processor = 0.0

    def peak(self) -> float:
        """Return the most memory that it has had, in MB; 0 once it has ended."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except FileNotFoundError:
            return 0.0
        found = [line for line in status.splitlines() if line.startswith("VmHWM")]
        return int(found[0].split()[1]) / 1000 if found else 0.0

    def used(self) -> float:
        """Return its processor seconds so far."""
        times = psutil.Process(self.pid).cpu_times()
        return times.user + times.system

    def poll(self) -> bool:
        """Return whether it runs."""
        return psutil.pid_exists(self.pid) and psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE

    def wait(self) -> None:
        """Wait for its end, and keep what the system says of it.

        Raises:
            RuntimeError: it failed.
        """
        if self._process.returncode is not None:
            return
        _, status, used = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self.processor = used.ru_utime + used.ru_stime
        if self._process.returncode != 0:
            self.log.seek(0)
            raise RuntimeError(f"a connector ended with {self._process.returncode}: {self.log.read()[-2000:]}")

    def stop(self) -> None:
        """End it as its operator would."""
        if self._process.returncode is None:
            self._process.terminate()
            self.wait()
        self.log.close()


@contextmanager
def _connector(config: Path, *arguments: str) -> Iterator[_Connector]:
    running = _Connector(config, *arguments)
    try:
        yield running
    finally:
        running.stop()


def _watch(
    url: sa.URL,
    table: str,
    records: int,
    publishing: _Connector,
    drawing: _Connector,
    drawn: _Drawn | None = None,
) -> tuple[dict[str, float], float]:
    """Wait until the target has all rows; return the most memory of both, and the source's at a tenth of the rows."""
    memory, early = {"source": 0.0, "sink": 0.0}, 0.0
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    pause, counted_at = 0.05, 0.0
    with engine.connect() as connection:
        while True:
            for name, process in (("source", publishing), ("sink", drawing)):
                memory[name] = max(memory[name], process.peak())
            if time.perf_counter() - counted_at > pause:
                counted_at = time.perf_counter()
                count = connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one()
                pause = max(0.05, 20 * (time.perf_counter() - counted_at))  # counting may take 5 % of a core
                if drawn is not None:
                    drawn.rows = count
                if not early and count >= records // 10:
                    early = memory["source"]
                if count == records:
                    break
            for process in (publishing, drawing):
                if not process.poll():
                    process.wait()
            if not drawing.poll():
                raise RuntimeError("the sink has ended before its time")
            time.sleep(0.02)
    engine.dispose()
    return memory, early


def _wait_for_table(url: sa.URL, table: str) -> None:
    engine = sa.create_engine(url)
    while not sa.inspect(engine).has_table(table):
        time.sleep(0.1)
    time.sleep(1.0)  # it now waits for the first record
    engine.dispose()


def _processors(bench: "Bench", url: sa.URL) -> dict[str, float]:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        backend = psutil.Process(connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one())
        server = backend.parent()
        assert server is not None
        departments = _tree(server)
    engine.dispose()
    pool = int((bench.world.data / "pg" / "postmaster.pid").read_text().split("\n", 1)[0])
    used = bench.processors()
    return {
        "gateway": used["gateway"],
        "engine process": used["engine process"],
        "kafka": used["kafka"],
        "the pool's database": _tree(psutil.Process(pool)),
        "the departments' database": departments,
    }


def _tree(process: psutil.Process) -> float:
    """Return the processor seconds of a server and of its children, also of those that have ended."""
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + (times.children_user + times.children_system if each == process else 0.0)
    return total


def _baseline(bench: "Bench", url: sa.URL, records: int, name: str) -> _Run:
    topic = f"plain-{name}"
    with admin(bench.node.settings(bench.node.operator)) as operator:
        operator.create_topics([NewTopic(topic, num_partitions=4, replication_factor=1)])
    settings = bench.librdkafka(
        topic, 0, url=url.render_as_string(hide_password=False), table="plain_" + name.replace("-", "_")
    )
    before = _processors(bench, url)
    started = time.perf_counter()
    done = _process("baseline", settings, records)
    seconds = time.perf_counter() - started
    after = _processors(bench, url)
    used = {"process": done["cpu"], **{name: after[name] - before[name] for name in after if "pool" not in name}}
    return _Run(rows=records, seconds=seconds, processors=used)


def _ends(bench: "Bench", what: str, url: sa.URL, records: int, runs: int) -> Row:
    pairs, used, memory = [], [], []
    for number in range(1, runs + 1):
        settings = bench.settings(url=url.render_as_string(hide_password=False), table=f"{what}_{number}")
        base = _process(f"raw_{what}", settings, records)
        ours = _process(what, settings, records)
        pairs.append((records / ours["seconds"], records / base["seconds"]))
        used.append(1e6 * ours["cpu"] / records)
        memory.append(ours["memory"])
        _tell(f"{what} {number}/{runs}: ours {pairs[-1][0]:,.0f} rows/s, COPY {pairs[-1][1]:,.0f}")
    return Row.paired(
        what,
        pairs,
        unit="rows/s",
        notes=(
            f"{records:,} rows; CPU of the process {statistics.median(used):.1f} µs a row, most memory "
            f"{max(memory):,.0f} MB"
        ),
    )


def _process(what: str, settings: str, records: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.line_parts", what, settings, str(records)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{what} ended with {done.returncode}: {done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _micros(run: _Run) -> float:
    return 1e6 * sum(run.processors.values()) / run.rows


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
