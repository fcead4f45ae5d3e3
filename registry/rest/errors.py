"""Error responses: errors of the pool as Confluent's bodies, {"error_code": number, "message": text}.

The first three digits of the number are the HTTP status. Domain errors know no HTTP. One table gives each reason its
number and, where clients compare texts, the text that they expect; every other text is the error's own. Where the
two registries whose clients are in use contradict each other, `Dialect` says whose texts are used.
"""

import math
from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from registry.governance.personal_numbers import without_personal_numbers
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

__all__ = ["Dialect", "HttpError", "error_response", "http_error_response", "internal_error_response"]


class Dialect(StrEnum):
    """Error-message compatibility profile: whose texts are used where clients compare them."""

    CONFLUENT = "confluent"
    KARAPACE = "karapace"


class HttpError(Exception):
    """A request that is refused by HTTP's own rules, before any handler.

    Args:
        status: of the answer.
        message: its text; empty for HTTP's own phrase.
    """

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message


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
    Reason.NOT_FOUND: (404, "{message}"),
    Reason.COMPATIBILITY_NOT_SET: (40408, "Subject '{subject}' does not have subject-level compatibility configured"),
    Reason.MODE_NOT_SET: (40409, "Subject '{subject}' does not have subject-level mode configured"),
    Reason.SCHEMA_INVALID: (42201, "Invalid schema: {message}"),
    Reason.SCHEMA_UNSAFE: (42201, "Invalid schema: {message}"),
    Reason.SCHEMA_UNCLASSIFIED: (42201, "Invalid schema: {message}"),
    Reason.ELEMENT_UNFIT: (42201, "Invalid schema: {message}"),
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
    Reason.SUBJECT_NOT_IN_IMPORT: (42205, "{message}"),
    Reason.ID_TAKEN: (42205, "{message}"),
    Reason.ID_MISMATCH: (42207, "{message}"),
    Reason.RULES_INVALID: (42210, "{message}"),
    Reason.CONTEXT_NOT_EMPTY: (42211, "{message}"),
    Reason.SCHEMA_REFERENCED: (42206, "{message}"),
    Reason.SUBJECT_INVALID: (42208, "{message}"),
    Reason.SCHEMA_TOO_LARGE: (42209, "{message}"),
    Reason.SCHEMA_INCOMPATIBLE: (409, "{message}"),
    Reason.CLASSIFICATION_LOWERED: (409, "{message}"),
    Reason.NO_IDENTITY: (40101, "{message}"),
    Reason.TOKEN_INVALID: (40101, "{message}"),
    Reason.CERTIFICATE_EXPIRED: (40101, "{message}"),
    Reason.CERTIFICATE_REVOKED: (40101, "{message}"),
    Reason.TOKEN_EXPIRED: (40101, "{message}"),
    Reason.TOO_MANY_FAILURES: (42901, "{message}"),
}
_KINDS: tuple[tuple[type[PoolError], int, int], ...] = (  # what the reason does not decide: status, number
    (RefusedError, 403, 40301),
    (InvalidError, 422, 422),
    (ConflictError, 409, 409),
    (GoneError, 404, 404),
    (UnavailableError, 503, 50001),
    (CorruptError, 500, 50001),
)


def error_response(error: PoolError, dialect: Dialect) -> JSONResponse:
    """Return the response for an error of the pool."""
    status, number = next((found for kind, *found in _KINDS if isinstance(error, kind)), (500, 50001))
    text: Any = error.message
    if error.reason in _NUMBERS:
        number, template = _NUMBERS[error.reason]
        status = int(str(number)[:3])
        facts = {"schema": "", "subject": "", "version": ""} | error.details | {"message": error.message}
        text = template.format_map(facts).replace("Schema  not", "Schema not")
    if dialect is Dialect.KARAPACE:
        text = _as_karapace(error, text)
    if isinstance(text, str):
        text = without_personal_numbers(text)
    headers = {} if error.retry_after is None else {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error_code": number, "message": text}, status, headers)


def http_error_response(error: HttpError) -> JSONResponse:
    """Return the response for an error of HTTP itself."""
    text = error.message or f"HTTP {error.status} {HTTPStatus(error.status).phrase}"
    return JSONResponse({"error_code": error.status, "message": text}, error.status)


def internal_error_response() -> JSONResponse:
    """Return the response where the registry itself is at fault; an exception's text could hold anything."""
    return JSONResponse({"error_code": 50001, "message": "Internal error; the registry's log says more"}, 500)


def _as_karapace(error: PoolError, text: str) -> Any:
    """Return Karapace's text where its clients' tests compare texts."""
    details = error.details
    if error.reason is Reason.SCHEMA_INCOMPATIBLE and "library" in details:
        return (
            f"Incompatible schema, compatibility_mode={details.get('level', '')}. "
            f"Incompatibilities: {details['library']}"
        )
    if "looked_up" in details:
        return f"Error while looking up schema under subject {details['looked_up']}"
    if error.reason is Reason.REQUEST_INVALID and "missing" in details:
        return [{"type": "missing", "loc": ["body", details["missing"]], "msg": "Field required", "input": {}}]
    if error.reason is Reason.VERSION_DELETED:
        return text.replace("deleted.Set", "deleted. Set")
    return text
