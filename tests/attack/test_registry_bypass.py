"""What an operator of the registry believes done is done: locks hold under every name, and no tag leaves by a side way.

A registry that answers 200 to what it does not do is worse than one that refuses: a lock is believed, a tag is believed
to be there. Each case here was answered so.
"""

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from starlette.requests import Request

from registry.governance.approvals import Approvals
from registry.postgres import tables
from registry.postgres.approvals import PostgresApprovals
from registry.rest.app import create
from registry.rest.governance import GovernanceHandlers
from schemas.access import Actor, ActorKind, Role
from tests.kit.cases.registry import Subjects, postgres_store
from tests.kit.row_tags import row_tags
from tests.kit.world.registry_served import INT, LONG, RecordingAccessControl

pytestmark = pytest.mark.postgres

SUBJECT = "population.v1-value"
OFFICER = {"authorization": "Bearer officer"}


def identify(request: Request) -> Actor:
    officer = request.headers.get("authorization") == "Bearer officer"
    role = Role.SECURITY_OFFICER if officer else Role.CATALOGUE_EDITOR
    return Actor(kind=ActorKind.HUMAN, id="officer" if officer else "editor", department="d1", role=role)


@pytest.fixture
def http(engine: sa.Engine) -> Iterator[TestClient]:
    """A registry on PostgreSQL; the fields of SUBJECT must be classified."""
    tables.metadata.create_all(engine)
    store = postgres_store(engine)
    ids = (f"0195-{number}" for number in itertools.count(1))
    approvals = Approvals(
        PostgresApprovals(row_tags()),
        clock=lambda: datetime.now(UTC),
        new_id=lambda: next(ids),
        persons=lambda _, names: {name: name for name in names},
    )
    subjects = Subjects(store, governed=lambda name: name == SUBJECT, approved=approvals.consume)
    access = RecordingAccessControl(database=subjects.database)
    more = partial(GovernanceHandlers, approvals=approvals, grants=lambda *_: [])
    with TestClient(create(subjects.services, access, subjects.database, identify=identify, more=[more])) as client:
        yield client


def status(http: TestClient, subject: str, text: str, **more: Any) -> tuple[int, int]:
    answer = http.post(f"/subjects/{subject}/versions", json={"schema": text, **more})
    return answer.status_code, answer.json().get("error_code", 0)


# --- a lock ----------------------------------------------------------------------------------------------------

LOCKS = [
    "/mode",
    "/mode/:.__GLOBAL:",
    "/mode/%3A.__GLOBAL%3A",
    "/contexts/.__GLOBAL/mode",
    "/contexts/:.__GLOBAL:/mode",
]


@pytest.mark.parametrize("path", LOCKS)
def test_a_registry_that_says_it_is_locked_is_locked(http: TestClient, path: str) -> None:
    assert status(http, "before", INT) == (200, 0)
    assert http.put(path, json={"mode": "READONLY"}).json() == {"mode": "READONLY"}
    for subject in ("before", "new", ":.police:new", ":.__GLOBAL:new"):
        refused, number = status(http, subject, LONG)
        assert (refused, number) == (422, 42208 if "GLOBAL" in subject else 42205), subject
    assert http.delete("/subjects/before").json()["error_code"] == 42205
    assert http.put("/config/before", json={"compatibility": "NONE"}).json()["error_code"] == 42205
    assert http.delete("/config/before").json()["error_code"] == 42205
    assert [http.get(one).json() for one in LOCKS] == [{"mode": "READONLY"}] * len(LOCKS)
    assert http.delete(path).json() == {"mode": "READONLY"}
    assert status(http, ":.police:new", LONG) == (200, 0)


@pytest.mark.parametrize("path", ["/config/:.__GLOBAL:", "/contexts/.__GLOBAL/config"])
def test_what_is_configured_for_all_contexts_holds_in_all(http: TestClient, path: str) -> None:
    assert status(http, ":.police:s", INT) == (200, 0)
    assert http.put(path, json={"compatibility": "NONE"}).status_code == 200
    assert status(http, ":.police:s", '"string"') == (200, 0)
    assert http.get("/config").json() == http.get(path).json() == {"compatibilityLevel": "NONE"}


@pytest.mark.parametrize(
    "name", [":*:", ":x", "view.0195.v1", ":.police:view.x", "__GLOBAL", "__EMPTY", ":.__GLOBAL:x"]
)
def test_nothing_is_set_under_a_name_that_holds_no_schema(http: TestClient, name: str) -> None:
    for kind, body in (("mode", {"mode": "READONLY"}), ("config", {"compatibility": "FULL"})):
        answer = http.put(f"/{kind}/{name}", json=body)
        assert (answer.status_code, answer.json()["error_code"]) == (422, 42208), kind
        assert http.get(f"/{kind}/{name}").status_code == 404


