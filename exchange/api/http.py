"""Control API over HTTPS: departments, catalogue, requests, grants, the audit log. OpenAPI at /openapi.json.

A bearer token authenticates the caller. Every error is an RFC 9457 problem, from the same table as for gRPC; an error
that is not the pool's own has a fixed text. No rule is implemented here.
"""

import math
from datetime import timedelta
from functools import partial
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from exchange.access.decision.grant_rules import Event
from exchange.access.decision.purposes import Purpose
from exchange.access.grants.store import GrantOrder, GrantQuery, cursor_behind
from exchange.api import audit
from exchange.api.admission.http_requests import RequestBounds, request_limiter
from exchange.api.admission.http_turns import FairTurns, KnownCallers
from exchange.api.admission.scheduler import FairScheduler
from exchange.api.bodies import (
    ConfirmationBody,
    ConnectorBody,
    DepartmentBody,
    EntryBody,
    ErasureBody,
    HistoryBody,
    InvitationBody,
    MergerBody,
    PersonBody,
    ReasonBody,
    RenamingBody,
    RequestBody,
    SchemaBody,
    TokenBody,
    UserBody,
    account_json,
    certificate_json,
    department_json,
    entry_json,
    erasure_json,
    grant_json,
    proposal_json,
    review_json,
    version_json,
)
from exchange.api.caller import (
    After,
    Caller,
    Document,
    Limit,
    authenticate,
    certificate_key,
    listed,
    refuse_unknown,
    topic_key,
    version_key,
)
from exchange.api.problems import PROBLEM_RESPONSE, as_pool_error, http_status, problem
from exchange.control.grant_review import Review
from exchange.identity.proposals import ProposalState
from exchange.identity.tokens import parse_fingerprint
from exchange.pool import Pool
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import MAX_PAGE
from schemas.access import GrantState
from schemas.errors import InvalidError, PoolError, Reason
from schemas.names import ResourceName, Topic
from schemas.reason_texts import Language, preferred_language

__all__ = ["create"]

_log = structlog.get_logger()
_REQUESTS = 128  # at once
_LANGUAGES = {Language.ENGLISH: "en", Language.CHINESE: "zh-Hans, en"}  # of a problem: its detail is English

router = APIRouter(prefix="/v1", dependencies=[Depends(refuse_unknown)])


@router.post("/departments", status_code=201, tags=["departments"])
def register_department(who: Caller, body: DepartmentBody) -> Document:
    """Register a department."""
    return department_json(who.pool.administration.register_department(who.actor, who.call, **body.model_dump()))


@router.get("/departments", response_model=list[Document], tags=["departments"])
def departments(request: Request, who: Caller, after: After = "", limit: Limit = MAX_PAGE) -> Response:
    """List the departments, in the order of their registration."""
    found = who.pool.administration.departments(who.actor, who.call, after=after, limit=limit)
    return listed(request, found, limit, document=department_json, key=lambda one: one.id)


@router.post("/departments/{department}/renaming", tags=["departments"])
def rename_department(who: Caller, department: str, body: RenamingBody) -> Document:
    """Change a department's name, and its credit code if one is given."""
    changed = who.pool.departments.rename(
        who.actor, who.call, department, name=body.name, short_name=body.short_name, uscc=body.uscc
    )
    return department_json(changed)


@router.post("/departments/{department}/merger", tags=["departments"])
def merge_department(who: Caller, department: str, body: MergerBody) -> Document:
    """End a department that was merged into another: its accounts, certificates and grants end with it."""
    changed = who.pool.departments.merge(who.actor, who.call, department, into=body.into, reason=body.reason)
    return department_json(changed)


@router.post("/departments/{department}/deactivation", tags=["departments"])
def deactivate_department(who: Caller, department: str, body: ReasonBody) -> Document:
    """End a department without a successor: its accounts, certificates and grants end with it."""
    return department_json(who.pool.departments.deactivate(who.actor, who.call, department, reason=body.reason))


@router.post("/departments/{department}/invitations", status_code=201, tags=["departments"])
def invite(who: Caller, department: str, body: InvitationBody) -> Document:
    """Propose a one-time enrolment token of the department; it is shown to the officer who confirms it."""
    return proposal_json(who.pool.accounts.propose_invitation(who.actor, who.call, department, body.connector))


@router.get("/certificates", response_model=list[Document], tags=["departments"])
def certificates(request: Request, who: Caller, after: After = "", limit: Limit = MAX_PAGE) -> Response:
    """List the certificates of connectors, of the caller's department or of all, by department and connector."""
    found = who.pool.administration.connectors(who.actor, who.call, after=certificate_key(after), limit=limit)
    return listed(
        request,
        found,
        limit,
        document=certificate_json,
        key=lambda one: f"{one.department}/{one.connector}/{one.serial}",
    )


@router.post("/connectors/revocations", status_code=204, tags=["departments"])
def revoke_connector(who: Caller, body: ConnectorBody) -> Response:
    """Revoke a connector's certificates, at once."""
    who.pool.administration.revoke_connector(who.actor, who.call, body.department, body.connector, body.reason)
    return Response(status_code=204)


