"""Every member of every body and every parameter of the OpenAPI document is enforced, or refused by name.

A registry that takes a member and does nothing with it lets its caller believe that it did. So the document is walked:
what it names without a probe here fails the test, and so does a probe of what it does not name. A probe sends a call
twice to registries in the same state, without the member and with it: the answers, or those of the calls that follow,
differ, or the second one is refused and names the member. Beside that each member of another type, and each one that is
not named, is refused.
"""

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.requests import Request

from registry.governance.approvals import Approvals, MemoryApprovals
from registry.rest.app import create
from registry.rest.governance import GovernanceHandlers
from schemas.access import Actor, ActorKind, Role
from tests.kit.cases.registry import Subjects, memory_store
from tests.kit.world.registry_served import INT, LONG, TEXT, RecordingAccessControl, record

Body = dict[str, Any]
Call = tuple[str, Body | None]  # "GET /path?query", and the body
Answers = list[tuple[int, Any]]

CURIOUS = {"confluent-accept-unknown-properties": "true"}
EDITOR = Actor(kind=ActorKind.HUMAN, id="li", department="d", role=Role.CATALOGUE_EDITOR)
OFFICER = Actor(kind=ActorKind.HUMAN, id="wang", department="d", role=Role.SECURITY_OFFICER)
ADDRESS = json.dumps({"type": "record", "name": "a.Address", "fields": [{"name": "street", "type": "string"}]})
PERSON = json.dumps(
    {"type": "record", "name": "P", "fields": [{"name": "home", "type": "a.Address", "confluent:tags": ["PII"]}]}
)
REFERENCE = {"name": "a.Address", "subject": "address", "version": 1}
WORDY = '{"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 0}'
RULES = {"domainRules": [{"name": "r", "type": "CEL", "mode": "WRITE"}]}


def owner(name: str) -> Body:
    return {"properties": {"owner": name}}


def classified(level: str = "G3", *tags: str, **more: Any) -> str:
    facts = {"zh": "名", "level": level, "personal": "P", "sensitive": "N", "mask": "none"}
    facts |= {"confluent:tags": [*tags]} if tags else {}
    fields = [{"name": "x", "type": "string", **facts, **more}]
    return json.dumps({"type": "record", "name": "R", "zh": "人", "fields": fields}, ensure_ascii=False)


def edit(*tags: str) -> list[Body]:
    return [{"schemaEntity": {"entityPath": "R.x", "entityType": "sr_field"}, "tags": [*tags]}]


STATE: list[Call] = [
    ("POST /subjects/known/versions", {"schema": record("x"), "metadata": owner("a")}),
    ("POST /subjects/known/versions", {"schema": record("x", "y"), "metadata": owner("b")}),
    ("POST /subjects/address/versions", {"schema": ADDRESS}),
    ("POST /subjects/person/versions", {"schema": PERSON, "references": [REFERENCE]}),
    ("POST /subjects/person2/versions", {"schema": PERSON.replace("PII", "LAW"), "references": [REFERENCE]}),
    ("DELETE /subjects/person2", None),
    ("POST /subjects/gone/versions", {"schema": INT, "metadata": owner("a")}),
    ("POST /subjects/gone/versions", {"schema": LONG, "metadata": owner("b"), "ruleSet": RULES}),
    ("DELETE /subjects/gone/versions/1", None),
    ("POST /subjects/dead/versions", {"schema": TEXT}),
    ("DELETE /subjects/dead", None),
    ("POST /subjects/:.police:known/versions", {"schema": INT}),
    ("POST /subjects/normal/versions?normalize=true", {"schema": WORDY}),
    ("POST /subjects/governed/versions", {"schema": classified("G3", "PII")}),
    ("PUT /config/nick", {"alias": "known"}),
    ("PUT /mode/moded", {"mode": "READONLY"}),
    ("POST /approvals", {"subject": "governed", "schema": classified("G1", "PII"), "reason": "误标"}),
]
GUID = "/schemas/guids/{guid}"


