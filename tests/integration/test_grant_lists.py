"""Every list of grants reads index ranges in its order: none walks all grants, however few it finds."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.access.grants.page_postgres import select_counts, select_page
from exchange.access.grants.postgres import metadata
from exchange.access.grants.store import GrantOrder, GrantQuery, cursor_behind
from schemas.access import GrantState
from schemas.names import ResourceName, Topic
from tests.kit.world import postgres

pytestmark = pytest.mark.postgres

COUNT, DEPARTMENTS, TOPICS = 30_000, 100, 1_000
START = datetime(2026, 1, 1, tzinfo=UTC)
_FILL = sa.text("""
INSERT INTO access_grant (id, version, text, hash, seal, consumer, provider, topic, state, expires)
SELECT 'g-' || lpad(n::text, 6, '0'), 1, repeat('x', 500), sha256('x'), sha256('x'), 'd-' || (n % :departments),
    'd-' || ((n / 7) % :departments), 'topic-' || (n % :topics) || '.v' || (1 + n % 3),
    CASE WHEN n % 500 = 0 THEN 'submitted' WHEN n % 3 = 0 THEN 'terminated' ELSE 'active' END,
    CAST(:start AS timestamptz) + (n * 7919 % 50000) * interval '20 minutes'
FROM generate_series(1, :count) AS n
""")
_VERSIONS = sa.text("""
INSERT INTO access_grant_version (grant_id, version, text, hash, seal, entry_id, recorded_at)
SELECT id, v, text, hash, seal, 'e', now() FROM access_grant, generate_series(1, 3) AS v
""")
_QUOTAS = sa.text("""
INSERT INTO access_quota (grant_id, day, released)
SELECT id, date '2026-01-01' + d, 5 FROM access_grant, generate_series(1, 3) AS d WHERE id < 'g-010000'
""")
SOON = {"expires_from": START + timedelta(days=100), "expires_before": START + timedelta(days=130)}
FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "a consumer": {"consumer": "d-7"},
    "a provider": {"provider": "d-7"},
    "a party": {"party": "d-7"},
    "a stranger": {"party": "d-nobody"},
    "consumer and provider": {"consumer": "d-7", "provider": "d-8"},
    "a topic": {"topic": Topic(ResourceName("topic-7"), 2)},
    "a resource": {"resource": ResourceName("topic-7")},
    "a rare state": {"states": frozenset({GrantState.SUBMITTED})},
    "a state of nobody": {"states": frozenset({GrantState.SUSPENDED})},
    "states": {"states": frozenset({GrantState.ACTIVE, GrantState.SUBMITTED})},
    "a party's inbox": {"party": "d-7", "states": frozenset({GrantState.SUBMITTED, GrantState.APPROVED})},
    "a consumer in a state": {"consumer": "d-7", "states": frozenset({GrantState.ACTIVE})},
    "expiring": SOON,
    "a party's expiring": {"party": "d-7", "states": frozenset({GrantState.ACTIVE}), **SOON},
}
CASES = [*itertools.product(FILTERS, GrantOrder)]


@pytest.fixture(scope="module")
def grants(postgres_server: sa.URL) -> Iterator[sa.Engine]:
    with postgres.fresh_database(postgres_server) as url:
        engine = sa.create_engine(url)
        metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(_FILL, {"count": COUNT, "departments": DEPARTMENTS, "topics": TOPICS, "start": START})
            connection.execute(_VERSIONS)
            connection.execute(_QUOTAS)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
        yield engine
        engine.dispose()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def explained(engine: sa.Engine, statement: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    text = str(statement.compile(engine, compile_kwargs={"literal_binds": True}))
    with engine.connect() as connection:
        found = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}".replace("%", "%%"))
        plan = found.scalar_one()[0]["Plan"]
    return plan, [one for one in nodes(plan) if "Relation Name" in one or "Index Name" in one]


def query_of(name: str, order: GrantOrder, **more: Any) -> GrantQuery:
    return GrantQuery(**FILTERS[name], order=order, limit=50, **more)


@pytest.mark.parametrize(("name", "order"), CASES)
def test_a_list_reads_index_ranges(grants: sa.Engine, name: str, order: GrantOrder) -> None:
    query = query_of(name, order)
    first = rows(grants, query)
    for one in (query, replace(query, after=first[-1][1]) if first else query):
        plan, read = explained(grants, select_page(metadata.tables["access_grant"], one))
        assert read
        assert not [node for node in read if node["Node Type"] == "Seq Scan"], plan
        looked_at = sum(
            (node.get("Actual Rows", 0) + node.get("Rows Removed by Filter", 0)) * node.get("Actual Loops", 1)
            for node in read
        )
        # A department's own grants, or those that end in a month, may be sorted; a share of all is never read.
        assert looked_at <= COUNT // 8, f"{looked_at}: {plan}"


def rows(engine: sa.Engine, query: GrantQuery) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        found = connection.execute(select_page(metadata.tables["access_grant"], query))
        return [(row.id, cursor_behind(query.order, row.expires, row.id)) for row in found]


@pytest.mark.parametrize(("name", "order"), [("a party", one) for one in GrantOrder] + [("states", GrantOrder.EXPIRES)])
def test_pages_follow_each_other_without_gap_or_repetition(grants: sa.Engine, name: str, order: GrantOrder) -> None:
    whole = rows(grants, replace(query_of(name, order), limit=COUNT))
    found: list[tuple[str, str]] = []
    query = replace(query_of(name, order), limit=333)
    while page := rows(grants, query):
        found += page
        query = replace(query, after=page[-1][1])
        if len(found) > 3_000:
            break
    assert found == whole[: len(found)]
    assert len({one for one, _ in found}) == len(found)
    assert len(found) >= min(len(whole), 500)
    ids = [one for one, _ in whole]
    assert ids == sorted(ids, reverse=order is GrantOrder.NEWEST) or order is GrantOrder.EXPIRES
    assert [one for _, one in whole] == sorted((one for _, one in whole), reverse=order is GrantOrder.NEWEST)


@pytest.mark.parametrize("party", [None, "d-7", "d-nobody"])
def test_counts_by_state_read_index_ranges_up_to_a_bound(grants: sa.Engine, party: str | None) -> None:
    most = 1_001
    plan, read = explained(grants, select_counts(metadata.tables["access_grant"], party, most))
    assert not [node for node in read if node["Node Type"] == "Seq Scan"], plan
    looked_at = sum((node.get("Actual Rows", 0) + node.get("Rows Removed by Filter", 0)) for node in read)
    assert looked_at <= 3 * most, plan  # two states have more than that, and a party has two sides
    with grants.connect() as connection:
        found = dict(connection.execute(select_counts(metadata.tables["access_grant"], party, most)).all())  # type: ignore[arg-type]
        sides = "" if party is None else f"WHERE consumer = '{party}' OR provider = '{party}'"
        whole = connection.exec_driver_sql(f"SELECT state, count(*) FROM access_grant {sides} GROUP BY state").all()
    assert {state: min(count, most) for state, count in found.items() if count} == {
        state: min(count, most) for state, count in whole
    }


def test_versions_and_use_of_one_grant_read_its_own_rows(grants: sa.Engine) -> None:
    version, quota = metadata.tables["access_grant_version"], metadata.tables["access_quota"]
    for statement in (
        sa.select(version).where(version.c.grant_id == "g-000777", version.c.version > 1).order_by(version.c.version),
        sa.select(version.c.text).where(version.c.grant_id == "g-000777"),
        sa.select(quota).where(quota.c.grant_id == "g-000777").order_by(quota.c.day.desc()).limit(31),
    ):
        plan, read = explained(grants, statement)
        assert not [node for node in read if node["Node Type"] == "Seq Scan"], plan