@router.post("/users", status_code=201, tags=["users"])
def propose_account(who: Caller, body: UserBody) -> Document:
    """Propose an account for a person; another person confirms it. The first token adds an authority at once."""
    proposal = who.pool.accounts.propose_account(
        who.actor,
        who.call,
        name=body.name,
        role=body.role,
        department=body.department,
        person=body.staff_number,
        digest=parse_fingerprint(body.token_fingerprint),
    )
    return {"state": "added", "subject": body.name} if proposal is None else proposal_json(proposal)


@router.get("/users", response_model=list[Document], tags=["users"])
def accounts(request: Request, who: Caller, after: After = "", limit: Limit = MAX_PAGE) -> Response:
    """List the accounts, of the caller's department or of all, with their last use, by name."""
    found = who.pool.accounts.accounts(who.actor, who.call, after=after, limit=limit)
    return listed(request, found, limit, document=account_json, key=lambda one: one.account.name)


@router.post("/users/{name}/token", tags=["users"])
def rotate(who: Caller, name: str, body: TokenBody) -> Document:
    """Rotate the token of the caller's own account at once; propose it for another account."""
    digest = parse_fingerprint(body.token_fingerprint)
    if name == who.actor.id:
        account = who.pool.accounts.rotate(who.actor, who.call, digest)
        return {"state": "rotated", "subject": account.name, "expires_at": account.expires_at.isoformat()}
    return proposal_json(who.pool.accounts.propose_token(who.actor, who.call, name, digest))


@router.post("/users/{name}/person", status_code=201, tags=["users"])
def propose_person(who: Caller, name: str, body: PersonBody) -> Document:
    """Propose the person of an account of an earlier version, which names none."""
    return proposal_json(who.pool.accounts.propose_person(who.actor, who.call, name, body.staff_number))


@router.post("/users/{name}/revocation", status_code=204, tags=["users"])
def revoke_account(who: Caller, name: str, body: ReasonBody) -> Response:
    """Revoke an account, at once and permanently."""
    who.pool.accounts.revoke(who.actor, who.call, name, body.reason)
    return Response(status_code=204)


@router.get("/proposals", response_model=list[Document], tags=["users"])
def proposals(
    request: Request, who: Caller, state: ProposalState | None = None, after: After = "", limit: Limit = MAX_PAGE
) -> Response:
    """List the proposals of accounts and invitations, newest first, decided ones too: of one's department, or all."""
    found = who.pool.accounts.proposals(who.actor, who.call, state=state, before=after, limit=limit)
    return listed(request, found, limit, document=proposal_json, key=lambda one: one.id)


@router.post("/proposals/{proposal_id}/confirmation", tags=["users"])
def confirm_proposal(who: Caller, proposal_id: str, body: ConfirmationBody) -> Document:
    """Confirm another person's proposal; an invitation's enrolment token is shown, once."""
    text = body.token_fingerprint
    digest = None if text is None else parse_fingerprint(text)
    confirmed, token = who.pool.accounts.confirm(who.actor, who.call, proposal_id, digest)
    return proposal_json(confirmed) | ({"token": token} if token else {})


@router.post("/proposals/{proposal_id}/refusal", tags=["users"])
def refuse_proposal(who: Caller, proposal_id: str, body: ReasonBody) -> Document:
    """Refuse a proposal, or withdraw one's own."""
    return proposal_json(who.pool.accounts.refuse(who.actor, who.call, proposal_id, body.reason))


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
    """Publish an entry; its topic is made."""
    return entry_json(who.pool.administration.publish_entry(who.actor, who.call, Topic.parse(topic)))


@router.post("/catalogue/{topic}/archival", tags=["catalogue"])
def archive_entry(who: Caller, topic: str) -> Document:
    """Archive an entry: nothing is published or drawn any more."""
    return entry_json(who.pool.administration.archive_entry(who.actor, who.call, Topic.parse(topic)))


@router.post("/catalogue/{topic}/history", tags=["catalogue"])
def set_history(who: Caller, topic: str, body: HistoryBody) -> Document:
    """Change what a resource keeps. `applied`: false where an operator has to apply it to Kafka."""
    entry, applied = who.pool.administration.set_history(who.actor, who.call, Topic.parse(topic), body.to_history())
    return {**entry_json(entry), "applied": applied}


@router.get("/purposes", response_model=list[Document], tags=["grants"])
def purposes(request: Request, who: Caller, after: After = "", limit: Limit = MAX_PAGE) -> Response:
    """List the purposes that a request may name (使用目的)."""
    forms = who.pool.enforcer.screen.case_forms

    def document(one: Purpose) -> Document:
        return {
            "id": one.id,
            "parent": one.parent,
            "zh": one.zh,
            "en": one.en,
            "case_form": forms[one.id].text if one.id in forms else None,
        }

    rows = who.pool.grants.purposes()
    found = [one for one in rows if (one.cursor if isinstance(one, DamagedRow) else one.id) > after][:limit]
    return listed(request, found, limit, document=document, key=lambda one: one.id)


