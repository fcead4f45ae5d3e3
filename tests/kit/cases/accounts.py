"""Accounts of the actors of a test that calls the services directly: rules on two persons ask who an account's is."""

import hashlib
from datetime import UTC, datetime

from exchange.authorization.request_context import RequestContext
from exchange.server.composition import App
from schemas.access import Action, Actor, ActorKind, Allow, Role


def known(app: App, *actors: Actor) -> None:
    """Store an account for each actor, each another person's."""
    by = Actor(kind=ActorKind.HUMAN, id="test", department="", role=Role.DATA_AUTHORITY)
    call = RequestContext(trace="0" * 32, client="test")
    for actor in actors:
        with app.enforcer.act(by, Action.USER_ADD, actor.id, call, Allow()) as (work, _):
            app.pool.users.add(
                work,
                name=actor.id,
                role=actor.role,
                department=actor.department,
                person=f"TEST-{actor.id}",
                digest=hashlib.sha256(actor.id.encode()).digest(),
                by="test",
                at=datetime.now(UTC),
            )
