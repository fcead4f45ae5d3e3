"""The manners of Confluent's REST API: media types, paths, bodies, error numbers.

    path     a subject may hold a slash, sent as %2F: routes match the path as it was sent, not as it was decoded
    Accept   four media types, weighed as RFC 9110, 12.5.1 says; nothing that fits: 406
    body     JSON of three media types; none stated: JSON too; another: 415; too large: 42209, before it is read
    errors   {"error_code": number, "message": text}; the first three digits are the HTTP status

Domain errors know no HTTP. One table below gives each reason its number and, where clients compare texts,
Confluent's words; every other text is the error's own.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from fastapi import Request
from fastapi.responses import JSONResponse

from schemas.errors import (
    ConflictError,
    CorruptError,
    GoneError,
    InvalidError,
    PoolError,
    Reason,
    RefusedError,
    UnavailableError,
)

__all__ = [
    "DEFAULT_MEDIA_TYPE",
    "MAX_BODY",
    "Manners",
    "failure",
    "plain_failure",
    "read_body",
    "subject_of",
    "version_of",
]

DEFAULT_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
_ANSWERED = (DEFAULT_MEDIA_TYPE, "application/vnd.schemaregistry+json", "application/json")
_TAKEN = (*_ANSWERED, "application/octet-stream")
MAX_BODY = 4 * 1024 * 1024  # bytes; a schema's text is at most 1 MiB, and escapes may double it

_Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]

_NUMBERS: Mapping[Reason, tuple[int, str]] = {
    Reason.SUBJECT_UNKNOWN: (40401, "Subject '{subject}' not found."),
    Reason.VERSION_UNKNOWN: (40402, "Version {version} not found."),
    Reason.SCHEMA_UNKNOWN: (40403, "Schema {schema} not found"),
    Reason.SUBJECT_DELETED: (
        40404,
        "Subject '{subject}' was soft deleted.Set permanent=true to delete permanently",
    ),
    Reason.SUBJECT_NOT_DELETED: (
        40405,
        "Subject '{subject}' was not deleted first before being permanently deleted",
    ),
    Reason.VERSION_DELETED: (
        40406,
        "Subject '{subject}' Version {version} was soft deleted.Set permanent=true to delete permanently",
    ),
    Reason.VERSION_NOT_DELETED: (
        40407,
        "Subject '{subject}' Version {version} was not deleted first before being permanently deleted",
    ),
    Reason.COMPATIBILITY_NOT_SET: (40408, "Subject '{subject}' does not have subject-level compatibility configured"),
    Reason.MODE_NOT_SET: (40409, "Subject '{subject}' does not have subject-level mode configured"),
    Reason.SCHEMA_INVALID: (42201, "Invalid schema: {message}"),
    Reason.SCHEMA_UNSAFE: (42201, "Invalid schema: {message}"),
    Reason.SCHEMA_UNCLASSIFIED: (42201, "Invalid schema: {message}"),
    Reason.VERSION_INVALID: (
        42202,
        (
            "The specified version '{version}' is not a valid version id. "
            'Allowed values are between [1, 2^31-1] and the string "latest"'
        ),
    ),
    Reason.COMPATIBILITY_INVALID: (
        42203,
        (
            "Invalid compatibility level. Valid values are none, backward, forward, full, backward_transitive, "
            "forward_transitive, and full_transitive"
        ),
    ),
    Reason.MODE_INVALID: (42204, "Invalid mode: {message}"),
    Reason.SUBJECT_READ_ONLY: (42205, "{message}"),
    Reason.SCHEMA_REFERENCED: (42206, "{message}"),
    Reason.SUBJECT_INVALID: (42208, "{message}"),
    Reason.SCHEMA_TOO_LARGE: (42209, "{message}"),
    Reason.SCHEMA_INCOMPATIBLE: (409, "{message}"),
    Reason.CLASSIFICATION_LOWERED: (409, "{message}"),
    Reason.NO_IDENTITY: (40101, "{message}"),
    Reason.TOKEN_INVALID: (40101, "{message}"),
    Reason.CERTIFICATE_EXPIRED: (40101, "{message}"),
    Reason.CERTIFICATE_REVOKED: (40101, "{message}"),
}
_KINDS: tuple[tuple[type[PoolError], int, int], ...] = (  # what the reason does not decide: status, number
    (RefusedError, 403, 40301),
    (InvalidError, 422, 422),
    (ConflictError, 409, 409),
    (GoneError, 404, 404),
    (UnavailableError, 503, 50001),
    (CorruptError, 500, 50001),
)


class Manners:
    """Wraps the application: matches raw paths, negotiates media types, refuses bodies that are too large.

    Args:
        app: the application within.
    """

    def __init__(self, app: _App) -> None:
        self._app = app

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        media_type = _negotiated(headers.get(b"accept", ""))
        refusal = _refusal(scope["method"], headers) if media_type else plain_failure(406)
        scope = {**scope, "path": scope.get("raw_path", scope["path"].encode()).decode("latin-1")}
        answered = media_type or DEFAULT_MEDIA_TYPE

        async def labelled(message: _Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    (name, answered.encode() if (name, value) == (b"content-type", b"application/json") else value)
                    for name, value in message["headers"]
                ]
            await send(message)

        if refusal is not None:
            await refusal(scope, receive, labelled)
            return
        await self._app(scope, receive, labelled)


async def read_body(request: Request) -> dict[str, Any]:
    """Read a request's JSON object, in the character set that it states.

    Raises:
        InvalidError: REQUEST_INVALID, for what is no JSON object; SCHEMA_TOO_LARGE, beyond MAX_BODY.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise _too_large(len(body))
    charset = _parameters(request.headers.get("content-type", "")).get("charset", "utf-8")
    try:
        text = bytes(body).decode(charset)
        found = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        # Text that has no UTF-8 form could neither be stored nor given back.
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, LookupError, RecursionError) as error:
        raise InvalidError(
            Reason.REQUEST_INVALID, f"got a body that is no JSON ({type(error).__name__}); expected a JSON object"
        ) from error
    if not isinstance(found, dict):
        raise InvalidError(Reason.REQUEST_INVALID, "got JSON that is no object; expected an object")
    return found


