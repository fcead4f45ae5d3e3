"""The calls that serializers do not make: lists with their filters, GUIDs, contexts, aliases, formats, the dialects."""

import json
import uuid
from collections.abc import Iterator

import httpx
import pytest
from fastapi.testclient import TestClient

from registry.rest.app import create
from registry.rest.errors import Dialect
from schemas.access import Action
from tests.kit.cases.registry import Subjects, memory_store
from tests.kit.world.registry_served import INT, LONG, TEXT, RecordingAccessControl, World, identify, put, record

pytestmark = pytest.mark.postgres

ADDRESS = '{"type":"record","name":"a.Address","fields":[{"name":"street","type":"string","confluent:tags":["PII"]}]}'
REFERENCE = {"name": "a.Address", "subject": "address", "version": 1}


@pytest.fixture
def access() -> RecordingAccessControl:
    return RecordingAccessControl()


def service() -> Subjects:
    store = memory_store()
    return Subjects(store, governed=lambda _: False)


@pytest.fixture
def http(access: RecordingAccessControl) -> Iterator[TestClient]:
    subjects = service()
    with TestClient(create(subjects.services, access, subjects.database, identify=identify)) as client:
        yield client


def register(http: httpx.Client, subject: str, schema: str, **more: object) -> int:
    answer = http.post(f"/subjects/{subject}/versions", json={"schema": schema, **more})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["id"])


def test_lists_are_filtered(http: TestClient) -> None:
    register(http, "a", INT)
    register(http, "a", LONG)
    register(http, "b", TEXT, ruleSet={"domainRules": [{"name": "r", "type": "CEL", "mode": "WRITE"}]})
    http.delete("/subjects/a/versions/1")
    assert [(one["subject"], one["version"]) for one in http.get("/schemas").json()] == [("a", 2), ("b", 1)]
    assert len(http.get("/schemas?deleted=true").json()) == 3
    assert [one["version"] for one in http.get("/schemas?deleted=true&latestOnly=true").json()] == [2, 1]
    assert [one["subject"] for one in http.get("/schemas?ruleType=CEL").json()] == ["b"]
    assert http.get("/schemas?ruleType=ENCRYPT").json() == []
    for filter_ in ("resourceType=topic", "associationType=key&associationType=value", "lifecycle=WEAK"):
        assert http.get(f"/schemas?{filter_}").json() == []  # nothing is associated
    assert len(http.get("/schemas?resourceType=&associationType=&lifecycle=").json()) == 2
    assert [one["subject"] for one in http.get("/schemas?subjectPrefix=b").json()] == ["b"]
    assert len(http.get("/schemas?offset=1&limit=1").json()) == 1
    assert http.get("/subjects/a/versions?deletedAsNegative=true").json() == [-1, 2]
    assert http.get("/subjects/a/versions?deletedOnly=true").json() == [1]


def test_the_normal_form_is_registered_where_it_is_asked_for(http: TestClient) -> None:
    decimal = '{"type": "bytes", "logicalType": "decimal", "precision": 4%s}'
    plain, wordy = {"schema": decimal % ""}, {"schema": decimal % ', "scale": 0'}
    first = http.post("/subjects/a/versions?normalize=true", json=wordy).json()["id"]
    assert http.post("/subjects/a/versions?normalize=true&force=false", json=plain).json()["id"] == first
    assert http.post("/subjects/b/versions", json=plain).json()["id"] == first
    other = http.post("/subjects/b/versions", json=wordy).json()["id"]
    assert other != first
    assert http.post("/subjects/a", json=wordy).json()["error_code"] == 40403
    assert http.post("/subjects/a?normalize=true", json=wordy).json()["id"] == first
    assert http.post("/subjects/b?normalize=true", json=wordy).json()["id"] == first
    for path in ("versions", "versions/latest"):
        assert http.post(f"/compatibility/subjects/a/{path}?normalize=true", json=wordy).json()["is_compatible"]
    assert http.put("/config/c", json={"normalize": True}).json() == {"normalize": True}
    assert http.post("/subjects/c/versions", json=wordy).json()["id"] == first
    assert http.post("/subjects/c", json=wordy).json()["id"] == first
    assert "scale" not in http.get(f"/schemas/ids/{first}").json()["schema"]


def test_a_registration_tells_a_curious_client_what_text_stands_there_if_it_is_another(http: TestClient) -> None:
    curious = {"confluent-accept-unknown-properties": "true"}
    told = http.post("/subjects/a/versions", json={"schema": '{"type": "int"}'}, headers=curious).json()
    assert told.keys() == {"id", "version", "guid"}
    told = http.post("/subjects/b/versions?normalize=true", json={"schema": '{"type": "int"}'}, headers=curious).json()
    assert told["schema"] == INT
    assert "schema" not in http.post("/subjects/b/versions?normalize=true", json={"schema": INT}).json()
    register(http, "address", ADDRESS)
    body = {"schema": '["null", "a.Address"]', "references": [REFERENCE]}
    told = http.post("/subjects/c/versions?format=resolved", json=body, headers=curious).json()
    assert json.loads(told["schema"])[1]["fields"]


