"""A client that goes before its request is read is no error: no answer, no traceback, one count."""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from exchange.api.admission.scheduler import FairScheduler
from exchange.api.http import create
from exchange.authorization.text_screen import TextScreen
from exchange.cli.process_log import log_to_stderr
from registry.rest.app import RestApplication
from registry.rest.errors import Dialect
from registry.rest.routing import Member, Route

GONE = {"type": "http.disconnect"}
PART = {"type": "http.request", "body": b'{"na', "more_body": True}


class Pool:
    enforcer = SimpleNamespace(screen=TextScreen(), check_refusals=lambda _: None)

    def authenticate(self, token: str, origin: object) -> object:
        raise AssertionError("nobody is asked about a caller that has gone")


def serve(app: Any, method: str, path: str, messages: Sequence[dict[str, Any]], **headers: str) -> list[Any]:
    """Serve one request of which these messages come; return what was answered."""
    left, answered = list(messages), []

    async def receive() -> dict[str, Any]:
        return left.pop(0) if left else GONE

    async def send(message: Any) -> None:
        answered.append(message)

    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        "client": ("192.0.2.1", 1), "server": ("pool", 443), "scheme": "https", "root_path": "", "http_version": "1.1",
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return answered


def abandoned(listener: str) -> float:
    return REGISTRY.get_sample_value("pool_requests_abandoned_total", {"listener": listener}) or 0.0


@pytest.mark.parametrize(
    ("method", "path", "messages", "headers"),
    [
        ("POST", "/v1/departments", [PART], {"content_length": "100"}),
        ("POST", "/v1/departments", [PART, PART], {"transfer_encoding": "chunked"}),
        ("GET", "/v1/departments", [], {}),  # it had waited for its turn
        ("POST", "/v1/departments/d-1/merger", [], {"content_length": "100"}),
    ],
)
def test_of_the_control_api(method: str, path: str, messages: list[dict[str, Any]], headers: dict[str, str]) -> None:
    with ThreadPoolExecutor(2) as threads:
        app = create(Pool(), FairScheduler(threads, slots=2, share=2, contended=2, limit=64))  # type: ignore[arg-type]
        before = abandoned("http")
        with capture_logs() as lines:
            assert serve(app, method, path, messages, authorization="Bearer x", **headers) == []
    assert abandoned("http") == before + 1
    assert [(line["event"], line["log_level"]) for line in lines] == [("client_disconnected", "debug")]


def test_of_the_registry(caplog: pytest.LogCaptureFixture) -> None:
    counted: list[int] = []
    route = Route("POST", "/subjects", lambda *_, **__: None, body=(Member(name="schema", schema={}),))
    app = RestApplication(
        [route], Dialect.CONFLUENT, lambda _: pytest.fail("asked"), abandoned=lambda: counted.append(1)
    )
    with caplog.at_level(logging.INFO):
        serve(app, "POST", "/subjects", [PART], content_type="application/json", content_length="100")
    assert counted == [1]
    assert caplog.records == []


def test_a_pool_writes_no_line_of_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    try:
        log_to_stderr()
        log = structlog.get_logger()
        log.debug("client_disconnected")
        log.info("stopping")
    finally:
        structlog.reset_defaults()
    told = capsys.readouterr().err
    assert "stopping" in told
    assert "client_disconnected" not in told
