"""What somebody sends who wants to hurt: always a 4xx with words, and memory stays where it was."""

import json
import os
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.kit.world.registry_served import World, put, record

pytestmark = pytest.mark.postgres

MB = 1024 * 1024


def nested(depth: int) -> str:
    return '{"type":"array","items":' * depth + '"int"' + "}" * depth


def doubling(levels: int) -> str:
    """Each record holds the one before it twice."""
    text = '{"type":"record","name":"R0","fields":[{"name":"x","type":"int"}]}'
    for level in range(1, levels):
        fields = f'{{"name":"a","type":{text}}},{{"name":"b","type":"R{level - 1}"}}'
        text = f'{{"type":"record","name":"R{level}","fields":[{fields}]}}'
    return text


WIDE = {"type": "record", "name": "W", "fields": [{"name": f"f{n}", "type": "long"} for n in range(200)]}
SCHEMAS = {
    "10,000 levels": nested(10_000),
    "levels in a default": json.dumps(
        {"type": "record", "name": "R", "fields": [{"name": "x", "type": "int", "default": None}]}
    ).replace("null", "[" * 10_000 + "]" * 10_000),
    "a million branches": json.dumps(["null"] * 200_000),
    "many distinct branches": json.dumps(
        [{"type": "fixed", "name": f"F{number}", "size": 1} for number in range(30_000)]
    ),
    "doubling": doubling(30),
    "a huge fixed": '{"type":"fixed","name":"F","size":9223372036854775807}',
    "a zero-width array": '{"type":"array","items":"null"}',
    "amplification": json.dumps(
        {
            "type": "array",
            "items": [
                "null",
                {"type": "record", "name": "W", "fields": [{"name": f"f{n}", "type": "long"} for n in range(200)]},
            ],
        }
    ),
    "names": '{"type":"record","name":"no name!","fields":[]}',
    "field names": '{"type":"record","name":"R","fields":[{"name":"a-b","type":"int"}]}',
    "a name of a megabyte": json.dumps({"type": "enum", "name": "E" * 900_000, "symbols": ["A-"]}),
    "a number as a type": "17",
    "nothing": "",
    "nul": "\x00",
    "an alias that is no list": '{"type":"record","name":"R","aliases":7,"fields":[]}',
    "fields that are no list": '{"type":"record","name":"R","fields":{}}',
    "a surrogate": '"\ud800"',
}


def test_a_record_of_itself_is_refused_where_records_are_decoded(world: World, subject: str) -> None:
    text = '{"type":"record","name":"R","fields":[{"name":"deep","type":"R"}]}'
    for path in (f"/subjects/governed-{subject}/versions", f"/compatibility/subjects/governed-{subject}/versions"):
        answer = world.http.post(path, json={"schema": text})
        assert (answer.status_code, answer.json()["error_code"]) == (422, 42201)
        assert "deep" in answer.json()["message"]
    assert put(world, subject, text).status_code == 200


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_a_hostile_schema_is_told_so(world: World, subject: str, name: str) -> None:
    for path in (
        f"/subjects/{subject}/versions",
        f"/subjects/{subject}",
        f"/compatibility/subjects/{subject}/versions",
    ):
        body = json.dumps({"schema": SCHEMAS[name]}).encode()
        answer = world.http.post(path, content=body, headers={"content-type": "application/json"})
        assert 400 <= answer.status_code < 500, (path, answer.text[:300])
        assert answer.json()["message"]
        assert len(answer.text) < 3_000


def test_fifty_megabytes_cost_no_memory(world: World, subject: str) -> None:
    process = psutil.Process(os.getpid())
    before = process.memory_info().rss

    def chunks() -> Iterator[bytes]:
        for _ in range(800):
            yield b"x" * 65_536

    for _ in range(3):
        try:
            answer = world.http.post(f"/subjects/{subject}/versions", content=chunks())
        except httpx.TransportError:
            continue  # it closed the connection while we were sending
        assert answer.json()["error_code"] == 42209
    assert process.memory_info().rss - before < 40 * MB
    stated = world.http.build_request(
        "POST", f"/subjects/{subject}/versions", content=b"{}", headers={"content-length": str(50 * MB)}
    )
    address = urlsplit(world.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as raw:
        head = "".join(f"{name}: {value}\r\n" for name, value in stated.headers.items())
        raw.sendall(f"POST /subjects/{subject}/versions HTTP/1.1\r\n{head}\r\n".encode())
        said = b""
        while b"42209" not in said and (more := raw.recv(4096)):  # head and body may come apart
            said += more
        assert b"42209" in said, "refused before it is read"


def test_cyclic_references_cannot_be_made(world: World, subject: str) -> None:
    itself = {"schema": '"A"', "references": [{"name": "A", "subject": subject, "version": 1}]}
    answer = world.http.post(f"/subjects/{subject}/versions", json=itself)
    assert (answer.status_code, answer.json()["error_code"]) == (422, 42201)
    put(world, subject, record("x"))
    through = {
        "schema": '{"type":"record","name":"R","fields":[{"name":"r","type":"R2"}]}',
        "references": [{"name": "R2", "subject": subject, "version": -1}],
    }
    answer = world.http.post(f"/subjects/{subject}/versions", json=through)
    assert (answer.status_code, answer.json()["error_code"]) == (422, 42201)


def test_many_references_are_bounded(world: World, subject: str) -> None:
    put(world, subject, record("x"))
    references = [{"name": f"n{number}", "subject": subject, "version": 1} for number in range(3_000)]
    body = {"schema": '"int"', "references": references}
    answer = world.http.post(f"/subjects/{subject}x/versions", json=body)
    assert 400 <= answer.status_code < 500, answer.text[:300]


@pytest.mark.parametrize(
    "charset",
    ["klingon", "punycode", "idna", "rot13", "zip", "utf-7", "unicode_escape", "raw-unicode-escape", "\u00e9"],
)
def test_only_some_character_sets_are_taken(world: World, subject: str, charset: str) -> None:
    headers = {"content-type": f"application/json; charset={charset}".encode()}
    answer = world.http.post(f"/subjects/{subject}/versions", content=b'{"schema": "\\"int\\""}', headers=headers)
    assert (answer.status_code, answer.json()["error_code"]) == (422, 422)


@pytest.mark.parametrize("content_type", ["", ";", "application/json;charset", "application/json; charset="])
def test_an_empty_content_type_is_no_fault_of_ours(world: World, subject: str, content_type: str) -> None:
    answer = world.http.post(
        f"/subjects/{subject}/versions", content=b'{"schema": "\\"int\\""}', headers={"content-type": content_type}
    )
    assert answer.status_code in (200, 415, 422), answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/subjects/" + "x" * 20_000,
        "/subjects/%2e%2e%2f%2e%2e/versions",
        "/contexts/%00/subjects/x/versions",
        "/contexts/a:b/subjects",
        "/contexts//subjects",
        "/subjects/:.a:/versions",
        "/subjects/:*:/versions/latest",
        "/schemas/guids/x",
        "/schemas/ids/" + "9" * 5_000,
        "/subjects?offset=" + "9" * 5_000,
        "/subjects?limit=99999999999999999999&offset=-99999999999999999999",
        "/subjects/x/metadata?key=a",
        "/subjects/x/versions/%31%30",
        "/config/%ff",
    ],
)
def test_odd_paths_are_answered(world: World, path: str) -> None:
    answer = world.http.get(path)
    assert answer.status_code < 500, answer.text[:300]
