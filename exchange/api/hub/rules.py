"""Control API of the hub's rules: which resource leads each field of a library, set by three persons."""

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field

from exchange.api.bodies.base import Body, ReasonBody, moment_or_none
from exchange.api.caller import After, Caller, Document, Limit, listed, refuse_unknown, version_key
from exchange.hub.services.rule_changes import RulesVersion
from registry.database.keyset import MAX_PAGE
from schemas.canonical import Json
from schemas.errors import InvalidError, Reason

__all__ = ["router"]

router = APIRouter(prefix="/v1/hub/rules", tags=["hub"], dependencies=[Depends(refuse_unknown)])


class LibraryRulesBody(Body):
    """The rules of a library; what they say is checked by their parser, which names each fault by its place."""

    rules: dict[str, Any] = Field(description="library, version, links, codes, fields")


@router.get("/{library}", response_model=list[Document])
def versions(request: Request, who: Caller, library: str, after: After = "", limit: Limit = MAX_PAGE) -> Response:
    """List the versions of a library's rules, the first one first."""
    first = version_key(after)
    found = [one for one in who.pool.hub_rules.rules(who.actor, who.call, library) if one.rules.version > first]
    return listed(request, found[:limit], limit, document=_row, key=lambda one: str(one.rules.version))


@router.get("/{library}/{version}")
def one_version(who: Caller, library: str, version: int) -> Document:
    """Return a version with what it says, who proposed it, agreed to it and decided on it."""
    for one in who.pool.hub_rules.rules(who.actor, who.call, library):
        if one.rules.version == version:
            return {**_row(one), "rules": one.rules.document()}
    raise InvalidError(Reason.NOT_FOUND, "there is no such version of these rules; list them first")


@router.post("", status_code=201)
def propose(who: Caller, body: LibraryRulesBody) -> Document:
    """Propose the next version; each department whose lead changes agrees, the data authority activates it."""
    return _row(who.pool.hub_rules.propose(who.actor, who.call, body.rules))


@router.post("/{library}/{version}/agreement")
def agree(who: Caller, library: str, version: int) -> Document:
    """Agree for the caller's department, whose lead of a field changes."""
    return _row(who.pool.hub_rules.agree(who.actor, who.call, library, version))


@router.post("/{library}/{version}/activation")
def activate(who: Caller, library: str, version: int) -> Document:
    """Activate a version that every department concerned has agreed to; the active one retires."""
    return _row(who.pool.hub_rules.activate(who.actor, who.call, library, version))


@router.post("/{library}/{version}/rejection")
def reject(who: Caller, library: str, version: int, body: ReasonBody) -> Document:
    """Reject a version that is not active, with a reason."""
    return _row(who.pool.hub_rules.reject(who.actor, who.call, library, version, body.reason))


def _row(one: RulesVersion) -> dict[str, Json]:
    return {
        "library": one.rules.library,
        "version": one.rules.version,
        "state": one.state.value,
        "hash": one.rules.hash().hex(),
        "fields": len(one.rules.fields),
        "based_on": one.based_on,
        "departments": [*one.departments],
        "missing": [*one.missing],
        "proposed_by": one.proposed_by,
        "proposed_at": one.proposed_at.isoformat(),
        "agreed_by": [signed.by for signed in one.agreements],
        "decided_by": one.decided_by,
        "decided_at": moment_or_none(one.decided_at),
        "reason": one.reason,
    }
