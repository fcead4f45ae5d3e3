"""Records over HTTPS as JSON: what gRPC delivers, under the same rules, to a connector that shows its certificate."""

import base64
import json
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from exchange.client import Identity
from schemas.errors import InvalidError, Reason
from tests.contract.pool_suite import BEGINNING, CASE, PURPOSE, SCHEMA, Consumer, Resource, rows
from tests.contract.test_pool import Served
from tests.e2e.conftest import kafka_section
from tests.kit.patience import PATIENCE, wait_for
from tests.kit.world.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

_GOVERNED = {"level": "G2", "personal": "N", "sensitive": "N", "mask": "none"}
_EXACT = {
    **SCHEMA,
    "fields": [
        *SCHEMA["fields"],
        {"name": "n", "zh": "数", "type": "long", **_GOVERNED},
        {
            "name": "sum",
            "zh": "额",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 4},
            **_GOVERNED,
        },
        {"name": "at", "zh": "时", "type": {"type": "long", "logicalType": "timestamp-micros"}, **_GOVERNED},
    ],
}


class Door:
    """The records' addresses of a pool, as a connector's machine calls them."""

    def __init__(self, world: World, identity: Identity | None) -> None:
        self.world = world
        self.identity = identity
        self.http = httpx.Client(
            base_url=f"https://{world.addresses['http']}", verify=tls(world, identity), timeout=PATIENCE
        )

    def call(self, what: str, grant: str, **more: Any) -> httpx.Response:
        body = {"grant": grant, "purpose": PURPOSE, "case": CASE, **more}
        return self.http.post(f"/v1/records/{what}", json={k: v for k, v in body.items() if v is not None})

    def fetch(self, grant: str, position: bytes = b"", **more: Any) -> dict[str, Any]:
        answer = self.call("fetch", grant, position=base64.b64encode(position).decode(), **more)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def reason(self, what: str, grant: str, **more: Any) -> str:
        answer = self.call(what, grant, **more)
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        return str(answer.json()["reason"])


Doors = Callable[[Identity | None], Door]


def tls(world: World, identity: Identity | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(world.data / "ca" / "authority.crt"))
    if identity is not None:
        folder = Path(world.folder / "http-identities" / identity.connector)
        identity.save(folder)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context


@pytest.fixture(scope="module", params=["postgres", pytest.param("kafka", marks=pytest.mark.kafka)])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    extra = kafka_section(request.getfixturevalue("kafka_node")) if request.param == "kafka" else ""
    with World.start(extra) as world:
        rig = Served(world)
        yield rig
        rig.close()


@pytest.fixture
def doors(served: Served) -> Iterator[Doors]:
    with ExitStack() as stack:

        def make(identity: Identity | None) -> Door:
            made = Door(served._world, identity)
            stack.enter_context(made.http)
            return made

        yield make


@pytest.fixture(scope="module")
def identity(served: Served) -> Identity:
    return served._labour.enrol("json")


@pytest.fixture
def door(doors: Doors, identity: Identity) -> Door:
    return doors(identity)


def position(answer: dict[str, Any]) -> bytes:
    return base64.b64decode(answer["next_position"])


def entry(served: Served, entry_id: str) -> dict[str, Any]:
    found: dict[str, Any] = served._world.root.get(f"/audit/entries/{entry_id}")["entry"]
    return found


def wait_until_shown(resource: Resource, records: int) -> None:
    """Wait until so many keys are delivered, under another grant: Kafka shows what it acknowledged a moment later."""
    watcher = resource.granted()

    def shown() -> int:
        latest: dict[bytes, Any] = {}
        at = BEGINNING
        while True:
            result = watcher.fetch(at)
            latest.update(watcher.decode(result) if len(result.values) else [])
            at = result.next_position
            if result.caught_up:
                return sum(record is not None for record in latest.values())

    wait_for(lambda: shown() == records, "what was published")