def test_an_alias_is_not_locked_instead_of_its_subject(http: TestClient) -> None:
    assert status(http, "real", INT) == (200, 0)
    assert http.put("/config/nick", json={"alias": "real"}).status_code == 200
    answer = http.put("/mode/nick", json={"mode": "READONLY"})
    assert answer.status_code == 422
    assert "set it for real" in answer.json()["message"]
    for body in ({"compatibility": "FULL"}, {"alias": "real", "normalize": True}):
        assert http.put("/config/nick", json=body).status_code == 422
    for scope in ("", "/:.police:"):
        answer = http.put(f"/config{scope}", json={"alias": "real"})
        assert (answer.status_code, '"alias"' in answer.json()["message"]) == (422, True)


def test_a_context_that_overrides_locks_subjects_with_a_mode_of_their_own(http: TestClient) -> None:
    assert http.put("/mode/:.police:s", json={"mode": "READWRITE"}).status_code == 200
    assert http.put("/mode/:.police:", json={"mode": "READONLY_OVERRIDE"}).status_code == 200
    assert status(http, ":.police:s", INT) == (422, 42205)
    assert status(http, "s", INT) == (200, 0)


# --- a version -------------------------------------------------------------------------------------------------


def test_a_version_that_is_not_the_next_is_not_registered_as_another(http: TestClient) -> None:
    assert status(http, "s", INT, version=2) == (422, 42201)
    assert status(http, "s", INT, version=1) == (200, 0)
    assert status(http, "s", INT, version=1) == (200, 0), "sent again"
    assert status(http, "s", INT, version=2) == (422, 42201), "it is version 1"
    for number in (1, 3):
        answer = http.post("/subjects/s/versions", json={"schema": LONG, "version": number})
        assert (answer.status_code, answer.json()["error_code"]) == (422, 42201)
        assert f"Version is not one more than previous version: got {number}; expected 2" in answer.json()["message"]
    assert status(http, "s", LONG, version=-1) == (200, 0)
    assert http.get("/subjects/s/versions").json() == [1, 2]
    http.delete("/subjects/s/versions/2")
    assert status(http, "s", '"double"', version=2) == (422, 42201), "a deleted version keeps its number"
    assert status(http, "s", '"double"', version=3) == (200, 0)


def test_a_deletion_does_not_look_permanent_by_its_body(http: TestClient) -> None:
    assert status(http, "s", INT) == (200, 0)
    for path in ("/subjects/s", "/subjects/s/versions/1", "/mode/s", "/config/s", "/contexts/.x"):
        answer = http.request("DELETE", path, json={"permanent": True})
        assert (answer.status_code, "got a body" in answer.json()["message"]) == (422, True), path
    answer = http.request("DELETE", "/subjects/s", content=iter([b"{}"]))
    assert answer.status_code == 422, "in chunks, without a length"
    assert http.delete("/subjects/s").json() == [1]


# --- tags ------------------------------------------------------------------------------------------------------


def field(name: str, kind: Any = "string", **facts: Any) -> dict[str, Any]:
    known = {"zh": "号", "level": "G3", "personal": "P", "sensitive": "N", "mask": "none"}
    return {"name": name, "type": kind} | known | facts


def schema(*fields: dict[str, Any], **more: Any) -> str:
    record = {"type": "record", "name": "Person", "namespace": "gov", "zh": "人", "fields": list(fields)}
    return json.dumps(record | more, ensure_ascii=False)


def home(name: str, *, level: str = "G3", tags: tuple[str, ...] = ("PII",), **more: Any) -> dict[str, Any]:
    street = field("street", level=level, **({"confluent:tags": [*tags]} if tags else {}))
    inner = {"type": "record", "name": "Home", "zh": "住所", "confluent:tags": ["PLACE"], "fields": [street]}
    return field(name, inner, level="G1", personal="N", **more)


def edit(path: str, *tags: str, kind: str = "sr_field") -> list[dict[str, Any]]:
    return [{"schemaEntity": {"entityPath": path, "entityType": kind}, "tags": [*tags]}]


