"""Failed authentications are counted, limited and folded, and no entry tells a token or an address."""

from collections.abc import Sequence

import pytest

from exchange import metrics
from exchange.authorization.authentications import Authentications, Interface, Origin
from exchange.identity.failure_limiter import FREE, FailureLimiter
from registry.database.unit_of_work import MemoryDatabase, UnitOfWork
from schemas.audit import AUTHENTICATION_FAILED, AuditEntry, Decision, to_leaf
from schemas.errors import PoolError, Reason, RefusedError, UnavailableError

ORIGIN = Origin(Interface.HTTP, "203.0.113.7")


class Guarded:
    """Authentications over a list of entries, with clocks that are moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1_000.0
        self.entries: list[AuditEntry] = []
        self.authentications = Authentications(
            MemoryDatabase(),
            self,
            pool_id="pool",
            clock=lambda: 1_795_000_000_000_000 + int(self.seconds * 1_000_000),
            limiter=FailureLimiter(lambda: self.seconds),
        )

    def write(self, work: UnitOfWork, entries: Sequence[AuditEntry], *, last: bool = False) -> list[bytes]:
        del work, last
        self.entries += entries
        return [b"" for _ in entries]

    def attempt(self, reason: Reason | None, proof: bytes = b"x" * 32, origin: Origin = ORIGIN) -> Reason | None:
        try:
            with self.authentications.attempt(origin, proof):
                if reason is not None:
                    raise RefusedError(reason, "no")
        except PoolError as error:
            return error.reason
        return None


def counted(reason: Reason) -> float:
    return float(metrics.AUTHENTICATIONS_FAILED.labels("http", reason)._value.get())


def test_two_hundred_wrong_tokens_leave_two_entries_a_metric_and_a_delay() -> None:
    guarded = Guarded()
    before = counted(Reason.TOKEN_INVALID) + counted(Reason.TOO_MANY_FAILURES)
    answers = [guarded.attempt(Reason.TOKEN_INVALID, bytes([n]) * 32) for n in range(200)]
    assert answers[:FREE] == [Reason.TOKEN_INVALID] * FREE
    assert set(answers[FREE + 1 :]) == {Reason.TOO_MANY_FAILURES}
    assert counted(Reason.TOKEN_INVALID) + counted(Reason.TOO_MANY_FAILURES) == before + 200
    assert len(guarded.entries) == 1
    guarded.authentications.flush()
    assert len(guarded.entries) == 1, "the minute is not over"
    guarded.seconds += 60
    guarded.authentications.flush()
    first, folded = guarded.entries
    assert (first.action, first.decision, first.reason) == (
        AUTHENTICATION_FAILED,
        Decision.DENY,
        Reason.TOKEN_INVALID,
    )
    assert (first.actor, first.resource) == (None, "http")
    assert (folded.data["folded"], folded.data["sources"]) == (199, 1)
    assert folded.data["unseen"] == answers.count(Reason.TOO_MANY_FAILURES)
    for entry in guarded.entries:
        assert b"203.0.113.7" not in to_leaf(entry)
    guarded.authentications.close()
    assert len(guarded.entries) == 2, "nothing is written twice"


def test_a_right_token_passes_after_the_delay_and_at_once_when_it_was_right_before() -> None:
    guarded = Guarded()
    assert guarded.attempt(None, b"known" * 6) is None
    for n in range(40):
        guarded.attempt(Reason.TOKEN_INVALID, bytes([n]) * 32)
    assert guarded.attempt(None, b"known" * 6) is None
    with pytest.raises(UnavailableError) as error, guarded.authentications.attempt(ORIGIN, b"new" * 10):
        pass
    assert error.value.retry_after is not None
    guarded.seconds += error.value.retry_after
    assert guarded.attempt(None, b"new" * 10) is None


def test_who_presents_nothing_or_is_refused_for_something_else_delays_nobody() -> None:
    guarded = Guarded()
    for reason in [Reason.NO_IDENTITY] * 50 + [Reason.DEPARTMENT_INACTIVE] * 50:
        assert guarded.attempt(reason) is reason
    assert guarded.attempt(None) is None
    guarded.authentications.close()
    assert [entry.reason for entry in guarded.entries] == [Reason.NO_IDENTITY] * 2


def test_an_account_is_limited_from_everywhere_and_its_holder_passes() -> None:
    guarded = Guarded()
    holder = Origin(Interface.REGISTRY, "198.51.100.1", "zhang")
    assert guarded.attempt(None, b"token" * 6, holder) is None
    for n in range(40):
        guarded.attempt(Reason.TOKEN_INVALID, origin=Origin(Interface.REGISTRY, f"203.0.113.{n}", "zhang"))
    elsewhere = Origin(Interface.REGISTRY, "203.0.113.99", "zhang")
    assert guarded.attempt(Reason.TOKEN_INVALID, origin=elsewhere) is Reason.TOO_MANY_FAILURES
    assert guarded.attempt(None, b"token" * 6, holder) is None
    other = Origin(Interface.REGISTRY, "203.0.113.99", "li")
    assert guarded.attempt(None, b"other" * 6, other) is None
