"""Accounts of the actors of a test that calls the services directly: rules on two persons ask who an account's is."""

import hashlib
from datetime import UTC, datetime

from exchange.authorization.request_context import RequestContext
from exchange.control.administration import apply_history
from exchange.server.composition import App
from schemas.access import Action, Actor, ActorKind, Allow, Role
from schemas.names import Topic


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


def put_in_force(app: App, topic: Topic) -> None:
    """Publish a drafted entry without full metadata, as pools of before did."""
    services = app.pool.administration._registry
    authority = Actor(kind=ActorKind.HUMAN, id="authority", department="", role=Role.DATA_AUTHORITY)
    call = RequestContext(trace="0" * 32, client="test")
    with app.enforcer.act(authority, Action.CATALOGUE_PUBLISH, str(topic), call, Allow()) as (work, _):
        entry = services.catalogue.publish(work, topic, services.subjects.lookup.full_classification, version=1)
    apply_history(app.broker, entry)
