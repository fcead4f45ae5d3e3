"""Identification of the registry's callers: bearer token, Basic authentication, client certificate.

    a bearer token                 of an account
    Basic, the token as password   what Confluent's clients send; a user name, if there is one, must be the account's
    a client certificate           of a connector, as the pool issued it (`exchange.api.admission.http_protocol`)

Under --dev, on loopback, every caller is `dev:anonymous`, and is named so in every entry.

A token is looked up in the database with each call. Only for look-ups by id an account that was found is cached for
half a second, by the digest of the header, so that no token stays in memory. A connector is never cached: the
revocation of a certificate holds at once.
"""

import base64
import binascii
import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request

from exchange.api.admission.fair_queue import Flow
from exchange.api.admission.http_protocol import client_certificate
from exchange.api.admission.http_turns import KnownCallers
from exchange.api.registry.enforcement import ANONYMOUS
from exchange.api.registry.ttl_cache import TtlCache
from exchange.authorization.authentications import Interface, Origin
from exchange.authorization.request_context import RequestContext
from exchange.identity.failure_limiter import source_of
from exchange.pool import Pool
from registry.rest.requests import header_of
from schemas.access import Action, Actor, ActorKind
from schemas.errors import Reason, RefusedError
from schemas.identifiers import random_id

__all__ = ["RegistryIdentification"]

_AUTHORIZATION = b"authorization"


class RegistryIdentification:
    """Returns who calls the registry.

    Args:
        pool: knows tokens and certificates.
        dev: every caller is ANONYMOUS; on loopback alone.
        callers: learns whose credentials are whose.
        clock: of the cache; seconds, monotonic.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        dev: bool,
        callers: KnownCallers | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._dev = dev
        self._callers = callers or KnownCallers()
        self._accounts: TtlCache[bytes, Actor] = TtlCache(clock=clock)

    def identify(self, request: Request) -> Actor:
        """Return who makes a request, as the database knows it at this moment.

        Raises:
            RefusedError: NO_IDENTITY; TOKEN_INVALID; CERTIFICATE_EXPIRED; CERTIFICATE_REVOKED, for a revoked account.
            UnavailableError: TOO_MANY_FAILURES; RATE_LIMITED, the account has had too many calls refused.
        """
        if self._dev:
            return ANONYMOUS
        actor = self._identify(request)
        if actor.kind is ActorKind.HUMAN:
            self._pool.enforcer.check_refusals(actor)
        self._screen(actor, request)
        return actor

    def _screen(self, actor: Actor, request: Request) -> None:
        """Refuse a path or a query that holds a personal number; a subject's name would get into entries."""
        screen = self._pool.enforcer.screen
        sent = (unquote(request.url.path), *(text for _, text in request.query_params.multi_items()))
        finding = next((found for text in sent if (found := screen.text("path", text)) is not None), None)
        if finding is not None:
            call = RequestContext(trace=random_id(), client="registry-api")
            self._pool.enforcer.refuse_text(actor, Action.REQUEST_SCREEN, call, finding)

    def _identify(self, request: Request) -> Actor:
        header = header_of(request.scope, _AUTHORIZATION)
        # Of the connection: what a proxy's header claims could be anybody's claim.
        source = source_of(request.client.host if request.client else "")
        if not header:
            certificate = client_certificate(request.scope)
            origin = Origin(Interface.REGISTRY, source)
            with self._pool.authentications.attempt(origin, certified=certificate is not None):
                if certificate is None:
                    raise _no_identity()
                actor = self._pool.identify(certificate)
                self._callers.learn(certificate, actor)
                return actor
        try:
            name, token = _credentials(header.decode("latin-1"))
        except RefusedError as error:
            self._pool.authentications.failed(Origin(Interface.REGISTRY, source), error.reason)
            raise
        origin = Origin(Interface.REGISTRY, source, name)
        return self._accounts.ask(_digest(header), lambda: self._authenticate(header, token, origin))

    def _authenticate(self, header: bytes, token: str, origin: Origin) -> Actor:
        actor = self._pool.authenticate(token, origin)
        self._callers.learn(header, actor)
        return actor

    def flow(self, scope: Mapping[str, Any]) -> Flow:
        """Return whose turn a request takes."""
        return self._callers.flow(header_of(scope, _AUTHORIZATION) or client_certificate(scope), scope)

    def from_cache(self, scope: Mapping[str, Any]) -> Actor | None:
        """Return the account that makes a request, as of half a second ago at most; None where it has to be asked."""
        if self._dev:
            return ANONYMOUS
        header = header_of(scope, _AUTHORIZATION)
        return self._accounts.get(_digest(header)) if header else None


def _digest(header: bytes) -> bytes:
    return hashlib.sha256(header).digest()


def _credentials(header: str) -> tuple[str, str]:
    """Return user name, if any, and token."""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() == "bearer" and rest:
        return "", rest.strip()
    if scheme.lower() == "basic":
        try:
            name, _, token = base64.b64decode(rest, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            pass
        else:
            return name, token
    raise _no_identity()


def _no_identity() -> RefusedError:
    return RefusedError(
        Reason.NO_IDENTITY,
        "got neither token nor client certificate; send a bearer token, the token as Basic's password or a certificate",
    )
