"""The seed and the share of the counted tests."""

from collections.abc import Iterator

import pytest
from _pytest.outcomes import Failed, Skipped
from hypothesis import settings

from tests.kit import share


@pytest.fixture(autouse=True)
def back() -> Iterator[None]:
    before = share._seed, share._share
    yield
    share.configure(*before)


def test_a_share_is_a_part_and_full_is_everything() -> None:
    share.configure(7, "ci")
    assert share.count(100, 10) == 10
    part = share.chosen(range(100), 10)
    assert len(set(part)) == 10
    assert part == sorted(part)
    assert share.chosen(range(5), 10) == [0, 1, 2, 3, 4]
    share.configure(7, "full")
    assert share.count(100, 10) == 100
    assert share.chosen(range(100), 10) == list(range(100))


def test_a_seed_repeats_its_choices_and_another_makes_others() -> None:
    def drawn(seed: int, name: str = "a") -> tuple[float, list[int]]:
        share.configure(seed, "ci")
        return share.random_of(name).random(), share.chosen(range(1000), 10)

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert drawn(1)[0] != drawn(1, "b")[0]


def test_no_property_has_a_deadline_and_examples_follow_the_seed(request: pytest.FixtureRequest) -> None:
    assert settings().deadline is None
    assert not settings().derandomize
    assert request.config.option.hypothesis_seed is not None


def test_without_a_package_a_test_skips_and_on_ci_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    share.needs_package("dash", program="sh")
    with pytest.raises(Skipped, match="install the Debian package nothing-of-the-sort"):
        share.needs_package("nothing-of-the-sort")
    monkeypatch.setenv("CI", "true")
    share.needs_package("dash", program="sh")
    with pytest.raises(Failed, match="install the Debian package nothing-of-the-sort"):
        share.needs_package("nothing-of-the-sort")
