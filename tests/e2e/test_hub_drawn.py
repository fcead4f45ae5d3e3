"""The hub draws from a served pool as the department that it is: by certificate and grants, each draw an entry."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.hub.drawing.client_source import ClientSource
from exchange.hub.drawing.golden_codec import GoldenCodec, golden_schema
from exchange.hub.drawing.source import DrawnResource
from exchange.hub.drawing.step import Step, StepResult
from exchange.hub.drawing.subjects import IdentifierFields
from exchange.hub.fold.golden import FieldFlag, Provenance, unpack_provenance
from exchange.hub.fold.identity import handle_of, identifier
from exchange.hub.fold.rules import parse
from exchange.hub.store.keys import MemoryHubKeys
from exchange.hub.store.postgres import PostgresHub
from exchange.hub.store.postgres_rules import PostgresRules
from exchange.hub.store.sealing import Keyring, golden_context, unseal
from exchange.identity.secrets import FileSecrets
from exchange.server.clock import microseconds
from exchange.server.row_tags import open_row_tags
from registry.database.unit_of_work import PostgresDatabase
from schemas.access import Action
from schemas.errors import InvalidError, PoolError, Reason
from schemas.names import Topic
from schemas.record import KeyOccurrence, Mark, Operation
from tests.kit.cases.hub_rows import MONTH
from tests.kit.world.publisher import Publisher, framed
from tests.kit.world.world import Office, World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

PURPOSE, CASE = "eligibility", "STANDING-1"
_OPEN = {"level": "G1", "personal": "N", "sensitive": "N", "mask": "none"}
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Resident",
    "namespace": "hubtest",
    "zh": "人",
    "key": ["code"],
    "fields": [
        {"name": "code", "zh": "号", "type": "string", **_OPEN},
        {"name": "full_name", "zh": "名", "type": ["null", "string"], "default": None, **_OPEN},
        {"name": "phone", "zh": "话", "type": ["null", "string"], "default": None, **_OPEN},
    ],
}
TOPICS = ("firms.v1", "branches.v1")
RULES = {
    "library": "legal-entity",
    "version": 1,
    "fields": {
        "full_name": {"rule": "lead", "order": ["firms.v1", "branches.v1"]},
        "phone": {"rule": "newest", "order": ["firms.v1", "branches.v1"]},
    },
}


def uscc(firm: int) -> str:
    return f"91350211M0001{firm:05}"


class Town:
    """Two departments that publish, a hub that is a third one."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.providers = dict(zip(TOPICS, (world.department("市监局"), world.department("税务局")), strict=True))
        self.office = world.department("数据局")
        self.lanes: dict[str, Publisher] = {}
        self.grants = {topic: self._grant(topic, office) for topic, office in self.providers.items()}
        self._activate()
        self.engine = sa.create_engine((world.data / "database-url").read_text().strip())
        tags = open_row_tags(FileSecrets.open(world.data / "secrets"))
        self.store, self.rules = PostgresHub(tags), PostgresRules(tags)
        self.db = PostgresDatabase(self.engine, accountable=True)
        self.keys = MemoryHubKeys()
        self.keys.draw(MONTH)
        self.client = world.client(self.office.enrol("hub"))
        self.codec = GoldenCodec(9, golden_schema(parse(RULES), {"full_name": "string", "phone": "string"}))

    def _grant(self, topic: str, office: Office) -> str:
        office.offer(topic, json.dumps(SCHEMA))
        identity = office.enrol("source")
        client = self.world.client(identity)
        self.schema_id, self.text = client.schema(Topic.parse(topic))
        lane = Publisher(identity.pool_id, identity.department, identity.connector, topic, identity.signing_key)
        self.lanes[topic] = lane
        self.publish_with = getattr(self, "publish_with", {}) | {topic: client}
        terms = {"places": True, "disclosure_reason": "共享库汇聚", "purpose": PURPOSE, "case": CASE}
        grant = self.office.request(topic, ["code", "full_name", "phone"], **terms)
        office.approve(grant)
        return grant

    def _activate(self) -> None:
        self.office.account("catalogue_editor").post("/hub/rules", {"rules": RULES})
        for office in self.providers.values():
            office.account("sharing_office_head").post("/hub/rules/legal-entity/1/agreement", {})
        self.world.root.post("/hub/rules/legal-entity/1/activation", {})

    def publish(self, topic: str, operation: Operation, *rows: dict[str, Any]) -> None:
        mark = int(Mark(operation, KeyOccurrence.AGAIN))
        client = self.publish_with[topic]
        schema_id, text = client.schema(Topic.parse(topic))
        batch = self.lanes[topic].batch(framed(schema_id, text, rows), marks=bytes([mark] * len(rows)))
        assert len(list(client.publish(Topic.parse(topic), [batch]))) == 1

    def withdraw(self, topic: str, *codes: str) -> None:
        batch = self.lanes[topic].voids([code.encode() for code in codes])
        assert len(list(self.publish_with[topic].publish(Topic.parse(topic), [batch]))) == 1

    def step(self, topic: str, grant: str = "") -> Step:
        return Step(
            resource=DrawnResource(
                topic=Topic.parse(topic), grant=grant or self.grants[topic], library="legal-entity",
                subject=IdentifierFields(number="code", type="uscc"),
            ),
            source=ClientSource(self.client, purpose=PURPOSE, case=CASE, most=7),
            database=self.db,
            store=self.store,
            rules=self.rules,
            keys=self.keys,
            golden=self.codec,
            now=microseconds,
            month=lambda: MONTH,
        )  # fmt: skip

    def draw(self) -> list[StepResult]:
        results = []
        for topic in TOPICS:
            step = self.step(topic)
            while not results or not results[-1].caught_up or results[-1].claims:
                results.append(step.run())
            results.append(StepResult())
        return results

    def golden(self, firm: int) -> tuple[dict[str, Any], Provenance]:
        handle = handle_of(self.keys.handle_key(), identifier("uscc", uscc(firm)))
        with self.db.read() as reader:
            ring = Keyring.unwrapped(self.keys, self.store.keys(reader, [handle]).values())
            row = self.store.golden(reader, [handle])[handle]
        key = ring.of(handle)
        assert key is not None
        (values,) = self.codec.decode([unseal(key, golden_context(row), row.sealed)])
        return values, unpack_provenance(row.prov)

    def fetches(self) -> set[str]:
        """Return the ids of the entries of what the hub drew."""
        found = self.world.root.get("/audit/entries", {"action": Action.FETCH.value, "limit": 1_000})
        return {one["entry"]["id"] for one in found if one["entry"]["actor"]["department"] == self.office.id}

    def drawn_places(self) -> set[tuple[int, int, int]]:
        with self.engine.connect() as connection:
            rows = connection.execute(sa.text("SELECT resource, part, off FROM hub_claim"))
            return {(row.resource, row.part, row.off) for row in rows}


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    with World.start() as world:
        made = Town(world)
        yield made
        made.engine.dispose()