@dataclass(frozen=True)
class Registry:
    """One in the state above."""

    http: TestClient

    def send(self, call: Call) -> tuple[int, Any]:
        line, body = call
        method, _, path = line.partition(" ")
        if "{guid}" in path:
            known = self.http.get("/subjects/person/versions/1", headers=CURIOUS).json()["guid"]
            path = path.replace("{guid}", known)
        answer = self.http.request(method, path, json=body, headers=CURIOUS)
        assert answer.status_code < 500, answer.text
        return answer.status_code, re.sub(r'"(askedAt|decidedAt)":"[^"]*"', "", answer.text)


def identify(request: Request) -> Actor:
    return OFFICER if request.url.path.endswith("/decision") else EDITOR


def registry() -> Iterator[Registry]:
    """Make one without its state."""
    ids = (f"a-{number}" for number in itertools.count(1))
    approvals = Approvals(
        MemoryApprovals(),
        clock=lambda: datetime.now(UTC),
        new_id=lambda: next(ids),
        persons=lambda _, names: {name: name for name in names},
    )
    store = memory_store()
    subjects = Subjects(store, governed=lambda name: name == "governed", approved=approvals.consume)
    access = RecordingAccessControl(database=subjects.database)
    more = partial(GovernanceHandlers, approvals=approvals, grants=lambda *_: [])
    app = create(subjects.services, access, subjects.database, identify=identify, more=[more])
    with TestClient(app) as http:
        yield Registry(http)


def answers(*calls: Call) -> Answers:
    """Return what the calls are answered in a registry in the state above."""
    for made in registry():
        for call in STATE:
            status, text = made.send(call)
            assert status < 300, (call, text)
        return [made.send(call) for call in calls]
    raise AssertionError


# --- what the document names -----------------------------------------------------------------------------------


def load_document() -> dict[str, Any]:
    for made in registry():
        document: dict[str, Any] = made.http.get("/openapi.json").json()
    return document


DOCUMENT = load_document()
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}


def schema_of(operation: dict[str, Any]) -> dict[str, Any]:
    content = operation.get("requestBody", {}).get("content", {})
    found: dict[str, Any] = next(iter(content.values()), {"schema": {}})["schema"]
    return found


PARAMETERS = {
    (call, one["name"]): one["schema"]
    for call, operation in OPERATIONS.items()
    for one in operation.get("parameters", ())
    if one["in"] == "query"
}
MEMBERS = {
    (call, name): schema
    for call, operation in OPERATIONS.items()
    for name, schema in schema_of(operation).get("properties", {}).items()
}


