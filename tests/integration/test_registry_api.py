"""The registry's REST API under uvicorn on PostgreSQL, spoken to by Confluent's own client and by hand."""

import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from urllib.parse import quote

import httpx
import pytest
import sqlalchemy as sa
import uvicorn
from confluent_kafka.schema_registry import Metadata, MetadataProperties, Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext
from fastapi import Request

from registry import tables
from registry.api import create
from registry.client import RegistryClient
from registry.postgres import PostgresSubjects
from registry.settings import Configuration
from registry.store import Content
from registry.subjects import Subjects
from schemas import library
from schemas.access import Action, Actor, ActorKind, Role
from schemas.canonical import Json
from schemas.errors import InvalidError, Reason, RefusedError, UnavailableError
from tests.kit import postgres

pytestmark = pytest.mark.postgres

Confluent = Callable[[], SchemaRegistryClient]
V1 = "application/vnd.schemaregistry.v1+json"
INT, LONG, TEXT = '"int"', '"long"', '"string"'


class Note:
    def __init__(self) -> None:
        self.facts: dict[str, Json] = {}

    def note(self, **facts: Json) -> None:
        self.facts.update(facts)


@dataclass
class RecordingGate:
    """Lets pass what it is told to, and keeps what passed."""

    denied: set[Action] = field(default_factory=set)
    entries: list[tuple[str, Action, str, dict[str, Json]]] = field(default_factory=list)

    @contextmanager
    def pass_(self, actor: Actor, action: Action, resource: str) -> Iterator[Note]:
        if action in self.denied:
            raise RefusedError(Reason.ROLE_MISSING, f"the role {actor.role} may not {action}")
        note = Note()
        yield note
        self.entries.append((actor.id, action, resource, note.facts))


def identify(request: Request) -> Actor:
    if request.headers.get("authorization") == "Bearer wrong":
        raise RefusedError(Reason.TOKEN_INVALID, "the token is not known; ask for a new one")
    return Actor(kind=ActorKind.MACHINE, id="tester", department="", role=Role.CONNECTOR)


@dataclass
class World:
    url: str
    subjects: Subjects
    gate: RecordingGate
    http: httpx.Client


@pytest.fixture(scope="module")
def served(postgres_server: sa.URL) -> Iterator[World]:
    with postgres.fresh_database(postgres_server) as url:
        engine = sa.create_engine(url, pool_size=10)
        tables.metadata.create_all(engine)
        store = PostgresSubjects(engine)
        subjects = Subjects(
            store, Configuration(store), governed=lambda subject: subject.startswith("governed"), strict=False
        )
        gate = RecordingGate()
        # The protocol by name: without it asyncio leaves Nagle's algorithm on, and every answer waits 40 ms.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.bind(("127.0.0.1", 0))
        app = create(subjects, gate, identify=identify)
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        with httpx.Client(base_url=base) as http:
            yield World(base, subjects, gate, http)
        server.should_exit = True
        thread.join(10)
        listener.close()
        engine.dispose()


@pytest.fixture
def world(served: World) -> World:
    served.gate.denied.clear()
    served.gate.entries.clear()
    return served


