"""The manners of Confluent's REST API: media types, paths, what is refused before it is read.

    path     a subject may hold a slash, sent as %2F: routes match the path as it was sent, not as it was decoded;
             `/contexts/.police/subjects/x` is `/subjects/:.police:x`, so that a context can stand in a client's URL
    Accept   four media types, weighed as RFC 9110, 12.5.1 says; nothing that fits: 406
    body     JSON of four media types; none stated: JSON too; another: 415; too large: 42209, before it is read

What an id stands for never changes, so its answer is kept as ready bytes; where the gate lets everybody read it, it
is sent from here, before anything is routed, parsed or handed to a thread.
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from fastapi import Request
from fastapi.responses import JSONResponse

from registry.rest.errors import failure, plain_failure
from registry.rest.fast_path import Short
from registry.rest.requests import DEFAULT_MEDIA_TYPE, MAX_BODY, parameters, too_large
from registry.rest.response_cache import ResponseCache
from registry.subjects.contexts import context_of, relative
from schemas.errors import InvalidError
from schemas.identifiers import random_id

__all__ = ["ProtocolMiddleware"]

_ANSWERED = (DEFAULT_MEDIA_TYPE, "application/vnd.schemaregistry+json", "application/json")
_TAKEN = (*_ANSWERED, "application/octet-stream")

_Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


class ProtocolMiddleware:
    """Wraps the application: ready answers, raw paths, media types, bodies that are too large.

    Args:
        app: the application within.
        ready: what ids stand for, as bytes.
        short: serves what need not be routed.
    """

    def __init__(self, app: _App, *, ready: ResponseCache, short: Short) -> None:
        self._app = app
        self._ready = ready
        self._short = short

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        media_type = _negotiated(headers.get(b"accept", b"").decode("latin-1"))
        raw = scope.get("raw_path") or scope["path"].encode()
        request_id = _request_id(headers.get(b"x-request-id", b""))
        if media_type and scope["method"] == "GET" and not scope["query_string"]:
            kept = self._ready.answer(raw, headers.get(b"if-none-match"))
            if kept is not None:
                status, body, extra = kept
                head = [*extra, (b"content-type", media_type.encode()), (b"x-request-id", request_id)]
                await send({"type": "http.response.start", "status": status, "headers": head})
                await send({"type": "http.response.body", "body": body})
                return
        refusal = _refusal(scope["method"], headers) if media_type else plain_failure(406)
        path = raw.decode("latin-1")
        scope = {**scope, "path": path}
        if refusal is None and path.startswith("/contexts/"):
            try:
                scope["path"], scope["query_string"] = _without_context(path, scope["query_string"])
            except InvalidError as error:
                refusal = failure(error)
        answered = media_type or DEFAULT_MEDIA_TYPE

        async def labelled(message: _Message) -> None:
            if message["type"] == "http.response.start":
                plain = (b"content-type", b"application/json")
                message["headers"] = [
                    *(
                        (name, answered.encode()) if (name, value) == plain else (name, value)
                        for name, value in message["headers"]
                    ),
                    (b"x-request-id", request_id),
                ]
            await send(message)

        if refusal is not None:
            await refusal(scope, receive, labelled)
            return
        call = None if scope["query_string"] else self._short.call(scope["method"], scope["path"])
        if call is None:
            await self._app(scope, receive, labelled)
            return
        answer = await self._short.answer(call, Request(scope, receive))
        await answer(scope, receive, labelled)


def _refusal(method: str, headers: Mapping[bytes, bytes]) -> JSONResponse | None:
    if method not in ("POST", "PUT"):
        return None
    stated = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    if stated and stated not in _TAKEN:
        return plain_failure(415)
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and len(length) < 20 and int(length) > MAX_BODY:
        return failure(too_large(int(length)))
    return None


@lru_cache(maxsize=256)
def _negotiated(accept: str) -> str:
    """Choose the media type to answer in; empty when none fits."""
    if not accept.strip():
        return DEFAULT_MEDIA_TYPE
    best, chosen = 0.0, ""
    for part in accept.split(","):
        media_type = part.partition(";")[0].strip().lower()
        try:
            weight = float(parameters(part).get("q", "1"))
        except ValueError:
            weight = 0.0
        if media_type == "*" or media_type.startswith("*/") or media_type == "application/*":
            media_type = DEFAULT_MEDIA_TYPE
        if media_type in _ANSWERED and weight > best:
            best, chosen = weight, media_type
    return chosen


def _request_id(stated: bytes) -> bytes:
    """Return the id that the caller gave to its request, or a new one."""
    if stated and len(stated) <= 100 and stated.isascii() and stated.decode().isprintable():
        return stated
    return random_id().encode()


def _without_context(path: str, query: bytes) -> tuple[str, bytes]:
    """Move the context from the front of a path to the subjects within it.

    Raises:
        InvalidError: SUBJECT_INVALID.
    """
    _, _, context, *rest = path.split("/")
    if not rest:
        return path, query
    prefix = f":{context_of(unquote(context))}:"
    quoted = quote(prefix, safe="")
    match rest:
        case ["config" | "mode" as what, *name]:
            return f"/{what}/{quoted}{'/'.join(name)}", query
        case ["subjects", name, *more] if name:
            return "/".join(["", "subjects", quoted + name, *more]), query
        case ["compatibility" | "governance" as what, "subjects", name, *more] if name:
            return "/".join(["", what, "subjects", quoted + name, *more]), query
        case ["subjects"] | ["schemas"] | ["governance", "fields"]:
            pairs = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
            pairs["subjectPrefix"] = prefix + pairs.get("subjectPrefix", "").removeprefix(":*:")
            return "/" + "/".join(rest), urlencode(pairs).encode()
        case _:
            if rest[:2] == ["schemas", "ids"] and b"subject=" in query:
                listed = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
                query = urlencode(
                    [(key, relative(value, prefix) if key == "subject" and value else value) for key, value in listed]
                ).encode()
            return "/" + "/".join(rest), query
