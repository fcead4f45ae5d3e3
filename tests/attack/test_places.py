"""A consumer asks for the places of records: it gets them under a grant that says so, and nothing of them otherwise."""

import base64
import json
import ssl
import struct
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.unknown_fields import UnknownFieldSet

from exchange.client import FetchResult
from schemas.access import Action
from schemas.errors import InvalidError, Reason, RefusedError
from schemas.offsets import unpack_offsets
from schemas.proto.pool.v1 import exchange_pb2 as wire
from schemas.proto.pool.v1 import exchange_pb2_grpc as stubs
from schemas.record import Batch, KeyOccurrence, Mark, Operation
from tests.contract.pool_suite import BEGINNING, CASE, PURPOSE, Consumer, Resource, rows
from tests.contract.test_pool import Served
from tests.e2e.conftest import kafka_section
from tests.kit.world.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

TOLD = {"places": True, "disclosure_reason": "共享库汇聚"}
JANUARY, JUNE = 1_767_225_600_000_000, 1_780_272_000_000_000


@pytest.fixture(scope="module", params=["postgres", pytest.param("kafka", marks=pytest.mark.kafka)])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    extra = kafka_section(request.getfixturevalue("kafka_node")) if request.param == "kafka" else ""
    with World.start(extra) as world:
        rig = Served(world)
        yield rig
        rig.close()


@pytest.fixture
def resource(served: Served) -> Resource:
    return Resource(served)


def with_places(served: Served, resource: Resource, district: str = "") -> Consumer:
    grant_id = served.request(resource.topic, ["id", "district", "age"], district, **TOLD)
    served.approve(grant_id)
    return Consumer(served.consumer.pool, grant_id)


def valid_batch(resource: Resource, operation: Operation, since: int, until: int, *numbers: int) -> Batch:
    values = resource.values(rows(*numbers))
    marks = bytes([int(Mark(operation, KeyOccurrence.AGAIN))] * len(values))
    return resource.lane.batch(values, marks=marks, valid=struct.pack("<qq", since, until) * len(values))


def everything(consumer: Consumer, **more: Any) -> list[FetchResult]:
    answers: list[FetchResult] = []
    position = BEGINNING
    while not answers or not answers[-1].caught_up:
        answers.append(consumer.fetch(position, **more))
        position = answers[-1].next_position
    return answers


def entry_of(served: Served, entry_id: str) -> dict[str, Any]:
    found = served._world.root.get("/audit/entries", {"action": Action.FETCH.value, "decision": "allow", "limit": 100})
    entry: dict[str, Any] = next(one["entry"] for one in found if one["entry"]["id"] == entry_id)
    return entry


def test_a_grant_that_does_not_say_so_gets_no_place_however_it_asks(served: Served, resource: Resource) -> None:
    consumer = resource.granted(district="d1")
    resource.publish(resource.batch(rows(*range(40))), valid_batch(resource, Operation.CORRECT, JANUARY, 0, 1))
    for answer in everything(consumer, places=True):
        assert (answer.places, answer.marks, answer.valid) == (b"", b"", b"")
    address, identity = served._world.addresses["gateway"], served._labour.enrol("placeless")
    credentials = grpc.ssl_channel_credentials(identity.authority, identity.key, identity.certificate)
    with grpc.secure_channel(address, credentials) as channel:
        call = stubs.ExchangeStub(channel).Fetch  # type: ignore[no-untyped-call]
        header = wire.RequestHeader(purpose=PURPOSE, case_number=CASE)
        asked = wire.FetchRequest(header=header, grant_id=consumer.grant_id, position=BEGINNING, places=True)
        view = call(asked).view
    numbers = {field.number for field, _ in view.ListFields()} | {each.field_number for each in UnknownFieldSet(view)}
    assert numbers <= {1, 2, 3, 4}, "schema, values, keys and times"


