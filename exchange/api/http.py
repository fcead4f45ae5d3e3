"""API over HTTPS: control (departments, catalogue, requests, grants, the audit log), and records as JSON.

OpenAPI at /openapi.json. A bearer token authenticates the caller; of records, a connector's client certificate. Every
error is an RFC 9457 problem, from the same table as for gRPC; an error that is not the pool's own has a fixed text. No
rule is implemented here.
"""

import math
from functools import partial
from http import HTTPStatus
from typing import Final

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from exchange.api import accounts, audit, connectors, grants, records
from exchange.api.admission.http_requests import RequestBounds, request_limiter
from exchange.api.admission.http_turns import FairTurns, KnownCallers
from exchange.api.admission.scheduler import FairScheduler
from exchange.api.bodies.base import ReasonBody
from exchange.api.bodies.catalogue import EntryBody, HistoryBody, SchemaBody, entry_json
from exchange.api.bodies.erasures import ErasureBody, erasure_json
from exchange.api.caller import (
    After,
    Caller,
    Document,
    Limit,
    authenticate,
    listed,
    refuse_unknown,
    topic_key,
)
from exchange.api.catalogue import elements, export, search
from exchange.api.catalogue import entries as catalogue_routes
from exchange.api.corrections import routes as corrections
from exchange.api.directory import departments, duties, zones
from exchange.api.hub import predicates
from exchange.api.hub import rules as hub_rules
from exchange.api.oversight import reports, resources, violations
from exchange.api.problems import PROBLEM_RESPONSE, as_pool_error, http_status, problem
from exchange.api.requests import routes as requests
from exchange.api.rules import routes as rules
from exchange.api.tasks import lists as tasks
from exchange.pool import Pool
from registry.database.keyset import MAX_PAGE
from schemas.errors import InvalidError, PoolError, Reason
from schemas.names import Topic
from schemas.reason_texts import Language, preferred_language

__all__ = ["ROUTERS", "create"]

_log = structlog.get_logger()
_REQUESTS = 128  # at once
_LANGUAGES = {Language.ENGLISH: "en", Language.CHINESE: "zh-Hans, en"}  # of a problem: its detail is English

router = APIRouter(prefix="/v1", dependencies=[Depends(refuse_unknown)])


@router.post("/catalogue", status_code=201, tags=["catalogue"])
def draft_entry(who: Caller, body: EntryBody) -> Document:
    """Draft a catalogue entry of the caller's department."""
    return entry_json(who.pool.administration.draft_entry(who.actor, who.call, body.to_entry(who.actor.department)))


@router.get("/catalogue", response_model=list[Document], tags=["catalogue"])
def catalogue(request: Request, who: Caller, after: After = "", limit: Limit = MAX_PAGE) -> Response:
    """List the catalogue, by topic."""
    found = who.pool.administration.entries(who.actor, who.call, after=topic_key(after), limit=limit)
    return listed(request, found, limit, document=entry_json, key=lambda one: str(one.topic))


@router.post("/catalogue/{topic}/schemas", status_code=201, tags=["catalogue"])
def register_schema(who: Caller, topic: str, body: SchemaBody) -> Document:
    """Register a schema of a catalogued resource."""
    schema_id, version = who.pool.administration.register_schema(who.actor, who.call, Topic.parse(topic), body.text)
    return {"id": schema_id, "version": version}


@router.post("/catalogue/{topic}/publication", tags=["catalogue"])
def publish_entry(who: Caller, topic: str) -> Document:
    """Publish an entry, one with full metadata after its two reviews; its topic is made."""
    return entry_json(who.pool.catalogue.publish(who.actor, who.call, Topic.parse(topic)))


@router.post("/catalogue/{topic}/archival", tags=["catalogue"])
def archive_entry(who: Caller, topic: str) -> Document:
    """Archive an entry without full metadata: nothing is published or drawn any more."""
    return entry_json(who.pool.catalogue.archive(who.actor, who.call, Topic.parse(topic)))


@router.post("/catalogue/{topic}/history", tags=["catalogue"])
def set_history(who: Caller, topic: str, body: HistoryBody) -> Document:
    """Change what a resource keeps. `applied`: false where an operator has to apply it to Kafka."""
    entry, applied = who.pool.administration.set_history(who.actor, who.call, Topic.parse(topic), body.to_history())
    return {**entry_json(entry), "applied": applied}


@router.post("/erasures", status_code=201, tags=["erasures"])
def propose_erasure(who: Caller, body: ErasureBody) -> Document:
    """Propose the erasure of a key; another person confirms it."""
    topic = Topic.parse(body.topic)
    return erasure_json(who.pool.erasures.propose(who.actor, who.call, topic, body.key, body.reason))


@router.get("/erasures", response_model=list[Document], tags=["erasures"])
def erasures(request: Request, who: Caller, after: After = "", limit: Limit = MAX_PAGE) -> Response:
    """List the erasures that the caller may see, oldest first."""
    found = who.pool.erasures.list(who.actor, who.call, after=after, limit=limit)
    return listed(request, found, limit, document=erasure_json, key=lambda one: one.id)


@router.post("/erasures/{erasure_id}/confirmation", tags=["erasures"])
def confirm_erasure(who: Caller, erasure_id: str) -> Document:
    """Confirm an erasure; when this returns, nothing of the key from before is released any more."""
    return erasure_json(who.pool.erasures.confirm(who.actor, who.call, erasure_id))


