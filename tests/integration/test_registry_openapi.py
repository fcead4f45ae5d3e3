"""Schemathesis over the registry's own OpenAPI document: no 500, and no status that the document does not name."""

import json
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from registry.api import create
from registry.memory import MemorySubjects
from registry.settings import Configuration
from registry.store import Content
from registry.subjects import Subjects
from tests.kit.registry_served import RecordingGate, identify, record

store = MemorySubjects()
subjects = Subjects(store, Configuration(store), governed=lambda subject: subject.startswith("governed"))
subjects.register("known", Content(text=record("x"), metadata='{"properties": {"owner": "a"}}'))
subjects.register("known", Content(text=record("x", "y")))
subjects.register(":.police:known", Content(text='"int"'))
document = schemathesis.openapi.from_asgi("/openapi.json", create(subjects, RecordingGate(), identify=identify))

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
]


@document.parametrize()
@settings(
    max_examples=25, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None
)
def test_every_call_answers_as_documented(case: schemathesis.Case) -> None:
    # Random names would meet nothing but 404; half of the calls are about what is there.
    choice = len(json.dumps([case.path_parameters, case.query], default=str))
    if case.path_parameters and choice % 2:
        for name, value in (("subject", "known"), ("version", "latest"), ("schema_id", 1), ("context", "police")):
            if name in case.path_parameters:
                case.path_parameters[name] = value
    if case.method in ("POST", "PUT") and case.path != "/" and choice % 3:
        case.body = BODIES[choice % len(BODIES)]
    case.call_and_validate(checks=[not_a_server_error, status_code_conformance, content_type_conformance])


def test_the_document_names_every_call() -> None:
    named = {(method, path) for path, methods in document.raw_schema["paths"].items() for method in methods}
    assert ("get", "/schemas/ids/{schema_id}") in named
    assert len(named) >= 40
