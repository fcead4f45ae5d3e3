"""Client certificate of a TLS connection, for ASGI applications.

uvicorn does not pass it to the application. So the connection puts the certificate that TLS has verified into the
state, of which each request gets a copy; nothing that a caller sends can reach it.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

__all__ = ["CertificateProtocol", "client_certificate"]

_KEY = "client_certificate"


class CertificateProtocol(AutoHTTPProtocol):  # type: ignore[misc,valid-type]  # depends on what is installed
    """HTTP/1.1 over a connection that may have a client certificate."""

    app_state: dict[str, Any]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the certificate of a new connection."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        certificate = None if tls is None else tls.getpeercert(binary_form=True)
        self.app_state = {**self.app_state, _KEY: certificate}


def client_certificate(scope: Mapping[str, Any]) -> bytes | None:
    """Return the certificate (DER) behind a request, None where there is none."""
    found: bytes | None = scope.get("state", {}).get(_KEY)
    return found
