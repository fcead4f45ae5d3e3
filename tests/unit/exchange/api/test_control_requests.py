"""The control API ignores nothing: every call of its document refuses what it does not name, before it acts."""

import re
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError
from starlette.requests import Request

from exchange.api.admission.scheduler import FairScheduler
from exchange.api.bodies.audit import BundleBody
from exchange.api.bodies.base import Body, ReasonBody
from exchange.api.bodies.catalogue import SchemaBody
from exchange.api.http import create
from exchange.api.rules.routes import RuleTextBody
from exchange.authorization.text_screen import TextScreen
from exchange.deadlines.profile_yaml import LONGEST
from schemas.errors import Reason, RefusedError


class Pool:
    """A pool that knows one caller: any other's request ends with `no_identity` where it passes the first checks.

    It finds no personal number.
    """

    enforcer = SimpleNamespace(screen=TextScreen(), check_refusals=lambda _: None)

    def authenticate(self, token: str, origin: object) -> object:
        del origin
        if token != "known":
            raise RefusedError(Reason.NO_IDENTITY, "nobody")
        return SimpleNamespace(id="known", department="")


class Connectors:
    """Connectors of which one is known; what stands for its certificate is a header."""

    async def identify(self, request: Request) -> object:
        return Pool().authenticate(request.headers["authorization"].removeprefix("Bearer "), None)


THREADS = ThreadPoolExecutor(2)
CALLERS: Any = (Pool(), Connectors())
APP: Any = create(CALLERS[0], FairScheduler(THREADS, slots=2, share=2, contended=2, limit=64), record_calls=CALLERS[1])
DOCUMENT: dict[str, Any] = APP.openapi()
CALLS = [
    pytest.param(method.upper(), path, operation, id=f"{method} {path}")
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]


def sent(
    method: str, path: str, operation: dict[str, Any], query: str = "", body: Any = None, token: str = "unknown"
) -> tuple[int, str]:
    path = re.sub(r"\{event\}", "termination", path)
    if body is None and "requestBody" in operation:
        body = example(operation["requestBody"]["content"]["application/json"]["schema"])
    with TestClient(APP) as http:
        answer = http.request(
            method, re.sub(r"\{[a-z_]+\}", "x", path) + query, json=body, headers={"authorization": f"Bearer {token}"}
        )
    return answer.status_code, answer.text


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return DOCUMENT["components"]["schemas"][name] if name else schema


def example(schema: dict[str, Any]) -> Any:
    """Return the smallest value of a schema."""
    schema = resolved(schema.get("anyOf", [schema])[0])
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("format") == "date-time":
        return "2026-01-01T00:00:00Z"
    if "pattern" in schema:
        return "G1"
    if schema["type"] == "object":
        return {name: example(schema["properties"][name]) for name in schema.get("required", ())}
    return {"string": "x", "integer": 1, "boolean": True, "array": []}[schema["type"]]


def test_the_document_names_the_calls() -> None:
    assert len(CALLS) >= 19


@pytest.mark.parametrize(("method", "path", "operation"), CALLS)
def test_what_a_call_names_is_taken(method: str, path: str, operation: dict[str, Any]) -> None:
    query = "&".join(
        f"{one['name']}={example(next(iter(_choices(one['schema']))))}"
        for one in operation.get("parameters", ())
        if one["in"] == "query"
    )
    status, text = sent(method, path, operation, f"?{query}" if query else "")
    assert status == 401, text


def _choices(schema: dict[str, Any]) -> list[dict[str, Any]]:
    chosen = schema.get("anyOf", [schema])[0]
    return [chosen["items"] if chosen.get("type") == "array" else chosen]


@pytest.mark.parametrize(("method", "path", "operation"), CALLS)
def test_what_a_call_does_not_name_is_refused_by_name(method: str, path: str, operation: dict[str, Any]) -> None:
    status, text = sent(method, path, operation, "?dry_run=true")
    assert (status, "dry_run" in text) == (422, True), text
    named = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
    assert all(name in text for name in named)
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        assert resolved(schema)["additionalProperties"] is False
        status, text = sent(method, path, operation, body={**example(schema), "unheard_of": 1}, token="known")
        assert (status, "unheard_of" in text) == (422, True), text
    elif method == "POST":
        status, text = sent(method, path, operation, body={"reason": "only for three days"})
        assert (status, "got a body" in text) == (422, True), text


LISTS = [
    pytest.param(operation, id=path)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
    if method == "get"
    and operation["responses"]["200"]["content"].get("application/json", {}).get("schema", {}).get("type") == "array"
]


