"""Rounded times: a function of the time alone, in the same order, never later than the exact one."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.records.release import round_times
from registry.directory.model import CatalogueEntry, ShareType
from schemas.access import Level
from schemas.errors import InvalidError
from tests.kit.cases.grants import POPULATION

DAY = 86_400 * 1_000_000
moments = st.integers(0, 2**53)
steps = st.sampled_from([1, 1_000_000, 900 * 1_000_000, 3_600 * 1_000_000, DAY, 7 * DAY])


def entry(step: str) -> CatalogueEntry:
    return CatalogueEntry(
        topic=POPULATION, title="人口", provider="p", code="101001/000001", share_type=ShareType.UNCONDITIONAL,
        level=Level.G4, round_times_to=step,
    )  # fmt: skip


@given(st.lists(moments), steps)
def test_order_is_kept_and_no_time_is_later_than_the_exact_one(times: list[int], step: int) -> None:
    rounded = round_times(times, step)
    assert [round_times([at], step)[0] for at in times] == list(rounded)
    assert all(at - step < to <= at for at, to in zip(times, rounded, strict=True))
    assert [to for _, to in sorted(zip(times, rounded, strict=True))] == sorted(rounded)


def test_without_a_step_times_are_exact() -> None:
    assert round_times([5, 7], 0) == [5, 7]


def test_a_day_is_a_day_of_the_city() -> None:
    shanghai = timezone(timedelta(hours=8))
    late = datetime(2026, 5, 4, 23, 59, tzinfo=shanghai)
    [rounded] = round_times([int(late.timestamp() * 1_000_000)], entry("1d").time_step)
    assert datetime.fromtimestamp(rounded / 1_000_000, UTC) == datetime(2026, 5, 4, tzinfo=shanghai)


@pytest.mark.parametrize(("text", "seconds"), [("", 0), ("30s", 30), ("15m", 900), ("1h", 3_600), ("31d", 2_678_400)])
def test_steps(text: str, seconds: int) -> None:
    assert entry(text).time_step == seconds * 1_000_000


@pytest.mark.parametrize("text", ["0d", "1", "d", "1w", "-1d", "32d", "1.5h", " 1d", "1d\n", "١d"])
def test_what_is_no_step_is_refused(text: str) -> None:
    with pytest.raises(InvalidError, match="expected seconds, minutes, hours or days"):
        entry(text)
