"""Attacks on what a contractor may get: no personal field in plaintext, nothing after its contract, at each fetch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from exchange.client import Identity
from exchange.demo.people import persons
from schemas import library
from schemas.errors import PoolError, Reason
from schemas.names import Topic
from tests.kit.patience import wait_for
from tests.kit.world.publisher import Publisher, framed
from tests.kit.world.world import Office, World, in_clear

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]

TOPIC = Topic.parse("population.v1")
TERMS = {"purpose": "eligibility", "case": "STANDING-1"}
PERSON = next(iter(persons(1)))
PLAIN = {"masks": {"id_number": "none"}, "unmasked_reason": "对账需要"}


@dataclass
class City:
    world: World
    provider: Office
    commissioned: Office
    firm: Office
    sink: Identity

    def place(self, **placement: Any) -> None:
        self.world.root.post(f"/departments/{self.firm.id}/placement", placement)

    def engage(self, ends: datetime) -> None:
        self.place(kinds=["contractor"], parent=self.commissioned.id, contract_ends=ends.isoformat())

    def draw(self, grant: str) -> bytes:
        with self.world.client(self.sink) as pool:
            fetched = pool.fetch(grant, position=b"", max_records=10, **TERMS)
            assert len(fetched.values) == 1
            return bytes(next(iter(fetched.values)))


@pytest.fixture(scope="module")
def city() -> Iterator[City]:
    with World.start() as world:
        provider, commissioned, firm = map(world.department, ("公安局", "人社局", "某软件公司"))
        provider.offer(str(TOPIC), library.text("population"))
        source, sink = provider.enrol("source"), firm.enrol("sink")
        lane = Publisher(source.pool_id, source.department, source.connector, str(TOPIC), source.signing_key)
        with world.client(source) as pool:
            schema_id, text = pool.schema(TOPIC)
            assert len(list(pool.publish(TOPIC, [lane.batch(framed(schema_id, text, [PERSON]))]))) == 1
        yield City(world, provider, commissioned, firm, sink)


def refused(act: Callable[[], object]) -> Reason:
    with pytest.raises(PoolError) as caught:
        act()
    return caught.value.reason


def test_a_contractor_gets_no_personal_field_in_plaintext(city: City) -> None:
    city.engage(datetime.now(UTC) + timedelta(hours=1))
    ask = city.firm.request
    for terms in (
        {"fields": ["id_number"], **PLAIN},  # a mask weaker than the schema's, with a reason
        {"fields": ["full_name"], **in_clear("full_name")},
        {"fields": ["sex_code"]},  # personal, and the schema masks it not
        {"fields": ["id_number"], "row_filter": {"op": "eq", "field": "sex_code", "value": "1"}},
    ):
        assert refused(lambda terms=terms: ask(str(TOPIC), **terms)) is Reason.CONTRACTOR_PLAINTEXT, terms  # type: ignore[misc]
    grant = ask(str(TOPIC), ["id_number", "full_name"])
    city.provider.approve(grant)
    value = city.draw(grant)
    assert str(PERSON["id_number"]).encode() not in value
    assert str(PERSON["full_name"]).encode() not in value
    assert str(PERSON["id_number"])[:3].encode() in value, "masked, and not absent"


def test_what_was_granted_before_it_became_a_contractor_ends_with_the_next_fetch(city: City) -> None:
    city.place(kinds=["consumer"])
    grant = city.firm.request(str(TOPIC), ["id_number"], **PLAIN)
    waiting = city.firm.request(str(TOPIC), ["sex_code"])
    city.provider.approve(grant)
    assert str(PERSON["id_number"]).encode() in city.draw(grant)
    city.engage(datetime.now(UTC) + timedelta(hours=1))
    assert refused(lambda: city.draw(grant)) is Reason.CONTRACTOR_PLAINTEXT
    assert refused(lambda: city.provider.approve(waiting)) is Reason.CONTRACTOR_PLAINTEXT
    denied = city.world.root.get("/audit/entries", {"grant": grant, "decision": "deny"})
    assert denied[0]["entry"]["reason"] == "contractor_plaintext"


def test_nothing_is_drawn_after_the_end_of_the_contract(city: City) -> None:
    city.engage(datetime.now(UTC) + timedelta(hours=1))
    grant = city.firm.request(str(TOPIC), ["id_number"])
    city.provider.approve(grant)
    city.draw(grant)
    soon = datetime.now(UTC) + timedelta(seconds=1)
    city.engage(soon)
    wait_for(lambda: datetime.now(UTC) > soon, "the contract has ended")
    assert refused(lambda: city.draw(grant)) is Reason.CONTRACT_ENDED
    assert refused(lambda: city.firm.request(str(TOPIC), ["id_number"])) is Reason.CONTRACT_ENDED


def test_a_department_that_is_no_consumer_asks_for_nothing(city: City) -> None:
    city.place(kinds=["provider"])
    assert refused(lambda: city.firm.request(str(TOPIC), ["id_number"])) is Reason.DEPARTMENT_KIND
