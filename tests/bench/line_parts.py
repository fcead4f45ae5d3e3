"""Processes of `tests.bench.line`: the baseline of the line, and its two ends alone with their own baselines.

baseline       COPY → fastavro → librdkafka → fastavro → COPY, in one process, without any check
snapshot       the source of a connector: a table → mapped columns → Avro
raw_snapshot   COPY of the table to csv, thrown away
sink           the sink of a connector: releases of 5,000 records → a table, with the position
raw_sink       COPY of the same values into such a table

python -m tests.bench.line_parts WHAT SETTINGS.json COUNT    prints one JSON line
"""

import csv
import io
import json
import sys
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import sqlalchemy as sa
from confluent_kafka import Consumer, Producer, TopicPartition

from connectors.mapping.contract import parse_contract
from connectors.mapping.mapping import ColumnMapping
from connectors.port import DecodedRelease
from connectors.sinks.sql import SqlSink
from connectors.sources.sql_table import SqlSource
from exchange.access.view.derive import derive_schema
from exchange.demo.people import persons
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from tests.bench.baseline import cpu
from tests.bench.workload import MASKS, SCHEMA, VIEW

TABLE = "population"
_NAMES = [field["name"] for field in json.loads(SCHEMA)["fields"]]
_BOOLEANS = ("is_minor_under_14", "death_flag")
_INVENTED = 500_000  # rows made in Python
_PROVINCE = "33"  # of all invented persons
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)  # of the check digit: GB 11643-1999, 4.2
_CHUNK = 5_000  # records of a release, and of a COPY of the baseline


def create_table(connection: sa.Connection, name: str) -> None:
    """Create the table of a department that publishes: 20 columns, keyed by the identity number."""
    kinds = dict.fromkeys(_BOOLEANS, "boolean") | {each: "date" for each in _NAMES if each.endswith("_date")}
    columns = ", ".join(f"{each} {kinds.get(each, 'text')}" for each in _NAMES)
    connection.exec_driver_sql(f"CREATE TABLE {name} ({columns}, PRIMARY KEY (id_number))")


