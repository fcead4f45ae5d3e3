"""A number of rows is rounded before it is told."""

import pytest

from exchange.control.grants.row_count import FEW, rounded


@pytest.mark.parametrize(
    ("rows", "told"),
    [(0, FEW), (19, FEW), (20, 20), (99, 99), (104, 100), (105, 110), (996, 1_000), (123_456, 120_000)],
)
def test_two_digits_are_told(rows: int, told: int) -> None:
    assert rounded(rows) == told