def firm(of: int, **values: str) -> dict[str, Any]:
    return {"code": uscc(of), "full_name": None, "phone": None, **values}


def test_what_two_departments_publish_becomes_one_record_with_the_source_of_each_field(town: Town) -> None:
    town.publish(TOPICS[0], Operation.UPSERT, *(firm(of, full_name=f"firm {of}") for of in range(20)))
    town.publish(
        TOPICS[1], Operation.UPSERT, *(firm(of, full_name=f"branch {of}", phone="1") for of in range(0, 20, 2))
    )
    results = town.draw()
    assert sum(one.claims for one in results) == 30
    assert sum(one.laid for one in results) > 0
    values, prov = town.golden(4)
    assert values == {"full_name": "firm 4", "phone": "1"}
    assert [source for source, _ in prov.fields] == [1, 0], "branches.v1 has the number 1, firms.v1 the number 2"
    assert prov.fields[0][1] & FieldFlag.CONFLICT
    assert town.golden(5)[0] == {"full_name": "firm 5", "phone": None}
    assert len(town.drawn_places()) == 30

    town.publish(TOPICS[0], Operation.CORRECT, firm(4, full_name="branch 4"))
    town.withdraw(TOPICS[0], uscc(6))
    town.draw()
    values, prov = town.golden(4)
    assert values["full_name"] == "branch 4"
    assert not prov.fields[0][1] & FieldFlag.CONFLICT
    assert town.golden(6)[0] == {"full_name": "branch 6", "phone": "1"}
    assert town.golden(6)[1].fields[0][1] & FieldFlag.SECONDARY


def test_the_operator_sees_open_conflicts_by_place_and_no_value(town: Town) -> None:
    words = ("pool", "hub", "conflicts", "legal-entity", "--data", str(town.world.data))
    shown = town.world.programs.run(*words).stdout
    lines = [line.split("\t") for line in shown.splitlines()]
    place = r"{} 1/\d+/\d+"
    # Ten firms are in both resources; one name was corrected since, one record withdrawn.
    assert len([one for one in lines if one[:2] == ["legal-entity", "full_name"]]) == 8
    for _, _, winner, loser in lines[-8:]:
        assert re.fullmatch(place.format(TOPICS[0]), winner)
        assert re.fullmatch(place.format(TOPICS[1]), loser)
    assert len({loser for *_, loser in lines[-8:]}) == 8
    for hidden in (
        "firm ",
        "branch ",
        uscc(0)[:9],
        handle_of(town.keys.handle_key(), identifier("uscc", uscc(0))).hex(),
    ):
        assert hidden not in shown
    few = town.world.programs.run(*words, "--limit", "3", "--json").stdout
    assert [one["loser"] for one in json.loads(few)] == [loser for *_, loser in lines[-8:]][:3]
    assert json.loads(town.world.programs.run(*words[:3], "population", *words[4:], "--json").stdout) == []


def test_every_batch_that_it_drew_is_an_entry_of_the_log(town: Town) -> None:
    town.publish(TOPICS[0], Operation.UPSERT, firm(30, full_name="later"))
    town.draw()
    with town.engine.connect() as connection:
        named = set(connection.execute(sa.text("SELECT DISTINCT entry FROM hub_batch")).scalars())
    assert named
    assert named <= town.fetches()
    described = [town.client.describe(grant, purpose=PURPOSE, case=CASE) for grant in town.grants.values()]
    with town.db.read() as reader:
        positions = {town.store.position(reader, grant, 0).position for grant in town.grants.values()}  # type: ignore[union-attr]
    assert {one.position for one in described} == positions, "the pool was told of each step"


def test_a_grant_without_places_and_a_suspended_one_give_it_nothing(town: Town) -> None:
    town.publish(TOPICS[1], Operation.UPSERT, firm(40, full_name="hidden"))
    before = town.drawn_places()
    blind = town.office.request(TOPICS[1], ["code", "full_name"], purpose=PURPOSE, case=CASE)
    town.providers[TOPICS[1]].approve(blind)
    with pytest.raises(InvalidError) as refused:
        town.step(TOPICS[1], blind).run()
    assert refused.value.reason is Reason.CONFIG_INVALID
    head = town.providers[TOPICS[1]].account("sharing_office_head")
    head.post(f"/grants/{town.grants[TOPICS[1]]}/suspend", {"reason": "试停"})
    with pytest.raises(PoolError) as caught:
        town.step(TOPICS[1]).run()
    assert caught.value.reason is Reason.GRANT_SUSPENDED
    assert town.drawn_places() == before
