"""Control API of the rules of deadlines: calendar, rule profiles, changes by two persons, one deadline computed."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from exchange.api.bodies.base import Body, ReasonBody, check_characters
from exchange.api.caller import After, Caller, Document, Limit, listed, refuse_unknown, version_key
from exchange.api.rules.documents import (
    change_json,
    deadline_json,
    profile_json,
    profile_row,
    ruling_json,
    year_json,
    year_row,
)
from exchange.deadlines.changes import ChangeState, RuleKind
from exchange.deadlines.profile import RuleId
from exchange.deadlines.profile_yaml import LONGEST
from registry.database.keyset import MAX_PAGE
from schemas.errors import InvalidError, Reason

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["rules"], dependencies=[Depends(refuse_unknown)])


class RuleTextBody(BaseModel):
    """What a change says, as text of a file; its parser checks it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    content: str = Field(description="of a calendar CSV with date,is_workday,notice, of a profile YAML")

    @field_validator("content")
    @classmethod
    def _is_bounded(cls, content: str) -> str:
        if len(content) > LONGEST:
            raise ValueError(f"got a text of {len(content)} characters; expected {LONGEST} at most")
        return check_characters(content, "content")


class OrderBody(Body):
    """Profiles by precedence."""

    profiles: list[str] = Field(description="names, the one with the highest precedence first")


class RuleConfirmationBody(Body):
    """A confirmation."""

    kind: RuleKind = Field(description="of the change; another kind is refused")


class RuleRejectionBody(ReasonBody):
    """A rejection, or a withdrawal."""

    kind: RuleKind = Field(description="of the change; another kind is refused")


@router.get("/calendar", response_model=list[Document])
def calendar(request: Request, who: Caller, after: After = "", limit: Limit = MAX_PAGE) -> Response:
    """List the years whose working days are known."""
    first = version_key(after) + 1
    years = [one for one in who.pool.rules.rules(who.actor, who.call).calendar.years if one.year >= first]
    return listed(request, years[:limit], limit, document=year_row, key=lambda one: str(one.year))


@router.get("/calendar/{year}")
def calendar_year(who: Caller, year: int) -> Document:
    """Return a year: the days that its notice names; every other one is a working day from Monday to Friday."""
    known = who.pool.rules.rules(who.actor, who.call).calendar
    for one in known.years:
        if one.year == year:
            return year_json(one, known.version)
    raise InvalidError(
        Reason.NOT_FOUND,
        f"got the year {year}, whose working days are not known; import its notice (`pool calendar import`)",
    )


@router.post("/calendar/{year}", status_code=201)
def import_calendar(who: Caller, year: int, body: RuleTextBody) -> Document:
    """Propose the arrangement of a year (CSV); another person confirms it."""
    return change_json(who.pool.rules.propose_calendar(who.actor, who.call, year, body.content))


@router.get("/rules", response_model=list[Document])
def rules(request: Request, who: Caller, after: After = "", limit: Limit = MAX_PAGE) -> Response:
    """List the rules in force, each of the first profile that has it."""
    order = [str(rule) for rule in RuleId]
    found = who.pool.rules.rules(who.actor, who.call).book.rulings()
    if after:
        found = [one for one in found if after in order and order.index(str(one.id)) > order.index(after)]
    return listed(request, found[:limit], limit, document=ruling_json, key=lambda one: str(one.id))


@router.get("/profiles", response_model=list[Document])
def profiles(request: Request, who: Caller, after: After = "", limit: Limit = MAX_PAGE) -> Response:
    """List the rule profiles, those that are followed first; `place`: null for one that is not."""
    found = who.pool.rules.profiles(who.actor, who.call)
    names = [one[0].profile for one in found]
    first = names.index(after) + 1 if after in names else 0
    return listed(request, found[first:][:limit], limit, document=profile_row, key=lambda one: one[0].profile)


@router.get("/profiles/{name}")
def profile(who: Caller, name: str) -> Document:
    """Return a rule profile with its rules and their clauses."""
    for one in who.pool.rules.profiles(who.actor, who.call):
        if one[0].profile == name:
            return profile_json(one)
    raise InvalidError(Reason.NOT_FOUND, f"there is no profile {name[:64]!r}; list them first")


@router.post("/profiles", status_code=201)
def propose_profile(who: Caller, body: RuleTextBody) -> Document:
    """Propose a rule profile (YAML); another person confirms it."""
    return change_json(who.pool.rules.propose_profile(who.actor, who.call, body.content))


@router.post("/profiles/order", status_code=201)
def propose_order(who: Caller, body: OrderBody) -> Document:
    """Propose which profiles are followed; another person confirms it."""
    return change_json(who.pool.rules.propose_order(who.actor, who.call, body.profiles))


@router.get("/rule-changes", response_model=list[Document])
def changes(
    request: Request,
    who: Caller,
    kind: RuleKind | None = None,
    state: ChangeState | None = None,
    after: After = "",
    limit: Limit = MAX_PAGE,
) -> Response:
    """List the changes of calendars and profiles, newest first, decided ones too."""
    found = who.pool.rules.changes(who.actor, who.call, kind=kind, state=state, before=after, limit=limit)
    return listed(request, found, limit, document=change_json, key=lambda one: one.id)


@router.get("/rule-changes/{change_id}")
def change(who: Caller, change_id: str) -> Document:
    """Return a change, with what it says."""
    return change_json(who.pool.rules.change(who.actor, who.call, change_id), content=True)


@router.post("/rule-changes/{change_id}/confirmation")
def confirm_change(who: Caller, change_id: str, body: RuleConfirmationBody) -> Document:
    """Confirm a change that another person proposed; it is in force when this returns."""
    return change_json(who.pool.rules.confirm(who.actor, who.call, change_id, body.kind))


@router.post("/rule-changes/{change_id}/rejection")
def reject_change(who: Caller, change_id: str, body: RuleRejectionBody) -> Document:
    """Reject a change, or withdraw one's own."""
    return change_json(who.pool.rules.reject(who.actor, who.call, change_id, body.kind, body.reason))


@router.get("/deadlines/{rule}")
def deadline(
    who: Caller,
    rule: RuleId,
    start: Annotated[AwareDatetime | None, Query(description="the event that starts the clock; now if absent")] = None,
    extension: Annotated[int, Query(ge=0, le=3660, description="granted, in the unit of the limit")] = 0,
    profile: Annotated[str, Query(max_length=32, description="by this profile alone, followed or not")] = "",
) -> Document:
    """Compute a deadline: rule, event and extension → until when, with its clause. Nothing is stored."""
    computed = who.pool.rules.deadline(who.actor, who.call, rule, start=start, extension=extension, profile=profile)
    return deadline_json(computed)
