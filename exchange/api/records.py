"""Records over HTTPS as JSON, for consumers without gRPC: fetch with a long poll, and the acknowledgement.

The caller is a connector, as its TLS certificate says. Everything before the answer's bytes is what gRPC's `Fetch` does
(`exchange.api.record_polls`, `exchange.api.admission.grpc_calls`): places, turns, standing, decision, view, quota,
entry, release window. A call whose certificate is revoked is ended; one whose caller has gone is ended as well, before
it releases what nobody would read.

JSON takes several times the bytes of Avro, and more time to write. So an answer is smaller, and its texts are made
before the entry is written (`registry.codec.json_rows` says in which form).
"""

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from exchange import metrics
from exchange.api.admission.grpc_calls import ConnectorAdmission, OpenCall
from exchange.api.admission.http_protocol import client_certificate
from exchange.api.admission.reply_budget import Reservation
from exchange.api.admission.scheduler import FairScheduler, flow_of, flow_of_source
from exchange.api.bodies.records import CommitBody, FetchBody, RecordsBody
from exchange.api.caller import refuse_unknown
from exchange.api.record_polls import RecordPolls, measured, require_window
from exchange.authorization.authentications import Interface, Origin
from exchange.authorization.request_context import RequestContext
from exchange.identity.failure_limiter import source_of
from exchange.pool import Pool
from exchange.records.group_fetch import FetchCall
from exchange.records.release import Release
from schemas.access import Action, Actor
from schemas.canonical import Json
from schemas.errors import Reason, RefusedError
from schemas.failpoints import reached
from schemas.record import Operation

__all__ = ["PATHS", "RecordCalls", "router"]

_NO_POSITION = b"\xff"  # no form of a position begins so
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

PATHS: Final = frozenset({"/v1/records/fetch", "/v1/records/commit"})
"""Paths of this module. Their calls have the places and turns of the gRPC calls, and no others."""


class Place(BaseModel):
    """Where a record stands in its topic."""

    partition: int
    offset: int


class DeliveredRecord(BaseModel):
    """A record, or the withdrawal of one."""

    record_key: str = Field(description="32 hexadecimal digits; the same for a record as long as the grant exists")
    recorded_at: datetime
    operation: Literal["upsert", "correct", "withdrawn"] = Field(description="correct: with places alone")
    value: dict[str, Any] | None = Field(None, description="fields of the view; absent from a withdrawal")
    disputed: bool = Field(False, description="a correction ticket on a shown value is open; absent where none is")
    place: Place | None = Field(None, description="absent where the call or the grant does not ask for it")
    valid_from: datetime | None = Field(None, description="with places, where the record states it")
    valid_to: datetime | None = Field(None, description="with places, where the record states it")


class FetchReply(BaseModel):
    """Records in order, of which a later one of a key replaces an earlier one."""

    schema_id: int = Field(description="of the view, in the registry")
    records: list[DeliveredRecord]
    next_position: str = Field(description="to be stored with the records, and sent with the next fetch")
    entry_id: str = Field(description="of the audit log; empty where nothing was released")
    leaf_hash: str = Field(description="of the entry, 64 hexadecimal digits; empty where nothing was released")
    caught_up: bool = Field(description="there was nothing more")


class CommitReply(BaseModel):
    """The acknowledgement is stored."""

    entry_id: str


class RecordCalls:
    """Calls of connectors at the HTTP listener.

    Args:
        pool: behind it.
        scheduler: of the process.
        polls: of the process.
        admission: of connectors, at whichever listener.
    """

    def __init__(self, pool: Pool, scheduler: FairScheduler, polls: RecordPolls, admission: ConnectorAdmission) -> None:
        self._pool = pool
        self._scheduler = scheduler
        self._polls = polls
        self._admission = admission

    async def identify(self, request: Request) -> Actor:
        """Return whom the certificate of the connection identifies.

        Raises:
            RefusedError: NO_IDENTITY; what `Pool.identify` raises.
            UnavailableError: TOO_MANY_FAILURES.
        """
        certificate = client_certificate(request.scope)
        if certificate is not None:
            with suppress(RefusedError):  # raised below, where it is recorded
                return self._pool.identify(certificate)
        source = source_of(request.client.host if request.client else "")
        return await self._scheduler.run(flow_of_source(source), self._identify, certificate, source)

    async def fetch(self, request: Request, actor: Actor, body: FetchBody) -> Response:
        """Release records; wait for the first one."""
        async with AsyncExitStack() as stack:
            call = await stack.enter_async_context(self._admitted(request, actor, body))
            stack.enter_context(measured("FetchJson"))
            one = FetchCall(
                actor=actor,
                call=call,
                grant_id=body.grant,
                position=_position(body.position),
                max_records=body.max_records,
                max_bytes=body.max_bytes,
                as_json=True,
            )
            answer, held = await self._polls.fetch(one, partial(_reply, places=body.places), wait=body.wait)
            try:
                response = _Released(answer.encoded, held)
                reached("before_release")
                require_window(answer.release)
            except BaseException:
                held.release()
                raise
            return response

    async def commit(self, request: Request, actor: Actor, body: CommitBody) -> CommitReply:
        """Store the consumer's acknowledgement."""
        async with AsyncExitStack() as stack:
            call = await stack.enter_async_context(self._admitted(request, actor, body))
            stack.enter_context(measured("CommitJson"))
            commit = self._pool.fetching.commit
            position = _position(body.position)
            entry = await self._scheduler.run(flow_of(actor), commit, actor, call, body.grant, position)
            return CommitReply(entry_id=entry)

    @asynccontextmanager
    async def _admitted(self, request: Request, actor: Actor, body: RecordsBody) -> AsyncIterator[RequestContext]:
        """Have a call open within the block, as gRPC's interceptor does."""
        source = source_of(request.client.host if request.client else "")
        async with self._admission.admit_actor(actor, source) as open_call:
            request.state.places.release()
            async with _ended_with_its_caller(request, open_call):
                call = RequestContext.declared(
                    trace=request.state.trace,
                    purpose=body.purpose,
                    case=body.case,
                    client=request.headers.get("user-agent", "")[:100],
                    on_behalf_of=body.on_behalf_of,
                )
                await self._screen(actor, call, body.grant)
                yield call

    def _identify(self, certificate: bytes | None, source: str) -> Actor:
        """Return whom a certificate identifies; a failure is recorded as one."""
        origin = Origin(Interface.HTTP, source)
        with self._pool.authentications.attempt(origin, certified=certificate is not None):
            if certificate is None:
                raise RefusedError(
                    Reason.NO_IDENTITY,
                    "got no client certificate; records are released to connectors: send the certificate that "
                    "`pool-connect enrol` stored (a listener without TLS, as of --dev, takes none)",
                )
            return self._pool.identify(certificate)

    async def _screen(self, actor: Actor, call: RequestContext, grant: str) -> None:
        """Refuse a grant's id that holds a personal number; of purpose and case the enforcer does."""
        enforcer = self._pool.enforcer
        finding = enforcer.screen.text("grant", grant)
        if finding is not None:
            await self._scheduler.run(flow_of(actor), enforcer.refuse_text, actor, Action.FETCH, call, finding)


