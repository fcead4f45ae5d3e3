"""Schemathesis over the registry's own OpenAPI document: no 500, and no status that the document does not name."""

import itertools
import json
import re
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from registry.governance.approvals import Approvals, MemoryApprovals
from registry.rest.app import RestApplication, create
from registry.rest.governance import GovernanceHandlers
from registry.subjects.model import Content
from schemas.access import Actor, ActorKind, Role
from tests.kit.cases.registry import Committing, Subjects, memory_store
from tests.kit.share import count
from tests.kit.world.registry_served import RecordingAccessControl, record


def classified(level: str) -> dict[str, Any]:
    facts = {"zh": "名", "level": level, "personal": "P", "sensitive": "N", "mask": "none"}
    return {"type": "record", "name": "R", "zh": "人", "fields": [{"name": "x", "type": "string", **facts}]}


LOWERED = json.dumps(classified("G2"))
EDITOR = Actor(kind=ActorKind.HUMAN, id="li", department="d", role=Role.CATALOGUE_EDITOR)
OFFICER = Actor(kind=ActorKind.HUMAN, id="wang", department="d", role=Role.SECURITY_OFFICER)


def build() -> RestApplication:
    """Make a registry with governance, a few subjects and a request, called by the officer."""
    ids = (f"0195-{number}" for number in itertools.count(1))
    approvals = Approvals(
        MemoryApprovals(),
        clock=lambda: datetime.now(UTC),
        new_id=lambda: next(ids),
        persons=lambda _, names: {name: name for name in names},
    )
    store = memory_store()
    asking = Committing(approvals, store.database)
    subjects = Subjects(
        store,
        governed=lambda subject: subject.startswith("governed"),
        approved=approvals.consume,
    )
    subjects.register("known", Content(text=record("x"), metadata='{"properties": {"owner": "a"}}'))
    subjects.register("known", Content(text=record("x", "y")))
    subjects.register(":.police:known", Content(text='"int"'))
    subjects.register("governed", Content(text=json.dumps(classified("G3"))))
    known = {"subject": "governed", "text": "{}", "findings": ["x: G3 to G1"], "reason": "登记时定级过高"}
    asking.ask(EDITOR, fingerprint=b"s" * 32, **known)
    more = partial(GovernanceHandlers, approvals=approvals, grants=lambda *_: [])
    return create(
        subjects.services,
        RecordingAccessControl(database=subjects.database),
        subjects.database,
        identify=lambda _: OFFICER,
        more=[more],
    )


document = schemathesis.openapi.from_asgi("/openapi.json", build())

BODIES: list[dict[str, Any]] = [
    {"schema": '"int"'},
    {"schema": record("x", "z"), "metadata": {"properties": {"owner": "b"}}},
    {"schema": "message M {}", "schemaType": "PROTOBUF"},
    {"schema": '"x"', "references": [{"name": "x", "subject": "known", "version": 1}]},
    {"schema": '"long"', "id": 7, "version": 3},
    {"mode": "IMPORT"},
    {"mode": "READWRITE"},
    {"compatibility": "NONE", "alias": "known"},
    {"compatibility": "FULL", "overrideRuleSet": {"domainRules": [{"name": "r"}]}},
    {"normalize": True, "compatibility": "FULL_TRANSITIVE"},
]
ASKED: list[dict[str, Any]] = [
    {"subject": "governed", "schema": LOWERED, "reason": "定级过高"},
    {"subject": "governed", "schema": LOWERED, "reason": ""},
    {"subject": "known", "schema": '"int"', "reason": "x"},
]
DECIDED: list[dict[str, Any]] = [
    {"approve": True, "reason": "同意"},
    {"approve": False, "reason": 7},
    {"approve": False},
]


