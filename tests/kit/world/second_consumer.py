"""A consumer of its own, as a department might write one: draws under a grant and appends what came to a file.

    python -m tests.kit.world.second_consumer IDENTITY GRANT OUT [GATEWAY]

One JSON line a record: its key, its position's entry, and whether it was withdrawn. Ends when its standard input does.
"""

import json
import select
import sys
from pathlib import Path

from exchange.client import Identity, PoolClient
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from registry.codec.framing import strip_frames
from schemas.errors import UnavailableError


def main(folder: str, grant_id: str, out: str, gateway: str) -> None:
    position = b""
    with PoolClient(Identity.load(Path(folder)), address=gateway) as pool, Path(out).open("a") as file:
        engine = None
        while not select.select([sys.stdin], [], [], 0)[0]:
            try:
                fetched = pool.fetch(grant_id, position=position, purpose="eligibility", case="STANDING-1", wait=1.0)
            except UnavailableError as error:
                print(error.reason, file=sys.stderr)
                continue
            position = fetched.next_position
            if not len(fetched.values):
                continue
            if engine is None:
                engine = engine_for(parse(pool.schema(schema_id=fetched.schema_id)[1]))
            rows: dict[int, dict[str, object]] = {}
            for group in strip_frames(fetched.values):
                rows |= dict(zip(group.indexes.tolist(), engine.decode(group.datums).to_pylist(), strict=True))
            for index, key in enumerate(fetched.keys()):
                line = {"key": key.hex(), "entry": fetched.entry_id, "row": rows.get(index)}
                file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
            file.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
