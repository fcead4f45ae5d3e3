"""A hub worker as a process of its own, for tests that kill it: it draws a pool that a seed determines, then ends.

python -m tests.kit.world.hub_worker DATABASE-URL KEY-FOLDER SEED
"""

import random
import sys
from pathlib import Path

import sqlalchemy as sa

from exchange.hub.store.key_files import FileHubKeys
from exchange.hub.store.postgres import PostgresHub
from exchange.hub.store.postgres_rules import PostgresRules
from registry.database.unit_of_work import PostgresDatabase
from schemas import failpoints
from tests.kit.cases.hub_drawing import Hub, publish_some
from tests.kit.row_tags import row_tags
from tests.kit.twins.hub_pool import MemoryPool

PERSONS = 4
RECORDS = 40


def pool_of(seed: str) -> MemoryPool:
    """Return the pool of a seed."""
    pool = MemoryPool(random.Random(f"{seed} fetches"))
    publish_some(pool, random.Random(seed), RECORDS, PERSONS, linked=True)
    return pool


def hub_of(pool: MemoryPool, engine: sa.Engine, keys: FileHubKeys) -> Hub:
    """Return the hub on a database; its rules are active already."""
    return Hub(pool, PostgresHub(row_tags()), PostgresRules(row_tags()), PostgresDatabase(engine), keys)


def main(url: str, folder: str, seed: str) -> None:
    """Draw everything."""
    failpoints.arm(allowed=True)
    engine = sa.create_engine(url)
    hub_of(pool_of(seed), engine, FileHubKeys(Path(folder))).draw_all()
    engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
