"""The registry's REST API behind the pool's gate.

Who calls is told by one of three proofs, in this order:

    a bearer token                 of an account
    Basic, the token as password   what Confluent's clients send; a user name, if there is one, must be the account's
    a client certificate           of a connector, as the pool issued it (see `exchange.api.certificates`)

Under --dev, on loopback, everybody is `dev:anonymous`, and stands so in every entry.
"""

import base64
import binascii
from functools import partial

from fastapi import Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from exchange.access.grants.store import GrantQuery
from exchange.api.bodies import grant_json
from exchange.api.certificates import client_certificate
from exchange.api.registry_enforcement import ANONYMOUS, RegistryAccessControl, registry_call
from exchange.config import Config
from exchange.pool import Pool
from registry.directory.catalogue import Catalogue
from registry.governance.approvals import Approvals
from registry.rest.app import create
from registry.rest.errors import Dialect
from registry.rest.governance import GovernanceCalls
from registry.rest.middleware import ProtocolMiddleware
from registry.subjects.services import SubjectServices
from schemas.access import Actor
from schemas.canonical import Json
from schemas.errors import PoolError, Reason, RefusedError
from schemas.names import Topic

__all__ = ["registry_api"]


def registry_api(
    pool: Pool, *, config: Config, subjects: SubjectServices, catalogue: Catalogue, approvals: Approvals
) -> ProtocolMiddleware:
    """Build the ASGI application of one process."""

    def identify(request: Request) -> Actor:
        if config.dev:
            return ANONYMOUS
        header = request.headers.get("authorization", "")
        certificate = client_certificate(request.scope)
        if not header and certificate is not None:
            return pool.identify(certificate)
        name, token = _credentials(header)
        actor = pool.authenticate(token)
        if name and name != actor.id:
            raise RefusedError(Reason.TOKEN_INVALID, "the token is another account's than the user name says")
        return actor

    def grants(actor: Actor, subject: str) -> list[dict[str, Json]]:
        try:
            topic = Topic.parse(subject.removesuffix("-value"))
        except PoolError:
            return []
        query = GrantQuery(topic=topic)
        return [grant_json(grant) for grant in pool.grants.list(actor, registry_call(), query)]

    enforcer = RegistryAccessControl(
        pool.enforcer, pool.database, pool.identities, catalogue, rights=config.registry.as_rights(), dev=config.dev
    )
    return create(
        subjects,
        enforcer,
        pool.database,
        identify=identify,
        dialect=Dialect(config.registry.error_dialect),
        metrics=lambda: (generate_latest(), CONTENT_TYPE_LATEST),
        more=[partial(GovernanceCalls, approvals=approvals, grants=grants)],
    )


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
    raise RefusedError(
        Reason.NO_IDENTITY,
        "got neither token nor client certificate; send a bearer token, the token as Basic's password or a certificate",
    )