@pytest.mark.parametrize("path", ["/v1/grants?after=%00", "/v1/grants/%00", "/v1/audit/entries?resource=a%00"])
def test_a_zero_character_is_refused_and_reaches_no_database(path: str) -> None:
    with TestClient(APP) as http:
        answer = http.get(path, headers={"authorization": "Bearer known"})
    assert (answer.status_code, answer.json()["reason"]) == (422, Reason.REQUEST_INVALID)
    assert "zero character" in answer.json()["detail"]


def test_the_lists_are_found() -> None:
    assert {"/v1/grants", "/v1/departments", "/v1/catalogue", "/v1/users"} <= {str(one.id) for one in LISTS}


@pytest.mark.parametrize("operation", LISTS)
def test_each_list_takes_a_cursor_and_a_bounded_limit(operation: dict[str, Any]) -> None:
    named = {one["name"]: one["schema"] for one in operation["parameters"]}
    assert named["limit"]["maximum"] == 1_000
    assert "string" in {one.get("type") for one in named["after"].get("anyOf", [named["after"]])}


BODIES = sorted(
    operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    for methods in DOCUMENT["paths"].values()
    for operation in methods.values()
    if "requestBody" in operation
)


@pytest.mark.parametrize("name", sorted({*BODIES} - {"RuleTextBody", "SchemaBody"}))
def test_each_body_is_bounded(name: str) -> None:
    models = [*Body.__subclasses__()]
    models += [below for one in models for below in one.__subclasses__()]
    model = next(one for one in models if one.__name__ == name)
    for sent, told in (
        ({"x": "长" * 2_001}, "2001 characters as x"),
        ({"x": [""] * 2_001}, "2001 items as x"),
        ({"x": {"y": [{"z": "长" * 2_001}]}}, "2001 characters as x"),
        ({f"x{number}": "长" * 2_000 for number in range(40)}, "expected 65536 at most"),
    ):
        with pytest.raises(ValidationError, match=told):
            model.model_validate(sent)


def test_the_text_of_a_rule_is_bounded() -> None:
    assert RuleTextBody(content="长" * LONGEST)
    with pytest.raises(ValidationError, match=f"expected {LONGEST} at most"):
        RuleTextBody(content="长" * (LONGEST + 1))


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "\udfff\U0001f600"])
@pytest.mark.parametrize(
    "made",
    [
        lambda text: ReasonBody(reason=text),
        lambda text: BundleBody(entries=["1", text]),
        lambda text: BundleBody.model_validate({"query": {"case": text}}),
        lambda text: BundleBody.model_validate({"query": {text: "case"}}),
        lambda text: SchemaBody(text=text),
        lambda text: RuleTextBody(content=text),
    ],
)
def test_no_text_of_a_body_has_a_zero_character_or_half_a_surrogate_pair(made: Any, text: str) -> None:
    with pytest.raises(ValidationError, match="zero character or half a surrogate pair") as caught:
        made(text)
    caught.value.json(include_input=False).encode()
    assert ReasonBody(reason="王\U0001f600\n").reason


@pytest.mark.parametrize("content", ["[" * 30_000, '{"reason": ' * 700 + "1" + "}" * 700])
def test_a_body_that_cannot_be_read_is_refused_as_a_problem(content: str) -> None:
    with TestClient(APP, raise_server_exceptions=False) as http:
        headers = {"authorization": "Bearer known", "content-type": "application/json"}
        answer = http.post("/v1/grants/x/revocation", content=content, headers=headers)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["reason"]) == (422, Reason.REQUEST_INVALID)


def test_a_path_that_there_is_not_is_a_problem() -> None:
    with TestClient(APP) as http:
        answer = http.get("/v1/nope", headers={"authorization": "Bearer known"})
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["reason"]) == (404, Reason.NOT_FOUND)


def test_a_method_that_a_path_does_not_have_is_a_problem_that_names_those_it_has() -> None:
    with TestClient(APP) as http:
        answer = http.put("/v1/grants", headers={"authorization": "Bearer known"})
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert (answer.status_code, told["status"], told["reason"]) == (405, 405, Reason.REQUEST_INVALID)
    assert "GET" in answer.headers["allow"]
    assert answer.headers["allow"] in told["detail"]


@pytest.mark.parametrize("query", ["from=9999-12-31", "to=9999-12-31T23:59:59-14:00", "since=253402351199000000"])
def test_a_time_that_not_every_zone_has_is_refused(query: str) -> None:
    with TestClient(APP) as http:
        answer = http.get(f"/v1/audit/entries?{query}", headers={"authorization": "Bearer known"})
    assert (answer.status_code, answer.json()["reason"]) == (422, Reason.REQUEST_INVALID)
    assert "9999-12-30" in answer.json()["detail"] or "253402128000000000" in answer.json()["detail"]