TAGGED = field("id", **{"confluent:tags": ["PII", "ID"]})
BEFORE = {
    "schema": schema(TAGGED, home("home"), **{"confluent:tags": ["PERSONS"]}),
    "metadata": {"tags": {"**.street": ["ADDRESS"], "gov.Person": ["LAW"]}},
}
PLAIN = field("id")
DROPS: dict[str, tuple[dict[str, Any], str]] = {
    "from the schema": ({"schema": schema(PLAIN, home("home"), **{"confluent:tags": ["PERSONS"]})}, "'PII' of id"),
    "from the record": ({"schema": schema(TAGGED, home("home"))}, "'PERSONS' of the record"),
    "by an edit": (
        {"schema": BEFORE["schema"], "schemaTagsToRemove": edit("gov.Person.id", "ID")},
        "'ID' of id",
    ),
    "by an edit of a record": (
        {"schema": BEFORE["schema"], "schemaTagsToRemove": edit("gov.Home", "PLACE", kind="sr_record")},
        "'PLACE' of the record in home",
    ),
    "from the metadata": ({"schema": BEFORE["schema"], "metadata": {"tags": {}}}, "'ADDRESS' of home.street"),
    "from the metadata of a record": (
        {"schema": BEFORE["schema"], "metadata": {"tags": {"**.street": ["ADDRESS"]}}},
        "'LAW' of the record",
    ),
    "by a new name": (
        {"schema": schema(field("number", aliases=["id"]), home("home"), **{"confluent:tags": ["PERSONS"]})},
        "'PII' of number",
    ),
    "by a new name of what holds it": (
        {"schema": schema(TAGGED, home("house", tags=(), aliases=["home"]), **{"confluent:tags": ["PERSONS"]})},
        "'PII' of house.street",
    ),
    "by a version in between": (
        {"schema": schema(PLAIN, home("home"), **{"confluent:tags": ["PERSONS"]})},
        "'ID' of id",
    ),
}


@pytest.mark.parametrize(("body", "finding"), DROPS.values(), ids=DROPS.keys())
def test_a_tag_is_dropped_by_two_people_only(http: TestClient, body: dict[str, Any], finding: str) -> None:
    path = f"/subjects/{SUBJECT}/versions"
    assert http.post(path, json=BEFORE).status_code == 200
    if finding == DROPS["by a version in between"][1]:
        http.put(f"/config/{SUBJECT}", json={"compatibility": "NONE"})
        without = schema(home("home"), **{"confluent:tags": ["PERSONS"]})
        assert http.post(path, json={"schema": without}).status_code == 200
    refused = http.post(path, json=body)
    assert refused.status_code == 409, refused.text
    assert f"the tag {finding} is dropped" in refused.json()["message"]
    asked = http.post("/approvals", json={"subject": SUBJECT, "reason": "误标", **body})
    assert asked.status_code == 201, asked.text
    assert any(finding in one for one in asked.json()["findings"])
    decision = f"/approvals/{asked.json()['id']}/decision"
    assert http.post(path, json=body).status_code == 409
    assert http.post(decision, json={"approve": True}).status_code == 403
    assert http.post(decision, json={"approve": True}, headers=OFFICER).status_code == 200
    assert http.post(path, json=body).status_code == 200


def test_a_configuration_takes_no_tag_away(http: TestClient) -> None:
    assert http.post(f"/subjects/{SUBJECT}/versions", json=BEFORE).status_code == 200
    override = {"overrideMetadata": {"tags": {"**.street": []}}}
    assert http.put(f"/config/{SUBJECT}", json=override).status_code == 200
    assert status(http, SUBJECT, schema(TAGGED, home("home"), doc="x", **{"confluent:tags": ["PERSONS"]})) == (409, 409)


def test_a_level_is_not_lowered_by_a_new_name_of_what_holds_the_field(http: TestClient) -> None:
    assert http.post(f"/subjects/{SUBJECT}/versions", json={"schema": schema(home("home"))}).status_code == 200
    lowered = schema(home("house", level="G1", aliases=["home"]))
    answer = http.post(f"/subjects/{SUBJECT}/versions", json={"schema": lowered})
    assert answer.status_code == 409, answer.text
    assert '"level" falls from G3 to G1' in answer.json()["message"]


def test_tags_are_added_and_removed_and_nothing_else_is(http: TestClient) -> None:
    text = schema(field("id", **{"confluent:tags": ["OLD", "KEPT"]}), home("home", tags=()))
    body = {
        "schema": text,
        "schemaTagsToAdd": edit("gov.Person.id", "PII", "KEPT") + edit("gov.Home", "NEW", kind="sr_record"),
        "schemaTagsToRemove": edit("gov.Person.id", "OLD") + edit("gov.Home", "PLACE", kind="sr_record"),
    }
    curious = {"confluent-accept-unknown-properties": "true"}
    answer = http.post("/subjects/s/versions", json=body, headers=curious)
    assert answer.status_code == 200, answer.text
    stored = http.get("/subjects/s/versions/1?findTags=*").json()
    assert answer.json()["schema"] == stored["schema"], "it is not the text that was sent"
    found = {one["schemaEntity"]["entityPath"]: one["tags"] for one in stored["schemaTags"]}
    assert found == {"gov.Person.id": ["KEPT", "PII"], "gov.Home": ["NEW"]}
    expected = json.loads(text)
    expected["fields"][0]["confluent:tags"] = ["KEPT", "PII"]
    expected["fields"][1]["type"]["confluent:tags"] = ["NEW"]
    assert json.loads(stored["schema"]) == expected


