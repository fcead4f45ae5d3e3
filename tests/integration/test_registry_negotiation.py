"""The manners of the registry's API: media types, bodies, subjects, pages, and the gate."""

import json
import uuid
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest

from schemas.access import Action
from tests.kit.world.registry_served import INT, LONG, V1, World, put

pytestmark = pytest.mark.postgres


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
        (b'{"schema": "\\u0000"}', {}, 422, 422),
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
    assert world.http.get("/schemas/types").json() == ["JSON", "PROTOBUF", "AVRO"]
    assert world.http.get("/mode").json() == {"mode": "READWRITE"}


# --- the gate --------------------------------------------------------------------------------------------------


def test_every_call_passes_the_gate(world: World, subject: str) -> None:
    schema_id = put(world, subject, INT).json()["id"]
    world.http.put(f"/config/{subject}", json={"compatibility": "NONE"})
    world.http.get(f"/subjects/{subject}/versions/1")
    world.http.delete(f"/subjects/{subject}/versions/1")
    assert world.access.entries == [
        ("tester", Action.SCHEMA_REGISTER, subject, {"schema": schema_id, "version": 1}),
        ("tester", Action.SCHEMA_CONFIGURE, subject, {"configured": ["compatibility"]}),
        ("tester", Action.SCHEMA_READ, subject, {}),
        ("tester", Action.SCHEMA_DELETE, subject, {"versions": [1], "permanent": False}),
    ]


def test_what_the_gate_denies_does_not_happen(world: World, subject: str) -> None:
    world.access.denied.update({Action.SCHEMA_REGISTER, Action.SCHEMA_CONFIGURE, Action.SCHEMA_DELETE})
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


def test_a_denied_read_is_refused_and_not_answered_as_absent(world: World, subject: str) -> None:
    world.access.denied.add(Action.SCHEMA_READ)
    answer = world.http.get(f"/subjects/{subject}/versions/latest")
    assert (answer.status_code, answer.json()["error_code"]) == (403, 40301)