router = APIRouter(prefix="/v1/records", dependencies=[Depends(refuse_unknown)])


def _calls(request: Request) -> RecordCalls:
    calls: RecordCalls = request.app.state.records
    return calls


_Calls = Annotated[RecordCalls, Depends(_calls)]


async def _connector(request: Request, calls: _Calls) -> Actor:
    return await calls.identify(request)


_Connector = Annotated[Actor, Depends(_connector)]


@router.post("/fetch", response_model=FetchReply, tags=["records"])
async def fetch_records(request: Request, calls: _Calls, who: _Connector, body: FetchBody) -> Response:
    """Release records under a grant, to the connector whose client certificate the connection has."""
    return await calls.fetch(request, who, body)


@router.post("/commit", tags=["records"])
async def commit_position(request: Request, calls: _Calls, who: _Connector, body: CommitBody) -> CommitReply:
    """Acknowledge a position, as its consumer: everything up to it is stored."""
    return await calls.commit(request, who, body)


class _Released(Response):
    """An answer whose memory is given back once the connection has taken it."""

    media_type = "application/json"

    def __init__(self, content: bytes, held: Reservation) -> None:
        super().__init__(content)
        self.held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self.body, "more_body": True})
            # uvicorn takes a part when what was sent before has left its buffer.
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self.held.release()


@asynccontextmanager
async def _ended_with_its_caller(request: Request, call: OpenCall) -> AsyncIterator[None]:
    """End the block when the call is ended, with its error, or when its caller has gone."""
    call.task = task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in a task
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if gone:
            task.uncancel()
            raise ClientDisconnect from None
        if call.ended is None:
            raise
        task.uncancel()
        metrics.CALLS_ENDED.labels(call.ended.reason).inc()
        raise call.ended from None
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


def _told(released: Release) -> list[dict[str, Json]]:
    """Return place, operation and valid times of each record; a withdrawn one stays withdrawn."""
    times = struct.iter_unpack("<qq", released.valid or bytes(16 * len(released)))
    found: list[dict[str, Json]] = []
    for (partition, offset), mark, (since, until) in zip(
        struct.iter_unpack("<HQ", released.places), released.marks, times, strict=True
    ):
        own: dict[str, Json] = {"place": {"partition": partition, "offset": offset}}
        if mark == Operation.CORRECT:
            own["operation"] = "correct"
        if since:
            own["valid_from"] = (_EPOCH + timedelta(microseconds=since)).isoformat()
        if until:
            own["valid_to"] = (_EPOCH + timedelta(microseconds=until)).isoformat()
        found.append(own)
    return found


def _position(text: str) -> bytes:
    """Return a position; what is no base64 is none either, and is refused where positions are, after the decision."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # also where it is not ASCII
        return _NO_POSITION


def _reply(released: Release, *, places: bool = False) -> bytes:
    """Return the answer as JSON. The values are texts already, and go in as they are."""
    texts = released.texts or ()
    records, disputed = [], {*released.disputed}
    told = _told(released) if places and released.places else None
    for index, (at, text) in enumerate(zip(released.recorded_at, texts, strict=True)):
        own: dict[str, Json] = {
            "record_key": released.record_keys[16 * index : 16 * index + 16].hex(),
            "recorded_at": (_EPOCH + timedelta(microseconds=at)).isoformat(),
            "operation": "upsert" if text else "withdrawn",
        }
        if index in disputed:
            own["disputed"] = True
        if told is not None:
            own |= told[index]
        head = json.dumps(own, separators=(",", ":")).encode()
        records.append(head[:-1] + b',"value":' + text + b"}" if text else head)
    rest = {
        "next_position": base64.b64encode(released.next_position).decode(),
        "entry_id": released.entry_id,
        "leaf_hash": released.leaf_hash.hex(),
        "caught_up": released.caught_up,
    }
    tail = json.dumps(rest, separators=(",", ":")).encode()
    return b'{"schema_id":%d,"records":[%b],%b' % (released.schema_id, b",".join(records), tail[1:])
