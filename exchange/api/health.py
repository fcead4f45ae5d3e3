"""Health checks and metrics: /livez, /readyz, /metrics, on loopback for the machine's own agents."""

from collections.abc import Callable

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from schemas.errors import PoolError

__all__ = ["create"]


def create(ask_database: Callable[[], object]) -> FastAPI:
    """Build the ASGI application; *ask_database* raises a PoolError while the database does not answer."""
    app = FastAPI(openapi_url=None)

    @app.get("/livez")
    def live() -> Response:
        return Response("ok\n", media_type="text/plain")

    @app.get("/readyz")
    def ready() -> Response:
        """Return 200 while the database answers: without it no entry can be written, so no record is released."""
        try:
            ask_database()
        except PoolError as error:
            return Response(f"{error.reason}\n", media_type="text/plain", status_code=503)
        return Response("ok\n", media_type="text/plain")

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app
