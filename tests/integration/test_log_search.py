"""Every search of the log reads index ranges: none walks the log, however little it finds."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.audit.postgres import metadata
from exchange.audit.search.postgres import fill_search_columns, find_entries, select_entries
from exchange.audit.store import EntryQuery
from schemas.errors import Reason, UnavailableError
from tests.kit.cases.audit import START
from tests.kit.cases.log_searches import searches
from tests.kit.log_rows import fill
from tests.kit.world import postgres

pytestmark = pytest.mark.postgres

COUNT = 20_000
SEARCHES = searches(START, COUNT)
PAIRS = {"department and resource"}
"""Two filters that each hold for a large share of the log: a walk by time finds a page soon."""


@pytest.fixture(scope="module")
def log(postgres_server: sa.URL) -> Iterator[sa.Engine]:
    with postgres.fresh_database(postgres_server) as url:
        engine = sa.create_engine(url)
        metadata.create_all(engine)
        fill(engine, COUNT, start=START)
        yield engine
        engine.dispose()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_reads_index_ranges(log: sa.Engine, name: str) -> None:
    query = SEARCHES[name]
    statement = select_entries(query).compile(log, compile_kwargs={"literal_binds": True})
    with log.connect() as connection:
        explained = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}".replace("%", "%%"))
        plan = explained.scalar_one()[0]["Plan"]
    read = [one for one in nodes(plan) if one.get("Relation Name") == "audit_entry"]
    assert read
    assert not [one for one in read if one["Node Type"] == "Seq Scan"], plan
    looked_at = sum(
        (one["Actual Rows"] + one.get("Rows Removed by Filter", 0) + one.get("Rows Removed by Index Recheck", 0))
        * one["Actual Loops"]
        for one in read
    )
    # A page for each branch, of which a department has one for each of its resources; never a share of the log.
    branches = 1 if query.party is None else 1 + min(len(query.party.resources), COUNT // query.limit)
    share = 2 if name in PAIRS else 20
    assert looked_at <= query.limit * (branches + 1) + COUNT // share, f"{looked_at} of {plan['Actual Rows']}: {plan}"


def test_pages_follow_each_other_without_gap_or_repetition(log: sa.Engine) -> None:
    query = EntryQuery(decision="deny", limit=50)
    whole = find_entries(log, EntryQuery(decision="deny", limit=1_000))
    found = []
    after = None
    while True:
        page = find_entries(log, EntryQuery(decision="deny", limit=50, after=after))
        found += page
        if len(page) < query.limit:
            break
        after = page[-1].place
    assert found == whole
    assert len(found) == COUNT * 3 // 1_000


def test_a_search_by_actor_is_refused_until_earlier_entries_have_the_column(engine: sa.Engine) -> None:
    metadata.create_all(engine)
    fill(engine, 3_000, start=START)
    expected = find_entries(engine, EntryQuery(actor="sink-1", limit=1_000))
    reasons = find_entries(engine, EntryQuery(reason="quota_exhausted", limit=1_000))
    assert expected
    assert reasons
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE audit_entry SET actor = NULL, reason = NULL WHERE seq % 3 = 0"))
        connection.execute(sa.text("UPDATE audit_entry SET leaf = '\\x00ff' WHERE seq = 30"))
    for query in (EntryQuery(actor="sink-1"), EntryQuery(reason="quota_exhausted")):
        with pytest.raises(UnavailableError) as caught:
            find_entries(engine, query)
        assert caught.value.reason is Reason.LOG_BEHIND
    assert len(find_entries(engine, EntryQuery(limit=10))) == 10
    assert fill_search_columns(engine) == 1_000
    assert fill_search_columns(engine) == 0
    unreadable = [one for one in expected if one.place.row == 30]
    assert find_entries(engine, EntryQuery(actor="sink-1", limit=1_000)) == [
        one for one in expected if one not in unreadable
    ]
    assert find_entries(engine, EntryQuery(reason="quota_exhausted", limit=1_000)) == reasons
