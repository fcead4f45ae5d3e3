"""Translation of gRPC errors to the pool's errors."""

from collections.abc import Callable
from typing import Any

from google.rpc import error_details_pb2, status_pb2

from schemas.errors import PoolError, Reason, UnavailableError
from schemas.status import DOMAIN, error_of

__all__ = ["from_rpc_error"]

_NOT_ANSWERED = (1, 4, 14)  # cancelled, deadline exceeded, unavailable: no gateway refused anything


def from_rpc_error(error: Any, explain: Callable[[], str] = str) -> PoolError:
    """Return the pool's error for a gRPC one; UnavailableError where the pool did not answer.

    Args:
        error: of gRPC.
        explain: returns what on this machine may be the cause that the pool did not answer; a sentence, or nothing.
    """
    code: int = error.code().value[0]
    message = error.details() or "the pool's gateway ended the call without a message"
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            for detail in status.details:
                detail.Unpack(info)
                detail.Unpack(retry)
            if info.domain == DOMAIN:
                delay = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
                return error_of(code, info.reason, status.message, dict(info.metadata), delay or None)
    if code in _NOT_ANSWERED:
        told = " ".join(filter(None, (f"the pool's gateway: {message}", explain())))
        return UnavailableError(Reason.GATEWAY_UNAVAILABLE, told, retry_after=1.0)
    return error_of(code, Reason.INTERNAL, message, {})
