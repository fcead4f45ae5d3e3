"""`make bench-large`: searches of a large audit log, each one's median and 95th percentile; none may take 100 ms.

    python -m tests.bench.searches [--entries 3000000] [--turns 20]

The log is made by PostgreSQL itself, in a server of its own (`tests.kit.log_rows`). The searches are those of
`tests.kit.cases.log_searches`, through the pool's own code. Written to build/searches.json.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import sqlalchemy as sa

from exchange.audit.postgres import metadata
from exchange.audit.search.postgres import find_entries
from tests.kit.cases.log_searches import searches
from tests.kit.log_rows import fill
from tests.kit.world import postgres

START = 1_795_000_000_000_000  # microseconds UTC
LIMIT = 0.1  # seconds, 95th percentile


def main() -> int:
    """Fill the log, measure, write; 1 where a search is slower than its limit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--entries", type=int, default=3_000_000)
    parser.add_argument("--turns", type=int, default=20)
    options = parser.parse_args()
    with postgres.cluster() as server, postgres.fresh_database(server) as url:
        engine = sa.create_engine(url)
        metadata.create_all(engine)
        began = time.perf_counter()
        fill(engine, options.entries, start=START)
        print(f"{options.entries:,} entries in {time.perf_counter() - began:.0f} s", flush=True)
        rows = measure(engine, options.entries, options.turns)
        with engine.connect() as connection:
            sizes = connection.execute(
                sa.text("SELECT pg_table_size('audit_entry'), pg_indexes_size('audit_entry')")
            ).one()
        engine.dispose()
    result = {"entries": options.entries, "table_bytes": sizes[0], "index_bytes": sizes[1], "searches": rows}
    file = Path("build/searches.json")
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(result, indent=2))
    slow = [row["search"] for row in rows if float(row["p95_ms"]) > LIMIT * 1000]
    print(f"slower than {LIMIT * 1000:.0f} ms: {', '.join(map(str, slow)) or 'none'}")
    return 1 if slow else 0


def measure(engine: sa.Engine, entries: int, turns: int) -> list[dict[str, str | float]]:
    """Return the times of each search, in milliseconds, with the number of entries that it finds."""
    rows: list[dict[str, str | float]] = []
    for name, query in searches(START, entries).items():
        times = []
        for _ in range(turns):
            began = time.perf_counter()
            found = len(find_entries(engine, query))
            times.append((time.perf_counter() - began) * 1000)
        p95 = statistics.quantiles(times, n=20)[-1]
        rows.append(
            {"search": name, "found": found, "median_ms": round(statistics.median(times), 2), "p95_ms": round(p95, 2)}
        )
        print(f"{name:44} {found:6} {rows[-1]['median_ms']:9} {rows[-1]['p95_ms']:9}", flush=True)
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