def test_it_delivers_what_grpc_does(served: Served, door: Door) -> None:
    resource = Resource(served)
    consumer = resource.granted("id", "age", district="d0")
    resource.publish(resource.batch(rows(*range(80))))
    resource.publish(resource.batch(rows(2, district="d1")))
    resource.publish(resource.voids("p4"))
    wait_until_shown(resource, 79)
    over_grpc, over_http = consumer.fetch(BEGINNING), door.fetch(consumer.grant_id, BEGINNING)
    while not (over_grpc.caught_up and over_http["caught_up"]):  # an answer of Kafka has what was read at once
        over_grpc, over_http = consumer.fetch(BEGINNING), door.fetch(consumer.grant_id, BEGINNING)
    assert over_http["schema_id"] == over_grpc.schema_id
    assert [bytes.fromhex(one["record_key"]) for one in over_http["records"]] == over_grpc.keys()
    told = [(bytes.fromhex(one["record_key"]), one.get("value")) for one in over_http["records"]]
    assert told == consumer.decode(over_grpc)
    assert {one["operation"] for one in over_http["records"] if "value" not in one} == {"withdrawn"}
    times = [datetime.fromisoformat(one["recorded_at"]) for one in over_http["records"]]
    assert [round(at.timestamp() * 1e6) for at in times] == list(over_grpc.times())
    first, again = (entry(served, one) for one in (over_grpc.entry_id, over_http["entry_id"]))
    assert again["data"] | {"again": 0} == first["data"] | {"again": 0}
    assert again["actor"]["id"] == "json"
    assert {name: again[name] for name in ("action", "purpose", "case", "grant", "resource")} == {
        name: first[name] for name in ("action", "purpose", "case", "grant", "resource")
    }


def test_positions_are_the_same_at_both(served: Served, door: Door) -> None:
    resource = Resource(served)
    consumer = resource.granted()
    resource.publish(resource.batch(rows(*range(10))))
    wait_until_shown(resource, 10)
    first = door.fetch(consumer.grant_id, max_records=4)
    assert 0 < len(first["records"]) <= 4
    rest, at = 0, position(first)
    while len(first["records"]) + rest < 10:  # an answer of Kafka has what was read at once
        result = consumer.fetch(at)
        rest, at = rest + len(result.values), result.next_position
    answer = door.call("commit", consumer.grant_id, position=first["next_position"])
    assert answer.status_code == 200, answer.text
    assert entry(served, answer.json()["entry_id"])["action"] == "exchange:records:commit"
    answers = [door.fetch(consumer.grant_id)]
    while not answers[-1]["caught_up"]:
        answers.append(door.fetch(consumer.grant_id, position(answers[-1])))
    assert sum(len(each["records"]) for each in answers) == rest, "from the acknowledged position on"
    consumer.commit(at)
    assert door.fetch(consumer.grant_id) | {"next_position": ""} == {
        "schema_id": first["schema_id"],
        "records": [],
        "next_position": "",
        "entry_id": "",
        "leaf_hash": "",
        "caught_up": True,
    }


def test_no_digit_is_lost(served: Served, door: Door) -> None:
    resource = Resource.__new__(Resource)
    resource.rig, resource.topic = served, served.offer(_EXACT)
    resource.schema_id, resource.text = served.provider.pool.schema(resource.topic)
    resource.lane = served.provider.lane(resource.topic)
    consumer = resource.granted("id", "n", "sum", "at")
    at = datetime(2026, 3, 1, 8, 0, 0, 123456, UTC)
    people = [{"id": str(n), "district": "d", "age": None, "n": 2**63 - 1 - n, "sum": n, "at": at} for n in range(40)]
    resource.publish(resource.batch(people))
    found: list[dict[str, Any]] = []
    at_position = BEGINNING
    while not any(one["id"] == "7" for one in found):  # Kafka shows what it acknowledged a moment later
        answer = door.fetch(consumer.grant_id, at_position, wait=20)
        found += [one["value"] for one in answer["records"]]
        at_position = position(answer)
    (value,) = (one for one in found if one["id"] == "7")
    assert value == {"id": "7", "n": str(2**63 - 8), "sum": "7.0000", "at": "2026-03-01T08:00:00.123456+00:00"}


