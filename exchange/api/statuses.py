"""gRPC helpers of the servicers: status codes by number, and the caller's certificate."""

from typing import Any

import grpc

from schemas.errors import Reason, RefusedError

__all__ = ["STATUS", "peer_certificate"]

STATUS: dict[int, grpc.StatusCode] = {status.value[0]: status for status in grpc.StatusCode}


def peer_certificate(context: Any) -> bytes:
    """Return the PEM of the certificate with which the caller's TLS connection was made.

    Raises:
        RefusedError: NO_IDENTITY, there is none.
    """
    certificates = context.auth_context().get("x509_pem_cert")
    if not certificates:
        raise RefusedError(Reason.NO_IDENTITY, "got no client certificate; enrol with `pool-connect enrol`")
    return bytes(certificates[0])
