"""Our side, as a department's process: publish or fetch through the gateway, every check on.

    python -m tests.bench.client publish|fetch SETTINGS.json COUNT    prints one JSON line

`publish` starts from columns, as a connector's mapping gives them: encode, frame, leaves, root, signature, gRPC.
`fetch` decodes every value that came and counts it.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exchange.client import Identity, PoolClient
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from registry.codec.framing import add_frames, strip_frames
from schemas.names import Topic
from schemas.record import Batch
from tests.bench.baseline import cpu
from tests.bench.workload import batches, encoded
from tests.kit.world.publisher import Publisher


def publish(settings: dict[str, Any], count: int) -> dict[str, float]:
    """Publish *count* persons in batches of 1,000, 32 in flight."""
    columns = batches(count)
    identity = Identity.load(Path(settings["identity"]))
    topic = Topic.parse(settings["topic"])
    publisher = Publisher(identity.pool_id, identity.department, identity.connector, str(topic), identity.signing_key)
    with PoolClient(identity, address=settings["gateway"]) as pool:
        schema_id, _ = pool.schema(topic)
        standing = pool.resume(topic)
        publisher.sequence, publisher.root = standing.sequence, standing.root

        def made() -> Iterator[Batch]:
            for batch in columns:
                yield publisher.batch(add_frames(schema_id, encoded(batch)))

        started, before = time.perf_counter(), cpu()
        receipts = sum(1 for _ in pool.publish(topic, made(), in_flight=32))
        seconds, used = time.perf_counter() - started, cpu() - before
    if receipts != len(columns):
        raise RuntimeError(f"{receipts} of {len(columns)} batches were acknowledged")
    return {"records": count, "seconds": seconds, "cpu": used}


def fetch(settings: dict[str, Any], count: int) -> dict[str, float]:
    """Draw *count* records of the topic under the grant, and what else the last answer brings.

    Under a grant that shows one of so many records (`one_of` in the settings), those of the topic are counted.
    """
    one_of = settings.get("one_of", 1)
    identity = Identity.load(Path(settings["identity"]))
    terms = {"purpose": "eligibility", "case": "STANDING-1"}
    with PoolClient(identity, address=settings["gateway"]) as pool:
        described = pool.describe(settings["grant"])
        engine = engine_for(parse(described.schema_text))
        position, done, released = b"", 0, []
        started, before = time.perf_counter(), cpu()
        while done * one_of < count:
            fetched = pool.fetch(settings["grant"], position=position, max_records=settings["records"], **terms)
            position = fetched.next_position
            done += len(fetched.values)
            released.append(fetched)
        seconds, used = time.perf_counter() - started, cpu() - before
        decoded = 0
        for fetched in released:
            for group in strip_frames(fetched.values):
                table = engine.decode(group.datums)
                assert all("*" in number for number in table.column("id_number").to_pylist())
                decoded += table.num_rows
    if decoded != done:
        raise RuntimeError(f"{decoded} of {done} records were decoded")
    return {"records": done * one_of, "seconds": seconds, "cpu": used}


if __name__ == "__main__":
    what, file, number = sys.argv[1:]
    given = json.loads(Path(file).read_text())
    print(json.dumps({"publish": publish, "fetch": fetch}[what](given, int(number))))
