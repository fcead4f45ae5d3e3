"""Governance over HTTP: search, comparison with grants, approvals."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from fastapi import Request
from fastapi.testclient import TestClient

from registry.governance.approvals import Approvals, MemoryApprovals
from registry.rest.app import create
from registry.rest.governance import GovernanceHandlers
from schemas.access import Action, Actor, ActorKind, Role
from schemas.errors import Reason, RefusedError
from tests.kit.cases.registry import Subjects, memory_store
from tests.kit.world.registry_served import RecordingAccessControl

SUBJECT = "population.v1-value"
ROLES = {"editor": Role.CATALOGUE_EDITOR, "officer": Role.SECURITY_OFFICER, "auditor": Role.AUDITOR}
GRANT: dict[str, Any] = {
    "id": "g-1",
    "consumer": "tax",
    "state": "active",
    "fields": ["id"],
    "masks": {},
    "row_filter": None,
    "ceiling": "G3",
}


def identify(request: Request) -> Actor:
    name = request.headers.get("authorization", "Bearer editor").removeprefix("Bearer ")
    return Actor(kind=ActorKind.HUMAN, id=name, department="d1", role=ROLES[name])


def grants(actor: Actor, subject: str) -> Sequence[Mapping[str, Any]]:
    if actor.id == "auditor":
        raise RefusedError(Reason.ROLE_MISSING, "an auditor has no grants here")
    return [GRANT] if subject == SUBJECT else []


@pytest.fixture
def access() -> RecordingAccessControl:
    return RecordingAccessControl()


@pytest.fixture
def http(access: RecordingAccessControl) -> Iterator[TestClient]:
    store = memory_store()
    ids = (f"0195-{number}" for number in itertools.count(1))
    approvals = Approvals(
        MemoryApprovals(),
        clock=lambda: datetime.now(UTC),
        new_id=lambda: next(ids),
        persons=lambda _, names: {name: name for name in names},
    )
    subjects = Subjects(store, governed=lambda name: name == SUBJECT, approved=approvals.consume)
    more = partial(GovernanceHandlers, approvals=approvals, grants=grants)
    access.hidden = "secret"
    with TestClient(create(subjects.services, access, subjects.database, identify=identify, more=[more])) as client:
        yield client


def field(name: str, **facts: Any) -> dict[str, Any]:
    known = {"zh": "号", "level": "G3", "personal": "P", "sensitive": "N", "mask": "none"}
    return {"name": name, "type": "string"} | known | facts


def schema(*fields: dict[str, Any]) -> str:
    return json.dumps({"type": "record", "name": "R", "zh": "人", "fields": list(fields)}, ensure_ascii=False)


def put(http: TestClient, subject: str, text: str, **more: Any) -> int:
    answer = http.post(f"/subjects/{subject}/versions", json={"schema": text} | more)
    return answer.status_code


def test_fields_are_found_by_classification_and_by_tag(http: TestClient) -> None:
    put(http, SUBJECT, schema(field("id", personal="D", level="G4"), field("city", level="G1", personal="N")))
    put(http, "b-value", schema(field("phone", personal="D"), {"name": "x", "type": "int", "confluent:tags": ["PII"]}))
    put(http, "b-value", schema(field("phone", personal="D")), metadata={"tags": {"**.phone": ["PII", "TEL"]}})
    put(http, "secret-value", schema(field("id", personal="D")))

    def found(query: str) -> list[tuple[str, str]]:
        return [(item["subject"], item["field"]) for item in http.get(f"/governance/fields?{query}").json()]

    assert found("personal=D") == [("b-value", "phone"), (SUBJECT, "id")]
    assert found("level=G4") == [(SUBJECT, "id")]
    assert found("tag=TEL") == [("b-value", "phone")]
    assert found("personal=D&subjectPrefix=pop") == [(SUBJECT, "id")]
    assert found("personal=D&offset=1&limit=1") == [(SUBJECT, "id")]
    assert found("tag=none") == []
    for wrong in ("personal=X", "level=G9", "mask=blur"):
        assert http.get(f"/governance/fields?{wrong}").status_code == 422
    (row,) = http.get(f"/governance/fields?level=G4&subjectPrefix={SUBJECT}").json()
    assert row == {
        "subject": SUBJECT,
        "version": 1,
        "id": 1,
        "field": "id",
        "zh": "号",
        "level": "G4",
        "personal": "D",
        "sensitive": "N",
        "mask": "none",
        "tags": [],
    }
    assert [one["field"] for one in http.get(f"/governance/subjects/{SUBJECT}/versions/1").json()] == ["id", "city"]


def test_a_record_type_of_a_base_class_names_whose_record_it_is(http: TestClient) -> None:
    base = json.loads(schema(field("id", personal="D"))) | {"class_code": "101001"}
    refused = http.post(f"/subjects/{SUBJECT}/versions", json={"schema": json.dumps(base)})
    assert refused.status_code == 422
    assert '"subject"' in refused.json()["message"]
    assert put(http, "elsewhere.v1-value", json.dumps(base)) == 200, "no resource of the catalogue"
    named = base | {"subject": [{"kind": "person", "role": "self", "id": "id"}]}
    assert put(http, SUBJECT, json.dumps(base | {"subject": [{"kind": "person", "role": "self", "id": "x"}]})) == 422
    assert put(http, SUBJECT, json.dumps(named)) == 200


def test_a_schema_is_compared_with_the_latest_and_with_the_grants_on_it(http: TestClient) -> None:
    put(http, SUBJECT, schema(field("id")))
    body = {"schema": schema(field("id", level="G4"), field("note", default=""))}
    answer = http.post(f"/governance/subjects/{SUBJECT}/diff", json=body).json()
    assert [(item["kind"], item["path"]) for item in answer["changes"]] == [("level", "id"), ("field added", "note")]
    assert [(item["grant"], item["touch"]) for item in answer["grants"]] == [("g-1", "stopped")]
    answer = http.post(
        f"/governance/subjects/{SUBJECT}/diff", json=body, headers={"authorization": "Bearer auditor"}
    ).json()
    assert answer["grants"] is None
    assert answer["grantsRefused"] == "an auditor has no grants here"
    assert http.get(f"/governance/subjects/{SUBJECT}/grants").json() == [GRANT]
    assert http.post("/governance/subjects/none-value/diff", json=body).status_code == 404


def test_a_lowered_level_is_asked_for_approved_and_registered(http: TestClient, access: RecordingAccessControl) -> None:
    officer = {"authorization": "Bearer officer"}
    put(http, SUBJECT, schema(field("id", level="G4")))
    lower = schema(field("id", level="G3"))
    refused = http.post(f"/subjects/{SUBJECT}/versions", json={"schema": lower})
    assert refused.status_code == 409
    assert "POST /approvals" in refused.json()["message"]
    asked = http.post("/approvals", json={"subject": SUBJECT, "schema": lower, "reason": "定级过高"})
    assert asked.status_code == 201, asked.text
    path = f"/approvals/{asked.json()['id']}"
    assert http.post(f"{path}/decision", json={"approve": True}).status_code == 403, "who asked does not decide"
    assert put(http, SUBJECT, lower) == 409
    decided = http.post(f"{path}/decision", json={"approve": True, "reason": "同意"}, headers=officer)
    assert decided.json()["state"] == "approved"
    assert put(http, SUBJECT, lower) == 200
    assert http.get(path).json()["state"] == "used"
    assert [one["state"] for one in http.get("/approvals?state=used").json()] == ["used"]
    acts = [(who, action) for who, action, _, _ in access.entries if action is not Action.SCHEMA_READ]
    assert acts == [
        ("editor", Action.SCHEMA_REGISTER),
        ("editor", Action.APPROVAL_ASK),
        ("officer", Action.APPROVAL_DECIDE),
        ("editor", Action.SCHEMA_REGISTER),
    ]


def test_what_is_no_request_or_decision(http: TestClient) -> None:
    put(http, SUBJECT, schema(field("id", level="G4")))
    lower = schema(field("id"))
    assert http.post("/approvals", json={"subject": SUBJECT, "schema": lower}).status_code == 422
    same = {"subject": SUBJECT, "schema": schema(field("id", level="G4")), "reason": "x"}
    assert http.post("/approvals", json=same).status_code == 422
    asked = http.post("/approvals", json={"subject": SUBJECT, "schema": lower, "reason": "x"}).json()
    assert http.post("/approvals", json={"subject": SUBJECT, "schema": lower, "reason": "x"}).status_code == 409
    for body in ({}, {"approve": "yes"}, {"approve": True, "reason": 1}):
        assert http.post(f"/approvals/{asked['id']}/decision", json=body).status_code == 422
    assert http.get("/approvals/none").status_code == 404
    assert http.get("/approvals?state=lost").status_code == 422
    assert http.get("/approvals?subject=a%00b").json()["error_code"] == 42208


def test_what_is_registered_in_its_normal_form_is_approved_in_it(http: TestClient) -> None:
    path = f"/subjects/{SUBJECT}/versions"
    assert http.post(path, json={"schema": schema(field("id", level="G4"))}).status_code == 200
    body = {"schema": schema(field("id", level="G2", doc="", aliases=["b", "a"]))}
    normal = {"normalize": True}
    assert http.post(path, json=body, params=normal).status_code == 409
    asked = http.post("/approvals", json={**body, "subject": SUBJECT, "reason": "定级过高"}, params=normal)
    assert asked.status_code == 201, asked.text
    decision = f"/approvals/{asked.json()['id']}/decision"
    officer = {"authorization": "Bearer officer"}
    assert http.post(decision, json={"approve": True}, headers=officer).status_code == 200
    assert http.post(path, json=body).status_code == 409, "it is of the normal form"
    assert http.post(path, json=body, params=normal).status_code == 200


def test_a_context_in_the_url_is_one_for_governance_too(http: TestClient) -> None:
    body = {"schema": schema({"name": "id", "type": "string", "level": "G3", "personal": "D"})}
    assert http.post("/contexts/.police/subjects/s/versions", json=body).status_code == 200
    assert http.get("/contexts/.police/governance/subjects/s/versions/1").json()[0]["field"] == "id"
    assert http.get("/contexts/.tax/governance/subjects/s/versions/1").status_code == 404
    assert http.get("/contexts/.tax/governance/fields").json() == []
    assert [one["subject"] for one in http.get("/contexts/.police/governance/fields").json()] == [":.police:s"]
