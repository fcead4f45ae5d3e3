"""A gateway as a process of its own, to be killed: `python -m tests.kit.faults.broker_writer URL TOPIC MODE FIRST`.

It appends batches of 1,000 records from the sequence FIRST on and prints a line for each: `begun N` from within
the commit hook, in the open transaction, and `done N` after the append. In the mode `stay` it waits in the first
commit hook for a line on its standard input. It prints `failed REASON` and ends when an append fails.
"""

import itertools
import sys
from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa

from exchange.broker.port import Appended
from exchange.broker.postgres.broker import PostgresBroker
from registry.database.connection_pool import create_engine
from registry.database.unit_of_work import PostgresDatabase, UnitOfWork
from schemas.errors import PoolError
from schemas.names import Topic
from tests.kit.cases.broker import KEY, batch, lane_of

RECORDS = 1000
PATIENCE = timedelta(seconds=1)


def main(url: str, topic: str, mode: str, first: str) -> None:
    """Append until killed."""
    broker = PostgresBroker(
        PostgresDatabase(create_engine(sa.make_url(url), connections=2)), key=KEY, lock_timeout=PATIENCE
    )
    lane = lane_of(Topic.parse(topic))

    def commit_hook(work: UnitOfWork | None, appended: Sequence[Appended]) -> None:
        print("begun", appended[-1].sequence, flush=True)
        if mode == "stay":
            sys.stdin.readline()

    for sequence in itertools.count(int(first)):
        try:
            broker.append([batch(lane, sequence, range(RECORDS))], commit_hook)
        except PoolError as error:
            print("failed", error.reason.value, flush=True)
            return
        print("done", sequence, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