@pytest.mark.parametrize(
    ("more", "number"),
    [
        ({"schemaTagsToAdd": edit("gov.Person.name", "PII")}, 42201),
        ({"schemaTagsToAdd": edit("gov.Person.id", "PII", kind="sr_record")}, 42201),
        ({"schemaTagsToRemove": edit("Person.id", "PII")}, 42201),
        ({"schemaTagsToAdd": edit("gov.Person.id")}, 422),
        ({"schemaTagsToAdd": edit("gov.Person.id", "PII", kind="sr_schema")}, 422),
        ({"schemaTagsToAdd": [{**edit("gov.Person.id", "PII")[0], "more": 1}]}, 422),
        ({"schemaTagsToAdd": {"gov.Person.id": ["PII"]}}, 422),
        ({"schemaTagsToRemove": ["PII"]}, 422),
        ({"schemaTagsToAdd": edit("M", "PII"), "schema": "message M {}", "schemaType": "PROTOBUF"}, 422),
        ({"schemaTagsToAdd": edit("M", "PII"), "schema": '{"type": "record"}'}, 42201),
        ({"schemaTagsToAdd": edit("M", "PII"), "schema": "[" * 100_000}, 42201),
        ({"propagateSchemaTags": True}, 422),
    ],
)
def test_tags_that_cannot_be_set_are_refused(http: TestClient, more: dict[str, Any], number: int) -> None:
    answer = http.post("/subjects/s/versions", json={"schema": schema(TAGGED)} | more)
    assert (answer.status_code, answer.json()["error_code"]) == (422, number), answer.text
    assert http.get("/subjects").json() == []


# --- what a configuration promises -----------------------------------------------------------------------------


def test_reserved_fields_are_kept_free_where_fields_are_validated(http: TestClient) -> None:
    def reserved(*names: str) -> dict[str, Any]:
        return {"properties": {"confluent:reserved": ", ".join(names)}}

    text = schema(PLAIN)
    assert status(http, "a", text, metadata=reserved("id")) == (200, 0)
    assert http.put("/config", json={"validateFields": True}).status_code == 200
    answer = http.post("/subjects/b/versions", json={"schema": text, "metadata": reserved("id")})
    assert (answer.status_code, answer.json()["error_code"]) == (409, 409)
    assert "conflicts with the reserved field id" in answer.json()["message"]
    assert status(http, "b", text, metadata=reserved("note", "remark")) == (200, 0)
    with_note = schema(PLAIN, field("note", default=""))
    assert status(http, "b", with_note) == (409, 409), "the metadata is that of the version before"
    assert status(http, "b", with_note, metadata=reserved("remark")) == (409, 409), "a reservation is not removed"
    checked = http.post("/compatibility/subjects/b/versions/latest", json={"schema": with_note}).json()
    assert checked["is_compatible"] is False
    assert checked["messages"] == ["The new schema has field that conflicts with the reserved field note."]
    assert http.put("/config/b", json={"validateFields": False}).status_code == 200
    assert status(http, "b", with_note) == (200, 0)


def test_a_sensitive_value_is_not_taken_since_it_would_not_be_encrypted(http: TestClient) -> None:
    secret = {"properties": {"password": "x"}, "sensitive": ["password"]}
    answer = http.post("/subjects/s/versions", json={"schema": INT, "metadata": secret})
    assert answer.status_code == 422
    assert "metadata.sensitive" in answer.json()["message"]
    assert "password" in answer.json()["message"]
    assert http.put("/config", json={"defaultMetadata": secret}).status_code == 422
    assert http.put("/config", json={"overrideMetadata": {"sensitive": ["password"]}}).status_code == 200
    assert status(http, "s", INT, metadata={"properties": {"password": "x"}}) == (422, 422)
    assert status(http, "s", INT, metadata={"properties": {"owner": "x"}}) == (200, 0)
    assert http.put("/mode/i", json={"mode": "IMPORT"}).status_code == 200
    assert status(http, "i", INT, metadata=secret, id=70) == (422, 422)
