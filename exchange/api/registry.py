"""The registry's REST API behind the pool's gate.

Who calls: a bearer token, or Basic with the token as its password (what Confluent's clients send). Under --dev, on
loopback, everybody is `dev:anonymous`, and stands so in every entry.
"""

import base64
import binascii
import os
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from exchange.access.roles import decide_control
from exchange.app import App, join_registry
from exchange.call import Call
from exchange.gate import Gate
from exchange.rooms import IdentityRoom
from registry.api import Entry, create
from registry.catalogue import Catalogue
from registry.failures import Dialect
from registry.subjects import is_view
from schemas.access import Action, Actor, ActorKind, Allow, Deny, Role
from schemas.canonical import Json
from schemas.errors import PoolError, Reason, RefusedError
from schemas.names import Topic

__all__ = ["registry_api"]

_ANONYMOUS = Actor(kind=ActorKind.HUMAN, id="dev:anonymous", department="", role=Role.DATA_AUTHORITY)
_READS = frozenset({Action.SCHEMA_READ})


def registry_api(app: App) -> FastAPI:
    """Make the API of a process."""

    def identify(request: Request) -> Actor:
        if app.config.dev:
            return _ANONYMOUS
        return app.pool.authenticate(_token(request.headers.get("authorization", "")))

    gate = _Gate(app.gate, app.pool.identities, app.catalogue, dev=app.config.dev)
    return create(
        app.subjects,
        gate,
        identify=identify,
        dialect=Dialect(app.config.registry.error_dialect),
        metrics=lambda: (generate_latest(), CONTENT_TYPE_LATEST),
    )


class _Forgetful:
    """Takes the facts of a read that leaves no entry."""

    def note(self, **facts: Json) -> None:
        """See `registry.api.Entry`."""


class _Gate:
    """`registry.api.Gate` over the pool's gate."""

    def __init__(self, gate: Gate, identities: IdentityRoom, catalogue: Catalogue, *, dev: bool) -> None:
        self._gate = gate
        self._identities = identities
        self._catalogue = catalogue
        self._dev = dev

    @contextmanager
    def pass_(self, actor: Actor, action: Action, resource: str) -> Iterator[Entry]:
        """Decide and record. Reads of schemas that tell nothing about grants leave no entry."""
        call = Call(trace=os.urandom(16).hex(), client="registry-api")
        decision = self._decide(actor, action, resource)
        if action in _READS and not is_view(resource):
            self._gate.admit(actor, action, resource, call, decision)
            yield _Forgetful()
            return
        with self._gate.act(actor, action, resource, call, decision) as (work, act), join_registry(work):
            yield act

    def open_(self, resource: str) -> bool:
        """Tell whether anybody may read a schema by its id without an entry: see `registry.calls.Gate`."""
        return self._dev and not is_view(resource)

    def _decide(self, actor: Actor, action: Action, resource: str) -> Allow | Deny:
        if self._dev and actor == _ANONYMOUS:
            return Allow()
        return decide_control(
            actor, action, standing=self._identities.standing(actor), department=self._provider(resource)
        )

    def _provider(self, resource: str) -> str | None:
        """Give the department whose resource a subject belongs to; None for a subject outside the catalogue."""
        try:
            return self._catalogue.get(Topic.parse(resource.removesuffix("-value"))).provider
        except PoolError as error:
            if error.reason in {Reason.NAME_INVALID, Reason.RESOURCE_UNKNOWN}:
                return None
            raise


def _token(header: str) -> str:
    scheme, _, rest = header.partition(" ")
    if scheme.lower() == "bearer" and rest:
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            pass
    raise RefusedError(Reason.NO_IDENTITY, "got no token; send it as a bearer token, or as Basic's password")
