"""One of several client processes that register overlapping schemas at once.

python -m tests.kit.faults.registry_storm SEED COUNT OUT URL…    writes [[subject, content, id, version, statuses] …]

A registry that is killed in the middle of a call leaves it open whether it was done; the call is repeated at another
one, which is what Confluent's clients do with a list of addresses.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.kit.patience import PATIENCE

SUBJECTS, CONTENTS = 6, 40


def schema(number: int) -> str:
    """Return one of the contents."""
    fields = [{"name": f"f{n}", "type": ["null", "string"], "default": None} for n in range(number % 5)]
    return json.dumps({"type": "record", "name": f"Storm{number}", "fields": fields})


def main(seed: int, count: int, out: Path, urls: list[str]) -> None:
    """Register and remember what was told."""
    choose = random.Random(seed)
    done: list[list[Any]] = []
    headers = {"Confluent-Accept-Unknown-Properties": "true"}
    with httpx.Client(timeout=PATIENCE, headers=headers) as http:
        for _ in range(count):
            subject, number = f"storm{choose.randrange(SUBJECTS)}", choose.randrange(CONTENTS)
            statuses = []
            at = choose.randrange(len(urls))
            for _ in range(20):
                try:
                    answer = http.post(f"{urls[at]}/subjects/{subject}/versions", json={"schema": schema(number)})
                except httpx.TransportError:
                    at = (at + 1) % len(urls)
                    continue
                statuses.append(answer.status_code)
                if answer.status_code == 200:
                    found = answer.json()
                    done.append([subject, number, found["id"], found["version"], statuses])
                    break
    out.write_text(json.dumps(done))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
