"""Content negotiation: media types of requests and responses, and paths, checked before a body is read.

path     a subject may hold a slash, sent as %2F: routes match the path as it was sent, not as it was decoded;
         `/contexts/.police/subjects/x` is `/subjects/:.police:x`, so that a context can stand in a client's URL
Accept   four media types, weighed as RFC 9110, 12.5.1 says; nothing that fits: 406
body     JSON of four media types; none stated: JSON too; another: 415; too large: 42209, before it is read
"""

from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import parse_qsl, quote, unquote, urlencode

from registry.rest.errors import HttpError
from registry.rest.requests import DEFAULT_MEDIA_TYPE, MAX_BODY, parameters, too_large
from registry.subjects.contexts import parse_context, resolve_subject
from schemas.identifiers import random_id

__all__ = ["check_body_headers", "media_type_of", "path_of", "request_id_of"]

_ANSWERED = (DEFAULT_MEDIA_TYPE, "application/vnd.schemaregistry+json", "application/json")
_TAKEN = (*_ANSWERED, "application/octet-stream")


def check_body_headers(method: str, headers: Mapping[bytes, bytes]) -> None:
    """Refuse a body by what the headers say of it.

    Raises:
        HttpError: 415; 422, a deletion has a body, whose members would mean nothing.
        InvalidError: SCHEMA_TOO_LARGE.
    """
    if method == "DELETE" and (headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers):
        raise HttpError(422, "got a body; expected none: a deletion takes parameters of the query alone")
    if method not in ("POST", "PUT"):
        return
    stated = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    if stated and stated not in _TAKEN:
        raise HttpError(415)
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and len(length) < 20 and int(length) > MAX_BODY:
        raise too_large(int(length))


def path_of(raw_path: bytes, query: bytes) -> tuple[str, bytes]:
    """Return a request's path as it was sent, and its query string; a context in front is moved to the subjects.

    Raises:
        InvalidError: SUBJECT_INVALID.
    """
    path = raw_path.decode("latin-1")
    return _without_context(path, query) if path.startswith("/contexts/") else (path, query)


@lru_cache(maxsize=256)
def media_type_of(accept: bytes) -> bytes:
    """Return the media type to answer in by the header Accept; empty when none fits."""
    stated = accept.decode("latin-1")
    if not stated.strip():
        return DEFAULT_MEDIA_TYPE.encode()
    best, chosen = 0.0, ""
    for part in stated.split(","):
        media_type = part.partition(";")[0].strip().lower()
        try:
            weight = float(parameters(part).get("q", "1"))
        except ValueError:
            weight = 0.0
        if media_type == "*" or media_type.startswith("*/") or media_type == "application/*":
            media_type = DEFAULT_MEDIA_TYPE
        if media_type in _ANSWERED and weight > best:
            best, chosen = weight, media_type
    return chosen.encode()


def request_id_of(stated: bytes) -> bytes:
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
    prefix = f":{parse_context(unquote(context))}:"
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
                    [
                        (key, resolve_subject(value, prefix) if key == "subject" and value else value)
                        for key, value in listed
                    ]
                ).encode()
            return "/" + "/".join(rest), query
