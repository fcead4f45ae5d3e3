"""The pool's port, kept by the in-memory adapter of the tests, and by a served pool over the real client."""

import itertools
import json
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exchange.client import Identity
from schemas.names import Topic
from tests.contract.pool_suite import CASE, PURPOSE, Machine, PoolContract, Rig
from tests.kit.twins import pool_twin
from tests.kit.world.world import World


class InMemory:
    def __init__(self) -> None:
        assert (pool_twin.PURPOSE, pool_twin.CASE) == (PURPOSE, CASE)
        self.twin = pool_twin.PoolTwin()
        self.provider = self._machine(pool_twin.PROVIDER, "source")
        self.second = self._machine(pool_twin.PROVIDER, "second")
        self.consumer = self._machine(pool_twin.CONSUMER, "sink")
        self._numbers = itertools.count(1)

    def _machine(self, department: str, connector: str) -> Machine:
        key = Ed25519PrivateKey.generate()
        return Machine(self.twin.client(department, connector, key), pool_twin.POOL_ID, department, connector, key)

    def offer(self, schema: dict[str, Any]) -> Topic:
        topic = Topic.parse(f"people-{next(self._numbers)}.v1")
        self.evolve(topic, schema)
        return topic

    def evolve(self, topic: Topic, schema: dict[str, Any]) -> None:
        self.twin.publish_schema(str(topic), schema)

    def keep_latest(self, topic: Topic) -> None:
        self.twin.latest_alone.add(str(topic))

    def request(self, topic: Topic, fields: Iterable[str], district: str = "") -> str:
        grant_id = f"g-{next(self._numbers)}"
        self.twin.grant(
            grant_id,
            str(topic),
            tuple(fields),
            lambda record: not district or record["district"] == district,
            state="submitted",
        )
        return grant_id

    def approve(self, grant_id: str) -> None:
        self.twin.grants[grant_id].state = "active"

    def suspend(self, grant_id: str) -> None:
        self.twin.grants[grant_id].state = "suspended"

    def expired(self, topic: Topic) -> str:
        grant_id = self.request(topic, ["id"])
        self.approve(grant_id)
        self.twin.grants[grant_id].expires = self.twin.now()
        return grant_id


class Served:
    """`pool serve` on the embedded PostgreSQL, called over gRPC."""

    # Of all pools of a run: they share one Kafka, where a topic of one name has the records of the pool before.
    _numbers = itertools.count(1)

    def __init__(self, world: World) -> None:
        self._world = world
        self._police, self._labour = world.department("公安局"), world.department("人社局")
        self.provider = self._machine(self._police.enrol("source"))
        self.second = self._machine(self._police.enrol("second"))
        self.consumer = self._machine(self._labour.enrol("sink"))

    def _machine(self, identity: Identity) -> Machine:
        return Machine(
            self._world.client(identity),
            identity.pool_id,
            identity.department,
            identity.connector,
            identity.signing_key,
        )

    def close(self) -> None:
        for machine in (self.provider, self.second, self.consumer):
            machine.pool.close()  # type: ignore[attr-defined]

    def offer(self, schema: dict[str, Any]) -> Topic:
        number = next(self._numbers)
        topic = Topic.parse(f"people-{number}.v1")
        self._police.offer(str(topic), json.dumps(schema), code=self._world.new_code())
        return topic

    def evolve(self, topic: Topic, schema: dict[str, Any]) -> None:
        self._police.account("catalogue_editor").post(f"/catalogue/{topic}/schemas", {"text": json.dumps(schema)})

    def keep_latest(self, topic: Topic) -> None:
        self._world.root.post(f"/catalogue/{topic}/history", {"history": "latest"})

    def request(self, topic: Topic, fields: Iterable[str], district: str = "", **terms: Any) -> str:
        if district:
            terms["row_filter"] = {"op": "eq", "field": "district", "value": district}
        return self._labour.request(str(topic), list(fields), purpose=PURPOSE, case=CASE, **terms)

    def approve(self, grant_id: str) -> None:
        self._police.approve(grant_id)

    def suspend(self, grant_id: str) -> None:
        self._police.account("sharing_office_head").post(f"/grants/{grant_id}/suspend", {"reason": "试停"})

    def expired(self, topic: Topic) -> str:
        end = datetime.now(UTC) + timedelta(seconds=3)  # time enough for the approval of a busy pool
        grant_id = self.request(topic, ["id"], expires=end.isoformat())
        self.approve(grant_id)
        threading.Event().wait((end - datetime.now(UTC)).total_seconds())
        return grant_id


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with World.start() as world:
        rig = Served(world)
        yield rig
        rig.close()


class TestInMemory(PoolContract):
    @pytest.fixture
    def rig(self) -> Rig:
        return InMemory()


@pytest.mark.e2e
@pytest.mark.postgres
class TestServed(PoolContract):
    @pytest.fixture
    def rig(self, served: Served) -> Rig:
        return served
