"""Health checks and metrics: /livez, /readyz, /metrics, on loopback for the machine's own agents.

    /livez     the process's own loops work: the event loop, which answers, and the threads; else restart the process
    /readyz    the process can do its work now: database, broker, log, signing, keys; else send it no calls

Both answer 200, or 503 where one check fails, with a JSON body that names every check:

    {"status": "failed", "checks": {"database": {"ok": false, "reason": "database_unavailable", "detail": "…"}, …}}

They read what was found last and wait for nothing. So they answer while every thread is busy and the database hangs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from exchange import metrics

__all__ = ["HealthCheck", "create"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """One check and what it found last.

    Attributes:
        name: of the check.
        ok: whether it passed.
        reason: the reason code of what is wrong; empty where nothing is.
        detail: in words, for a person.
    """

    name: str
    ok: bool
    reason: str = ""
    detail: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as JSON; what is empty is left out."""
        said = {"reason": self.reason, "detail": self.detail}
        return {"ok": self.ok, **{name: value for name, value in said.items() if value}}


def create(live: Callable[[], Sequence[HealthCheck]], ready: Callable[[], Sequence[HealthCheck]]) -> FastAPI:
    """Build the ASGI application.

    Args:
        live: returns the checks of `/livez`, at once.
        ready: returns the checks of `/readyz`, at once.
    """
    app = FastAPI(openapi_url=None)

    # Coroutines: a plain function would wait for a thread of a pool that may be busy.
    @app.get("/livez")
    async def livez() -> Response:
        return _answer(live())

    @app.get("/readyz")
    async def readyz() -> Response:
        return _answer(ready())

    @app.get("/metrics")
    def scrape() -> Response:
        for check in ready():
            metrics.READY.labels(check.name).set(check.ok)
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


def _answer(checks: Sequence[HealthCheck]) -> Response:
    ok = all(check.ok for check in checks)
    body = {"status": "ok" if ok else "failed", "checks": {check.name: check.document() for check in checks}}
    return JSONResponse(body, status_code=200 if ok else 503)