def test_references_name_their_context_whatever_format_is_asked_for(http: TestClient) -> None:
    register(http, ":.police:address", ADDRESS)
    reference = {"name": "a.Address", "subject": "address", "version": -1}
    schema_id = register(http, ":.police:person", '["null", "a.Address"]', references=[reference])
    for path in (f"/schemas/ids/{schema_id}", "/subjects/:.police:person/versions/1"):
        for query in ("", "?referenceFormat=qualified"):
            told = http.get(path + query).json()["references"]
            assert told == [{"name": "a.Address", "subject": ":.police:address", "version": 1}]


def test_a_guid_stands_for_a_content(http: TestClient) -> None:
    curious = {"Confluent-Accept-Unknown-Properties": "true"}
    told = http.post("/subjects/a/versions", json={"schema": INT}, headers=curious).json()
    found = http.get(f"/schemas/guids/{told['guid']}").json()
    assert found == {"schema": INT, "guid": told["guid"]}
    assert http.get(f"/schemas/guids/{told['guid']}/ids").json() == [{"context": ".", "id": told["id"]}]
    assert http.get(f"/schemas/guids/{uuid.uuid4()}").json()["error_code"] == 40403


def test_references_tags_and_formats(http: TestClient) -> None:
    register(http, "address", ADDRESS)
    schema = '{"type":"record","name":"P","fields":[{"name":"home","type":"a.Address"}]}'
    schema_id = register(http, "p", schema, references=[REFERENCE])
    assert http.get("/subjects/p/versions/1").json()["references"] == [REFERENCE]
    assert http.get(f"/schemas/ids/{schema_id}").json() == {"schema": schema, "references": [REFERENCE]}
    resolved = http.get(f"/schemas/ids/{schema_id}?format=resolved").json()["schema"]
    assert json.loads(resolved)["fields"][0]["type"]["fields"][0]["name"] == "street"
    assert http.get("/subjects/address/versions/1/referencedby").json() == [schema_id]
    tags = http.get("/subjects/address/versions/1?findTags=PII").json()["schemaTags"]
    assert tags == [{"schemaEntity": {"entityPath": "a.Address.street", "entityType": "sr_field"}, "tags": ["PII"]}]
    assert http.get("/schemas/ids/1?fetchMaxId=true").json()["maxId"] == schema_id
    assert http.delete("/subjects/address").json()["error_code"] == 42206


def test_an_alias_leads_to_its_subject(http: TestClient) -> None:
    register(http, "long-name", INT)
    http.put("/config/short", json={"alias": "long-name"})
    assert http.get("/subjects/short/versions/latest").json()["subject"] == "long-name"
    register(http, "short", LONG)
    assert http.get("/subjects/long-name/versions").json() == [1, 2]
    assert http.get("/schemas?aliases=true").json()[0]["aliases"] == ["short"]
    http.put("/config/short", json={"alias": None})
    assert http.get("/subjects/short/versions").json()["error_code"] == 40401


def test_a_context_in_the_url_is_a_context_of_the_subject(http: TestClient) -> None:
    assert http.post("/contexts/.police/subjects/s/versions", json={"schema": INT}).status_code == 200
    assert http.get("/subjects").json() == [":.police:s"]
    assert http.get("/subjects", params={"subjectPrefix": ""}).json() == []
    assert http.get("/contexts/.police/subjects").json() == [":.police:s"]
    in_context = "/contexts/.police/schemas/ids/1/versions?subject"
    assert http.get(f"{in_context}=s").json() == [{"subject": ":.police:s", "version": 1}]
    assert http.get(f"{in_context}=:.tax:s").json() == []
    assert http.get("/contexts/.tax/subjects").json() == []
    assert http.get("/contexts/.police/schemas/ids/1").json()["schema"] == INT
    http.put("/contexts/.police/config", json={"compatibility": "NONE"})
    assert http.get("/config/:.police:").json() == {"compatibilityLevel": "NONE"}
    assert http.get("/contexts").json() == [".", ".police"]
    assert http.delete("/contexts/.police").json()["error_code"] == 42211
    assert http.delete("/contexts/:.:").status_code == 422
    http.delete("/contexts/.police/subjects/s")
    http.delete("/contexts/.police/subjects/s?permanent=true")
    assert http.delete("/contexts/.police").status_code == 204
    assert http.get("/config/:.police:").status_code == 404


