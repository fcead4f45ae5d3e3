"""Seed and share of the counted tests: `make test` runs a seeded part of each large count, `make torture` the whole.

tests/conftest.py calls `configure` with `--seed` and `--share` before the first test module is imported, so counts may
be module constants and arguments of `@settings`. Mark such a test `counted`: that is what `make torture` selects.

    TRIALS = count(10, 4)                       # 10 in the full run, 4 in `make test`
    draw = random_of("revoke race")             # the same numbers again with the same --seed
    families = chosen(range(100), 30)           # all of them, or 30 drawn with the seed
"""

import os
import random
import shutil
from collections.abc import Iterable
from typing import Literal, TypeVar

import pytest

Share = Literal["ci", "full"]
T = TypeVar("T")

_seed = 0
_share: Share = "ci"


def new_seed() -> int:
    """Return POOL_SEED, or a random one of 32 bits."""
    return int(os.environ.get("POOL_SEED") or random.SystemRandom().getrandbits(32))


def configure(seed: int, share: Share) -> None:
    """Set both for this process."""
    global _seed, _share
    _seed, _share = seed, share


def seed() -> int:
    """Return the seed of this run."""
    return _seed


def random_of(name: str) -> random.Random:
    """Return random numbers of this run's seed, others for each name."""
    return random.Random(f"{_seed} {name}")


def count(full: int, ci: int) -> int:
    """Return how often this run does something."""
    return full if _share == "full" else ci


def chosen(items: Iterable[T], ci: int) -> list[T]:
    """Return all items, or so many of them, drawn with the seed; in their order."""
    every = list(items)
    if _share == "full" or ci >= len(every):
        return every
    return [every[at] for at in sorted(random_of(f"{len(every)} items").sample(range(len(every)), ci))]


def needs_package(package: str, program: str = "") -> None:
    """Skip the test unless the Debian package's program is installed; on CI, where it has to be, fail.

    Args:
        package: the name that apt knows, for the message.
        program: the program to look for, if it has another name.
    """
    if shutil.which(program or package):
        return
    message = f"got no program {program or package}; install the Debian package {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
