"""Figures of supervision: what the pool counts as its log grows equals what a replay of the log's files counts."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.kpi.facts import month_of
from exchange.kpi.store import MemoryKpi
from registry.database.unit_of_work import MemoryDatabase
from schemas.supervision.kpi import kpis
from tests.kit.cases.audit import memory_world
from tests.kit.cases.figures import MONTHS, History, collector_of, figures, replayed, write_log
from tests.kit.share import count, random_of

pytestmark = pytest.mark.counted
HISTORIES = count(400, 6)


@pytest.mark.parametrize("number", range(HISTORIES))
def test_a_replay_of_the_files_equals_what_was_counted_as_the_log_grew(number: int, tmp_path: Path) -> None:
    draw = random_of(f"figures {number}")
    world, database, store = memory_world(), MemoryDatabase(), MemoryKpi()
    log = write_log(world, tmp_path, History(draw), draw.choice((1, 60, 600)), part=draw.choice((30, 1000)))
    collector = collector_of(log, store, database)
    while collector.step():
        pass
    for month in draw.sample(MONTHS, 3):
        assert figures(store, database, month) == replayed(log, month), month


def test_figures_of_a_part_of_the_log_equal_a_replay_of_that_part_and_none_is_always_zero(tmp_path: Path) -> None:
    world, database, store = memory_world(), MemoryDatabase(), MemoryKpi()
    log = write_log(world, tmp_path, History(random.Random(2)), 700, part=700)
    collector = collector_of(log, store, database)
    assert collector.step() == 500
    seen: set[str] = set()
    for month in MONTHS[1:5]:
        told = figures(store, database, month)
        assert told == replayed(log, month, size=500)
        seen |= {one["kpi"] for each in told["departments"] for one in each["figures"] if one["value"]}
    assert seen == {kpi.id for kpi in kpis()}


@given(st.integers(min_value=0, max_value=4_000_000_000_000_000))
def test_the_month_of_a_time_is_that_of_utc_8(at: int) -> None:
    local = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at, hours=8)
    assert month_of(at) == f"{local.year:04}-{local.month:02}"
