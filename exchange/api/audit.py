"""Control API of the audit log: searches in pages, single entries, proofs, checkpoints, the trace's keys."""

import json
from collections.abc import AsyncIterator, Generator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Annotated, Any
from urllib.parse import urlencode

import anyio
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

from exchange.api.bodies.audit import BundleBody, PruningBody
from exchange.api.caller import After, Caller, Document, Limit, listed, refuse_unknown
from exchange.audit.search.entry_rows import COLUMNS, csv_line, entry_row
from exchange.audit.store import EntryQuery
from exchange.control.audit_queries import parse_cursor
from registry.database.keyset import MAX_PAGE
from schemas.errors import InvalidError, Reason

__all__ = ["router"]

router = APIRouter(prefix="/v1/audit", tags=["audit"], dependencies=[Depends(refuse_unknown)])
_SHANGHAI = timezone(timedelta(hours=8))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END = datetime(9999, 12, 30, tzinfo=UTC)  # every zone has a name for the times before
_END_MICROS = (_END - _EPOCH) // timedelta(microseconds=1)


def _text(media_type: str) -> dict[int | str, Any]:
    """Return what the API's document says of an answer that is a stream of text."""
    return {200: {"content": {media_type: {"schema": {"type": "string"}}}}}


class _Criteria:
    """Criteria of a search, as parameters of a request."""

    def __init__(
        self,
        department: Annotated[str | None, Query(description="internal id of the actor's department")] = None,
        actor: Annotated[str | None, Query(description="account, or connector within its department")] = None,
        resource: str | None = None,
        purpose: str | None = None,
        case: str | None = None,
        grant: str | None = None,
        action: Annotated[str | None, Query(description="such as exchange:records:fetch")] = None,
        decision: Annotated[str | None, Query(description="allow or deny")] = None,
        reason: Annotated[str | None, Query(description="reason code of denials")] = None,
        entry: Annotated[str | None, Query(description="id of one entry")] = None,
        party: Annotated[
            str | None, Query(description="`mine` or a department's id: by its actors, or about its resources")
        ] = None,
        from_: Annotated[
            str | None, Query(alias="from", description="ISO 8601 with offset, or a day of UTC+8; inclusive")
        ] = None,
        to: Annotated[str | None, Query(description="ISO 8601 with offset, or a day of UTC+8; exclusive")] = None,
        since: Annotated[
            int | None, Query(description="as `from`, in microseconds since 1970 UTC", ge=0, lt=_END_MICROS)
        ] = None,
        until: Annotated[
            int | None, Query(description="as `to`, in microseconds since 1970 UTC", ge=0, lt=_END_MICROS)
        ] = None,
    ) -> None:
        self.party = party
        self.query = EntryQuery(
            department=department,
            actor=actor,
            resource=resource,
            purpose=purpose,
            case=case,
            grant=grant,
            action=action,
            decision=decision,
            reason=reason,
            entry=entry,
            since=since if from_ is None else parse_moment("from", from_),
            until=until if to is None else parse_moment("to", to),
        )


Criteria = Annotated[_Criteria, Depends(_Criteria)]


def parse_moment(name: str, text: str) -> int:
    """Return a time as microseconds since 1970 UTC: ISO 8601 with an offset, or a day, which begins at UTC+8.

    Raises:
        InvalidError: REQUEST_INVALID, for another form.
    """
    try:
        if len(text) == len("2026-10-01"):
            day = date.fromisoformat(text)
            moment = datetime(day.year, day.month, day.day, tzinfo=_SHANGHAI)
        else:
            # In a query, + is a space unless it is written as %2B.
            moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        moment = datetime.min  # noqa: DTZ901 - is refused
    if moment.utcoffset() is None or moment < _EPOCH:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"{name}: got {text[:40]!r}; expected ISO 8601 with an offset, such as 2026-10-01T00:00:00+08:00, or a day",
        )
    if moment >= _END:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"{name}: got {text[:40]!r}; expected a time before {_END.isoformat()}: leave it out where none is meant",
        )
    return (moment - _EPOCH) // timedelta(microseconds=1)