def test_import_over_http(http: TestClient) -> None:
    assert http.put("/mode", json={"mode": "IMPORT"}).json() == {"mode": "IMPORT"}
    assert register(http, "s", INT, id=77, version=4) == 77
    assert http.get("/subjects/s/versions").json() == [4]
    other = http.post("/subjects/s/versions", json={"schema": LONG, "id": 77, "version": 5})
    assert (other.status_code, other.json()["error_code"]) == (422, 42205)
    http.put("/mode", json={"mode": "READWRITE"})
    refused = http.post("/subjects/s/versions", json={"schema": LONG, "id": 78})
    assert (refused.status_code, refused.json()["error_code"]) == (422, 42205)
    again = http.put("/mode", json={"mode": "IMPORT"})
    assert (again.status_code, again.json()["error_code"]) == (422, 42205)
    assert http.put("/mode?force=true", json={"mode": "IMPORT"}).status_code == 200


def test_an_invalid_rule_has_its_number(http: TestClient) -> None:
    rules = {"domainRules": [{"name": "r", "kind": "MIRACLE"}]}
    answer = http.post("/subjects/s/versions", json={"schema": INT, "ruleSet": rules})
    assert (answer.status_code, answer.json()["error_code"]) == (422, 42210)


def test_the_two_dialects() -> None:
    words = {}
    for dialect in Dialect:
        with TestClient(
            create(
                (found := service()).services,
                RecordingAccessControl(),
                found.database,
                identify=identify,
                dialect=dialect,
            )
        ) as http:
            register(http, "s", INT)
            words[dialect] = [
                http.request(method, path, json=body).json()["message"]
                for method, path, body in (
                    ("POST", "/subjects/s/versions", {"schema": TEXT}),
                    ("POST", "/subjects/s", {"schema": '"nonsense"'}),
                    ("POST", "/subjects/s/versions", {}),
                    ("GET", "/config/unseen", None),
                )
            ]
    confluent, karapace = words[Dialect.CONFLUENT], words[Dialect.KARAPACE]
    assert confluent[0].startswith("Schema being registered is incompatible with an earlier schema")
    assert karapace[0].startswith("Incompatible schema, compatibility_mode=BACKWARD. Incompatibilities: ")
    assert confluent[1].startswith("Invalid schema")
    assert karapace[1] == "Error while looking up schema under subject s"
    assert karapace[2] == [{"type": "missing", "loc": ["body", "schema"], "msg": "Field required", "input": {}}]
    assert confluent[3] == "Subject 'unseen' does not have subject-level compatibility configured"
    assert karapace[3] == "Subject 'unseen' not found."


# --- responses by id, and what a request leaves out -------------------------------------------------------------


def test_behind_the_gate_the_answer_is_made_once_and_asked_for_each_time(
    http: TestClient, access: RecordingAccessControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(http, "s", INT)
    first = http.get("/schemas/ids/1")
    monkeypatch.delattr("registry.rest.schemas.content_json")
    again = http.get("/schemas/ids/1")
    assert (again.status_code, again.content) == (200, first.content)
    for name in ("content-type", "cache-control", "etag"):
        assert again.headers[name] == first.headers[name]
    access.entries.clear()
    same = http.get("/schemas/ids/1", headers={"If-None-Match": first.headers["etag"]})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", first.headers["etag"])
    assert len(access.entries) == 1
    assert http.get("/schemas/ids/1", headers={"If-None-Match": '"2"'}).status_code == 200
    access.denied.add(Action.SCHEMA_READ_BY_ID)
    for headers in ({}, {"If-None-Match": first.headers["etag"]}):
        assert http.get("/schemas/ids/1", headers=headers).status_code == 403


def test_an_id_that_was_unknown_is_found_once_it_is_given(http: TestClient) -> None:
    assert http.get("/schemas/ids/1").json()["error_code"] == 40403
    register(http, "s", INT)
    assert http.get("/schemas/ids/1").json() == {"schema": INT}


def test_a_default_that_is_stated_changes_nothing(world: World, subject: str) -> None:
    put(world, subject, record("x"))
    for method, path, body in (
        ("GET", f"/subjects/{subject}/versions/latest", None),
        ("GET", f"/subjects/{subject}/versions/9", None),
        ("GET", f"/subjects/{subject}/versions/new", None),
        ("POST", f"/subjects/{subject}", {"schema": record("x")}),
        ("POST", f"/subjects/{subject}", {"schema": record("y")}),
        ("POST", f"/subjects/{subject}", {}),
        ("POST", f"/subjects/{subject}/versions", {"schema": record("x")}),
        ("POST", f"/subjects/{subject}/versions", {"schema": INT}),
    ):
        plain = world.http.request(method, path, json=body)
        default = "normalize=false" if path.endswith("/versions") else "deleted=false"
        stated = world.http.request(method, f"{path}?{default}&format=", json=body)
        assert (plain.status_code, plain.json()) == (stated.status_code, stated.json()), path
        assert plain.headers["content-type"] == stated.headers["content-type"]
