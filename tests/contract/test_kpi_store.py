"""What every store of figures and supervision events keeps true, in memory and on PostgreSQL."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.audit.store import PlacedLeaf
from exchange.kpi.collector import Collector
from exchange.kpi.events import EventKind
from exchange.kpi.facts import Known, LogFold
from exchange.kpi.postgres import PostgresKpi, metadata, select_events, select_facts
from exchange.kpi.store import EventQuery, FactQuery, KpiStore, MemoryKpi, Progress
from registry.database.unit_of_work import Database, MemoryDatabase, PostgresDatabase
from schemas.errors import CorruptError, Reason
from tests.kit.cases.audit import LogWorld, memory_world
from tests.kit.cases.figures import DEPARTMENTS, MONTHS, History, collector_of, figures, write_log

COUNT = 900


@dataclass
class Home:
    store: KpiStore
    db: Database


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> LogWorld:
    return write_log(memory_world(), tmp_path_factory.mktemp("log"), History(random.Random(3)), COUNT, part=COUNT)


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def home(request: pytest.FixtureRequest) -> Home:
    if request.param == "memory":
        return Home(MemoryKpi(), MemoryDatabase())
    return on_postgres(request.getfixturevalue("engine"))


def on_postgres(engine: sa.Engine) -> Home:
    metadata.create_all(engine)
    return Home(PostgresKpi(), PostgresDatabase(engine))


def fill(log: LogWorld, home: Home) -> None:
    collector = collector_of(log, home.store, home.db)
    while collector.step():
        pass


@pytest.mark.postgres
def test_both_stores_hold_the_same_of_a_log(log: LogWorld, engine: sa.Engine) -> None:
    one, other = Home(MemoryKpi(), MemoryDatabase()), on_postgres(engine)
    fill(log, one)
    fill(log, other)
    for month in MONTHS:
        assert figures(one.store, one.db, month) == figures(other.store, other.db, month)
    for query in (EventQuery(limit=2_000), EventQuery(department=DEPARTMENTS[0], kind=EventKind.OVERDUE, limit=2_000)):
        assert events(one, query) == events(other, query)


def events(home: Home, query: EventQuery) -> list[Any]:
    with home.db.read() as reader:
        return [*home.store.events(reader, query)]


def test_an_entry_counts_once_however_often_it_is_read(log: LogWorld, home: Home) -> None:
    first, second = (collector_of(log, home.store, home.db) for _ in range(2))
    assert first.step() == 500
    with home.db.begin() as work:
        assert not home.store.put(work, Progress(), Progress(500, 1), LogFold(Known()))  # a slow one, from before
    assert second.step() == COUNT - 500
    assert first.step() == 0
    with home.db.read() as reader:
        assert home.store.progress(reader).entries == COUNT
        counted = sum(
            one.entries
            for month in MONTHS
            for counts in home.store.counts(reader, month).values()
            for (measure, _), one in counts.items()
            if measure in {"published", "drawn"}
        )
    with log.world.log.placed(0) as leaves:
        moved = [leaf for leaf in leaves if b'"exchange:records:' in leaf.leaf and b'"allow"' in leaf.leaf]
    assert counted == len(moved) > 100


def test_pages_of_events_join_and_their_order_is_that_of_the_log(log: LogWorld, home: Home) -> None:
    fill(log, home)
    whole = events(home, EventQuery(limit=5_000))
    assert [(one.position, one.ordinal) for one in whole] == sorted((one.position, one.ordinal) for one in whole)
    joined: list[Any] = []
    after = (-1, 0)
    while page := events(home, EventQuery(after=after, limit=37)):
        joined += page
        after = (page[-1].position, page[-1].ordinal)
    assert joined == whole
    assert {one.kind for one in whole} == set(EventKind)
    of_one = events(home, EventQuery(department=DEPARTMENTS[1], kind=EventKind.OUT_OF_SCOPE, limit=5_000))
    assert of_one == [one for one in whole if (one.department, one.kind) == (DEPARTMENTS[1], EventKind.OUT_OF_SCOPE)]


def test_the_facts_behind_a_figure_are_found_in_pages(log: LogWorld, home: Home) -> None:
    fill(log, home)
    with home.db.read() as reader:
        month = "2026-12"
        counts = home.store.counts(reader, month, DEPARTMENTS[0])[DEPARTMENTS[0]]
        wanted = {"drawn", "provided", "denied"}
        expected = sum(one.entries for (measure, _), one in counts.items() if measure in wanted)
        found: list[Any] = []
        query = FactQuery(
            month=month, department=DEPARTMENTS[0], measures=[(one, "") for one in sorted(wanted)], limit=3
        )
        while page := home.store.facts(reader, query):
            found += page
            last = page[-1]
            query = FactQuery(
                month=month, department=DEPARTMENTS[0], measures=query.measures, limit=3,
                after=(last.position, last.ordinal),
            )  # fmt: skip
        reason = next(detail for measure, detail in counts if measure == "denied")
        by_reason = FactQuery(month=month, department=DEPARTMENTS[0], measures=[("denied", reason)], limit=1_000)
        assert {one.detail for one in home.store.facts(reader, by_reason)} == {reason}
    assert len(found) == expected > 3
    assert [(one.position, one.ordinal) for one in found] == sorted({(one.position, one.ordinal) for one in found})


class _Changed:
    """A log, one entry of which its database's owner has changed."""

    def __init__(self, log: LogWorld, change: Any) -> None:
        self._log, self._change = log, change
        self.latest_checkpoint = log.world.log.latest_checkpoint

    def placed(self, start: int, end: int | None = None) -> Any:
        from contextlib import contextmanager

        @contextmanager
        def changed() -> Iterator[Iterator[PlacedLeaf]]:
            with self._log.world.log.placed(start, end) as leaves:
                yield iter(self._change(list(leaves)))

        return changed()