@router.post("/erasures/{erasure_id}/rejection", tags=["erasures"])
def reject_erasure(who: Caller, erasure_id: str, body: ReasonBody) -> Document:
    """Reject an erasure."""
    return erasure_json(who.pool.erasures.reject(who.actor, who.call, erasure_id, body.reason))


@router.get("/restore", tags=["restore"])
def restore_status(who: Caller) -> Document:
    """Return the newest restore of the pool and whether it is settled; empty where there was none."""
    return who.pool.restores.status(who.actor, who.call)


@router.post("/restore/settlements", status_code=201, tags=["restore"])
def propose_settlement(who: Caller) -> Document:
    """Propose to settle the restore; another person confirms it."""
    return who.pool.restores.propose(who.actor, who.call)


@router.post("/restore/settlements/{proposal_id}/confirmation", tags=["restore"])
def confirm_settlement(who: Caller, proposal_id: str) -> Document:
    """Confirm the settlement of a restore: records are released again."""
    return who.pool.restores.confirm(who.actor, who.call, proposal_id)


@router.get("/clock", tags=["audit"])
def clock(who: Caller) -> Document:
    """Return the times that the clock is compared with, and what is wrong with it."""
    return who.pool.clock.status(who.actor, who.call)


@router.post("/clock/settlements", status_code=201, tags=["audit"])
def propose_clock_settlement(who: Caller, body: ReasonBody) -> Document:
    """Propose to take the clock for right, after it jumped or a time of the future was stored."""
    return who.pool.clock.propose(who.actor, who.call, body.reason)


@router.post("/clock/settlements/{proposal_id}/confirmation", tags=["audit"])
def confirm_clock_settlement(who: Caller, proposal_id: str) -> Document:
    """Confirm a proposal of another person: signing goes on with the clock as it is."""
    return who.pool.clock.confirm(who.actor, who.call, proposal_id)


ROUTERS: Final = (
    router,
    departments.router,
    zones.router,
    duties.router,
    violations.router,
    corrections.router,
    accounts.router,
    export.router,
    search.router,
    catalogue_routes.router,
    elements.router,
    connectors.router,
    grants.router,
    requests.router,
    audit.router,
    records.router,
    rules.router,
    hub_rules.router,
    predicates.router,
    reports.router,
    resources.router,
    tasks.router,
)
"""All routes of the API."""


def create(
    pool: Pool,
    scheduler: FairScheduler,
    *,
    requests: int = _REQUESTS,
    record_calls: records.RecordCalls | None = None,
) -> FastAPI:
    """Build the API of a pool.

    Args:
        pool: behind it.
        scheduler: in which each request takes the turn of its department.
        requests: at once, of all callers.
        record_calls: of connectors; without them no record can be fetched.
    """
    app = FastAPI(
        title="Data Exchange Pool · 公共数据交换池",
        version="1",
        docs_url=None,
        redoc_url=None,
        responses=PROBLEM_RESPONSE,
    )
    app.state.pool = pool
    app.state.callers = KnownCallers()
    app.state.records = record_calls
    for one in ROUTERS:
        app.include_router(one)

    app.add_middleware(FairTurns, scheduler=scheduler, callers=app.state.callers, refuse=_problem, exempt=records.PATHS)
    app.add_middleware(
        RequestBounds,
        identify=partial(authenticate, pool),
        refuse=_problem,
        sources=request_limiter(requests),
        accounts=request_limiter(requests),
    )

    @app.exception_handler(PoolError)
    async def pool_error(request: Request, error: PoolError) -> JSONResponse:
        return _problem(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        return _problem(request, InvalidError(Reason.REQUEST_INVALID, f"the request does not fit: {faults}"))

    @app.exception_handler(HTTPException)
    async def refused_by_the_framework(request: Request, error: HTTPException) -> Response:
        if error.status_code == HTTPStatus.NOT_FOUND:
            return _problem(
                request, InvalidError(Reason.NOT_FOUND, "the API has no such path; expected one of /openapi.json")
            )
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = (error.headers or {}).get("Allow", "")
            refusal = InvalidError(
                Reason.REQUEST_INVALID, f"got {request.method[:16]}; this path takes {allowed or 'another method'}"
            )
            answer = _problem(request, refusal, HTTPStatus.METHOD_NOT_ALLOWED)
            answer.headers["Allow"] = allowed
            return answer
        if error.status_code != HTTPStatus.BAD_REQUEST:
            return await http_exception_handler(request, error)
        return _problem(
            request,
            InvalidError(Reason.REQUEST_INVALID, "the body cannot be read as JSON; expected an object in UTF-8"),
        )

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        _log.error("call_failed", trace=request.state.trace, error=type(error).__name__)
        return _problem(request, as_pool_error(error))

    return app


def _problem(request: Request, error: PoolError, status: HTTPStatus | None = None) -> JSONResponse:
    """Return an error as a problem, with its reason's status or another."""
    error = as_pool_error(error)
    status = status or http_status(error)
    language = preferred_language(request.headers.get("accept-language", ""))
    headers = {"Content-Language": _LANGUAGES[language], "Vary": "Accept-Language"}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return JSONResponse(
        {**problem(error, request.state.trace, language), "status": status.value},
        status_code=status,
        media_type="application/problem+json",
        headers=headers,
    )
