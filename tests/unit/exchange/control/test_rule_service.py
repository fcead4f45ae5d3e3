"""Rules of deadlines: one person of the data authority proposes, another confirms; what is checked, and the entries."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from itertools import count
from typing import Any

import pytest

from exchange.access.decision.roles import Standing
from exchange.audit.ledger import AuditLedger
from exchange.audit.memory import MemoryAudit
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.rules import RuleService
from exchange.deadlines.changes import MAX_OPEN, ChangeState, MemoryRuleChanges, RuleKind
from exchange.deadlines.clock import SHANGHAI
from exchange.deadlines.profile import RuleId
from exchange.deadlines.stored_rules import StoredRules
from registry.database.unit_of_work import MemoryDatabase, Reader
from schemas.access import Action, Actor, ActorKind, Role
from schemas.errors import ConflictError, InvalidError, PoolError, Reason, RefusedError

NOW = 1_795_000_000_000_000
CALL = RequestContext(trace="a" * 32)
RECEIVED = datetime(2026, 12, 24, 9, tzinfo=SHANGHAI)
NOTICE = """date,is_workday,notice
2027-01-01,false,国办发明电〔2026〕0号
2027-01-02,true,国办发明电〔2026〕0号
2027-10-01,false,国办发明电〔2026〕0号
"""
CITY = (files("exchange.deadlines") / "data" / "city-example.yaml").read_text(encoding="utf-8")


def person(name: str, role: Role = Role.DATA_AUTHORITY) -> Actor:
    return Actor(kind=ActorKind.HUMAN, id=name, department="", role=role)


WANG, LI = person("wang"), person("li")


class Attributes:
    """Two persons, one of whom has two accounts."""

    def __init__(self, source: StoredRules) -> None:
        self.rules = source.rules

    def standing(self, _actor: Actor) -> Standing:
        return Standing.ACTIVE

    def persons(self, *accounts: str) -> dict[str, str]:
        return {name: name.partition("-")[0] for name in accounts}

    def now(self, _reader: Reader) -> datetime:
        return datetime(2026, 11, 30, tzinfo=UTC)


class Pool:
    def __init__(self) -> None:
        database = MemoryDatabase()
        self.audit = MemoryAudit(database)
        ledger = AuditLedger(self.audit, process="gateway@1")
        ledger.open(database)
        self.store = MemoryRuleChanges()
        self.source = StoredRules(self.store)
        attributes: Any = Attributes(self.source)
        numbers: Iterator[int] = count(1)
        self.rules = RuleService(
            database=database,
            enforcer=Enforcer(database, ledger, pool_id="pool", clock=lambda: NOW),
            attributes=attributes,
            store=self.store,
            now=lambda: datetime(2026, 11, 30, tzinfo=UTC),
            new_id=lambda: f"0198c0de-0000-7000-8000-{next(numbers):012}",
        )

    def entries(self, action: Action) -> list[dict[str, Any]]:
        found = [json.loads(leaf) for leaf in self.audit.gateway_entries(action)]
        unsigned = [json.loads(leaf) for leaf in self.audit.gateway_entries(action, unsigned=True)]
        return unsigned or found


@pytest.fixture
def pool() -> Pool:
    return Pool()


def of_law(year: int) -> str:
    """Return a calendar with the holidays of a fixed date alone."""
    days = ("01-01", "05-01", "05-02", "10-01", "10-02", "10-03")
    return "date,is_workday,notice\n" + "".join(f"{year}-{day},false,n\n" for day in days)


def refused(kind: type[PoolError], reason: Reason) -> Any:
    return pytest.raises(kind, check=lambda error: error.reason is reason)


def due(pool: Pool, rule: RuleId = RuleId.REPLY_CONDITIONAL, **options: Any) -> tuple[str, bool]:
    computed = pool.rules.deadline(WANG, CALL, rule, start=RECEIVED, **options)
    return computed.due.day.isoformat(), computed.due.provisional


def test_a_calendar_is_in_force_when_another_person_has_confirmed_it(pool: Pool) -> None:
    assert due(pool) == ("2027-01-08", True)
    change = pool.rules.propose_calendar(WANG, CALL, 2027, NOTICE)
    assert due(pool) == ("2027-01-08", True)
    confirmed = pool.rules.confirm(LI, CALL, change.id, RuleKind.CALENDAR)
    assert confirmed.state is ChangeState.IN_FORCE
    assert due(pool) == ("2027-01-07", False)
    (entry,) = pool.entries(Action.RULES_CONFIRM)
    assert entry["resource"] == "calendar/2027"
    assert entry["data"]["holidays"] == ["2027-01-01", "2027-10-01"]
    assert entry["data"]["workdays"] == ["2027-01-02"]
    assert entry["data"]["proposed_by"] == "wang"
    assert entry["data"]["digest"] == change.digest
    assert entry["data"]["calendar"] == pool.rules.rules(WANG, CALL).calendar.version


@pytest.mark.parametrize("second", ["wang", "wang-2"])
def test_the_same_person_does_not_confirm(pool: Pool, second: str) -> None:
    change = pool.rules.propose_calendar(WANG, CALL, 2027, NOTICE)
    with refused(RefusedError, Reason.SAME_PERSON):
        pool.rules.confirm(person(second), CALL, change.id, RuleKind.CALENDAR)
    assert due(pool) == ("2027-01-08", True)


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.DATA_AUTHORITY])
def test_the_data_authority_alone_proposes_and_decides(pool: Pool, role: Role) -> None:
    change = pool.rules.propose_calendar(WANG, CALL, 2027, NOTICE)
    other = person("zhao", role)
    for act in (
        lambda: pool.rules.propose_calendar(other, CALL, 2028, "no calendar at all"),
        lambda: pool.rules.propose_profile(other, CALL, "no profile at all"),
        lambda: pool.rules.propose_order(other, CALL, []),
        lambda: pool.rules.confirm(other, CALL, change.id, RuleKind.CALENDAR),
        lambda: pool.rules.reject(other, CALL, change.id, RuleKind.CALENDAR, "no"),
    ):
        with pytest.raises(RefusedError):
            act()


def test_every_account_reads_the_rules(pool: Pool) -> None:
    for role in Role:
        if role is not Role.BOOTSTRAP:
            assert pool.rules.rules(person("zhao", role), CALL).book.profiles


def test_a_proposal_is_withdrawn_by_who_made_it_and_decided_once(pool: Pool) -> None:
    change = pool.rules.propose_calendar(WANG, CALL, 2027, NOTICE)
    with refused(InvalidError, Reason.REQUEST_INVALID):
        pool.rules.reject(WANG, CALL, change.id, RuleKind.CALENDAR, " ")
    pool.rules.reject(WANG, CALL, change.id, RuleKind.CALENDAR, "a wrong file")
    with refused(ConflictError, Reason.TRANSITION_NOT_ALLOWED):
        pool.rules.confirm(LI, CALL, change.id, RuleKind.CALENDAR)
    again = pool.rules.propose_calendar(WANG, CALL, 2027, NOTICE)
    assert [one.id for one in pool.rules.changes(LI, CALL)] == [again.id, change.id]
    assert pool.rules.change(LI, CALL, again.id).content == again.content


def test_a_confirmation_names_what_it_confirms(pool: Pool) -> None:
    change = pool.rules.propose_calendar(WANG, CALL, 2027, NOTICE)
    with refused(InvalidError, Reason.NOT_FOUND):
        pool.rules.confirm(LI, CALL, change.id, RuleKind.PROFILE)
    with refused(InvalidError, Reason.NOT_FOUND):
        pool.rules.change(LI, CALL, "no id")


@pytest.mark.parametrize(
    ("year", "text", "message"),
    [
        (2027, "date,is_workday,notice\n2027-02-30,false,n\n", "calendar 2027:2:1: got no date"),
        (2027, "date,is_workday,notice\n2027-05-01,false,n\n", "in which 2027-01-01 is a working day"),
        (1999, NOTICE, "got the year 1999"),
        (2028, NOTICE, "calendar 2028:2:1: got 2027-01-01; expected a day of 2028"),
    ],
)
def test_a_calendar_with_faults_is_not_proposed(pool: Pool, year: int, text: str, message: str) -> None:
    with pytest.raises(InvalidError) as caught:
        pool.rules.propose_calendar(WANG, CALL, year, text)
    assert message in caught.value.message
    assert pool.rules.changes(WANG, CALL) == []


def test_one_proposal_of_a_year_waits_at_a_time_and_so_many_in_all(pool: Pool) -> None:
    change = pool.rules.propose_calendar(WANG, CALL, 2027, NOTICE)
    with refused(ConflictError, Reason.ALREADY_EXISTS) as caught:
        pool.rules.propose_calendar(LI, CALL, 2027, NOTICE)
    assert caught.value.details == {"change": change.id}
    for year in range(2028, 2027 + MAX_OPEN):
        pool.rules.propose_calendar(WANG, CALL, year, of_law(year))
    with refused(ConflictError, Reason.TRANSITION_NOT_ALLOWED):
        pool.rules.propose_profile(WANG, CALL, CITY)


def test_a_profile_is_followed_when_it_is_confirmed_and_ordered(pool: Pool) -> None:
    city = CITY.replace("profile: city-example", "profile: our-city")
    pool.rules.confirm(LI, CALL, pool.rules.propose_profile(WANG, CALL, city).id, RuleKind.PROFILE)
    assert due(pool, profile="our-city") == ("2026-12-31", False)
    assert due(pool) == ("2027-01-08", True)
    order = pool.rules.propose_order(LI, CALL, ["our-city", "809", "general"])
    pool.rules.confirm(WANG, CALL, order.id, RuleKind.ORDER)
    assert due(pool) == ("2026-12-31", False)
    assert due(pool, extension=5) == ("2027-01-08", True)
    listed = [(one.profile, place, shipped) for one, place, shipped in pool.rules.profiles(WANG, CALL)]
    assert listed == [
        ("our-city", 1, False),
        ("809", 2, True),
        ("general", 3, True),
        ("city-example", None, True),
        ("gf2016-51", None, True),
    ]
    ruling = pool.rules.rules(WANG, CALL).rule(RuleId.REPLY_CONDITIONAL)
    assert ruling.noted()["profile"] == "our-city"
    confirmed = pool.entries(Action.RULES_CONFIRM)
    (limits,) = [entry["data"]["limits"] for entry in confirmed if "limits" in entry["data"]]
    assert limits["reply.conditional"].startswith("5 working days + 5, continue after a pause (example of local")


def test_a_change_of_a_profile_raises_its_version(pool: Pool) -> None:
    with refused(ConflictError, Reason.VERSION_CONFLICT):
        pool.rules.propose_profile(WANG, CALL, CITY.replace("5 working days", "6 working days"))
    longer = CITY.replace("5 working days", "6 working days").replace("version: 1", "version: 2")
    pool.rules.confirm(LI, CALL, pool.rules.propose_profile(WANG, CALL, longer).id, RuleKind.PROFILE)
    with refused(ConflictError, Reason.VERSION_CONFLICT):
        pool.rules.propose_profile(WANG, CALL, longer.replace("6 working days", "7 working days"))
    assert due(pool, profile="city-example") == ("2027-01-04", True)


@pytest.mark.parametrize("names", [[], ["809", "809"], ["80 9"], [""]])
def test_an_order_names_each_profile_once(pool: Pool, names: list[str]) -> None:
    with refused(InvalidError, Reason.REQUEST_INVALID):
        pool.rules.propose_order(WANG, CALL, names)


def test_an_order_names_profiles_that_are_there(pool: Pool) -> None:
    with refused(InvalidError, Reason.NOT_FOUND):
        pool.rules.propose_order(WANG, CALL, ["809", "nothing"])
    with refused(InvalidError, Reason.NOT_FOUND):
        due(pool, profile="nothing")


def test_a_deadline_that_cannot_be_computed_is_refused(pool: Pool) -> None:
    with refused(InvalidError, Reason.REQUEST_INVALID):
        pool.rules.deadline(WANG, CALL, RuleId.DELIVERY, start=datetime(9998, 1, 1, tzinfo=UTC))
    with refused(ConflictError, Reason.TRANSITION_NOT_ALLOWED):
        pool.rules.deadline(WANG, CALL, RuleId.DELIVERY, extension=1)
    with refused(ConflictError, Reason.TRANSITION_NOT_ALLOWED):
        pool.rules.deadline(WANG, CALL, RuleId.CONFORMITY)
