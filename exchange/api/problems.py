"""Error mapping: the pool's errors as gRPC status and as RFC 9457 problems, from one table.

Domain errors know neither. An error that is not the pool's becomes INTERNAL with a fixed text, because a library's
message may contain values of records.
"""

import math
from http import HTTPStatus
from typing import Any, Final

from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from registry.governance.personal_numbers import without_personal_numbers
from schemas.canonical import Json
from schemas.errors import PoolError, Reason
from schemas.reason_texts import Language, reason_text
from schemas.status import DOMAIN, code_of

__all__ = ["PROBLEM_RESPONSE", "PROBLEM_TYPE", "as_pool_error", "http_status", "problem", "rpc_status"]

PROBLEM_TYPE = "urn:exchange-pool:reason:"
PROBLEM_RESPONSE: Final[dict[int | str, dict[str, Any]]] = {
    "default": {
        "description": "A problem (RFC 9457). Its title and help are in English or Chinese, by Accept-Language.",
        "content": {
            "application/problem+json": {
                "schema": {
                    "type": "object",
                    "required": ["type", "title", "status", "detail", "help", "reason", "instance"],
                    "properties": {
                        "type": {"type": "string"},
                        "title": {"type": "string", "description": "what the reason is about, localized"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string", "description": "what was got and expected, in English"},
                        "help": {"type": "string", "description": "what to do, localized"},
                        "reason": {"type": "string", "description": "code of a closed list"},
                        "instance": {"type": "string", "description": "urn:trace: and the trace id of the call"},
                        "details": {"type": "object", "additionalProperties": {"type": "string"}},
                    },
                }
            }
        },
    }
}
"""What the API's document says of every error."""

_HTTP = {
    3: HTTPStatus.UNPROCESSABLE_ENTITY,
    5: HTTPStatus.NOT_FOUND,
    6: HTTPStatus.CONFLICT,
    7: HTTPStatus.FORBIDDEN,
    8: HTTPStatus.TOO_MANY_REQUESTS,
    9: HTTPStatus.CONFLICT,
    10: HTTPStatus.CONFLICT,
    11: HTTPStatus.GONE,
    14: HTTPStatus.SERVICE_UNAVAILABLE,
    15: HTTPStatus.INTERNAL_SERVER_ERROR,
    16: HTTPStatus.UNAUTHORIZED,
}


def as_pool_error(error: BaseException) -> PoolError:
    """Return the pool's error, without a personal number in its text, and INTERNAL with a fixed text for any other."""
    if isinstance(error, PoolError):
        error.message = without_personal_numbers(error.message)
        return error
    return PoolError(Reason.INTERNAL, "the pool failed; its log has the trace id of this call")


def rpc_status(error: PoolError) -> status_pb2.Status:
    """Return the google.rpc.Status with ErrorInfo, and RetryInfo where waiting helps (AIP-193)."""
    details = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.details)]
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(math.ceil(error.retry_after * 1e9))
        details.append(retry)
    packed = []
    for detail in details:
        item = any_pb2.Any()
        item.Pack(detail)
        packed.append(item)
    return status_pb2.Status(code=code_of(error), message=error.message, details=packed)


def http_status(error: PoolError) -> HTTPStatus:
    """Return the HTTP status of an error."""
    return _HTTP.get(code_of(error), HTTPStatus.INTERNAL_SERVER_ERROR)


def problem(error: PoolError, instance: str, language: Language = Language.ENGLISH) -> dict[str, Json]:
    """Return the RFC 9457 problem document.

    Args:
        error: what happened.
        instance: names the occurrence (a trace id).
        language: of `title` and `help`, which are the reason's; `detail` is an English sentence.
    """
    status = http_status(error)
    text = reason_text(error.reason, language)
    document: dict[str, Json] = {
        "type": f"{PROBLEM_TYPE}{error.reason}",
        "title": text.title,
        "status": status.value,
        "detail": error.message,
        "help": text.help,
        "reason": str(error.reason),
        "instance": f"urn:trace:{instance}",
    }
    if error.details:
        document["details"] = dict(error.details)
    return document