@router.post("/requests", status_code=201, tags=["grants"])
def submit(who: Caller, body: RequestBody) -> Document:
    """File a share request (共享申请)."""
    return grant_json(who.pool.grants.submit(who.actor, who.call, body.to_draft()))


@router.get("/grants", response_model=list[Document], tags=["grants"])
def grants(
    request: Request,
    who: Caller,
    state: Annotated[list[GrantState] | None, Query()] = None,
    *,
    consumer: Annotated[str | None, Query(description="internal id of the department that has or asks for it")] = None,
    provider: Annotated[str | None, Query(description="internal id of the providing department")] = None,
    topic: Annotated[str | None, Query(description="resource and major, such as residents.v1")] = None,
    resource: Annotated[str | None, Query(description="name of a resource, in any major")] = None,
    expires_within: Annotated[int | None, Query(ge=1, le=3650, description="days from now; without those over")] = None,
    order: Annotated[GrantOrder, Query(description="id (oldest first), newest, or expires")] = GrantOrder.ID,
    unmasked: bool = False,
    after: After = "",
    limit: Limit = MAX_PAGE,
) -> Response:
    """List the grants that the caller may see; `unmasked`: those that show unmasked what no request wrote out.

    A grant whose row is damaged is `{"id": …, "status": "damaged"}`.
    """
    now = who.pool.now()
    query = GrantQuery(
        consumer=consumer,
        provider=provider,
        topic=None if topic is None else Topic.parse(topic),
        resource=None if resource is None else ResourceName(resource),
        states=frozenset(state) if state else None,
        expires_from=None if expires_within is None else now,
        expires_before=None if expires_within is None else now + timedelta(days=expires_within),
        order=order,
        after=after,
        limit=limit,
    )
    found = who.pool.grants.reviews(who.actor, who.call, query, unmasked=unmasked)

    def key(one: Review) -> str:
        return cursor_behind(order, one.grant.expires, one.grant.id)

    return listed(request, found, limit, document=review_json, key=key)


@router.get("/grants/{grant_id}", tags=["grants"])
def grant(who: Caller, grant_id: str) -> Document:
    """Return a grant with what an approver must know, together with all that its consumer holds of the resource."""
    return review_json(who.pool.grants.show(who.actor, who.call, grant_id))


@router.get("/grants/{grant_id}/versions", response_model=list[Document], tags=["grants"])
def grant_versions(
    request: Request,
    who: Caller,
    grant_id: str,
    after: After = "",
    limit: Limit = MAX_PAGE,
) -> Response:
    """List the versions of a grant, oldest first, each with its hash and the entry of the act that made it."""
    found = who.pool.grant_use.versions(who.actor, who.call, grant_id, after=version_key(after), limit=limit)
    return listed(request, found, limit, document=version_json, key=lambda one: str(one.grant.version))


@router.get("/grants/{grant_id}/use", tags=["grants"])
def grant_use(who: Caller, grant_id: str) -> Document:
    """Return how often and how much was released under a grant in the last 31 days, and when last."""
    return who.pool.grant_use.use(who.actor, who.call, grant_id)


@router.post("/grants/{grant_id}/confirmation", tags=["grants"])
def confirm(who: Caller, grant_id: str) -> Document:
    """Confirm a sensitive request as the provider's security officer; its approval follows, by another person."""
    return grant_json(who.pool.grants.confirm(who.actor, who.call, grant_id))


@router.post("/grants/{grant_id}/approval", tags=["grants"])
def approve(who: Caller, grant_id: str) -> Document:
    """Approve a request; the grant is in force when this returns."""
    return grant_json(who.pool.grants.approve(who.actor, who.call, grant_id))


@router.post("/grants/{grant_id}/{event}", tags=["grants"])
def change(who: Caller, grant_id: str, event: Event, body: ReasonBody) -> Document:
    """Reject, suspend, rectify (resume) or terminate; a revocation returns when nothing more can leave."""
    return grant_json(who.pool.grants.change(who.actor, who.call, grant_id, event, reason=body.reason))


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


def create(pool: Pool, scheduler: FairScheduler, *, requests: int = _REQUESTS) -> FastAPI:
    """Build the control API of a pool; *requests* at once, of all callers, each in the turn of its department."""
    app = FastAPI(
        title="Data Exchange Pool · 公共数据交换池",
        version="1",
        docs_url=None,
        redoc_url=None,
        responses=PROBLEM_RESPONSE,
    )
    app.state.pool = pool
    app.state.callers = KnownCallers()
    app.include_router(router)
    app.include_router(audit.router)

    app.add_middleware(FairTurns, scheduler=scheduler, callers=app.state.callers, refuse=_problem)
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

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        _log.error("call_failed", trace=request.state.trace, error=type(error).__name__)
        return _problem(request, as_pool_error(error))

    return app


def _problem(request: Request, error: PoolError) -> JSONResponse:
    error = as_pool_error(error)
    language = preferred_language(request.headers.get("accept-language", ""))
    headers = {"Content-Language": _LANGUAGES[language], "Vary": "Accept-Language"}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return JSONResponse(
        problem(error, request.state.trace, language),
        status_code=http_status(error),
        media_type="application/problem+json",
        headers=headers,
    )