def test_what_grpc_refuses_is_refused(served: Served, door: Door, doors: Doors) -> None:
    resource = Resource(served)
    consumer = resource.granted()
    resource.publish(resource.batch(rows(1)))
    refused = {
        Reason.PURPOSE_MISMATCH: {"purpose": "other"},
        Reason.PURPOSE_MISSING: {"purpose": ""},
        Reason.CASE_MISMATCH: {"case": "OTHER-1"},
        Reason.POSITION_INVALID: {"position": base64.b64encode(b"\x01" * 83).decode()},
    }
    for reason, more in refused.items():
        assert door.reason("fetch", consumer.grant_id, **more) == reason
    assert door.reason("fetch", consumer.grant_id, position="no base64") == Reason.POSITION_INVALID
    assert door.reason("fetch", "01890000-0000-7000-8000-000000000099") == Reason.GRANT_UNKNOWN
    other = doors(served._police.enrol("json-of-police"))
    assert other.reason("fetch", consumer.grant_id) == Reason.GRANT_OTHER_CONSUMER
    served.suspend(consumer.grant_id)
    assert door.reason("fetch", consumer.grant_id) == Reason.GRANT_SUSPENDED
    denied = served._world.root.get("/audit/entries", {"grant": consumer.grant_id, "decision": "deny", "limit": 100})
    assert {Reason.PURPOSE_MISMATCH, Reason.CASE_MISMATCH} <= {one["entry"]["reason"] for one in denied}


def test_the_day_s_quota_is_one_for_both(served: Served, door: Door) -> None:
    resource = Resource(served)
    grant_id = served.request(resource.topic, ("id",), quota_per_day=5)
    served.approve(grant_id)
    resource.publish(resource.batch(rows(*range(8))))
    wait_until_shown(resource, 8)
    consumer = Consumer(served.consumer.pool, grant_id)
    assert len(consumer.fetch(BEGINNING, max_records=3).values) == 3
    assert len(door.fetch(grant_id, BEGINNING, max_records=2)["records"]) == 2
    assert door.reason("fetch", grant_id, position="AA==", max_records=1) == Reason.QUOTA_EXHAUSTED


def test_without_a_certificate_nothing_leaves(served: Served, door: Door, doors: Doors) -> None:
    grant_id = Resource(served).granted().grant_id
    nobody = doors(None)
    assert nobody.reason("fetch", grant_id) == Reason.NO_IDENTITY
    nobody.http.headers["authorization"] = served._world.root._headers["authorization"]
    assert nobody.reason("fetch", grant_id) == Reason.NO_IDENTITY
    assert nobody.http.post("/v1/records/fetch", json={}).status_code == 401
    answer = door.http.get("/v1/grants")  # a certificate is no account
    assert answer.json()["reason"] == Reason.NO_IDENTITY


@pytest.mark.parametrize(
    "body",
    [
        {"max_records": 10_001},
        {"max_records": 0},
        {"max_bytes": 1024 * 1024 + 1},
        {"wait": 61},
        {"purpose": "x" * 101},
        {"unknown": 1},
    ],
)
def test_a_body_beyond_its_bounds_is_refused(served: Served, door: Door, body: dict[str, Any]) -> None:
    assert door.reason("fetch", "01890000-0000-7000-8000-000000000099", **body) == Reason.REQUEST_INVALID


def test_a_long_poll_wakes_with_the_record(served: Served, door: Door) -> None:
    resource = Resource(served)
    consumer = resource.granted()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(door.fetch, consumer.grant_id, wait=60)
        wait_for(lambda: waiting_polls(served) == 1, "the poll waits")
        resource.publish(resource.batch(rows(1)))
        assert [one["value"]["id"] for one in waiting.result()["records"]] == ["p1"]


