"""Restore guard: closed until a settlement is found, asked once a second, and open for good afterwards."""

import pytest

from exchange.authorization.restored import OpenRestore, RestoreGuard
from schemas.errors import Reason, UnavailableError


class Restores:
    """What the log says, and a clock that a test moves."""

    def __init__(self, found: OpenRestore | None) -> None:
        self.found = found
        self.asked = 0
        self.now = 0.0

    def guard(self) -> RestoreGuard:
        def ask() -> OpenRestore | None:
            self.asked += 1
            return self.found

        return RestoreGuard(ask, lambda: self.now)


def test_a_pool_that_was_never_restored_asks_once() -> None:
    restores = Restores(None)
    guard = restores.guard()
    for _ in range(3):
        guard.require_release()
        guard.require_accept()
        restores.now += 5.0
    assert restores.asked == 1


@pytest.mark.parametrize("whole", [True, False])
def test_nothing_is_released_before_the_settlement_and_accepted_where_the_log_survived(*, whole: bool) -> None:
    restores = Restores(OpenRestore("s", whole))
    guard = restores.guard()
    for _ in range(3):
        with pytest.raises(UnavailableError) as refused:
            guard.require_release()
        assert refused.value.reason is Reason.RESTORE_UNSETTLED
        if whole:
            guard.require_accept()
        else:
            with pytest.raises(UnavailableError):
                guard.require_accept()
    assert restores.asked == 1
    restores.found = None
    with pytest.raises(UnavailableError):
        guard.require_release()
    restores.now += 1.0
    guard.require_release()
    guard.require_accept()
    assert restores.asked == 2
