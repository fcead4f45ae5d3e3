"""Metrics by resource and grant: bounded labels, nothing that a caller made up, and a lag that is forgotten."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from exchange import metrics
from exchange.records.traffic.bounded_label import OTHER, BoundedLabel
from exchange.records.traffic.counts import Traffic
from exchange.records.traffic.grant_lags import GrantLags
from schemas.errors import Reason, UnavailableError
from schemas.names import Topic

TOPIC = Topic.parse("wells.v1")


def lags() -> dict[str, float]:
    return {one.labels["grant"]: one.value for one in metrics.GRANT_LAG.collect()[0].samples}


def refused() -> dict[str, float]:
    samples = metrics.RESOURCE_REFUSED.collect()[0].samples
    return {one.labels["resource"]: one.value for one in samples if one.name.endswith("_total")}


def test_the_values_of_a_label_are_bounded() -> None:
    label = BoundedLabel(2)
    assert [label.of(value) for value in ("a", "b", "c", "a")] == ["a", "b", OTHER, "a"]
    assert label.known("b") == "b"
    assert label.known("c") == OTHER


def test_a_name_that_a_connector_made_up_is_no_label() -> None:
    traffic, before = Traffic(), refused()
    traffic.batch_refused("invented.v1", Reason.SEQUENCE_GAP)
    assert "invented.v1" not in refused()
    assert refused()[OTHER] == before.get(OTHER, 0) + 1
    traffic.published(TOPIC, 3, 1)
    traffic.batch_refused(str(TOPIC), Reason.SEQUENCE_GAP)
    assert refused()[str(TOPIC)] == 1


class Broker:
    """Knows one end for every topic."""

    def __init__(self, *latest: int) -> None:
        self.latest = latest

    def ends(self, _topic: Topic) -> Any:
        if not self.latest:
            raise UnavailableError(Reason.BROKER_UNAVAILABLE, "away")
        return SimpleNamespace(latest=self.latest)


def test_a_lag_rises_while_the_consumer_is_away_and_stays_while_the_broker_is() -> None:
    grants, any_broker = GrantLags(monotonic=lambda: 0.0), Broker
    away: Any = any_broker()
    near: Any = any_broker(5, 7)
    far: Any = any_broker(9, 9)
    grants.fetched("lag-1", TOPIC, (5, 6))
    seen = []
    for broker in (near, far, away):
        grants.measure(broker)
        seen.append(lags()["lag-1"])
    assert seen == [1, 7, 7]
    assert all(before <= after for before, after in pairwise(seen))


def test_the_oldest_fetches_are_forgotten() -> None:
    now = [0.0]
    grants, broker = GrantLags(bound=2, monotonic=lambda: now[0]), Broker(1)
    pool: Any = broker
    for grant in ("lag-2", "lag-3", "lag-4"):
        grants.fetched(grant, TOPIC, (0,))
        grants.measure(pool)
    assert {"lag-3", "lag-4"} <= lags().keys()
    assert "lag-2" not in lags()
    now[0] = 8 * 86_400.0
    grants.measure(pool)
    assert not {"lag-3", "lag-4"} & lags().keys()
