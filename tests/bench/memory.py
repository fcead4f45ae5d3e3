"""Resident memory of the gateway while millions of records pass: it must not grow with them."""

import sys
from typing import TYPE_CHECKING

import psutil

from tests.bench.report import Row

if TYPE_CHECKING:
    from tests.bench.__main__ import Bench


def measure(bench: "Bench", records: int) -> list[Row]:
    """Publish and fetch a tenth of *records*, then all of them; compare the gateway's memory at both marks."""
    from tests.bench.__main__ import _process

    assert bench.world.process is not None
    process = psutil.Process(bench.world.process.pid)
    ours = bench.client(bench.police.id, "source")
    step = records // 10
    marks = []
    for number in range(10):
        _process("tests.bench.client", "publish", ours, step)
        if number in {0, 9}:
            sink = bench.client(bench.labour.id, "sink", grant=bench.ask(), records=10_000)
            _process("tests.bench.client", "fetch", sink, step * (number + 1))
            marks.append(process.memory_info().rss / 1e6)
        print(f"memory: {step * (number + 1):,} records, {process.memory_info().rss / 1e6:,.0f} MB", file=sys.stderr)
    low, high = marks
    return [
        Row(
            name=f"gateway's resident memory at {records:,} records against {step:,}",
            ours=high,
            baseline=low,
            ratio=high / low,
            unit="MB",
            spread="one run",
            notes="published and fetched; limit 1.1",
        )
    ]