def nested(schema: dict[str, Any], at: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield each member below a schema, with its path; "[]" stands for an item of a list."""
    yield at, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nested(inner, (*at, name))
    if "items" in schema:
        yield from nested(schema["items"], (*at, "[]"))


# --- the smallest calls that are taken ---------------------------------------------------------------------------

SCHEMA = {"schema": record("x", "y", "z")}
BODIES: dict[str, Body] = {
    "POST /subjects/{subject}": {"schema": record("x", "y")},
    "POST /subjects/{subject}/versions": SCHEMA,
    "POST /compatibility/subjects/{subject}/versions": SCHEMA,
    "POST /compatibility/subjects/{subject}/versions/{version}": SCHEMA,
    "POST /governance/subjects/{subject}/diff": SCHEMA,
    "POST /approvals": {"subject": "governed", "reason": "误标", "schema": classified("G2", "PII")},
    "POST /approvals/{approval_id}/decision": {"approve": True},
    "PUT /config": {},
    "PUT /config/{subject}": {},
    "PUT /mode": {"mode": "READWRITE"},
    "PUT /mode/{subject}": {"mode": "READWRITE"},
}
VALUES: dict[str, Any] = {
    "references": [REFERENCE],
    "metadata": {"tags": {"**": ["A"]}, "properties": {"a": "b"}, "sensitive": ["c"]},
    "ruleSet": {
        name: [{"name": "r", "mode": mode}]
        for name, mode in (("migrationRules", "UPGRADE"), ("domainRules", "WRITE"), ("encodingRules", "READ"))
    },
    "schemaTagsToAdd": edit("A"),
    "schemaTagsToRemove": edit("A"),
}
VALUES |= dict.fromkeys(("defaultMetadata", "overrideMetadata"), VALUES["metadata"])
VALUES |= dict.fromkeys(("defaultRuleSet", "overrideRuleSet"), VALUES["ruleSet"])


def line(call: str, query: str = "", **names: str) -> str:
    """Return a call with the names of things in the state above, or with others."""
    known = {"subject": "known", "version": "latest", "schema_id": "1", "approval_id": "a-1", "context": "x"} | names
    path = re.sub(r"\{([a-z_]+)\}", lambda found: known.get(found[1], found[0]), call)
    return f"{path}?{query}" if query else path


def replaced(value: Any, at: tuple[str, ...], new: Any) -> Any:
    """Return a value with a part of it replaced, or added."""
    if not at:
        return new
    if at[0] == "[]":
        return [replaced(value[0], at[1:], new), *value[1:]]
    return {**value, at[0]: replaced((value or {}).get(at[0]), at[1:], new)}


WRONG = {"string": 7, "boolean": "yes", "integer": "x", "array": {"x": 1}, "object": ["x"]}
WITH_BODY = [call for call in OPERATIONS if schema_of(OPERATIONS[call])]


def members_of(call: str) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """Return the members of a call's body at any depth."""
    top = [(name, schema) for (other, name), schema in MEMBERS.items() if other == call]
    return [one for name, schema in top for one in nested(schema, (name,)) if one[0][-1] != "[]"]


def body_of(call: str, path: tuple[str, ...], value: Any) -> Body:
    body: Body = replaced(BODIES[call] | {name: VALUES[name] for name in path[:1] if name in VALUES}, path, value)
    return body


def letters(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower())


def refused(calls: dict[str, Call], named: dict[str, str]) -> list[Any]:
    """Return the calls that are not refused by name; one registry serves them, since they change nothing."""
    sent = answers(*calls.values())
    return [
        (what, status, text)
        for what, (status, text) in zip(calls, sent, strict=True)
        if status not in (409, 422) or letters(named[what]) not in letters(text)
    ]


@pytest.mark.parametrize("call", WITH_BODY)
def test_a_member_of_another_type_is_refused_by_name(call: str) -> None:
    calls: dict[str, Call] = {}
    named = {}
    for path, schema in members_of(call):
        if not {"type", "enum"} & schema.keys():
            assert path[-1] == "enableAt", "only this one may be anything: clients alone read it"
            continue
        wrong = "NONSENSE" if "enum" in schema else WRONG[schema["type"]]
        what = ".".join(path)
        calls[what] = (line(call), body_of(call, path, wrong))
        named[what] = path[-1].removesuffix("Level")  # Confluent's text of a wrong level names no member
    assert refused(calls, named) == []


@pytest.mark.parametrize("call", WITH_BODY)
def test_a_member_that_is_not_named_is_refused_by_name(call: str) -> None:
    inner = [path for path, schema in members_of(call) if schema.get("additionalProperties") is False]
    calls: dict[str, Call] = {".".join(path): (line(call), body_of(call, (*path, "unheardOf"), 1)) for path in inner}
    assert refused(calls, {".".join(path): path[0] for path in inner}) == []
    ((status, text),) = answers((line(call), {**BODIES[call], "unheardOf": 1}))
    assert (status, "unheardOf" in text) == (422, True), text
    names = schema_of(OPERATIONS[call])["properties"]
    assert all(name in text for name in names), "and those that are expected are named"


@pytest.mark.parametrize("call", OPERATIONS)
def test_a_parameter_that_is_not_named_or_of_another_type_is_refused_by_name(call: str) -> None:
    own = {name: schema for (other, name), schema in PARAMETERS.items() if other == call}
    typed = [name for name, one in own.items() if one.get("type") in {"boolean", "integer"} or "enum" in one]
    calls: dict[str, Call] = {
        name: (line(call, f"{name}=NONSENSE"), BODIES.get(call)) for name in ("unheardOf", *typed)
    }
    assert refused(calls, {name: name for name in calls}) == []


# --- what each does ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Probe:
    """A call without a member and with it.

    Attributes:
        without, within: the two calls. then: calls after either, whose answers count too.
        refused: the second call is, and names the member; else the answers differ.
    """

    without: Call
    within: Call
    then: tuple[Call, ...] = ()
    refused: bool = False


def query(call: str, stated: str, body: Body | None = None, *then: Call, refused: bool = False, **names: str) -> Probe:
    """Return the probe of a parameter."""
    sent = BODIES.get(call) if body is None else body
    return Probe((line(call, **names), sent), (line(call, stated, **names), sent), then, refused)


def member(
    call: str, stated: Body, base: Body | None = None, *then: Call, refused: bool = False, **names: str
) -> Probe:
    """Return the probe of a member."""
    without = BODIES[call] if base is None else base
    return Probe((line(call, **names), without), (line(call, **names), {**without, **stated}), then, refused)


LATEST: Call = ("GET /subjects/known/versions/latest", None)
LIST, LOOK_UP, DELETE = "GET /subjects", "POST /subjects/{subject}", "DELETE /subjects/{subject}"
VERSIONS, REGISTER = "GET /subjects/{subject}/versions", "POST /subjects/{subject}/versions"
VERSION = "GET /subjects/{subject}/versions/{version}"
CHECK_ALL = "POST /compatibility/subjects/{subject}/versions"
CHECK = f"{CHECK_ALL}/{{version}}"
DIFF, ASK = "POST /governance/subjects/{subject}/diff", "POST /approvals"
DECIDE = "POST /approvals/{approval_id}/decision"
BY_ID, FIELDS = "GET /schemas/ids/{schema_id}", "GET /governance/fields"
IDS = {"person": "4"}
REFERRING = {"schema": PERSON, "references": [REFERENCE]}
IMPORTED: Call = ("PUT /mode/new", {"mode": "IMPORT"})

PROBES: dict[tuple[str, str], Probe] = {
    (LIST, "subjectPrefix"): query(LIST, "subjectPrefix=k"),
    (LIST, "deleted"): query(LIST, "deleted=true"),
    (LIST, "deletedOnly"): query(LIST, "deletedOnly=true"),
    (LIST, "deleted_only"): query(LIST, "deleted_only=true"),
    (LIST, "offset"): query(LIST, "offset=1"),
    (LIST, "limit"): query(LIST, "limit=1"),
    (LOOK_UP, "normalize"): query(LOOK_UP, "normalize=true", {"schema": WORDY}, subject="normal"),
    (LOOK_UP, "deleted"): query(LOOK_UP, "deleted=true", {"schema": TEXT}, subject="dead"),
    (LOOK_UP, "format"): query(LOOK_UP, "format=resolved", REFERRING, subject="person"),
    (LOOK_UP, "schema"): member(LOOK_UP, {"schema": record("x")}),
    (LOOK_UP, "schemaType"): member(LOOK_UP, {"schemaType": "JSON"}),
    (LOOK_UP, "references"): member(LOOK_UP, {"references": [REFERENCE]}, {"schema": PERSON}, subject="person"),
    (LOOK_UP, "metadata"): member(LOOK_UP, {"metadata": owner("c")}),
    (LOOK_UP, "ruleSet"): member(LOOK_UP, {"ruleSet": RULES}),
    (DELETE, "permanent"): query(DELETE, "permanent=true", subject="dead"),
    ("GET /subjects/{subject}/metadata", "key"): query("GET /subjects/{subject}/metadata", "key=owner"),
    ("GET /subjects/{subject}/metadata", "value"): query("GET /subjects/{subject}/metadata", "value=a"),
    ("GET /subjects/{subject}/metadata", "deleted"): Probe(
        ("GET /subjects/gone/metadata?key=owner&value=a", None),
        ("GET /subjects/gone/metadata?key=owner&value=a&deleted=true", None),
    ),
    ("GET /subjects/{subject}/metadata", "format"): query(
        "GET /subjects/{subject}/metadata", "format=resolved", subject="person"
    ),
    (VERSIONS, "deleted"): query(VERSIONS, "deleted=true", subject="gone"),
    (VERSIONS, "deletedOnly"): query(VERSIONS, "deletedOnly=true", subject="gone"),
    (VERSIONS, "deleted_only"): query(VERSIONS, "deleted_only=true", subject="gone"),
    (VERSIONS, "deletedAsNegative"): query(VERSIONS, "deletedAsNegative=true", subject="gone"),
    (VERSIONS, "offset"): query(VERSIONS, "offset=1"),
    (VERSIONS, "limit"): query(VERSIONS, "limit=1"),
    (REGISTER, "normalize"): query(REGISTER, "normalize=true", {"schema": WORDY}, subject="new"),
    (REGISTER, "format"): query(REGISTER, "format=resolved", REFERRING, subject="new"),
    (REGISTER, "force"): query(REGISTER, "force=true", refused=True),
    (REGISTER, "schema"): member(REGISTER, {"schema": record("x", "w")}, None, LATEST),
    (REGISTER, "schemaType"): member(
        REGISTER, {"schemaType": "JSON"}, {"schema": INT}, ("GET /subjects/new/versions/1", None), subject="new"
    ),
    (REGISTER, "references"): member(REGISTER, {"references": [REFERENCE]}, {"schema": PERSON}, subject="new"),
    (REGISTER, "metadata"): member(REGISTER, {"metadata": owner("c")}, None, LATEST),
    (REGISTER, "ruleSet"): member(REGISTER, {"ruleSet": RULES}, None, LATEST),
    (REGISTER, "schemaTagsToAdd"): member(
        REGISTER, {"schemaTagsToAdd": edit("PII")}, None, ("GET /subjects/known/versions/latest?findTags=*", None)
    ),
    (REGISTER, "schemaTagsToRemove"): member(
        REGISTER, {"schemaTagsToRemove": edit("A")}, {"schema": classified("G3", "A", "B")}, subject="new"
    ),
    (REGISTER, "propagateSchemaTags"): member(REGISTER, {"propagateSchemaTags": True}, refused=True),
    (REGISTER, "id"): member(REGISTER, {"id": 70}),
    (REGISTER, "version"): member(REGISTER, {"version": 4}, refused=True),
    (VERSION, "deleted"): query(VERSION, "deleted=true", subject="gone", version="1"),
    (VERSION, "format"): query(VERSION, "format=resolved", subject="person"),
    (VERSION, "findTags"): query(VERSION, "findTags=PII", subject="person"),
    ("DELETE /subjects/{subject}/versions/{version}", "permanent"): query(
        "DELETE /subjects/{subject}/versions/{version}", "permanent=true", subject="gone", version="1"
    ),
    (f"{VERSION}/schema", "deleted"): query(f"{VERSION}/schema", "deleted=true", subject="gone", version="1"),
    (f"{VERSION}/schema", "format"): query(f"{VERSION}/schema", "format=resolved", subject="person"),
    (f"{VERSION}/referencedby", "deleted"): query(f"{VERSION}/referencedby", "deleted=true", subject="address"),
    (f"{VERSION}/referencedby", "offset"): query(f"{VERSION}/referencedby", "offset=1", subject="address"),
    (f"{VERSION}/referencedby", "limit"): query(f"{VERSION}/referencedby", "limit=0", subject="address"),
    ("GET /schemas", "subjectPrefix"): query("GET /schemas", "subjectPrefix=k"),
    ("GET /schemas", "aliases"): query("GET /schemas", "aliases=true"),
    ("GET /schemas", "deleted"): query("GET /schemas", "deleted=true"),
    ("GET /schemas", "latestOnly"): query("GET /schemas", "latestOnly=true"),
    ("GET /schemas", "ruleType"): query("GET /schemas", "ruleType=CEL"),
    ("GET /schemas", "resourceType"): query("GET /schemas", "resourceType=topic"),
    ("GET /schemas", "associationType"): query("GET /schemas", "associationType=key"),
    ("GET /schemas", "lifecycle"): query("GET /schemas", "lifecycle=WEAK"),
    ("GET /schemas", "offset"): query("GET /schemas", "offset=1"),
    ("GET /schemas", "limit"): query("GET /schemas", "limit=1"),
    (BY_ID, "fetchMaxId"): query(BY_ID, "fetchMaxId=true"),
    (BY_ID, "format"): query(BY_ID, "format=resolved", schema_id=IDS["person"]),
    (BY_ID, "findTags"): query(BY_ID, "findTags=*", schema_id=IDS["person"]),
    (BY_ID, "includeSubjects"): query(BY_ID, "includeSubjects=true"),
    (f"{BY_ID}/schema", "format"): query(f"{BY_ID}/schema", "format=resolved", schema_id=IDS["person"]),
    **{
        (f"{BY_ID}/{what}", name): query(f"{BY_ID}/{what}", stated, schema_id=schema_id)
        for what in ("subjects", "versions")
        for name, stated, schema_id in (
            ("subject", "subject=other", "1"),
            ("deleted", "deleted=true", "5"),
            ("offset", "offset=1", "1"),
            ("limit", "limit=0", "1"),
        )
    },
    ("GET /schemas/guids/{guid}", "format"): query("GET /schemas/guids/{guid}", "format=resolved"),
    ("GET /contexts", "contextPrefix"): query("GET /contexts", "contextPrefix=.police"),
    ("GET /contexts", "offset"): query("GET /contexts", "offset=1"),
    ("GET /contexts", "limit"): query("GET /contexts", "limit=1"),
    ("GET /config/{subject}", "defaultToGlobal"): query("GET /config/{subject}", "defaultToGlobal=true"),
    ("GET /mode/{subject}", "defaultToGlobal"): query("GET /mode/{subject}", "defaultToGlobal=true"),
    ("PUT /mode", "force"): query("PUT /mode", "force=true", {"mode": "IMPORT"}),
    ("PUT /mode/{subject}", "force"): query("PUT /mode/{subject}", "force=true", {"mode": "IMPORT"}),
    ("DELETE /mode", "recursive"): query("DELETE /mode", "recursive=true", None, ("GET /mode/moded", None)),
    ("DELETE /mode/{subject}", "recursive"): query("DELETE /mode/{subject}", "recursive=true", subject=":.police:"),
    ("PUT /mode", "mode"): Probe(("GET /mode", None), ("PUT /mode", {"mode": "READONLY"}), (("GET /mode", None),)),
    ("PUT /mode/{subject}", "mode"): Probe(
        ("GET /mode", None), ("PUT /mode/known", {"mode": "READONLY"}), ((line(REGISTER), SCHEMA),)
    ),
    **{
        ("GET /governance/fields", name): query(FIELDS, stated)
        for name, stated in (
            ("tag", "tag=PII"),
            ("personal", "personal=P"),
            ("sensitive", "sensitive=N"),
            ("mask", "mask=none"),
            ("level", "level=G1"),
            ("subjectPrefix", "subjectPrefix=k"),
            ("offset", "offset=1"),
            ("limit", "limit=1"),
        )
    },
    ("GET /approvals", "subject"): query("GET /approvals", "subject=known"),
    ("GET /approvals", "state"): query("GET /approvals", "state=approved"),
    (ASK, "normalize"): query(
        ASK,
        "normalize=true",
        {"subject": "governed", "reason": "误标", "schema": classified("G2", "PII", doc="")},
        (line(DECIDE, approval_id="a-2"), {"approve": True}),
        (line(REGISTER, subject="governed"), {"schema": classified("G2", "PII", doc="")}),
    ),
    (ASK, "subject"): member(ASK, {"subject": "known"}),
    (ASK, "reason"): member(ASK, {"reason": "定级过高"}),
    (ASK, "schema"): member(ASK, {"schema": classified("G3", "PII")}),
    (ASK, "schemaType"): member(ASK, {"schemaType": "JSON"}),
    (ASK, "references"): member(ASK, {"references": [REFERENCE | {"version": 9}]}),
    (ASK, "metadata"): member(
        ASK,
        {"metadata": {"tags": {"**.x": ["PII"]}}},
        {**BODIES[ASK], "schema": classified("G2")},
    ),
    (ASK, "schemaTagsToAdd"): member(ASK, {"schemaTagsToAdd": edit("LAW")}),
    (ASK, "schemaTagsToRemove"): member(ASK, {"schemaTagsToRemove": edit("PII")}),
    (DECIDE, "approve"): member(DECIDE, {"approve": False, "reason": "no"}, {"approve": True, "reason": "no"}),
    (DECIDE, "reason"): member(DECIDE, {"reason": "同意"}),
    (DIFF, "schema"): member(DIFF, {"schema": record("x")}),
    (DIFF, "schemaType"): member(DIFF, {"schemaType": "JSON"}),
    (DIFF, "references"): member(DIFF, {"references": [REFERENCE]}, {"schema": PERSON}, subject="person"),
    (DIFF, "metadata"): member(DIFF, {"metadata": {"tags": {"R.x": ["PII"]}}}),
    (DIFF, "schemaTagsToAdd"): member(DIFF, {"schemaTagsToAdd": edit("PII")}),
    (DIFF, "schemaTagsToRemove"): member(
        DIFF, {"schemaTagsToRemove": edit("PII")}, {"schema": classified("G3", "PII")}, subject="governed"
    ),
}
for check in (CHECK_ALL, CHECK):
    PROBES |= {
        (check, "verbose"): query(check, "verbose=false"),
        (check, "schema"): member(check, {"schema": INT}),
        (check, "schemaType"): member(check, {"schemaType": "JSON"}),
        (check, "references"): member(check, {"references": [REFERENCE]}, {"schema": PERSON}, subject="person"),
    }
for put, name in (("PUT /config", "new"), ("PUT /config/{subject}", "known")):
    register: Call = (f"POST /subjects/{name}/versions", {"schema": record("x", "y", "z")})
    read: Call = (f"GET /subjects/{name}/versions/latest", None)
    incompatible: Call = ("POST /subjects/known/versions", {"schema": INT})
    reserving: Call = (
        f"POST /subjects/{name}/versions",
        {"schema": record("x", "y", "z"), "metadata": {"properties": {"confluent:reserved": "x"}}},
    )
    bad_default = json.dumps({"type": "record", "name": "R", "fields": [{"name": "a", "type": "int", "default": "x"}]})
    lenient: Call = ("POST /subjects/known/versions", {"schema": bad_default})
    minor: Call = ("POST /subjects/known/versions", {"schema": INT, "metadata": {"properties": {"major": "2"}}})
    PROBES |= {
        (put, "compatibility"): member(put, {"compatibility": "NONE"}, None, incompatible),
        (put, "compatibilityLevel"): member(put, {"compatibilityLevel": "NONE"}, None, incompatible),
        (put, "compatibilityGroup"): member(put, {"compatibilityGroup": "major"}, None, minor),
        (put, "compatibilityPolicy"): member(put, {"compatibilityPolicy": "LENIENT"}, refused=True),
        (put, "normalize"): member(
            put, {"normalize": True}, None, ("POST /subjects/known/versions", {"schema": record("x", "y", "q")}), LATEST
        ),
        (put, "validateFields"): member(put, {"validateFields": True}, None, reserving),
        (put, "validateNewSchemas"): member(put, {"validateNewSchemas": False}, None, lenient),
        (put, "validateRules"): member(put, {"validateRules": False}, refused=True),
        (put, "defaultMetadata"): member(put, {"defaultMetadata": {"tags": {"a": ["b"]}}}, None, register, read),
        (put, "overrideMetadata"): member(put, {"overrideMetadata": owner("z")}, None, register, read),
        (put, "defaultRuleSet"): member(put, {"defaultRuleSet": RULES}, None, register, read),
        (put, "overrideRuleSet"): member(put, {"overrideRuleSet": RULES}, None, register, read),
    }
PROBES |= {
    ("PUT /config", "alias"): member("PUT /config", {"alias": "known"}, refused=True),
    ("PUT /config/{subject}", "alias"): member(
        "PUT /config/{subject}", {"alias": "known"}, None, ("GET /subjects/short/versions", None), subject="short"
    ),
}
WITHOUT_EFFECT: dict[tuple[str, str], str] = {
    (BY_ID, "subject"): "clients name a context with it, and an id is one for all contexts",
    (f"{BY_ID}/schema", "subject"): "the same",
    **{
        (call, name): "references name their context in every answer; any other format is refused"
        for call in (BY_ID, VERSION)
        for name in ("referenceFormat", "reference_format")
    },
    **{
        (check, "normalize"): "a normal form means the same, so that its verdict is the same"
        for check in (CHECK, CHECK_ALL)
    },
    **{
        (check, "metadata"): "takes part by compatibilityGroup and validateFields: see below"
        for check in (CHECK, CHECK_ALL)
    },
    **{
        (call, "ruleSet"): "clients execute rules; here their form is checked" for call in (CHECK, CHECK_ALL, DIFF, ASK)
    },
}
"""What may be stated and changes no answer, and why that deceives nobody; other values are refused, see above."""


def test_every_member_has_a_probe() -> None:
    named = {*PARAMETERS, *MEMBERS}
    assert named - PROBES.keys() - WITHOUT_EFFECT.keys() == set(), "named by the document, and not probed"
    assert PROBES.keys() | WITHOUT_EFFECT.keys() <= named, "probed, and not named by the document"
    assert not PROBES.keys() & WITHOUT_EFFECT.keys()


@pytest.mark.parametrize(
    ("name", "probe"), [pytest.param(key[1], probe, id=" ".join(key)) for key, probe in PROBES.items()]
)
def test_a_member_is_enforced_or_refused_by_name(name: str, probe: Probe) -> None:
    without, within = answers(probe.without, *probe.then), answers(probe.within, *probe.then)
    if probe.refused:
        status, text = within[0]
        assert without[0][0] < 300, without
        assert (status, letters(name) in letters(text)) == (422, True), text
    else:
        assert without != within, without


@pytest.mark.parametrize("check", [CHECK_ALL, CHECK])
def test_metadata_takes_part_in_a_check_where_the_configuration_says_so(check: str) -> None:
    for config, metadata in (
        ({"compatibilityGroup": "major"}, {"properties": {"major": "2"}}),
        ({"validateFields": True}, {"properties": {"confluent:reserved": "x"}}),
    ):
        body = {"schema": INT} if "compatibilityGroup" in config else SCHEMA
        put = ("PUT /config/known", config)
        assert answers(put, (line(check), body)) != answers(put, (line(check), {**body, "metadata": metadata}))


ROUND_TRIPS = [
    pytest.param(path, id=".".join(path))
    for name in ("metadata", "ruleSet")
    for path, schema in nested(MEMBERS[REGISTER, name], (name,))
    if path[-1] != "[]" and "properties" not in schema
]
RULE = {
    "name": "other", "doc": "d", "kind": "CONDITION", "type": "CEL", "tags": ["PII"], "params": {"a": "b"}, "expr": "e",
    "onSuccess": "NONE", "onFailure": "ERROR", "disabled": True,
}  # fmt: skip


@pytest.mark.parametrize("path", ROUND_TRIPS)
def test_what_clients_act_on_is_stored_and_returned(path: tuple[str, ...]) -> None:
    value = RULE.get(path[-1], 1_700_000_000)
    if path[-1] == "mode":
        value = {"migrationRules": "DOWNGRADE", "domainRules": "WRITEREAD", "encodingRules": "WRITEREAD"}[path[1]]
    elif path[0] == "metadata":
        value = {"tags": {"**.x": ["B"]}, "properties": {"k": "v"}, "sensitive": ["none"]}[path[1]]
    elif path[-1].endswith("Rules"):
        value = [{"name": "one"}, {"name": "two"}]
    body = replaced({**SCHEMA, path[0]: VALUES[path[0]]}, path, value)
    read: Call = ("GET /subjects/new/versions/1", None)
    (status, _), (_, text) = answers(("POST /subjects/new/versions", body), read)
    assert status == 200
    assert json.loads(text)[path[0]] == body[path[0]]
