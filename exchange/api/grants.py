"""Control API of purposes, requests and grants."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from exchange.access.decision.grant_rules import Event
from exchange.access.decision.purposes import Purpose
from exchange.access.grants.store import GrantOrder, GrantQuery, cursor_behind
from exchange.api.bodies.requests import (
    EventBody,
    RequestBody,
    ReturnFlowBody,
    grant_json,
    renewal_json,
    review_json,
    version_json,
)
from exchange.api.caller import (
    After,
    Caller,
    Document,
    Limit,
    listed,
    refuse_unknown,
    version_key,
)
from exchange.control.grants.reads import MOST_COUNTED
from exchange.control.grants.return_flow import Wanted
from exchange.control.grants.review import Review
from exchange.deadlines.clock import DueState
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import MAX_PAGE
from schemas.access import GrantState
from schemas.names import ResourceName, Topic

__all__ = ["router"]

router = APIRouter(prefix="/v1", dependencies=[Depends(refuse_unknown)])


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

    rows = who.pool.grant_reads.purposes()
    found = [one for one in rows if (one.cursor if isinstance(one, DamagedRow) else one.id) > after][:limit]
    return listed(request, found, limit, document=document, key=lambda one: one.id)


@router.post("/requests", status_code=201, tags=["grants"])
def submit(who: Caller, body: RequestBody) -> Document:
    """File a share request (共享申请)."""
    return grant_json(who.pool.grants.submit(who.actor, who.call, body.to_draft(), body.to_asked()))


@router.post("/requests/check", tags=["grants"])
def check_request(who: Caller, body: RequestBody) -> Document:
    """Return a share request as it would be filed, and what its approver would read. Nothing is filed.

    `id` is empty, and `due_at` is until when it would have to be decided if it were filed now.
    """
    checked = who.pool.grants.check(who.actor, who.call, body.to_draft(), body.to_asked())
    return review_json(checked) | {"id": "", "submitted_at": None}


@router.post("/requests/return-flow", tags=["grants"])
def draft_return_flow(who: Caller, body: ReturnFlowBody) -> Document:
    """Draft a request for the rows of the department's own area (回流) of a higher level's resource; file nothing."""
    wanted = Wanted(division=body.division, field=body.field, purpose=body.purpose, duty=body.duty, case=body.case)
    return who.pool.return_flow.draft(who.actor, who.call, Topic.parse(body.topic), wanted)


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
    due: Annotated[
        DueState | None,
        Query(description="requests that wait, by their deadline: overdue, soon, or normal"),
    ] = None,
    order: Annotated[GrantOrder, Query(description="id (oldest first), newest, or expires")] = GrantOrder.ID,
    unmasked: bool = False,
    after: After = "",
    limit: Limit = MAX_PAGE,
) -> Response:
    """List the grants that the caller may see; `unmasked`: those that show unmasked what no request wrote out.

    `submitted_at`, `due_at`, `due_confirmed`: when its request came, until when it has to be decided (decree 809, Art.
    21), false while that is provisional; `due`: how near that is, of a request that waits. A grant whose row is
    damaged is `{"id": …, "status": "damaged"}`.
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
    found = who.pool.grant_reads.reviews(who.actor, who.call, query, unmasked=unmasked, due=due)

    def key(one: Review) -> str:
        return cursor_behind(order, one.grant.expires, one.grant.id)

    return listed(request, found, limit, document=review_json, key=key)


@router.get("/grants/counts", tags=["grants"])
def grant_counts(who: Caller) -> Document:
    """Return how many grants that the caller may see are in each state. It leaves no entry: it names none.

    `more`: the states of which there are more than the 1,000 that are counted.
    """
    found = who.pool.grant_reads.counts(who.actor, who.call)
    return {
        "counts": {str(state): min(count, MOST_COUNTED) for state, count in found.items()},
        "more": [str(state) for state, count in found.items() if count > MOST_COUNTED],
    }


@router.get("/grants/{grant_id}", tags=["grants"])
def grant(who: Caller, grant_id: str) -> Document:
    """Return a grant with what an approver must know, together with all that its consumer holds of the resource."""
    return review_json(who.pool.grant_reads.show(who.actor, who.call, grant_id))


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


@router.get("/grants/{grant_id}/renewal", tags=["grants"])
def grant_renewal(who: Caller, grant_id: str) -> Document:
    """Return the request that renews a grant as it is, to be filed with `expires` and `legal_basis`; nothing is filed.

    Filed with other fields, masks or rows, the renewal begins at the beginning.
    """
    return renewal_json(who.pool.grant_reads.show(who.actor, who.call, grant_id).grant, who.pool.now())


@router.get("/grants/{grant_id}/use", tags=["grants"])
def grant_use(who: Caller, grant_id: str) -> Document:
    """Return how often and how much was released under a grant in the last 31 days, and when last."""
    return who.pool.grant_use.use(who.actor, who.call, grant_id)


@router.get("/grants/{grant_id}/rows", tags=["grants"])
def grant_rows(who: Caller, grant_id: str) -> Document:
    """Return how many rows a grant, or what is asked for, keeps now, rounded; for provider and pool.

    `rows`: to two digits, 20 with `fewer` where there are fewer; `read`: records that were read, the newest 200,000 at
    most; `whole`: whether these are all.
    """
    found = who.pool.row_counter.count(who.actor, who.call, grant_id)
    return {"grant": grant_id, "rows": found.rows, "fewer": found.fewer, "read": found.read, "whole": found.whole}


@router.get("/grants/{grant_id}/may", tags=["grants"])
def grant_permissions(who: Caller, grant_id: str) -> Document:
    """Return what the caller may do with a grant now: each event, whether it is allowed, and why it is not."""
    found = who.pool.grant_permissions.permissions(who.actor, who.call, grant_id)
    events = [
        {
            "event": str(one.event),
            "allowed": one.allowed,
            "reason": None if one.reason is None else str(one.reason),
            "message": one.message,
        }
        for one in found
    ]
    return {"grant": grant_id, "events": events}


@router.post("/grants/{grant_id}/confirmation", tags=["grants"])
def confirm(who: Caller, grant_id: str) -> Document:
    """Sign a request as the provider's security officer; another name of `countersignature`."""
    return grant_json(who.pool.grants.countersign(who.actor, who.call, grant_id))


@router.post("/grants/{grant_id}/countersignature", tags=["grants"])
def countersign(who: Caller, grant_id: str) -> Document:
    """Sign a request as the provider's security officer, before its head or after; the last signature approves it."""
    return grant_json(who.pool.grants.countersign(who.actor, who.call, grant_id))


@router.post("/grants/{grant_id}/approval", tags=["grants"])
def approve(who: Caller, grant_id: str) -> Document:
    """Sign a request as the head; once everybody has signed, the grant is in force when this returns.

    `state` is `countersigned` while the security officer's signature is missing. What is approved is activated.
    """
    return grant_json(who.pool.grants.approve(who.actor, who.call, grant_id))


@router.post("/grants/{grant_id}/{event}", tags=["grants"])
def change(who: Caller, grant_id: str, event: Event, body: EventBody) -> Document:
    """Carry an event of a request or a grant out; a revocation returns when nothing more can leave.

    Of a request: need_more, withdraw, extend, reject, dispute, uphold, overturn, withdraw_signature. Of a grant:
    suspend, rectified (resume), terminate, complete, change_service, terminate_by_agreement.
    """
    details = body.to_details()
    return grant_json(who.pool.grants.change(who.actor, who.call, grant_id, event, reason=body.reason, details=details))
