"""A problem of the control API says in the caller's language what it is about and what to do."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient

from exchange.api.admission.scheduler import FairScheduler
from exchange.api.http import create
from schemas.errors import Reason, RefusedError


class Pool:
    def authenticate(self, token: str, origin: object) -> object:
        raise RefusedError(Reason.NO_IDENTITY, "got a token that nobody has")


APP: Any = create(Pool(), FairScheduler(ThreadPoolExecutor(2), slots=2, share=2, contended=2, limit=64))  # type: ignore[arg-type]
DOCUMENT: dict[str, Any] = APP.openapi()
TOKEN = {"authorization": "Bearer x"}


@pytest.mark.parametrize(
    ("accepted", "language", "title"),
    [
        ("zh-CN,zh;q=0.9", "zh-Hans, en", "未表明身份"),
        ("en-GB", "en", "No identity given"),
        ("xx;q=1,,;", "en", "No identity given"),
    ],
)
def test_title_and_help_are_localized_and_the_reason_is_not(accepted: str, language: str, title: str) -> None:
    with TestClient(APP) as http:
        answer = http.get("/v1/departments", headers={**TOKEN, "accept-language": accepted})
    problem = answer.json()
    assert (answer.status_code, answer.headers["content-language"], answer.headers["vary"]) == (
        401, language, "Accept-Language",
    )  # fmt: skip
    assert (problem["title"], problem["reason"]) == (title, "no_identity")
    assert problem["detail"] == "got a token that nobody has"
    assert problem["help"]


def test_the_document_describes_the_problems_of_every_call() -> None:
    schema = DOCUMENT["paths"]["/v1/departments"]["get"]["responses"]["default"]["content"]["application/problem+json"]
    with TestClient(APP) as http:
        problem = http.get("/v1/departments", headers=TOKEN).json()
    assert set(schema["schema"]["required"]) == set(problem)
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            assert "default" in operation["responses"], path
