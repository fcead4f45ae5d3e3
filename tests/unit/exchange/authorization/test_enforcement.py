"""What an actor repeats is folded, what is written is bounded, and beyond its budget the actor is slowed."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from exchange.authorization.actor_budgets import ActorBudgets, Budget
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.entry_folding import OWN_RESOURCES
from exchange.authorization.entry_texts import MAX_RESOURCE, bounded
from exchange.authorization.request_context import RequestContext
from registry.database.unit_of_work import MemoryDatabase, UnitOfWork
from schemas.access import Action, Actor, ActorKind, Allow, Deny, Role
from schemas.audit import AuditEntry, Decision, GrantRef, from_leaf, to_leaf
from schemas.errors import InvalidError, PoolError, Reason, UnavailableError

EDITOR = Actor(kind=ActorKind.HUMAN, id="editor", department="d1", role=Role.CATALOGUE_EDITOR)
CONNECTOR = Actor(kind=ActorKind.MACHINE, id="hub", department="d1", role=Role.CONNECTOR, certificate="0a")
TIMER = Actor(kind=ActorKind.MACHINE, id="timer", department="", role=Role.OPERATOR)
CALL = RequestContext(trace="0" * 32, purpose="eligibility", case="C-1")
NO = Deny(Reason.ROLE_MISSING, "no")


class Log:
    """An enforcer over a list of entries, with clocks that are moved by hand; the database may be away."""

    def __init__(self, **per_minute: int) -> None:
        self.seconds, self.entries, self.away = 1_000.0, list[AuditEntry](), False
        self.enforcer = Enforcer(
            MemoryDatabase(),
            self,
            pool_id="pool",
            clock=lambda: 1_795_000_000_000_000 + int(self.seconds * 1_000_000),
            budgets=ActorBudgets(
                {str(one): per_minute.get(one, 1_000_000) for one in Budget}, clock=lambda: self.seconds
            ),
        )

    def write(self, work: UnitOfWork, entries: Sequence[AuditEntry], *, last: bool = False) -> list[bytes]:
        del work, last
        if self.away:
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "away")
        self.entries += [from_leaf(to_leaf(one)) for one in entries]
        return [b"" for _ in entries]

    def deny(self, resource: str, actor: Actor = EDITOR, call: RequestContext = CALL) -> Reason:
        with pytest.raises(PoolError) as caught:
            self.enforcer.admit(actor, Action.GRANT_APPROVE, resource, call, NO)
        return caught.value.reason

    def minute(self) -> list[AuditEntry]:
        """Let a minute pass, and return what is written of it."""
        before = len(self.entries)
        self.seconds += 60
        self.enforcer.flush()
        return self.entries[before:]


def test_an_actor_who_varies_the_resource_writes_a_bounded_number_of_entries() -> None:
    log = Log()
    for number in range(2_000):
        assert log.deny(f"{number}-{'长' * 600}") is Reason.ROLE_MISSING
    assert len(log.entries) == OWN_RESOURCES + 1
    (folded,) = log.minute()
    assert (folded.resource, folded.decision, folded.reason) == ("*", Decision.DENY, Reason.ROLE_MISSING)
    assert folded.data["folded"] == 2_000 - OWN_RESOURCES - 1
    named = folded.data["resources"]
    assert isinstance(named, list)
    assert len(named) + int(str(folded.data["unnamed"])) == folded.data["folded"]
    assert max(len(to_leaf(one)) for one in log.entries) < 50_000
    assert sum(len(to_leaf(one)) for one in log.entries) < 64_000
    assert folded.purpose == folded.case == folded.trace == "", "what the first declared, the others need not have"


def test_what_the_budget_lets_through_is_named() -> None:
    """Nobody hides the one resource that matters behind others."""
    log = Log(refusals=120)
    answers = [log.deny(f"topic-{number}.v1") for number in range(500)]
    assert answers == [Reason.ROLE_MISSING] * 120 + [Reason.RATE_LIMITED] * 380
    log.minute()
    named = {one.resource for one in log.entries} | {
        str(text)
        for one in log.entries
        for text in (one.data.get("resources") or ())  # type: ignore[union-attr]
    }
    assert named >= {f"topic-{number}.v1" for number in range(OWN_RESOURCES + 1 + 100)}
    assert sum(int(str(one.data.get("unnamed", 0))) for one in log.entries) == 120 - OWN_RESOURCES - 1 - 100


def test_repeated_denials_of_a_few_resources_keep_an_entry_for_each() -> None:
    log = Log()
    for _ in range(50):
        for topic in ("a.v1", "b.v1"):
            log.deny(topic)
    assert [one.resource for one in log.entries] == ["a.v1", "b.v1"]
    assert [(one.resource, one.data["folded"], one.case) for one in log.minute()] == [
        ("a.v1", 49, "C-1"),
        ("b.v1", 49, "C-1"),
    ]
    log.deny("a.v1")
    assert log.entries[-1].data == {}, "a new minute begins with an entry"


def test_what_the_first_declared_is_not_said_of_others_on_the_same_resource() -> None:
    """Else a connector that tries case numbers would leave the first one alone, as that of all its calls."""
    log = Log()
    for number in (1, 2, 3, 3):
        log.deny("a.v1", call=replace(CALL, case=f"C-{number}", on_behalf_of=f"p-{number}"))
    (folded,) = log.minute()
    assert (folded.resource, folded.purpose, folded.case) == ("a.v1", CALL.purpose, "")
    assert (folded.data["folded"], folded.data["cases"]) == (3, ["C-2", "C-3"])
    assert folded.actor is not None
    assert folded.actor.on_behalf_of is None
    assert log.entries[0].case == "C-1"


def test_the_largest_fold_fits_into_a_leaf() -> None:
    log = Log()
    for number in range(400):
        log.deny(f"{number}".ljust(80, "\x01"), call=replace(CALL, case=f"{number}".ljust(200, "\x01")))
    assert int(str(log.minute()[-1].data["unnamed"])) > 0  # written, as a leaf


def test_actors_actions_and_reasons_are_not_mixed() -> None:
    log = Log()
    for actor in (EDITOR, CONNECTOR, replace(EDITOR, id="other")):
        log.deny("a.v1", actor)
        log.deny("a.v1", actor)
    assert [one.data["folded"] for one in log.minute()] == [1, 1, 1]


def test_an_act_that_fails_again_and_again_is_folded() -> None:
    log = Log()
    for number in range(300):
        with pytest.raises(InvalidError), log.enforcer.act(EDITOR, Action.CATALOGUE_DRAFT, f"t{number}", CALL, Allow()):
            raise InvalidError(Reason.REQUEST_INVALID, "wrong")
    assert len(log.entries) == OWN_RESOURCES + 1
    (folded,) = log.minute()
    assert (folded.data["failed"], folded.data["folded"]) == ("request_invalid", 300 - OWN_RESOURCES - 1)


def test_lists_are_folded_with_the_digests_of_what_was_asked() -> None:
    log = Log()
    for number in range(30):
        authorized = log.enforcer.admit(EDITOR, Action.AUDIT_READ, "*", CALL, Allow())
        log.enforcer.record_read(authorized, {"count": number}, query=f"{number % 3:064x}")
    (first,) = log.entries
    assert first.data == {"count": 0}
    (folded,) = log.minute()
    assert folded.data["folded"] == 29
    assert sorted(map(str, folded.data["queries"])) == [f"{number:064x}" for number in range(3)]  # type: ignore[arg-type]
    log.enforcer.record(authorized, {})
    log.enforcer.record(authorized, {})
    assert len(log.entries) == 4, "what is recorded otherwise is not folded"


def test_beyond_its_budget_an_actor_waits_and_others_do_not() -> None:
    log = Log(refusals=60, entries=10)
    for _ in range(60):
        log.deny("a.v1")
    with pytest.raises(UnavailableError) as caught:
        log.enforcer.check_refusals(EDITOR)
    assert caught.value.reason is Reason.RATE_LIMITED
    assert 0 < (caught.value.retry_after or 0) <= 1
    assert caught.value.details == {"budget": "refusals", "per_minute": "60"}
    log.enforcer.check_refusals(replace(EDITOR, id="other"))
    log.seconds += 1
    log.enforcer.check_refusals(EDITOR)
    for _ in range(10):
        with log.enforcer.act(EDITOR, Action.GRANT_SUBMIT, "a.v1", CALL, Allow()):
            pass
    before = len(log.entries)
    with pytest.raises(UnavailableError), log.enforcer.act(EDITOR, Action.GRANT_SUBMIT, "a.v1", CALL, Allow()):
        pytest.fail("it is not carried out")
    assert len(log.entries) == before
    for _ in range(100):
        with log.enforcer.act(TIMER, Action.GRANT_EXPIRE, "a.v1", CALL, Allow()):
            pass


def test_a_database_that_does_not_answer_loses_no_count() -> None:
    log = Log()
    log.deny("a.v1")
    log.deny("a.v1")
    log.seconds += 60
    log.away = True
    with pytest.raises(UnavailableError):
        log.enforcer.flush()
    assert log.deny("a.v1") is Reason.DATABASE_UNAVAILABLE, "a denial that cannot be recorded is none"
    log.away = False
    log.enforcer.flush()
    assert [one.data for one in log.entries][1:] == [{"folded": 1, "since": log.entries[0].at}]


def test_a_crash_loses_the_counts_of_the_running_minute_alone() -> None:
    """The first of each resource is durable before its answer; `close` is what a crash leaves out."""
    log = Log()
    log.deny("a.v1")
    log.deny("a.v1")
    log.minute()
    log.deny("a.v1")
    log.deny("a.v1")
    assert [one.data.get("folded") for one in log.entries] == [None, 1, None]
    log.enforcer.close()
    assert log.entries[-1].data["folded"] == 1
    log.enforcer.close()
    assert len(log.entries) == 4


def test_each_declared_text_is_bounded() -> None:
    log = Log()
    long = "字" * 100_000
    log.deny(long, call=replace(CALL, purpose=long, case=long, on_behalf_of=long))
    (entry,) = log.entries
    assert len(to_leaf(entry)) < 4_000
    assert entry.resource == bounded(long, MAX_RESOURCE)
    assert bounded(long + "a", MAX_RESOURCE) != entry.resource
    assert len(entry.resource) == MAX_RESOURCE


def test_many_actors_take_bounded_memory() -> None:
    budgets = ActorBudgets(dict.fromkeys(map(str, Budget), 60), clock=lambda: 1.0)
    for number in range(25_000):
        budgets.spend(replace(EDITOR, id=f"a{number}"), Budget.REFUSALS)
    assert len(budgets._buckets) <= 10_000


def test_the_grants_of_repeated_calls_are_named_as_cases_are() -> None:
    log = Log()
    for name in ("g-1", "g-1", "g-2", "g-3", "g-2"):
        with pytest.raises(PoolError):
            log.enforcer.admit(CONNECTOR, Action.FETCH, "a.v1", CALL, NO, GrantRef(id=name, version=1, hash="cc"))
    (folded,) = log.minute()
    assert (folded.grant, folded.data["folded"], folded.data["grants"]) == (None, 4, ["g-2", "g-3"])
    for number in range(300):
        grant = GrantRef(id=f"grant-{number:030}", version=1, hash="cc")
        with pytest.raises(PoolError):
            log.enforcer.admit(CONNECTOR, Action.FETCH, "a.v1", CALL, NO, grant)
    (folded,) = log.minute()
    named = folded.data["grants"]
    assert isinstance(named, list)
    assert len(named) + int(str(folded.data["unnamed"])) == folded.data["folded"] == 299