@pytest.fixture
def confluent(world: World) -> Iterator[Confluent]:
    """Makes Confluent's clients, each with caches of its own."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(SchemaRegistryClient({"url": world.url}))


@pytest.fixture
def subject() -> str:
    return f"s{uuid.uuid4().hex}-value"


def put(world: World, subject: str, schema: str) -> httpx.Response:
    return world.http.post(f"/subjects/{quote(subject, safe='')}/versions", json={"schema": schema})


def record(*fields: str) -> str:
    listed = [{"name": name, "type": "string", "default": ""} for name in fields]
    return json.dumps({"type": "record", "name": "R", "fields": listed})


# --- Confluent's client, unchanged -----------------------------------------------------------------------------


def test_confluents_serializer_and_deserializer_round_trip(world: World, confluent: Confluent) -> None:
    client = confluent()
    context = SerializationContext("tax", MessageField.VALUE)
    value = {
        "id_number": "11010519491231002X",
        "insurance_type": "养老",
        "payment_month": "2026-01",
        "payment_base": Decimal("4321.50"),
        "pay_status": "paid",
        "employer_uscc": None,
    }
    serialize = AvroSerializer(client, library.text("tax_social_status"))
    framed = serialize(value, context)
    assert framed is not None
    assert framed[0] == 0
    # Another process knows nothing but the bytes.
    assert AvroDeserializer(confluent())(framed, context) == value
    schema_id = int.from_bytes(framed[1:5], "big")
    assert world.subjects.by_id(schema_id).content.text == library.text("tax_social_status").strip()
    assert world.subjects.subjects("tax") == ["tax-value"]


@pytest.mark.parametrize(
    "conf",
    [
        {"auto.register.schemas": False},
        {"auto.register.schemas": False, "use.latest.version": True},
        {"normalize.schemas": True},
    ],
)
def test_confluents_serializer_looks_up_what_is_registered(
    world: World, confluent: Confluent, conf: dict[str, object]
) -> None:
    topic = f"t{uuid.uuid4().hex}"
    schema_id = world.subjects.register(f"{topic}-value", Content(text=record("x"))).schema_id
    client = confluent()
    framed = AvroSerializer(client, record("x"), conf=conf)(
        {"x": "甲"}, SerializationContext(topic, MessageField.VALUE)
    )
    assert framed is not None
    assert int.from_bytes(framed[1:5], "big") == schema_id


def test_a_view_is_read_by_any_deserializer(world: World, confluent: Confluent) -> None:
    schema_id = world.subjects.register_view(uuid.uuid4().hex, 1, record("view", "of", "a", "grant"))
    framed = b"\0" + schema_id.to_bytes(4, "big") + b"\x02a\x02b\x02c\x02d"
    read = AvroDeserializer(confluent())
    assert read(framed, SerializationContext("any", MessageField.VALUE)) == {
        "view": "a",
        "of": "b",
        "a": "c",
        "grant": "d",
    }
    assert [(action, resource) for _, action, resource, _ in world.gate.entries] == [
        (Action.SCHEMA_READ, world.subjects.by_id(schema_id).origin)
    ]
    assert world.http.get("/subjects", params={"subjectPrefix": "view."}).json() == []


def test_confluents_client_does_what_it_does(world: World, confluent: Confluent, subject: str) -> None:
    client = confluent()
    first = client.register_schema(subject, Schema(record("x"), "AVRO"))
    full = confluent().register_schema_full_response(subject, Schema(record("x", "y"), "AVRO"))
    assert full.version == 2
    assert full.guid is not None
    assert client.get_schema(first).schema_str == record("x")
    assert client.get_latest_version(subject).schema_id == full.schema_id
    assert client.get_version(subject, 1).schema_id == first
    assert client.get_versions(subject) == [1, 2]
    assert subject in client.get_subjects()
    looked_up = confluent().lookup_schema(subject, Schema(record("x"), "AVRO"))
    assert (looked_up.version, looked_up.schema_id) == (1, first)
    assert (subject, 1) in [(item.subject, item.version) for item in client.get_schema_versions(first)]
    assert subject in client.get_subjects_by_schema_id(first)
    assert client.test_compatibility(subject, Schema(record("x", "y", "z"), "AVRO"))
    assert not client.test_compatibility(subject, Schema(INT, "AVRO"))
    assert client.set_compatibility(subject, "FULL") == {"compatibility": "FULL"}
    assert client.get_compatibility(subject) == "FULL"
    assert client.delete_version(subject, 1) == 1
    assert client.delete_subject(subject) == [2]
    assert world.http.delete(f"/subjects/{subject}", params={"permanent": "true"}).json() == [1, 2]


def test_metadata_comes_back_as_it_went(world: World, confluent: Confluent, subject: str) -> None:
    client = confluent()
    metadata = Metadata(tags=None, properties=MetadataProperties(properties={"owner": "公安局"}), sensitive=None)
    schema_id = client.register_schema(subject, Schema(record("x"), "AVRO", metadata=metadata))
    read = confluent().get_schema(schema_id)
    assert read.metadata is not None
    assert read.metadata.properties == metadata.properties


def test_confluents_client_sees_the_error_numbers(world: World, confluent: Confluent, subject: str) -> None:
    client = confluent()
    with pytest.raises(SchemaRegistryError) as caught:
        client.get_latest_version(subject)
    assert (caught.value.http_status_code, caught.value.error_code) == (404, 40401)
    client.register_schema(subject, Schema(INT, "AVRO"))
    with pytest.raises(SchemaRegistryError, match="incompatible with an earlier schema") as caught:
        client.register_schema(subject, Schema(TEXT, "AVRO"))
    assert (caught.value.http_status_code, caught.value.error_code) == (409, 409)
    assert "at $ of the new schema: the reader expects string, the writer wrote int" in str(caught.value)


# --- errors, by hand -------------------------------------------------------------------------------------------


def test_every_refusal_has_its_number_and_words(world: World, subject: str) -> None:
    http = world.http
    put(world, subject, INT)
    put(world, subject, LONG)
    http.delete(f"/subjects/{subject}/versions/1")
    version_words = (
        "The specified version '{}' is not a valid version id. "
        'Allowed values are between [1, 2^31-1] and the string "latest"'
    )
    level_words = (
        "Invalid compatibility level. Valid values are none, backward, forward, full, backward_transitive, "
        "forward_transitive, and full_transitive"
    )
    other = f"{subject}x"
    for method, path, body, status, number, words in (
        ("GET", f"/subjects/{other}/versions", None, 404, 40401, f"Subject '{other}' not found."),
        ("POST", f"/subjects/{other}", {"schema": INT}, 404, 40401, f"Subject '{other}' not found."),
        ("DELETE", f"/subjects/{other}", None, 404, 40401, f"Subject '{other}' not found."),
        ("GET", f"/subjects/{subject}/versions/9", None, 404, 40402, "Version 9 not found."),
        ("GET", f"/subjects/{subject}/versions/1", None, 404, 40402, "Version 1 not found."),
        ("POST", f"/subjects/{subject}", {"schema": TEXT}, 404, 40403, "Schema not found"),
        ("GET", "/schemas/ids/99999", None, 404, 40403, "Schema 99999 not found"),
        ("GET", "/schemas/ids/99999999999999999999", None, 404, 40403, "Schema 99999999999999999999 not found"),
        ("GET", "/schemas/ids/99999/versions", None, 404, 40403, "Schema 99999 not found"),
        ("GET", "/schemas/ids/x", None, 404, 404, "HTTP 404 Not Found"),
        ("GET", "/nowhere", None, 404, 404, "HTTP 404 Not Found"),
        ("PUT", "/subjects", {}, 405, 405, "HTTP 405 Method Not Allowed"),
        (
            "DELETE",
            f"/subjects/{subject}?permanent=true",
            None,
            404,
            40405,
            f"Subject '{subject}' was not deleted first before being permanently deleted",
        ),
        (
            "DELETE",
            f"/subjects/{subject}/versions/1",
            None,
            404,
            40406,
            f"Subject '{subject}' Version 1 was soft deleted.Set permanent=true to delete permanently",
        ),
        (
            "DELETE",
            f"/subjects/{subject}/versions/2?permanent=true",
            None,
            404,
            40407,
            f"Subject '{subject}' Version 2 was not deleted first before being permanently deleted",
        ),
        (
            "GET",
            f"/config/{subject}",
            None,
            404,
            40408,
            f"Subject '{subject}' does not have subject-level compatibility configured",
        ),
        (
            "GET",
            f"/mode/{subject}",
            None,
            404,
            40409,
            f"Subject '{subject}' does not have subject-level mode configured",
        ),
        ("POST", f"/subjects/{subject}/versions", {"schema": '{"type":"nonsense"}'}, 422, 42201, "Invalid schema: "),
        ("POST", f"/subjects/{subject}/versions", {"schema": "{"}, 422, 42201, "Invalid schema: "),
        ("POST", f"/subjects/{subject}/versions", {"schema": INT, "schemaType": "XML"}, 422, 42201, "Invalid schema: "),
        ("GET", f"/subjects/{subject}/versions/0", None, 422, 42202, version_words.format(0)),
        ("GET", f"/subjects/{subject}/versions/newest", None, 422, 42202, version_words.format("newest")),
        ("GET", f"/subjects/{subject}/versions/2147483648", None, 422, 42202, version_words.format(2147483648)),
        ("PUT", "/config", {"compatibility": "SIDEWARD"}, 422, 42203, level_words),
        ("PUT", f"/mode/{subject}", {"mode": "SIDEWARD"}, 422, 42204, "Invalid mode: "),
        ("POST", "/subjects/%00/versions", {"schema": INT}, 422, 42208, "got a subject"),
        ("POST", "/subjects/%FF/versions", {"schema": INT}, 422, 42208, "got a subject"),
        ("GET", "/subjects/a%00b/versions", None, 422, 42208, "got a subject"),
        ("POST", "/subjects/view.g.v1/versions", {"schema": INT}, 422, 42208, "got the subject view.g.v1"),
        ("POST", f"/subjects/{subject}/versions", {}, 422, 422, 'got nothing for "schema"'),
        ("POST", f"/subjects/{subject}/versions", {"schema": {"type": "int"}}, 422, 422, "got a value of type dict"),
        ("POST", f"/subjects/{subject}/versions", {"schema": INT, "references": [1]}, 422, 422, 'got "references"'),
        ("PUT", f"/mode/{subject}", {}, 422, 422, 'got nothing for "mode"'),
        ("GET", "/subjects?deleted=perhaps", None, 422, 422, "got another deleted than expected"),
    ):
        answer = http.request(method, path, json=body)
        told = f"{method} {path}: {answer.status_code} {answer.text}"
        assert answer.status_code == status, told
        assert answer.json()["error_code"] == number, told
        assert answer.json()["message"].startswith(words), told
        assert answer.headers["content-type"] == V1, told


def test_a_subject_deleted_twice_and_read_only_subjects(world: World, subject: str) -> None:
    put(world, subject, INT)
    assert world.http.delete(f"/subjects/{subject}").json() == [1]
    answer = world.http.delete(f"/subjects/{subject}")
    assert (answer.status_code, answer.json()["error_code"]) == (404, 40404)
    words = f"Subject '{subject}' was soft deleted.Set permanent=true to delete permanently"
    assert answer.json()["message"] == words
    assert world.http.put(f"/mode/{subject}", json={"mode": "READONLY"}).json() == {"mode": "READONLY"}
    refused = put(world, subject, INT)
    assert (refused.status_code, refused.json()["error_code"]) == (422, 42205)
    assert world.http.get(f"/mode/{subject}").json() == {"mode": "READONLY"}
    assert world.http.delete(f"/mode/{subject}").json() == {"mode": "READONLY"}
    assert put(world, subject, INT).status_code == 200
    assert world.http.get(f"/subjects/{subject}/versions", params={"deleted": "True"}).json() == [1, 2]


def test_an_unclassified_field_is_named(world: World, subject: str) -> None:
    answer = put(world, f"governed-{subject}", record("x"))
    assert (answer.status_code, answer.json()["error_code"]) == (422, 42201)
    assert "$.fields[0] (x): missing: zh, level, personal, sensitive, mask" in answer.json()["message"]


# --- headers and bodies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, V1),
        ("*/*", V1),
        ("*", V1),
        ("*/anything", V1),
        ("application/json", "application/json"),
        ("application/vnd.schemaregistry+json", "application/vnd.schemaregistry+json"),
        ("application/json;q=0.5, application/vnd.schemaregistry+json;q=0.9", "application/vnd.schemaregistry+json"),
        ("text/html, application/json;q=0.1", "application/json"),
        ("application/vnd.schemaregistry.v1+json, application/vnd.schemaregistry+json, application/json", V1),
    ],
)
def test_answers_come_in_the_media_type_asked_for(world: World, accept: str | None, expected: str) -> None:
    headers = {} if accept is None else {"accept": accept}
    for path, status in (("/subjects", 200), ("/schemas/ids/99999", 404)):
        request = world.http.build_request("GET", path, headers=headers)
        if accept is None:
            del request.headers["accept"]
        answer = world.http.send(request)
        assert answer.status_code == status
        assert answer.headers["content-type"] == expected


@pytest.mark.parametrize("accept", ["text/html", "application/vnd.confluent", "application/json;q=0"])
def test_another_media_type_is_not_acceptable(world: World, accept: str) -> None:
    answer = world.http.get("/subjects", headers={"accept": accept})
    assert (answer.status_code, answer.json()["message"]) == (406, "HTTP 406 Not Acceptable")


@pytest.mark.parametrize(
    ("content_type", "encoding"),
    [
        (V1, "utf-8"),
        ("application/vnd.schemaregistry+json", "utf-8"),
        ("application/json", "utf-8"),
        ("application/octet-stream", "utf-8"),
        ("application/json; charset=utf-16", "utf-16"),
        ('Application/JSON; Charset="gb18030"', "gb18030"),
        ("", "utf-8"),
        (None, "utf-8"),
    ],
)
def test_bodies_are_taken_in_every_stated_form(
    world: World, subject: str, content_type: str | None, encoding: str
) -> None:
    schema = json.dumps({"type": "string", "zh": "姓名"}, ensure_ascii=False)
    body = json.dumps({"schema": schema}, ensure_ascii=False).encode(encoding)
    headers = {} if content_type is None else {"content-type": content_type}
    answer = world.http.post(f"/subjects/{subject}/versions", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert world.http.get(f"/subjects/{subject}/versions/latest/schema").json() == {"type": "string", "zh": "姓名"}


@pytest.mark.parametrize(
    ("body", "headers", "status", "number"),
    [
        (b"{}", {"content-type": "text/plain"}, 415, 415),
        (b"", {}, 422, 422),
        (b"[]", {}, 422, 422),
        (b"{", {}, 422, 422),
        (b"\xff\xfe", {}, 422, 422),
        (b"{}", {"content-type": "application/json; charset=klingon"}, 422, 422),
        (b'{"schema": NaN}', {}, 422, 422),
        (b'{"schema": "\\"int\\"", "metadata": {"properties": {"x": 1e999}}}', {}, 422, 422),
        (b'{"schema": "\\"int\\"", "metadata": {"\\ud800": {}}}', {}, 422, 422),
        (b'{"schema": "\\ud800"}', {}, 422, 422),
        (b'{"schema": "\\u0000"}', {}, 422, 42201),
        (b"[" * 100_000, {}, 422, 422),
        (b'{"schema":' + b"[" * 100_000, {}, 422, 422),
        (json.dumps({"schema": "[" * 100_000}).encode(), {}, 422, 42201),
        (json.dumps({"schema": '{"type":"array","items":' * 9_000 + '"int"' + "}" * 9_000}).encode(), {}, 422, 42201),
        (json.dumps({"schema": json.dumps(["int"] * 100_000)}).encode(), {}, 422, 42201),
        (b'{"schema": "' + b"x" * 5_000_000 + b'"}', {}, 422, 42209),
        (b'{"schema": ' + b"9" * 10_000 + b"}", {}, 422, 422),
    ],
    ids=range(18),
)
def test_hostile_bodies_are_told_so(
    world: World, subject: str, body: bytes, headers: dict[str, str], status: int, number: int
) -> None:
    answer = world.http.post(f"/subjects/{subject}/versions", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error_code"]) == (status, number), answer.text[:300]
    assert len(answer.text) < 2_000


def test_a_body_without_a_length_is_cut_off(world: World, subject: str) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(500):
            sent += 1
            yield b"x" * 65_536

    try:
        answer = world.http.post(f"/subjects/{subject}/versions", content=chunks())
    except httpx.TransportError:
        pass
    else:
        assert answer.json()["error_code"] == 42209
    assert world.http.get("/").json() == {}


@pytest.mark.parametrize("name", ["a/b", "a b", "中文-value", "a%2Fb", "..", "a?b#c", ":.ctx:x", "a+b&c=d"])
def test_a_subject_is_whatever_its_percent_encoding_says(world: World, name: str) -> None:
    unique = f"{name}{uuid.uuid4().hex}"
    answer = put(world, unique, INT)
    assert answer.status_code == 200, answer.text
    assert unique in world.http.get("/subjects").json()
    path = f"/subjects/{quote(unique, safe='')}/versions"
    assert world.http.get(path).json() == [1]
    assert world.http.get(f"{path}/latest").json()["subject"] == unique


def test_only_curious_clients_get_more_than_the_id(world: World, subject: str) -> None:
    assert set(put(world, subject, INT).json()) == {"id"}
    answer = world.http.post(
        f"/subjects/{subject}/versions",
        json={"schema": INT},
        headers={"Confluent-Accept-Unknown-Properties": "true"},
    ).json()
    assert answer["version"] == 1
    assert uuid.UUID(answer["guid"])


# --- lists, compatibility, configuration -----------------------------------------------------------------------


def test_lists_come_in_pages(world: World, subject: str) -> None:
    for number in range(5):
        put(world, f"{subject}{number}", INT)
    listed = world.http.get("/subjects", params={"subjectPrefix": subject, "offset": 1, "limit": 2}).json()
    assert listed == [f"{subject}1", f"{subject}2"]
    schema_id = put(world, f"{subject}0", INT).json()["id"]
    assert {"subject": f"{subject}3", "version": 1} in world.http.get(f"/schemas/ids/{schema_id}/versions").json()


def test_compatibility_is_told_without_registering(world: World, subject: str) -> None:
    put(world, subject, INT)
    put(world, subject, LONG)
    path = f"/compatibility/subjects/{subject}/versions"
    assert world.http.post(f"{path}/latest", json={"schema": INT}).json()["is_compatible"] is False
    assert world.http.post(f"{path}/1", json={"schema": INT}).json() == {"is_compatible": True, "messages": []}
    world.http.put(f"/config/{subject}", json={"compatibility": "BACKWARD_TRANSITIVE"})
    verdict = world.http.post(f"{path}/1", json={"schema": INT}).json()
    assert verdict["is_compatible"] is False
    assert verdict["messages"][0].startswith("the new schema cannot read records of version 2: at $ of the new schema")
    assert world.http.post(path, json={"schema": '"double"'}).json()["is_compatible"] is True
    assert world.http.post(f"/compatibility/subjects/{subject}x/versions", json={"schema": INT}).json()["is_compatible"]
    assert world.http.get(f"/subjects/{subject}/versions").json() == [1, 2]


def test_configuration_is_kept_whole(world: World, subject: str) -> None:
    path = f"/config/{subject}"
    sent = {"compatibility": "FULL", "normalize": True, "overrideMetadata": {"properties": {"owner": "x"}}}
    assert world.http.put(path, json=sent).json() == sent
    kept = {"compatibilityLevel": "FULL", "normalize": True, "overrideMetadata": {"properties": {"owner": "x"}}}
    assert world.http.get(path).json() == kept
    assert world.http.get("/config").json() == {"compatibilityLevel": "BACKWARD"}
    answer = world.http.get(f"/config/{subject}y", params={"defaultToGlobal": "true"})
    assert answer.json() == {"compatibilityLevel": "BACKWARD"}
    assert world.http.delete(path).json()["compatibility"] == "FULL"
    assert world.http.get(path).status_code == 404


def test_small_calls(world: World) -> None:
    assert world.http.get("/").json() == {}
    assert world.http.post("/").json() == {}
    assert world.http.get("/schemas/types").json() == ["AVRO"]
    assert world.http.get("/mode").json() == {"mode": "READWRITE"}


# --- the gate --------------------------------------------------------------------------------------------------


def test_every_call_passes_the_gate(world: World, subject: str) -> None:
    schema_id = put(world, subject, INT).json()["id"]
    world.http.put(f"/config/{subject}", json={"compatibility": "NONE"})
    world.http.get(f"/subjects/{subject}/versions/1")
    world.http.delete(f"/subjects/{subject}/versions/1")
    assert world.gate.entries == [
        ("tester", Action.SCHEMA_REGISTER, subject, {"schema": schema_id, "version": 1}),
        ("tester", Action.SCHEMA_CONFIGURE, subject, {"configured": ["compatibility"]}),
        ("tester", Action.SCHEMA_READ, subject, {}),
        ("tester", Action.SCHEMA_DELETE, subject, {"versions": [1], "permanent": False}),
    ]


def test_what_the_gate_denies_does_not_happen(world: World, subject: str) -> None:
    world.gate.denied.update({Action.SCHEMA_REGISTER, Action.SCHEMA_CONFIGURE, Action.SCHEMA_DELETE})
    answer = put(world, subject, INT)
    assert (answer.status_code, answer.json()["error_code"]) == (403, 40301)
    assert world.http.put("/config", json={"compatibility": "NONE"}).status_code == 403
    assert world.http.put("/mode", json={"mode": "READONLY"}).status_code == 403
    assert world.http.delete(f"/subjects/{subject}").status_code == 403
    assert world.http.get(f"/subjects/{subject}/versions").status_code == 404
    assert world.http.get("/config").json() == {"compatibilityLevel": "BACKWARD"}


def test_a_caller_without_identity_learns_nothing(world: World, subject: str) -> None:
    put(world, subject, INT)
    headers = {"authorization": "Bearer wrong"}
    for path in ("/subjects", f"/subjects/{subject}/versions", "/schemas/ids/1", "/schemas/ids/99999", "/config"):
        answer = world.http.get(path, headers=headers)
        assert (answer.status_code, answer.json()["error_code"]) == (401, 40101)
        assert answer.headers["www-authenticate"] == "Bearer"


# --- our own client --------------------------------------------------------------------------------------------


def test_our_client_reads_and_remembers(world: World, subject: str) -> None:
    schema_id = put(world, subject, record("x")).json()["id"]
    with RegistryClient(world.url) as client:
        world.gate.entries.clear()
        assert client.by_id(schema_id) == record("x")
        assert client.by_id(schema_id) == record("x")
        assert len(world.gate.entries) == 1, "an id never changes its meaning"
        latest = client.latest(subject)
        assert (latest.schema_id, latest.version, latest.text) == (schema_id, 1, record("x"))
        with pytest.raises(InvalidError) as unknown:
            client.latest(f"{subject}x")
        assert unknown.value.reason is Reason.SUBJECT_UNKNOWN
        with pytest.raises(InvalidError) as missing:
            client.by_id(99999)
        assert missing.value.reason is Reason.SCHEMA_UNKNOWN


def test_our_client_tells_refusal_from_absence(world: World, subject: str) -> None:
    world.gate.denied.add(Action.SCHEMA_READ)
    with RegistryClient(world.url) as client, pytest.raises(RefusedError):
        client.latest(subject)
    with RegistryClient("http://127.0.0.1:1") as client, pytest.raises(UnavailableError):
        client.latest(subject)
