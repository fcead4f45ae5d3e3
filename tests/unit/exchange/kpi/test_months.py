"""The form of a month: the pool and the replay of its log take the same texts, and only those that figures are of."""

from collections.abc import Callable

import pytest

from exchange.audit.oversight.monthly_report import month_bounds
from exchange.kpi.replay import LogReplay
from schemas.errors import InvalidError, Reason


@pytest.mark.parametrize("take", [LogReplay, month_bounds])
@pytest.mark.parametrize("month", ["", "2026", "2026-00", "2026-1", "2026-13", "9999-12", "２０２６-１１", " 2026-11"])
def test_a_text_that_is_no_month_of_the_figures_is_refused(take: Callable[[str], object], month: str) -> None:
    with pytest.raises(InvalidError) as caught:
        take(month)
    assert caught.value.reason is Reason.REQUEST_INVALID


@pytest.mark.parametrize("take", [LogReplay, month_bounds])
@pytest.mark.parametrize("month", ["0001-01", "2026-11", "2026-12", "9999-11"])
def test_every_month_that_another_one_follows_is_taken(take: Callable[[str], object], month: str) -> None:
    take(month)
