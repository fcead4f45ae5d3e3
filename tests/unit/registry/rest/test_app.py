"""The REST application as a server sees it: errors of every kind, start and end, what it does not serve."""

import logging
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from registry.rest.app import RestApplication
from registry.rest.errors import Dialect, HttpError
from registry.rest.routing import Member, Parameter, Route
from schemas.errors import PoolError, Reason, UnavailableError

NOBODY: Any = object()


def application(handler: Any, **more: Any) -> RestApplication:
    return RestApplication(
        [Route("GET", "/a/{b}", handler, **more), Route("PUT", "/a/{b}", handler)], Dialect.CONFLUENT, lambda _: NOBODY
    )


def failing(error: BaseException) -> Any:
    def handler(*_: Any, **__: Any) -> None:
        raise error

    return handler


@pytest.mark.parametrize(
    ("error", "status", "number"),
    [
        (HttpError(404), 404, 404),
        (UnavailableError(Reason.DATABASE_UNAVAILABLE, "away", retry_after=2.4), 503, 50001),
        (PoolError(Reason.INTERNAL, "x"), 500, 50001),
        (ClientDisconnect(), 400, None),
    ],
    ids=lambda one: type(one).__name__,
)
def test_an_error_becomes_its_response(error: Exception, status: int, number: int | None) -> None:
    with TestClient(application(failing(error))) as http:
        answer = http.get("/a/b")
    assert answer.status_code == status
    assert number is None or answer.json()["error_code"] == number
    assert answer.headers.get("retry-after") == ("3" if status == 503 else None)


def test_a_defect_is_logged_and_its_text_stays_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with TestClient(application(failing(KeyError("secret")))) as http, caplog.at_level(logging.ERROR):
        answer = http.get("/a/b")
    assert (answer.status_code, answer.json()["error_code"]) == (500, 50001)
    assert "secret" not in answer.text
    assert "secret" in caplog.text


def test_a_cached_answer_needs_no_thread_and_a_missing_one_does() -> None:
    answers: dict[str, Any] = {}
    asked = []

    def handler(request: Any, b: str) -> dict[str, str]:
        asked.append(b)
        return {"b": b}

    with TestClient(application(handler, cached=lambda _, arguments: answers.get(arguments["b"]), status=202)) as http:
        first = http.get("/a/x", headers={"accept": "application/json"})
        assert (first.status_code, first.json(), first.headers["content-type"]) == (202, {"b": "x"}, "application/json")
        answers["x"] = cached = Response(b'{"b":"cached"}', media_type="application/json")
        before = [*cached.raw_headers]
        assert http.get("/a/x").json() == {"b": "cached"}
        assert http.get("/a/y").json() == {"b": "y"}
        assert http.put("/a/x").json() == {"b": "x"}
    assert asked == ["x", "y", "x"]
    assert cached.raw_headers == before, "it is shared"


@pytest.mark.parametrize("length", [1, 600])
def test_what_a_request_line_means_is_the_same_each_time(length: int) -> None:
    """Short lines are cached, errors are not, and a body is each request's own."""
    seen: list[Any] = []

    def handler(_: Any, b: str, **more: Any) -> dict[str, Any]:
        seen.append((b, more))
        return {}

    member = Member(name="x", schema={"type": "integer"})
    routes = [
        Route("POST", "/a/{b}", handler, query=(Parameter.texts("t"),), body=(member,)),
        Route("GET", "/a/{b}", handler, query=(Parameter.texts("t"),)),
    ]
    path = f"/a/{'y' * length}?t=1&t=2"
    with TestClient(RestApplication(routes, Dialect.CONFLUENT, lambda _: NOBODY)) as http:
        for number in (1, 2):
            assert http.post(path, json={"x": number}).status_code == 200
            assert http.get(path).status_code == 200
            assert http.post(path, json={"z": 1}).status_code == 422
            assert http.get(f"{path}&u=1").status_code == 422
            assert http.put(path).status_code == 405
    name = "y" * length
    both = [(name, {"t": ["1", "2"], "body": {"x": 1}}), (name, {"t": ["1", "2"]})]
    assert seen == [*both, (name, {"t": ["1", "2"], "body": {"x": 2}}), both[1]]


def test_a_websocket_is_refused() -> None:
    with TestClient(application(failing(KeyError()))) as http, pytest.raises(WebSocketDisconnect):
        http.websocket_connect("/a/b").__enter__()
