"""Whose turn an HTTP request takes: known by credentials that were right before."""

from exchange.api.admission.http_turns import KnownCallers
from exchange.api.admission.scheduler import flow_of
from schemas.access import Actor, ActorKind, Role

SCOPE = {"client": ("192.0.2.1", 1)}


def an_actor(name: str, department: str) -> Actor:
    return Actor(kind=ActorKind.HUMAN, id=name, department=department, role=Role.SECURITY_OFFICER)


def test_a_caller_is_known_by_what_it_sent_before() -> None:
    callers = KnownCallers()
    callers.learn(b"Bearer a", an_actor("one", "d-1"))
    assert callers.flow(b"Bearer a", SCOPE) == flow_of(an_actor("one", "d-1"))
    assert callers.flow(b"Bearer b", SCOPE).department == callers.flow(None, SCOPE).department
    callers.learn(b"Bearer a", an_actor("one", "d-2"))
    assert callers.flow(b"Bearer a", SCOPE).department == "d-2", "its department was merged"


def test_one_caller_has_no_other_forgotten_however_it_writes_its_credentials() -> None:
    callers = KnownCallers(capacity=20)
    callers.learn(b"Bearer other", an_actor("other", "d-2"))
    for spaces in range(1, 200):
        callers.learn(b"Bearer" + b" " * spaces + b"a", an_actor("one", "d-1"))
    assert callers.flow(b"Bearer other", SCOPE).department == "d-2"
    assert callers.flow(b"Bearer" + b" " * 199 + b"a", SCOPE).department == "d-1"
    assert callers.flow(b"Bearer a", SCOPE).department not in {"d-1", "d-2"}
    for number in range(100):
        callers.learn(b"%d" % number, an_actor(f"n-{number}", "d-3"))
    assert callers.flow(b"Bearer other", SCOPE).department not in {"d-1", "d-2"}, "memory is bounded"
    assert callers.flow(b"99", SCOPE).department == "d-3"
