"""The baselines: what a pipeline without any check costs, one process, on the same Kafka with the same certificates.

publish   fastavro.schemaless_writer per dict, librdkafka idempotent produce (lz4, acks=all)
fetch     librdkafka consume, fastavro.schemaless_reader, keep 4 fields, mask one, schemaless_writer; with a filter in
          the settings (field and value), the records that do not match are dropped once they are decoded

python -m tests.bench.baseline publish|fetch SETTINGS.json COUNT    prints one JSON line
"""

import io
import json
import resource
import sys
import time
from typing import Any

import fastavro
from confluent_kafka import Consumer, Producer, TopicPartition

from exchange.access.view.derive import derive_schema
from registry.avro.parser import parse
from tests.bench.workload import MASKS, SCHEMA, VIEW, rows


def publish(settings: dict[str, Any], count: int) -> dict[str, float]:
    """Encode and produce every person, one by one."""
    schema = fastavro.parse_schema(json.loads(SCHEMA))
    people = rows(count)
    producer = Producer(
        {**settings["client"], "enable.idempotence": True, "acks": "all", "compression.type": "lz4", "linger.ms": 5}
    )
    topic = settings["topic"]
    started, before = time.perf_counter(), cpu()
    for person in people:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, schema, person)
        while True:
            try:
                producer.produce(topic, value=buffer.getvalue(), key=str(person["id_number"]))
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    left = producer.flush(60)
    if left:
        raise RuntimeError(f"{left} records were not delivered")
    return {"records": count, "seconds": time.perf_counter() - started, "cpu": cpu() - before}


def fetch(settings: dict[str, Any], count: int) -> dict[str, float]:
    """Consume, decode, keep 4 fields, mask one, encode."""
    schema = fastavro.parse_schema(json.loads(SCHEMA))
    view = fastavro.parse_schema(json.loads(derive_schema(parse(SCHEMA), VIEW, MASKS, "bench.View")))
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
    field, wanted = settings.get("filter") or (None, None)
    done = size = 0
    started, before = time.perf_counter(), cpu()
    while done < count:
        for message in consumer.consume(1_000, 0.5):
            value = message.value()
            if value is None:
                continue
            person: Any = fastavro.schemaless_reader(io.BytesIO(value[settings["strip"] :]), schema, None)
            done += 1
            if field is not None and person[field] != wanted:
                continue
            kept = {name: person[name] for name in VIEW}
            number = kept["id_number"]
            kept["id_number"] = number[:3] + "*" * (len(number) - 7) + number[-4:]
            buffer = io.BytesIO()
            fastavro.schemaless_writer(buffer, view, kept)
            size += len(buffer.getvalue())
    seconds, used = time.perf_counter() - started, cpu() - before
    consumer.close()
    return {"records": done, "seconds": seconds, "cpu": used, "bytes": size}


def cpu() -> float:
    """Return the seconds of processor that this process has used, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    what, file, number = sys.argv[1:]
    with open(file) as opened:  # noqa: PTH123 - a path of our own making
        given = json.load(opened)
    print(json.dumps({"publish": publish, "fetch": fetch}[what](given, int(number))))
