"""The second consumer: appends what it gets to a file, and goes on from its last line.

    python -m tests.torture.consumer IDENTITY GRANT OUT GATEWAYS

One JSON line a release: its entry, the root over what came, the position after it, and the records
[record key, permit, version, district]; of a withdrawal the key alone.
"""

import hashlib
import json
import sys
import time
from pathlib import Path

from exchange.client import FetchResult, Identity, PoolClient
from registry.avro.parser import parse
from registry.codec.codec import Engine, engine_for
from registry.codec.framing import strip_frames
from schemas.errors import ConflictError, UnavailableError
from schemas.merkle import root_of


def main(folder: str, grant_id: str, out: str, gateways: str) -> None:
    path = Path(out)
    position = last_position(path)
    engine: Engine | None = None
    with PoolClient(Identity.load(Path(folder)), address=gateways, timeout=10.0) as pool, path.open("a") as file:
        while True:
            try:
                fetched = pool.fetch(grant_id, position=position, purpose="eligibility", case="STANDING-1", wait=1.0)
                if engine is None and len(fetched.values):
                    engine = engine_for(parse(pool.schema(schema_id=fetched.schema_id)[1]))
            except (UnavailableError, ConflictError) as error:
                print(error.reason, error.message, file=sys.stderr, flush=True)
                time.sleep(error.retry_after or 0.2)
                continue
            position = fetched.next_position
            if len(fetched.values):
                assert engine is not None
                file.write(json.dumps(line_of(fetched, engine), ensure_ascii=False) + "\n")
                file.flush()


def line_of(fetched: FetchResult, engine: Engine) -> dict[str, object]:
    rows: dict[int, dict[str, object]] = {}
    for group in strip_frames(fetched.values):
        rows |= dict(zip(group.indexes.tolist(), engine.decode(group.datums).to_pylist(), strict=True))
    keys = fetched.keys()
    leaves = [hashlib.sha256(b"\0" + key + value).digest() for key, value in zip(keys, fetched.values, strict=True)]
    return {
        "entry": fetched.entry_id,
        "root": root_of(leaves).hex(),
        "next": fetched.next_position.hex(),
        "records": [[key.hex(), *(rows[index].values() if index in rows else ())] for index, key in enumerate(keys)],
    }


def last_position(path: Path) -> bytes:
    """Return where the file ends, and cut off a line that a crash has left half-written."""
    if not path.exists():
        return b""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    path.write_bytes(whole)
    lines = whole.splitlines()
    return bytes.fromhex(json.loads(lines[-1])["next"]) if lines else b""


if __name__ == "__main__":
    main(*sys.argv[1:])
