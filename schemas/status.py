"""gRPC status codes of the pool's errors: one table for server and client.

The server puts a `google.rpc.Status` with an `ErrorInfo` (reason, domain "pool", metadata) into the call's
trailing metadata (AIP-193); the client turns it into the same error again.
"""

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

__all__ = ["DOMAIN", "code_of", "error_of"]

DOMAIN = "pool"

# Numbers of google.rpc.Code; schemas/ imports the standard library only, and these never change.
_INVALID_ARGUMENT, _NOT_FOUND, _ALREADY_EXISTS, _PERMISSION_DENIED = 3, 5, 6, 7
_RESOURCE_EXHAUSTED, _FAILED_PRECONDITION, _ABORTED, _OUT_OF_RANGE = 8, 9, 10, 11
_INTERNAL, _UNAVAILABLE, _DATA_LOSS, _UNAUTHENTICATED = 13, 14, 15, 16

_BY_REASON = {
    Reason.NO_IDENTITY: _UNAUTHENTICATED,
    Reason.TOKEN_INVALID: _UNAUTHENTICATED,
    Reason.TOKEN_EXPIRED: _UNAUTHENTICATED,
    Reason.NOT_FOUND: _NOT_FOUND,
    Reason.ALREADY_EXISTS: _ALREADY_EXISTS,
    Reason.QUOTA_EXHAUSTED: _RESOURCE_EXHAUSTED,
    Reason.OVERLOADED: _RESOURCE_EXHAUSTED,
    Reason.TOO_MANY_FAILURES: _RESOURCE_EXHAUSTED,
    Reason.RATE_LIMITED: _RESOURCE_EXHAUSTED,
    Reason.RELEASE_REPEATED: _RESOURCE_EXHAUSTED,
    Reason.LANE_FENCED: _ABORTED,
    Reason.INTERNAL: _INTERNAL,
}
_BY_CLASS: tuple[tuple[type[PoolError], int], ...] = (
    (RefusedError, _PERMISSION_DENIED),
    (InvalidError, _INVALID_ARGUMENT),
    (ConflictError, _FAILED_PRECONDITION),
    (GoneError, _OUT_OF_RANGE),
    (UnavailableError, _UNAVAILABLE),
    (CorruptError, _DATA_LOSS),
)
_CLASS_OF_CODE: dict[int, type[PoolError]] = {
    **{code: kind for kind, code in _BY_CLASS},
    _UNAUTHENTICATED: RefusedError,
    _NOT_FOUND: InvalidError,
    _ALREADY_EXISTS: ConflictError,
    _ABORTED: ConflictError,
    _RESOURCE_EXHAUSTED: UnavailableError,
}


def code_of(error: PoolError) -> int:
    """Return the google.rpc.Code of an error."""
    if error.reason in _BY_REASON:
        return _BY_REASON[error.reason]
    return next((code for kind, code in _BY_CLASS if isinstance(error, kind)), _INTERNAL)


def error_of(
    code: int, reason: str, message: str, details: dict[str, str], retry_after: float | None = None
) -> PoolError:
    """Return the error that a server sent; an unknown reason (a newer server's) becomes INTERNAL, its text kept."""
    try:
        parsed = Reason(reason)
    except ValueError:
        parsed, details = Reason.INTERNAL, {**details, "reason": reason}
    # Exhausted quota is a refusal to its consumer, though gRPC knows one code for both kinds of exhaustion.
    kind = RefusedError if parsed is Reason.QUOTA_EXHAUSTED else _CLASS_OF_CODE.get(code, PoolError)
    return kind(parsed, message, details=details, retry_after=retry_after)