def waiting_polls(served: Served) -> int:
    text = httpx.get(f"http://{served._world.addresses['metrics']}/metrics", timeout=PATIENCE).text
    found = re.search(r"^pool_polls_waiting ([0-9.]+)", text, re.MULTILINE)
    assert found
    return int(float(found[1]))


def leave_a_poll(served: Served, door: Door, grant_id: str) -> None:
    """Open a long poll, and go once it waits."""
    host, port = served._world.addresses["http"].rsplit(":", 1)
    body = json.dumps({"grant": grant_id, "purpose": PURPOSE, "case": CASE, "wait": 60})
    head = (
        f"POST /v1/records/fetch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    plain = socket.create_connection((host, int(port)), PATIENCE)
    with tls(served._world, door.identity).wrap_socket(plain, server_hostname="localhost") as connection:
        connection.sendall(f"{head}\r\n\r\n{body}".encode())
        wait_for(lambda: waiting_polls(served) == 1, "the poll waits")


def test_a_poll_whose_caller_has_gone_releases_nothing(served: Served, door: Door) -> None:
    resource = Resource(served)
    consumer = resource.granted()
    leave_a_poll(served, door, consumer.grant_id)
    wait_for(lambda: waiting_polls(served) == 0, "the poll has ended")
    resource.publish(resource.batch(rows(1)))
    assert len(door.fetch(consumer.grant_id)["records"]) == 1
    entries = served._world.root.get("/audit/entries", {"grant": consumer.grant_id, "limit": 100})
    assert [one["entry"]["action"] for one in entries].count("exchange:records:fetch") == 1


def test_a_poll_of_a_revoked_certificate_is_ended(served: Served, doors: Doors) -> None:
    grant_id = Resource(served).granted().grant_id
    door = doors(served._labour.enrol("revoked"))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(door.reason, "fetch", grant_id, wait=60)
        wait_for(lambda: waiting_polls(served) == 1, "the poll waits")
        officer = served._labour.account("security_officer")
        body = {"department": served._labour.id, "connector": "revoked", "reason": "lost"}
        officer.post("/connectors/revocations", body)
        assert waiting.result() == Reason.CERTIFICATE_REVOKED
    assert door.reason("fetch", grant_id) == Reason.CERTIFICATE_REVOKED


@pytest.mark.parametrize(
    "body",
    [
        pytest.param('{"grant": "a\\u0000b", "purpose": "p"}', id="zero character"),
        pytest.param('{"grant": "\\ud800", "purpose": "p"}', id="half a surrogate pair"),
        pytest.param('{"grant": "a", "purpose": "p", "\\udfff": 1}', id="half a surrogate pair in a name"),
        pytest.param('{"grant": "a", "purpose": "p", "wait": NaN}', id="not a number"),
        pytest.param('{"grant": "a", "purpose": "p", "max_records": ' + "9" * 6_000 + "}", id="thousands of digits"),
        pytest.param('{"grant": ' + "[" * 30_000 + "]" * 30_000 + "}", id="deep"),
        pytest.param("\x1f\x8b", id="no JSON"),
    ],
)
def test_what_json_can_write_and_nothing_else_can_have_is_refused_as_a_problem(door: Door, body: str) -> None:
    for what in ("fetch", "commit"):
        answer = door.http.post(f"/v1/records/{what}", content=body, headers={"content-type": "application/json"})
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        assert (answer.status_code, answer.json()["reason"]) == (422, Reason.REQUEST_INVALID), answer.text


def test_grpc_refuses_a_zero_character_too(served: Served, identity: Identity) -> None:
    with served._world.client(identity) as pool:
        for grant, case in (("a\0b", CASE), ("a", "\0")):
            with pytest.raises(InvalidError, match="zero character") as caught:
                pool.fetch(grant, position=b"\0", purpose=PURPOSE, case=case)
            assert caught.value.reason is Reason.REQUEST_INVALID
            with pytest.raises(InvalidError, match="zero character"):
                pool.commit(grant, position=b"\0", purpose=PURPOSE, case=case)
