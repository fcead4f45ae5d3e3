"""One offset of a released set: a test of one bit against unpacking the set, as a ratio in the same run.

    python -m tests.bench.offsets [--positions 16384] [--turns 200]

The set is a random half of the positions, which is the dearest to unpack. Printed, as medians; the goal is a ratio of
at least 100.
"""

import argparse
import statistics
import time
from collections.abc import Callable

from schemas.offsets import meant, pack_offsets, unpack_offsets
from tests.kit.share import random_of

GOAL = 100


def main() -> int:
    """Measure and print; 1 where the ratio is below its goal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--positions", type=int, default=16_384)
    parser.add_argument("--turns", type=int, default=200)
    options = parser.parse_args()
    random, end = random_of("offsets"), (options.positions,)
    text = pack_offsets((0,), end, [[at for at in range(options.positions) if random.random() < 0.5]])
    unpacked = _median(lambda: unpack_offsets((0,), end, text), options.turns)
    tested = _median(lambda: meant((0,), end, text, 0, options.positions - 1), options.turns)
    ratio = unpacked / tested
    print(f"unpacked {unpacked * 1e6:.0f} µs, one bit {tested * 1e6:.1f} µs, ratio {ratio:.0f} (goal {GOAL})")
    return 0 if ratio >= GOAL else 1


def _median(call: Callable[[], object], turns: int) -> float:
    times = []
    for _ in range(turns):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    raise SystemExit(main())
