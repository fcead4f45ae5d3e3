"""The line as processes: a department publishes, another is refused, asks, is approved, draws, is revoked."""

import pytest

from exchange.client import PoolClient
from exchange.demo.people import DISTRICTS, persons
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from registry.codec.framing import strip_frames
from schemas import library
from schemas.errors import Reason, RefusedError
from schemas.names import Topic
from tests.kit.world.publisher import Publisher, chunks, framed
from tests.kit.world.world import Office, World, in_clear

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]
TOPIC = Topic.parse("population.v1")
ROWS = list(persons(500))
FIELDS = ["id_number", "full_name", "household_division_code", "birth_date"]


@pytest.fixture(scope="module")
def police(world: World) -> Office:
    office = world.department("公安局")
    office.offer("population.v1", library.text("population"))
    identity = office.enrol("population-source")
    with world.client(identity) as pool:
        schema_id, text = pool.schema(TOPIC)
        publisher = Publisher(identity.pool_id, office.id, identity.connector, "population.v1", identity.signing_key)
        batches = (publisher.batch(framed(schema_id, text, rows)) for rows in chunks(ROWS, 100))
        receipts = list(pool.publish(TOPIC, batches))
    assert [receipt.sequence for receipt in receipts] == [1, 2, 3, 4, 5]
    return office


def drawn(pool: PoolClient, grant_id: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    position = b""
    while True:
        fetched = pool.fetch(grant_id, position=position, purpose="eligibility", case="STANDING-1")
        if len(fetched.values):
            engine = engine_for(parse(pool.schema(schema_id=fetched.schema_id)[1]))
            for group in strip_frames(fetched.values):
                rows += engine.decode(group.datums).to_pylist()
        position = fetched.next_position
        if fetched.caught_up:
            return rows


def test_a_consumer_gets_the_granted_fields_and_rows_and_nothing_else(world: World, police: Office) -> None:
    labour = world.department("人社局")
    identity = labour.enrol("labour-sink")
    grant_id = labour.request(
        "population.v1",
        FIELDS,
        row_filter={"op": "eq", "field": "household_division_code", "value": DISTRICTS[0]},
        **in_clear("full_name", "household_division_code", "birth_date"),
    )
    with world.client(identity) as pool:
        with pytest.raises(RefusedError) as refused:
            pool.fetch(grant_id, purpose="eligibility", case="STANDING-1")
        assert refused.value.reason is Reason.GRANT_NOT_ACTIVE
        police.approve(grant_id)
        rows = drawn(pool, grant_id)
        expected = [row for row in ROWS if row["household_division_code"] == DISTRICTS[0]]
        assert {row["full_name"] for row in rows} == {row["full_name"] for row in expected}
        assert len(rows) == len(expected)
        assert {row["birth_date"] for row in rows} == {row["birth_date"] for row in expected}
        assert all(list(row) == FIELDS for row in rows)
        assert all("*" in str(row["id_number"]) for row in rows)
        with pytest.raises(RefusedError) as refused:
            pool.fetch(grant_id, purpose="research", case="STANDING-1")
        assert refused.value.reason is Reason.PURPOSE_MISMATCH
        police.account("sharing_office_head").post(f"/grants/{grant_id}/suspend", {"reason": "试停"})
        with pytest.raises(RefusedError) as refused:
            pool.fetch(grant_id, purpose="eligibility", case="STANDING-1")
        assert refused.value.reason is Reason.GRANT_SUSPENDED
