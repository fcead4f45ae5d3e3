"""The registry over HTTP, as Confluent's clients, serializers and tools speak to it.

    from registry.rest.app import create
    app = create(subjects, access, database, identify=…)

Every call is identified and passes the gate, which decides and records; `Gate` has no default, so an ungated API
cannot be built. The gate chooses which acts leave an entry: every write and every read under a view's subject
(it tells who was granted what) must; other reads need not, since deserializers make them for each id they meet.

Handlers are plain functions, run in threads; the subject is locked in the store, not here. Any number of processes
may serve one database: there is no leader to find and none to wait for.
"""

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from registry.database.unit_of_work import Database
from registry.rest.access import AccessControl
from registry.rest.config import ConfigCalls
from registry.rest.errors import Dialect, failure, plain_failure
from registry.rest.fast_path import Short, unexpected
from registry.rest.handlers import Calls, Identify
from registry.rest.middleware import ProtocolMiddleware
from registry.rest.response_cache import ResponseCache
from registry.rest.schemas import SchemaCalls
from registry.rest.subjects import SubjectCalls
from registry.subjects.services import SubjectServices
from schemas.errors import PoolError

__all__ = ["Identify", "create"]


def create(
    subjects: SubjectServices,
    access: AccessControl,
    database: Database,
    *,
    identify: Identify,
    version: str = "1",
    dialect: Dialect = Dialect.CONFLUENT,
    metrics: Callable[[], tuple[bytes, str]] | None = None,
    more: Sequence[Callable[..., Calls]] = (),
) -> ProtocolMiddleware:
    """Build the application: a FastAPI within its manners.

    Args:
        subjects: the services behind it.
        access: decides on acts and reads, and records them.
        database: opens readers.
        identify: says who calls.
        version: of the product.
        dialect: whose words errors are told in where peers contradict each other.
        metrics: gives the process's metrics and their media type; None = `/metrics` is not there.
        more: further groups of calls, made as Confluent's own are (`registry.rest.governance`).
    """
    app = FastAPI(title="Schema registry", version=version, docs_url=None, redoc_url=None, redirect_slashes=False)
    ready = ResponseCache(access.open_)
    groups: tuple[Callable[..., Calls], ...] = (SubjectCalls, SchemaCalls, ConfigCalls, *more)
    for group in groups:
        calls: Any = group(subjects, access, database, identify, ready=ready, dialect=dialect, version=version)
        app.include_router(calls.router())
    if metrics is not None:
        _serve_metrics(app, metrics, identify)
    made: dict[str, Any] = {"ready": ready, "dialect": dialect, "version": version}
    hot: tuple[Any, ...] = tuple(
        group(subjects, access, database, identify, **made) for group in (SubjectCalls, SchemaCalls)
    )

    async def pool_error(_: Request, error: PoolError) -> Response:
        return failure(error, dialect)

    app.add_exception_handler(PoolError, pool_error)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _http_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _parameter_error)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, _unexpected)
    # Around the framework and not within it: what is ready or goes the short way does not pass its layers.
    return ProtocolMiddleware(app, ready=ready, short=Short(*hot, dialect=dialect))


def _serve_metrics(app: FastAPI, metrics: Callable[[], tuple[bytes, str]], identify: Identify) -> None:
    def told(request: Request) -> Response:
        identify(request)  # whoever is somebody may read them: they tell of counts and times alone
        body, media_type = metrics()
        return Response(body, headers={"Content-Type": media_type})

    app.add_api_route("/metrics", told, methods=["GET"], include_in_schema=False, response_model=None)


async def _http_error(_: Request, error: HTTPException) -> Response:
    return plain_failure(error.status_code)


async def _parameter_error(_: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    place, name = first["loc"][0], first["loc"][-1]
    if place == "path":
        return plain_failure(404)
    return plain_failure(422, f"got another {name} than expected: {first['msg']}")


async def _unexpected(_: Request, __: Exception) -> Response:
    return unexpected()