def fill(connection: sa.Connection, count: int) -> None:
    """Fill it with invented persons; beyond `_INVENTED` with the same ones in other provinces, by the database."""
    invented = min(count, _INVENTED)
    people, left = persons(invented), invented
    while page := [next(people) for _ in range(min(50_000, left))]:
        buffer = io.StringIO()
        csv.writer(buffer).writerows([[person[name] for name in _NAMES] for person in page])
        buffer.seek(0)
        _cursor(connection).copy_expert(f"COPY {TABLE} FROM STDIN (FORMAT csv)", buffer)
        left -= len(page)
    columns = ", ".join(name for name in _NAMES if name != "id_number")
    digits = " + ".join(f"{weight} * substr(body, {at}, 1)::int" for at, weight in enumerate(_WEIGHTS, 1))
    for copy in range(1, -(-count // _INVENTED)):
        rows, province = min(_INVENTED, count - copy * _INVENTED), 49 + copy
        connection.exec_driver_sql(
            f"INSERT INTO {TABLE} (id_number, {columns}) "
            f"SELECT body || substr('10X98765432', ({digits}) %% 11 + 1, 1), {columns} FROM "
            f"(SELECT '{province}' || substr(id_number, 3, 15) AS body, {columns} FROM {TABLE} "
            f" WHERE id_number LIKE '{_PROVINCE}%%' LIMIT {rows}) AS person"
        )
    connection.exec_driver_sql(f"ANALYZE {TABLE}")


def baseline(settings: dict[str, Any], count: int) -> dict[str, float]:
    """Move the table; the clock and the processor seconds include the start of the process."""
    failures: list[BaseException] = []

    def draw() -> None:
        try:
            _draw(settings, count)
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            failures.append(error)

    drawing = threading.Thread(target=draw)
    drawing.start()
    _produce(settings)
    drawing.join()
    if failures:
        raise failures[0]
    return {"cpu": cpu()}


def _produce(settings: dict[str, Any]) -> None:
    schema = fastavro.parse_schema(json.loads(SCHEMA))
    producer = Producer(
        {**settings["client"], "enable.idempotence": True, "acks": "all", "compression.type": "lz4", "linger.ms": 5}
    )
    for row in _rows(settings["url"]):
        person: dict[str, Any] = {name: text or None for name, text in zip(_NAMES, row, strict=True)}
        for name in _BOOLEANS:
            person[name] = person[name] == "t"
        for name in ("birth_date", "death_date"):
            person[name] = date.fromisoformat(person[name]) if person[name] else None
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, schema, person)
        while True:
            try:
                producer.produce(settings["topic"], value=buffer.getvalue(), key=str(person["id_number"]))
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    left = producer.flush(60)
    if left:
        raise RuntimeError(f"{left} records were not delivered")


def _rows(url: str) -> Iterator[list[str]]:
    """Return the table's rows by COPY, a piece at a time: COPY runs in a thread, which waits while nobody reads."""
    reading, writing = _pipe()

    def copy() -> None:
        with sa.create_engine(url).connect() as connection, writing:
            _cursor(connection).copy_expert(f"COPY {TABLE} TO STDOUT (FORMAT csv)", writing)

    thread = threading.Thread(target=copy)
    thread.start()
    with io.TextIOWrapper(reading, encoding="utf-8", newline="") as text:
        yield from csv.reader(text)
    thread.join()


def _pipe() -> tuple[io.BufferedReader, io.BufferedWriter]:
    import os

    read, write = os.pipe()
    return open(read, "rb"), open(write, "wb")  # noqa: PTH123 - ends of a pipe, closed by their readers


def _draw(settings: dict[str, Any], count: int) -> None:
    schema = fastavro.parse_schema(json.loads(SCHEMA))
    engine = sa.create_engine(settings["url"])
    consumer = Consumer(
        {
            **settings["client"],
            "group.id": f"pool/bench-{time.time_ns()}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )
    partitions = consumer.list_topics(settings["topic"], timeout=10).topics[settings["topic"]].partitions
    consumer.assign([TopicPartition(settings["topic"], number, 0) for number in partitions])
    done = 0
    with engine.connect() as connection:
        _create_target(connection, settings["table"])
        connection.commit()
        while done < count:
            buffer = io.StringIO()
            writer = csv.writer(buffer)
            got = 0
            while got < _CHUNK and done + got < count:
                for message in consumer.consume(1_000, 0.2):
                    value = message.value()
                    if value is None:
                        continue
                    person: Any = fastavro.schemaless_reader(io.BytesIO(value), schema, None)
                    number = person["id_number"]
                    masked = number[:3] + "*" * (len(number) - 7) + number[-4:]
                    writer.writerow([number, masked, *(person[name] for name in VIEW[1:])])
                    got += 1
            buffer.seek(0)
            _cursor(connection).copy_expert(f"COPY {settings['table']} FROM STDIN (FORMAT csv)", buffer)
            connection.commit()
            done += got
    engine.dispose()
    consumer.close()


def _create_target(connection: sa.Connection, name: str) -> None:
    kinds = ", ".join(f"{each} {'date' if each.endswith('_date') else 'text'}" for each in VIEW)
    connection.exec_driver_sql(f"CREATE TABLE {name} (record_key text PRIMARY KEY, {kinds})")


def snapshot(settings: dict[str, Any], count: int) -> dict[str, float]:
    """Read the table as a connector does, up to Avro."""
    schema = parse(SCHEMA)
    engine = engine_for(schema)
    mapping = ColumnMapping(parse_contract(1, SCHEMA), engine, {})
    source = SqlSource(sa.make_url(settings["url"]), TABLE)
    started, before = time.perf_counter(), cpu()
    portion = source.open()
    bound = mapping.bind(portion.columns)
    done = 0
    for chunk in portion.chunks():
        done += len(engine.encode(bound.map(chunk).batch))
    result = {"seconds": time.perf_counter() - started, "cpu": cpu() - before}
    source.close()
    _check(done, count)
    return result


def raw_snapshot(settings: dict[str, Any], count: int) -> dict[str, float]:
    """Read the table by COPY, and throw it away."""
    del count

    class Nowhere(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            return len(data)

    with sa.create_engine(settings["url"]).connect() as connection:
        started, before = time.perf_counter(), cpu()
        _cursor(connection).copy_expert(f"COPY {TABLE} TO STDOUT (FORMAT csv)", Nowhere())
        return {"seconds": time.perf_counter() - started, "cpu": cpu() - before}


def sink(settings: dict[str, Any], count: int) -> dict[str, float]:
    """Write releases as a connector does."""
    engine = engine_for(parse(derive_schema(parse(SCHEMA), VIEW, MASKS, "bench.View")))
    releases = list(_releases(engine.schema, count))
    target = SqlSink(sa.make_url(settings["url"]), settings["table"], settings["table"], create_table=True)
    target.prepare(engine.schema)
    started, before = time.perf_counter(), cpu()
    position, done = b"", 0
    for number, release in enumerate(releases):
        after = f"position {number}".encode()
        done += target.write(release, position, after, lambda _: None).upserted
        position = after
    result = {"seconds": time.perf_counter() - started, "cpu": cpu() - before}
    target.close()
    _check(done, count)
    return result


def _releases(schema: pa.Schema, count: int) -> Iterator[DecodedRelease]:
    people = persons(count)
    for start in range(0, count, _CHUNK):
        page = [next(people) for _ in range(min(_CHUNK, count - start))]
        yield DecodedRelease(
            keys=[(start + number).to_bytes(16, "big") for number in range(len(page))],
            recorded_at=[1_760_000_000_000_000 + start] * len(page),
            withdrawn=[False] * len(page),
            records=pa.RecordBatch.from_pylist([{name: each[name] for name in VIEW} for each in page], schema=schema),
            values=[b"value"] * len(page),
            entry_id="entry",
        )


def raw_sink(settings: dict[str, Any], count: int) -> dict[str, float]:
    """Write the same values by one COPY into a table of the same columns and key."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    for number, person in enumerate(persons(count)):
        key = number.to_bytes(16, "big").hex()
        writer.writerow([key, 1_760_000_000_000_000, None, *(person[name] for name in VIEW)])
    buffer.seek(0)
    kinds = ", ".join(f"{each} {'date' if each.endswith('_date') else 'text'}" for each in VIEW)
    name = f"raw_{settings['table']}"
    with sa.create_engine(settings["url"]).connect() as connection:
        connection.exec_driver_sql(
            f"CREATE TABLE {name} (_record_key varchar(32) PRIMARY KEY, _recorded_at bigint, _deleted_at bigint, "
            f"{kinds})"
        )
        connection.commit()
        started, before = time.perf_counter(), cpu()
        _cursor(connection).copy_expert(f"COPY {name} FROM STDIN (FORMAT csv)", buffer)
        connection.commit()
        return {"seconds": time.perf_counter() - started, "cpu": cpu() - before}


def _cursor(connection: sa.Connection) -> Any:
    """Return a cursor of the driver, which SQLAlchemy has no COPY for."""
    assert connection.connection.driver_connection is not None
    return connection.connection.driver_connection.cursor()


def _check(done: int, count: int) -> None:
    if done != count:
        raise RuntimeError(f"{done} of {count} rows")


def _peak() -> float:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1000


_PARTS = {"baseline": baseline, "snapshot": snapshot, "raw_snapshot": raw_snapshot, "sink": sink, "raw_sink": raw_sink}

if __name__ == "__main__":
    what, file, number = sys.argv[1:]
    measured = _PARTS[what](json.loads(Path(file).read_text()), int(number))
    print(json.dumps({**measured, "memory": _peak()}))
