"""The reference of HTTP routes is what the routes are, and each of them says which act it is."""

from exchange.access.decision.roles import RECORD_ACTIONS, RULES
from schemas.access import Action
from tests.docs.http_reference import FILE, OPEN, STATED, page, routes


def test_the_reference_is_what_the_routes_are() -> None:
    assert FILE.read_text(encoding="utf-8") == page(), "run `python -m tests.docs.http_reference`"


def test_each_route_is_an_act_that_somebody_may_do() -> None:
    found = {f"{route.method} {route.path}": route for route in routes()}
    assert {name for name, route in found.items() if not route.actions} == OPEN
    assert found.keys() >= STATED.keys() | OPEN, "an exception is of a route that is there"
    nobody = {
        action
        for route in found.values()
        for action in route.actions
        if not RULES.get(Action(action)) and Action(action) not in RECORD_ACTIONS
    }
    assert nobody == set()


def test_each_route_says_what_it_does_in_a_sentence() -> None:
    assert [f"{route.method} {route.path}" for route in routes() if not route.text.endswith(".")] == []
