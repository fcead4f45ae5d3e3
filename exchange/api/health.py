"""Is it alive, is it ready, how does it fare: /livez, /readyz, /metrics, on loopback for the machine's own agents."""

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from exchange.pool import Pool
from schemas.errors import PoolError

__all__ = ["create"]


def create(pool: Pool) -> FastAPI:
    """Make the app."""
    app = FastAPI(openapi_url=None)

    @app.get("/livez")
    def live() -> Response:
        return Response("ok\n", media_type="text/plain")

    @app.get("/readyz")
    def ready() -> Response:
        """Ready means: the database answers, so an entry could be written, so a record could be released."""
        try:
            pool.grants.purposes()
        except PoolError as error:
            return Response(f"{error.reason}\n", media_type="text/plain", status_code=503)
        return Response("ok\n", media_type="text/plain")

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app