@router.get("/entries")
def entries(
    request: Request,
    response: Response,
    who: Caller,
    criteria: Criteria,
    after: Annotated[str | None, Query(description="cursor of the page before, from its `Link` header")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[Document]:
    """Search the audit log, newest first; each hit with its proof status. The search is an entry itself.

    Where more entries match, the header `Link` has the address of the next page (rel="next").
    """
    query = replace(criteria.query, after=None if after is None else parse_cursor(after), limit=limit)
    page = who.pool.audit_queries.search(who.actor, who.call, query, party=criteria.party)
    if page.after is not None:
        response.headers["Link"] = next_link(request, page.after)
    return page.documents


@router.get("/entries.csv", response_class=StreamingResponse, responses=_text("text/csv"))
def export_csv(who: Caller, criteria: Criteria) -> StreamingResponse:
    """Export all entries that match as CSV (RFC 4180), newest first, with the columns of `pool audit list`.

    Texts are safe from spreadsheet formulas. The export is two entries: before its first row and after its last.
    """
    pages = who.pool.audit_queries.export(who.actor, who.call, criteria.query, form="csv", party=criteria.party)

    def lines() -> Generator[str, None, None]:
        yield csv_line(COLUMNS)
        for page in pages:
            yield "".join(csv_line(entry_row(document).values()) for document in page)

    return _download(lines(), "text/csv; charset=utf-8; header=present", "entries.csv")


@router.get("/entries.jsonl", response_class=StreamingResponse, responses=_text("application/jsonl"))
def export_jsonl(who: Caller, criteria: Criteria) -> StreamingResponse:
    """Export all entries that match as JSON lines, newest first, each as a search returns it."""
    pages = who.pool.audit_queries.export(who.actor, who.call, criteria.query, form="jsonl", party=criteria.party)

    def lines() -> Generator[str, None, None]:
        for page in pages:
            yield "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in page)

    return _download(lines(), "application/jsonl", "entries.jsonl")


@router.post("/bundles", response_class=Response, responses={200: {"content": {"application/zip": {}}}})
def make_bundle(who: Caller, body: BundleBody) -> Response:
    """Make an evidence bundle (证据包), a ZIP file: entries, their proofs, and the grants that they name.

    Of chosen entries or of all of a search, 1,000 at most. The bundle is two entries: before, and after with the
    SHA-256 of its manifest.
    """
    query = None if body.query is None else body.query.to_query(parse_moment)
    party = None if body.query is None else body.query.party
    packed = who.pool.evidence.make(who.actor, who.call, ids=body.entries, query=query, party=party)
    headers = {"content-disposition": 'attachment; filename="evidence.zip"', "cache-control": "no-store"}
    return Response(packed, media_type="application/zip", headers=headers)


def _download(lines: Generator[str, None, None], media_type: str, name: str) -> StreamingResponse:
    """Return the answer of an export: it ends in the middle, without its last chunk, where the pool cannot go on."""
    headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
    return StreamingResponse(_closed(lines), media_type=media_type, headers=headers)


async def _closed(lines: Generator[str, None, None]) -> AsyncIterator[str]:
    """Yield lines that are made in threads; they are closed in one too, also where the client has gone."""
    try:
        async for part in iterate_in_threadpool(lines):
            yield part
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(lines.close)


def next_link(request: Request, after: str) -> str:
    """Return the header `Link` (RFC 8288) of the page behind a cursor."""
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "after"]
    return f'<{request.url.path}?{urlencode([*kept, ("after", after)])}>; rel="next"'


@router.get("/entries/{entry_id}")
def entry(who: Caller, entry_id: str) -> Document:
    """Return one entry as the caller sees it. The look-up is an entry itself."""
    return who.pool.audit_queries.show(who.actor, who.call, entry_id)


@router.get("/entries/{entry_id}/proof", response_class=PlainTextResponse)
def proof(who: Caller, entry_id: str) -> PlainTextResponse:
    """Return the C2SP tlog-proof of an entry: verifiable offline."""
    return PlainTextResponse(who.pool.audit_queries.prove(who.actor, who.call, entry_id))


@router.get("/checkpoint", response_class=PlainTextResponse)
def checkpoint(who: Caller) -> PlainTextResponse:
    """Return the newest signed checkpoint. Keep it outside the pool."""
    return PlainTextResponse(who.pool.audit_queries.checkpoint(who.actor, who.call))


@router.get("/keys", response_model=list[Document])
def audit_keys(request: Request, who: Caller, after: After = "", limit: Limit = MAX_PAGE) -> Response:
    """List the months whose pseudonyms in the trace can be read, oldest first."""
    found = [one for one in who.pool.audit_keys.epochs(who.actor, who.call) if one["epoch"] > after][:limit]
    return listed(request, found, limit, document=dict, key=lambda one: str(one["epoch"]))


@router.post("/keys/prunings", status_code=201)
def propose_pruning(who: Caller, body: PruningBody) -> Document:
    """Propose to destroy the keys of the trace before a month; another person confirms it."""
    return who.pool.audit_keys.propose(who.actor, who.call, body.before)


@router.post("/keys/prunings/{proposal_id}/confirmation")
def confirm_pruning(who: Caller, proposal_id: str) -> Document:
    """Confirm a proposal: the pseudonyms of the batches before and the keys of their months are destroyed."""
    return who.pool.audit_keys.confirm(who.actor, who.call, proposal_id)