def test_places_are_those_of_the_entry_and_who_does_not_ask_is_served_as_before(
    served: Served, resource: Resource
) -> None:
    consumer = with_places(served, resource)
    resource.publish(resource.batch(rows(*range(40))))
    resource.publish(valid_batch(resource, Operation.CORRECT, JANUARY, JUNE, 1), resource.voids("p2"))
    told = everything(consumer, places=True, max_records=17)
    assert served.consumer.pool.hello().places
    for answer in told:
        places = answer.offsets()
        assert len(places) == len(answer.marks) == len(answer.values)
        data = entry_of(served, answer.entry_id)["data"]
        start, end = tuple(data["from"]), tuple(data["to"])
        delivered, withdrawn = (unpack_offsets(start, end, data.get(name, "")) for name in ("delivered", "withdrawn"))
        for (partition, offset), mark, value in zip(places, answer.marks, answer.values, strict=True):
            assert offset in (delivered if value else withdrawn)[partition]
            assert (mark == Operation.VOID) is (not value)
    assert len({place for answer in told for place in answer.offsets()}) == sum(len(one.values) for one in told)
    corrected = [
        struct.unpack_from("<qq", answer.valid, 16 * index)
        for answer in told
        for index, mark in enumerate(answer.marks)
        if mark == Operation.CORRECT
    ]
    assert corrected == [(JANUARY, JUNE)]
    before = everything(consumer, max_records=17)
    assert all((one.places, one.marks, one.valid) == (b"", b"", b"") for one in before)
    # Between partitions there is no order.
    assert sorted(value for one in before for value in one.values) == sorted(v for one in told for v in one.values)


def test_whether_a_row_left_the_filter_or_was_voided_is_not_told(served: Served, resource: Resource) -> None:
    consumer = with_places(served, resource, "d1")
    resource.publish(resource.batch(rows(1, 3)))
    position = consumer.fetch().next_position
    resource.publish(
        resource.lane.batch(
            resource.values(rows(1, district="d9")),
            marks=bytes([int(Mark(Operation.CORRECT, KeyOccurrence.AGAIN))]),
            valid=struct.pack("<qq", JANUARY, JUNE),
        ),
        resource.voids("p3"),
    )
    answer = consumer.fetch(position, places=True)
    assert (list(answer.values), answer.marks, answer.valid) == ([b"", b""], bytes([3, 3]), b"")


def test_a_request_with_places_says_why_and_two_persons_sign_it(served: Served, resource: Resource) -> None:
    with pytest.raises(InvalidError, match="disclosure_reason"):
        served.request(resource.topic, ["id"], places=True)
    grant_id = served.request(resource.topic, ["id"], **TOLD)
    head = served._police.account("sharing_office_head")
    assert head.post(f"/grants/{grant_id}/approval")["state"] == "countersigned"
    consumer = Consumer(served.consumer.pool, grant_id)
    with pytest.raises(RefusedError) as refused:
        consumer.fetch(places=True)
    assert refused.value.reason is Reason.GRANT_NOT_ACTIVE, "the head alone has signed"


def test_over_https_places_are_told_by_the_same_rules(served: Served, resource: Resource) -> None:
    silent, told = resource.granted(), with_places(served, resource)
    resource.publish(resource.batch(rows(1)), valid_batch(resource, Operation.CORRECT, JANUARY, 0, 1))
    served._labour.enrol("web")
    folder = served._world.folder / "identities" / served._labour.id / "web"
    trust = ssl.create_default_context(cafile=str(served._world.data / "ca" / "authority.crt"))
    trust.load_cert_chain(folder / "tls.crt", folder / "tls.key")

    def fetched(consumer: Consumer, **more: Any) -> list[dict[str, Any]]:
        body = {"grant": consumer.grant_id, "purpose": PURPOSE, "case": CASE} | more
        body["position"] = base64.b64encode(BEGINNING).decode()
        url = f"https://{served._world.addresses['http']}/v1/records/fetch"
        answer = httpx.post(url, content=json.dumps(body), headers={"content-type": "application/json"}, verify=trust)
        assert answer.status_code == 200, answer.text
        records: list[dict[str, Any]] = answer.json()["records"]
        return records

    beside = {"place", "valid_from", "valid_to"}
    for records in (fetched(silent, places=True), fetched(silent), fetched(told)):
        assert len(records) == 2
        assert not any(beside & one.keys() or one["operation"] == "correct" for one in records)
    first, second = fetched(told, places=True)
    assert first["place"]["partition"] == second["place"]["partition"]
    assert (first["operation"], second["operation"]) == ("upsert", "correct")
    assert (second["valid_from"], beside - second.keys()) == ("2026-01-01T00:00:00+00:00", {"valid_to"})


def test_a_value_has_the_digest_of_before_whether_places_are_told_or_not(served: Served, resource: Resource) -> None:
    consumer = with_places(served, resource)
    resource.publish(resource.batch(rows(1, 2)))
    roots = {
        entry_of(served, consumer.fetch(BEGINNING, places=places).entry_id)["data"]["root"] for places in (False, True)
    }
    assert len(roots) == 1
