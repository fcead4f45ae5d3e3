"""gRPC helpers of the servicers: status codes by number, the caller's certificate, and the texts of a message."""

from typing import Any

import grpc
from google.protobuf.message import Message

from schemas.errors import InvalidError, Reason, RefusedError

__all__ = ["STATUS", "peer_certificate", "refuse_zero"]

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


def refuse_zero(message: Message) -> None:
    """Refuse a zero character in a text of a message, or of one within it: no text of the database has one.

    Raises:
        InvalidError: REQUEST_INVALID.
    """
    for field, value in message.ListFields():
        if field.type not in {field.TYPE_STRING, field.TYPE_MESSAGE}:
            continue
        for one in [value] if isinstance(value, (str, Message)) else value:  # the keys of a map, too
            if isinstance(one, Message):
                refuse_zero(one)
            elif "\0" in one:
                raise InvalidError(
                    Reason.REQUEST_INVALID, f"got a zero character in {field.name}; expected a text without"
                )