@pytest.mark.counted
@document.parametrize()
@settings(max_examples=count(25, 10), phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None)
def test_every_call_answers_as_documented(case: schemathesis.Case) -> None:
    # Random names would meet nothing but 404; half of the calls are about what is there.
    choice = len(json.dumps([case.path_parameters, case.query, case.body], default=str))
    if case.path_parameters and choice % 2:
        for name, value in (
            ("subject", ("known", "governed")[choice % 3 // 2]),
            ("version", "latest"),
            ("schema_id", 1),
            ("context", "police"),
            ("approval_id", "0195-1"),
        ):
            if name in case.path_parameters:
                case.path_parameters[name] = value
    if case.method in ("POST", "PUT") and case.path != "/" and choice % 3:
        bodies = DECIDED if case.path.endswith("decision") else ASKED if case.path == "/approvals" else BODIES
        case.body = bodies[choice % len(bodies)]
    case.call_and_validate(checks=[not_a_server_error, status_code_conformance, content_type_conformance])


def test_the_document_names_every_call() -> None:
    named = {(method, path) for path, methods in document.raw_schema["paths"].items() for method in methods}
    assert ("get", "/schemas/ids/{schema_id}") in named
    assert ("get", "/governance/fields") in named
    assert ("post", "/approvals/{approval_id}/decision") in named
    assert len(named) >= 48


def test_the_document_says_what_a_call_takes() -> None:
    by_id = document.raw_schema["paths"]["/schemas/ids/{schema_id}"]["get"]
    taken = {one["name"]: (one["in"], one["required"], one["schema"]) for one in by_id["parameters"]}
    assert taken["schema_id"] == ("path", True, {"type": "integer", "title": "Schema Id"})
    assert taken["fetchMaxId"][2] == {"type": "boolean", "default": False, "title": "Fetchmaxid"}
    assert taken["findTags"][2]["items"] == {"type": "string"}
    assert taken["format"][2]["enum"] == ["", "resolved"]
    own = {"schema_id", "fetchMaxId", "subject", "format", "referenceFormat", "findTags", "includeSubjects"}
    assert taken.keys() == own | {"reference_format"}, "and what Confluent's Python client calls one of them"
    assert by_id["responses"].keys() >= {"200", "304", "401", "403", "404", "422", "503"}
    assert by_id["description"] == "Return the schema of an id."
    asked = document.raw_schema["paths"]["/approvals"]["post"]
    assert asked["requestBody"]["required"]
    assert asked["responses"].keys() >= {"201", "409"}


def test_what_governance_answers_is_documented() -> None:
    """By hand what chance may not meet: each status of a request and of a decision."""
    asked = {"subject": "governed", "schema": LOWERED, "reason": "定级过高"}
    met = set()
    with TestClient(build()) as http:
        for method, path, body in (
            ("POST", "/approvals", asked),
            ("POST", "/approvals", asked),
            ("POST", "/approvals", {**asked, "reason": ""}),
            ("GET", "/approvals/0195-9999", None),
            ("POST", "/approvals/0195-2/decision", {"approve": True}),  # the officer's own
            ("POST", "/approvals/0195-1/decision", {"approve": "yes"}),
            ("POST", "/approvals/0195-1/decision", {"approve": True}),
            ("POST", "/approvals/0195-1/decision", {"approve": True}),
            ("GET", "/governance/fields?level=G9", None),
            ("POST", "/governance/subjects/governed/diff", {"schema": LOWERED}),
            ("GET", "/governance/subjects/none/versions/latest", None),
        ):
            answer = http.request(method, path, json=body)
            route = re.sub(r"0195-[0-9]+", "{approval_id}", path.partition("?")[0])
            route = re.sub(r"/subjects/[a-z]+", "/subjects/{subject}", route).replace("latest", "{version}")
            responses = document.raw_schema["paths"][route][method.lower()]["responses"]
            assert str(answer.status_code) in responses, (route, answer.status_code, answer.text)
            met.add(answer.status_code)
    assert met == {200, 201, 403, 404, 409, 422}
