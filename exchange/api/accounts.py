"""Control API of accounts, invitations, connectors and their certificates."""

from fastapi import APIRouter, Depends, Request, Response

from exchange.access.decision.roles import rights_of
from exchange.api.bodies.accounts import (
    ConfirmationBody,
    ConnectorBody,
    InvitationBody,
    PersonBody,
    TokenBody,
    UserBody,
    account_json,
    certificate_json,
    proposal_json,
)
from exchange.api.bodies.base import ReasonBody
from exchange.api.caller import (
    After,
    Caller,
    Document,
    Limit,
    certificate_key,
    listed,
    refuse_unknown,
)
from exchange.identity.proposals import ProposalState
from exchange.identity.tokens import parse_fingerprint
from registry.database.keyset import MAX_PAGE

__all__ = ["router"]

router = APIRouter(prefix="/v1", dependencies=[Depends(refuse_unknown)])


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


@router.get("/me", tags=["users"])
def me(who: Caller) -> Document:
    """Return the caller's own account, and what its role may do: actions, and on whose behalf. It leaves no entry."""
    own = who.pool.accounts.own(who.actor, who.call)
    rights = {str(action): str(scope) for action, scope in rights_of(who.actor.role).items()}
    return {**account_json(own), "rights": rights}


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
