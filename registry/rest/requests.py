"""Request parsing: the JSON body, and the subject and version in a path.

path     a subject is percent-encoded, and in one context or another (`registry.subjects.contexts`)
body     a JSON object, in the character set that it states; too large: 42209, before it is read. Of a caller who is
         not known yet, 64 KiB are read
"""

import asyncio
import codecs
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request

from registry.subjects.contexts import MAX_SUBJECT, normalize_subject
from schemas.errors import InvalidError, Reason

__all__ = [
    "BODY_SECONDS",
    "DEFAULT_MEDIA_TYPE",
    "MAX_BODY",
    "UNKNOWN_CALLER",
    "header_of",
    "parameters",
    "read_body",
    "read_bounded",
    "subject_of",
    "too_large",
    "version_of",
]

DEFAULT_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
_CHARSETS = frozenset(
    {
        "utf-8",
        "utf-8-sig",
        "utf-16",
        "utf-16-le",
        "utf-16-be",
        "utf-32",
        "ascii",
        "iso8859-1",
        "gb18030",
        "gbk",
        "gb2312",
    }
)
UNKNOWN_CALLER = 64 * 1024  # bytes that are read before the caller is authenticated
BODY_SECONDS = 60.0
MAX_BODY = 4 * 1024 * 1024  # bytes; a schema's text is at most 1 MiB, and escapes may double it


async def read_bounded(
    stream: AsyncIterator[bytes],
    *,
    limit: int,
    identify: Callable[[], Awaitable[object]],
    too_large: Callable[[int], Exception],
    seconds: float = BODY_SECONDS,
) -> bytes:
    """Read a body within bounds, whatever its headers say of its length.

    Args:
        stream: the parts of the body.
        limit: bytes.
        identify: authenticates the caller, or raises; called once where the body is longer than UNKNOWN_CALLER.
        too_large: makes the error of a body beyond the limit, from the bytes that were read.
        seconds: for the whole body.

    Raises:
        InvalidError: REQUEST_INVALID, the body did not come in time.
        Exception: what *identify* raises; what *too_large* makes.
    """
    body = bytearray()
    identified = False
    try:
        async with asyncio.timeout(seconds):
            async for part in stream:
                body += part
                if not identified and len(body) > UNKNOWN_CALLER:
                    await identify()
                    identified = True
                if len(body) > limit:
                    raise too_large(len(body))
    except TimeoutError as error:
        raise InvalidError(
            Reason.REQUEST_INVALID, f"got {len(body)} bytes of a body in {seconds:.0f} s; expected the whole body"
        ) from error
    return bytes(body)


async def read_body(request: Request, identify: Callable[[], Awaitable[object]]) -> dict[str, Any]:
    """Read a request's JSON object, in the character set that it states.

    Args:
        request: whose body it is.
        identify: see `read_bounded`.

    Raises:
        InvalidError: REQUEST_INVALID, for what is no JSON object, or did not come in time; SCHEMA_TOO_LARGE, beyond
            MAX_BODY.
        RefusedError: what *identify* raises.
    """
    body = await read_bounded(request.stream(), limit=MAX_BODY, identify=identify, too_large=too_large)
    charset = _charset_of(request.headers.get("content-type", ""))
    try:
        text = body.decode(_charset(charset))
        found = _DECODER.decode(text)
        if "\\ud" in text or "\\uD" in text or not charset.startswith("utf-8"):
            # Text that has no UTF-8 form could neither be stored nor given back.
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, LookupError, RecursionError) as error:
        raise InvalidError(
            Reason.REQUEST_INVALID, f"got a body that is no JSON ({type(error).__name__}); expected a JSON object"
        ) from error
    if not isinstance(found, dict):
        raise InvalidError(Reason.REQUEST_INVALID, "got JSON that is no object; expected an object")
    if "\\u0000" in text and _holds_nul(found):
        raise InvalidError(
            Reason.REQUEST_INVALID, "got a text with the character U+0000, which no store can hold; leave it out"
        )
    return found


def header_of(scope: Mapping[str, Any], name: bytes) -> bytes | None:
    """Return the first header of a name, in lower case, of an ASGI scope."""
    for other, value in scope["headers"]:
        if other == name:
            found: bytes = value
            return found
    return None


def subject_of(raw: str) -> str:
    """Decode a subject of a path.

    Raises:
        InvalidError: SUBJECT_INVALID, for bytes that are no UTF-8 and for control characters.
    """
    try:
        subject = unquote(raw, errors="strict")
    except UnicodeDecodeError as error:
        raise InvalidError(Reason.SUBJECT_INVALID, "got a subject that is no UTF-8; encode it as UTF-8") from error
    if len(subject) > MAX_SUBJECT:
        raise InvalidError(
            Reason.SUBJECT_INVALID, f"got a subject of {len(subject)} characters; expected {MAX_SUBJECT} at most"
        )
    if not subject.isprintable():
        raise InvalidError(Reason.SUBJECT_INVALID, "got a subject with control characters; expected printable text")
    return normalize_subject(subject)


def version_of(text: str) -> int | None:
    """Read a version of a path; None = the latest.

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


def too_large(size: int) -> InvalidError:
    """Return the error for a body beyond MAX_BODY."""
    return InvalidError(Reason.SCHEMA_TOO_LARGE, f"got a body of at least {size} bytes; expected {MAX_BODY} at most")


def parameters(header: str) -> dict[str, str]:
    """Read the parameters of a media type, after its semicolons."""
    pairs = (part.partition("=") for part in header.split(";")[1:])
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}


def _holds_nul(found: dict[str, Any]) -> bool:
    """Look into every text; the escape alone says nothing, since a schema may hold it within its own JSON."""
    waiting: list[Any] = [found]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            if "\0" in one:
                return True
        elif isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            waiting += one
    return False


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number beyond double precision")
    return number


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


@lru_cache(maxsize=64)
def _charset_of(content_type: str) -> str:
    return parameters(content_type).get("charset", "utf-8")


@lru_cache(maxsize=64)
def _charset(name: str) -> str:
    """Return a character set's own name; only some, since decoding by others takes time without measure."""
    found = codecs.lookup(name).name
    if found not in _CHARSETS:
        raise LookupError(name)
    return found