@pytest.mark.parametrize("how", ["left out", "of another hash", "not the signed one"])
def test_an_entry_that_is_not_the_signed_one_stops_the_figures_before_it(log: LogWorld, home: Home, how: str) -> None:
    def change(leaves: list[PlacedLeaf]) -> list[PlacedLeaf]:
        if how == "left out":
            return leaves[:-1]
        if how == "of another hash":
            return [*leaves[:-1], PlacedLeaf(index=leaves[-1].index, leaf=b"{}", leaf_hash=leaves[-1].leaf_hash)]
        return leaves

    signed = bytes(32) if how == "not the signed one" else None
    collector = Collector(
        database=home.db, log=_Changed(log, change), store=home.store, signed_hash=lambda _index, _size: signed
    )
    with pytest.raises(CorruptError) as caught:
        collector.step()
    assert caught.value.reason is Reason.LOG_CORRUPT
    with home.db.read() as reader:
        assert home.store.progress(reader) == Progress()


@pytest.mark.postgres
def test_pages_read_index_ranges_and_no_table(engine: sa.Engine) -> None:
    home = on_postgres(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO supervision_event SELECT g, 0, g, (ARRAY['clock','overdue','refusal'])[1 + g %% 3], "
            "'d' || g %% 50, 'a', 'r', '', '', '', '', '', 1, gen_random_uuid() FROM generate_series(1, 20000) g"
        )
        connection.exec_driver_sql(
            "INSERT INTO kpi_fact SELECT g, 0, '2026-1' || g %% 3, 'd' || g %% 50, "
            "(ARRAY['drawn','denied'])[1 + g %% 2], 'x' || g %% 7, 1, g, 'g' || g %% 100, gen_random_uuid() "
            "FROM generate_series(1, 20000) g"
        )
        connection.exec_driver_sql("ANALYZE supervision_event; ANALYZE kpi_fact")
    searches = [
        select_events(EventQuery(after=(9_000, 0), limit=100)),
        select_events(EventQuery(department="d7", after=(9_000, 0), limit=100)),
        select_events(EventQuery(kind=EventKind.OVERDUE, after=(9_000, 0), limit=100)),
        select_events(EventQuery(department="d7", kind=EventKind.OVERDUE, after=(9_000, 0), limit=100)),
        select_facts(
            FactQuery(month="2026-11", department="d7", measures=[("drawn", ""), ("denied", "x3")], limit=100)
        ),
    ]
    assert home.store.progress is not None
    for statement in searches:
        text = str(statement.compile(engine, compile_kwargs={"literal_binds": True}))
        with engine.connect() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {text}".replace("%", "%%")).scalar_one()
        assert "Seq Scan" not in str(plan), plan