def subject_of(raw: str) -> str:
    """Decode a subject as it stands in a path.

    Raises:
        InvalidError: SUBJECT_INVALID, for bytes that are no UTF-8 and for control characters.
    """
    try:
        subject = unquote(raw, errors="strict")
    except UnicodeDecodeError as error:
        raise InvalidError(Reason.SUBJECT_INVALID, "got a subject that is no UTF-8; encode it as UTF-8") from error
    if not subject.isprintable():
        raise InvalidError(Reason.SUBJECT_INVALID, "got a subject with control characters; expected printable text")
    return subject


def version_of(text: str) -> int | None:
    """Read a version as it stands in a path; None = the latest.

    Raises:
        InvalidError: VERSION_INVALID.
    """
    if text in ("latest", "-1"):
        return None
    if text.isascii() and text.isdecimal() and len(text) <= 10 and 1 <= int(text) < 2**31:
        return int(text)
    raise InvalidError(
        Reason.VERSION_INVALID, "got a version that is no version id", details={"version": unquote(text)[:40]}
    )


def failure(error: PoolError) -> JSONResponse:
    """Answer with an error of the pool."""
    status, number = next((found for kind, *found in _KINDS if isinstance(error, kind)), (500, 50001))
    text = error.message
    if error.reason in _NUMBERS:
        number, template = _NUMBERS[error.reason]
        status = int(str(number)[:3])
        facts = {"schema": "", "subject": "", "version": ""} | error.details | {"message": error.message}
        text = template.format_map(facts).replace("Schema  not", "Schema not")
    headers = {} if error.retry_after is None else {"Retry-After": str(max(1, round(error.retry_after)))}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error_code": number, "message": text}, status, headers)


def plain_failure(status: int, message: str = "") -> JSONResponse:
    """Answer with an error of HTTP itself."""
    text = message or f"HTTP {status} {HTTPStatus(status).phrase}"
    return JSONResponse({"error_code": status, "message": text}, status)


def _refusal(method: str, headers: Mapping[bytes, str]) -> JSONResponse | None:
    if method not in ("POST", "PUT"):
        return None
    stated = headers.get(b"content-type", "").partition(";")[0].strip().lower()
    if stated and stated not in _TAKEN:
        return plain_failure(415)
    length = headers.get(b"content-length", "0")
    if length.isdecimal() and int(length) > MAX_BODY:
        return failure(_too_large(int(length)))
    return None


def _too_large(size: int) -> InvalidError:
    return InvalidError(Reason.SCHEMA_TOO_LARGE, f"got a body of at least {size} bytes; expected {MAX_BODY} at most")


def _negotiated(accept: str) -> str:
    """Choose the media type to answer in; empty when none fits."""
    if not accept.strip():
        return DEFAULT_MEDIA_TYPE
    best, chosen = 0.0, ""
    for part in accept.split(","):
        media_type = part.partition(";")[0].strip().lower()
        try:
            weight = float(_parameters(part).get("q", "1"))
        except ValueError:
            weight = 0.0
        if media_type == "*" or media_type.startswith("*/") or media_type == "application/*":
            media_type = DEFAULT_MEDIA_TYPE
        if media_type in _ANSWERED and weight > best:
            best, chosen = weight, media_type
    return chosen


def _parameters(header: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in header.split(";")[1:])
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number beyond double precision")
    return number
