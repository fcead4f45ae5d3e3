"""Attacks on zones: what is in one zone is not drawn from another, unless the grant says so, at each fetch.

A running pool: the resource and its provider are in the inner zone, consumers in the outer one. Both kinds of fetch are
tried: gRPC, whose fetches are grouped, and HTTPS with JSON.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from exchange.client import Identity, PoolClient
from exchange.demo.people import persons
from schemas import library
from schemas.errors import PoolError, Reason
from schemas.names import Topic
from tests.kit.world.publisher import Publisher, framed
from tests.kit.world.world import Office, World

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]

TOPIC = Topic.parse("population.v1")
TERMS = {"purpose": "eligibility", "case": "STANDING-1"}
CROSSING = {"source_zone": "inner", "zone_reason": "公安专网与外网数据摆渡"}


@dataclass
class City:
    world: World
    provider: Office
    consumer: Office
    sink: Identity
    source: Identity
    lane: Publisher
    sent: list[int] = field(default_factory=list)
    waiting: Any = None  # a batch that was refused, to be sent again

    def move(self, path: str, zone: str) -> None:
        self.world.root.post(f"{path}/zone", {"zone": zone, "reason": "a test moves it"})

    def publish(self) -> None:
        with self.world.client(self.source) as pool:
            schema_id, text = pool.schema(TOPIC)
            values = framed(schema_id, text, list(persons(len(self.sent) + 1))[-1:])
            self.waiting = self.waiting or self.lane.batch(values)
            assert len(list(pool.publish(TOPIC, [self.waiting]))) == 1
            self.waiting = None
            self.sent.append(1)

    def draw(self, grant: str) -> int:
        with self.world.client(self.sink) as pool:
            return drawn(pool, grant)

    def entries(self, **query: Any) -> list[dict[str, Any]]:
        found = self.world.root.get("/audit/entries", {"limit": 1000, **query})
        return [one["entry"] for one in found]


def drawn(pool: PoolClient, grant: str) -> int:
    fetched = pool.fetch(grant, position=b"", max_records=200, **TERMS)
    return len(fetched.values)


@pytest.fixture(scope="module")
def city() -> Iterator[City]:
    with World.start() as world:
        provider, consumer = world.department("公安局"), world.department("人社局")
        provider.offer(str(TOPIC), library.text("population"))
        source, sink = provider.enrol("source"), consumer.enrol("sink")
        lane = Publisher(source.pool_id, source.department, source.connector, str(TOPIC), source.signing_key)
        yield City(world, provider, consumer, sink, source, lane)


def refused(act: Callable[[], object]) -> Reason:
    with pytest.raises(PoolError) as caught:
        act()
    return caught.value.reason


def test_a_pool_without_zones_delivers_and_labels_the_flow_of_each_release(city: City) -> None:
    city.publish()
    grant = city.consumer.request(str(TOPIC), ["sex_code"])
    city.provider.approve(grant)
    assert city.draw(grant) == 1
    released = city.entries(action="exchange:records:fetch", grant=grant)[0]
    assert (released["flow"], released["actor"]["zone"]) == ("horizontal", "default")
    path = f"/departments/{city.consumer.id}/placement"
    city.world.root.post(path, {"level": "county", "division_code": "330106"})
    assert city.draw(grant) == 1
    assert city.entries(action="exchange:records:fetch", grant=grant)[0]["flow"] == "vertical_down"
    shown = city.consumer.account("sharing_office_head").get(f"/grants/{grant}")
    assert shown["review"]["flow"] == "vertical_down"
    listed = city.consumer.account("sharing_office_head").list("/grants")
    assert {one["review"]["flow"] for one in listed} == {"vertical_down"}


def test_nothing_crosses_into_another_zone_unless_the_grant_says_so_at_each_fetch(city: City) -> None:
    # All in one zone: a grant that says nothing of zones.
    inside = city.consumer.request(str(TOPIC), ["sex_code"])
    city.provider.approve(inside)
    assert city.draw(inside) == 1
    # The resource and its provider move to the inner zone.
    city.move(f"/departments/{city.provider.id}", "inner")
    assert refused(city.publish) is Reason.ZONE_MISMATCH, "the provider's connector is in another zone than the topic"
    city.move(f"/catalogue/{TOPIC}", "inner")
    city.publish()
    city.move(f"/departments/{city.consumer.id}", "outer")
    assert refused(lambda: city.draw(inside)) is Reason.ZONE_MISMATCH
    denied = city.entries(action="exchange:records:fetch", grant=inside, decision="deny")[0]
    assert (denied["reason"], denied["actor"]["zone"]) == ("zone_mismatch", "outer")
    # At the request, and at the approval of one that was made before.
    ask = city.consumer.request
    assert refused(lambda: ask(str(TOPIC), ["sex_code"])) is Reason.ZONE_MISMATCH
    wrong = {**CROSSING, "source_zone": "internet"}
    assert refused(lambda: ask(str(TOPIC), ["sex_code"], **wrong)) is Reason.ZONE_MISMATCH
    unreasoned = {"source_zone": "inner"}
    assert refused(lambda: ask(str(TOPIC), ["sex_code"], **unreasoned)) is Reason.REQUEST_INVALID
    crossing = ask(str(TOPIC), ["sex_code"], **CROSSING)
    head = city.provider.account("sharing_office_head")
    words = " ".join(head.get(f"/grants/{crossing}")["review"]["words"])
    assert "out of the zone inner into outer; reason: 公安专网与外网数据摆渡" in words
    assert head.post(f"/grants/{crossing}/approval")["state"] == "countersigned"
    city.move(f"/departments/{city.consumer.id}", "internet")
    sign = lambda: city.provider.account("security_officer").post(f"/grants/{crossing}/confirmation")  # noqa: E731
    assert refused(sign) is Reason.ZONE_MISMATCH
    assert refused(lambda: head.post(f"/grants/{crossing}/approval")) is Reason.ZONE_MISMATCH
    city.move(f"/departments/{city.consumer.id}", "outer")
    city.provider.approve(crossing)
    # Under it records are delivered, and its entry names the zones.
    assert city.draw(crossing) == 2
    activated = city.entries(action="exchange:grant:provision", grant=crossing)[0]
    assert activated["data"]["zones"] == ["inner", "outer"]
    assert activated["data"]["flow"] == "vertical_down"
    # Each fetch decides again: the department has moved on, or the resource has.
    with city.world.client(city.sink) as pool:
        assert drawn(pool, crossing) == 2
        city.move(f"/departments/{city.consumer.id}", "internet")
        assert refused(lambda: drawn(pool, crossing)) is Reason.ZONE_MISMATCH
        city.move(f"/departments/{city.consumer.id}", "outer")
        assert drawn(pool, crossing) == 2
        city.move(f"/catalogue/{TOPIC}", "default")
        assert refused(lambda: drawn(pool, crossing)) is Reason.ZONE_MISMATCH
        city.move(f"/catalogue/{TOPIC}", "inner")
        assert drawn(pool, crossing) == 2
        assert refused(lambda: drawn(pool, inside)) is Reason.ZONE_MISMATCH
        assert pool.describe(inside).grant_id == inside, "why it gets nothing, it may ask"


def test_a_move_is_the_authority_s_alone_and_has_a_reason(city: City) -> None:
    moved = {"zone": "inner", "reason": "x"}
    for path in (f"/departments/{city.consumer.id}/zone", f"/catalogue/{TOPIC}/zone"):
        for office in (city.consumer, city.provider):
            account = office.account("security_officer")
            assert refused(lambda account=account, path=path: account.post(path, moved)) is Reason.ROLE_MISSING  # type: ignore[misc]
        assert refused(lambda path=path: city.world.root.post(path, {**moved, "reason": " "})) is Reason.REQUEST_INVALID  # type: ignore[misc]
