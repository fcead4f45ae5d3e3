"""The control API's reference, written from its routes and the services behind them.

    python -m tests.docs.http_reference       writes docs/reference/http-api.md again

`tests/docs/test_http_reference.py` holds the file to what this gives, so that neither can change alone. Which act a
route is, is read from the code: from the route's function to the service's method that it calls, and the `Action` that
is decided there or in what it calls of its own.
"""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from fastapi.routing import APIRoute

from exchange.access.decision.grant_rules import GRANT_RULES
from exchange.access.decision.roles import RECORD_ACTIONS, RULES
from exchange.access.grants.life_cycle import ADVANCING
from exchange.api.http import ROUTERS
from exchange.pool import Pool
from registry.catalogue.life_cycle import RULES as ENTRY_RULES
from schemas.access import Action

FILE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "http-api.md"
_HEAD = """# HTTP routes of the control API

Written by `python -m tests.docs.http_reference` from the routes themselves; do not edit. Every route takes a bearer
token (`Authorization: Bearer …`), and records a connector's certificate; bodies and answers are in `/openapi.json`.
Errors are problems (RFC 9457) with a [reason](reasons.md). A list takes `after` and `limit`, and names its next page as
`Link: rel="next"`. The act is the one that the pool decides on and the log names; who may, is decided for the
department and the thing that it is about, too. The [registry](registry-api.md) and its
[governance](governance-api.md) have interfaces of their own.
"""
_CALL = re.compile(r"(?:who\.pool|pool)\.(\w+)\.(\w+)\(")
_ACTION = re.compile(r"(?:Action|_A|_Action)\.([A-Z][A-Z_]+)")
_OWN = re.compile(r"self\.(_\w+)\(")
_EVENT = re.compile(r"EntryEvent\.([A-Z]+)")
_HELPER = re.compile(r"\b(_[a-z]\w+)\(")


_A = Action
_EVENTS = tuple(GRANT_RULES[event].action for event in ADVANCING)
STATED = {
    "POST /v1/catalogue/{topic}/publication": (_A.CATALOGUE_PUBLISH,),
    "POST /v1/catalogue/{topic}/archival": (_A.CATALOGUE_ARCHIVE,),
    "POST /v1/requests": (_A.GRANT_SUBMIT,),
    "POST /v1/requests/check": (_A.REQUEST_CHECK,),
    "GET /v1/grants/{grant_id}/versions": (_A.GRANT_READ,),
    "GET /v1/grants/{grant_id}/use": (_A.GRANT_READ,),
    "GET /v1/grants/{grant_id}/rows": (_A.GRANT_READ,),
    "GET /v1/grants/{grant_id}/may": (_A.GRANT_READ,),
    "GET /v1/requests/{request_id}": (_A.GRANT_READ,),
    "POST /v1/grants/{grant_id}/{event}": _EVENTS,
    "POST /v1/requests/{request_id}/{event}": _EVENTS,
    "POST /v1/grants/{grant_id}/confirmation": (_A.GRANT_CONFIRM, _A.GRANT_COUNTERSIGN),
    "POST /v1/grants/{grant_id}/countersignature": (_A.GRANT_CONFIRM, _A.GRANT_COUNTERSIGN),
    "POST /v1/grants/{grant_id}/approval": (_A.GRANT_APPROVE, _A.GRANT_PROVISION),
    "POST /v1/requests/{request_id}/resubmission": (_A.REQUEST_RESUBMIT,),
    "POST /v1/records/fetch": (_A.FETCH,),
    "POST /v1/records/commit": (_A.COMMIT,),
}
"""Acts of routes whose services decide elsewhere than in the method that the route calls."""
OPEN = {"GET /v1/purposes", "GET /v1/violation-codes"}
"""Routes that decide on no act: every account in standing reads what is published anyway."""


@dataclass(frozen=True, slots=True)
class Route:
    """A route as the reference has it."""

    method: str
    path: str
    group: str
    text: str
    actions: tuple[str, ...]


def routes() -> Iterator[Route]:
    """Return every route, in the order of the routers."""
    for router in ROUTERS:
        for route in router.routes:
            if isinstance(route, APIRoute):
                text = " ".join((inspect.getdoc(route.endpoint) or "").partition("\n\n")[0].split())
                group = str(route.tags[0]) if route.tags else "other"
                for method in sorted(route.methods - {"HEAD"}):
                    stated = STATED.get(f"{method} {route.path}")
                    actions = _actions(route.endpoint) if stated is None else {str(action) for action in stated}
                    yield Route(method, route.path, group, text, tuple(sorted(actions)))


def _actions(endpoint: Any) -> set[str]:
    source = inspect.getsource(endpoint)
    module = inspect.getmodule(endpoint)
    for name in _HELPER.findall(source):  # a function of the same module that does the work
        helper = getattr(module, name, None)
        if inspect.isfunction(helper):
            source += inspect.getsource(helper)
    found: set[str] = set()
    events = _EVENT.findall(source)
    if events:
        return {str(rule.action) for rule in ENTRY_RULES if rule.event.name in events}
    services = get_type_hints(Pool)
    for service, method in _CALL.findall(source):
        cls = services.get(service)
        if inspect.isclass(cls) and hasattr(cls, method):
            found |= _decided(cls, method, set())
    return found


def _decided(cls: type, method: str, seen: set[str]) -> set[str]:
    """Return the acts that a method names, or those that the methods of its own that it calls name."""
    function = getattr(cls, method, None)
    if function is None or method in seen or not callable(function):
        return set()
    seen.add(method)
    source = inspect.getsource(function)
    found = {str(Action[name]) for name in _ACTION.findall(source) if name in Action.__members__}
    if not found:
        for inner in _OWN.findall(source):
            found |= _decided(cls, inner, seen)
    return found


def page() -> str:
    """Return the text of the reference."""
    groups: dict[str, list[Route]] = {}
    for route in routes():
        groups.setdefault(route.group, []).append(route)
    parts = [_HEAD]
    for group, found in sorted(groups.items()):
        parts.append(f"\n## {group.capitalize()}\n\n| route | act | roles | what it does |\n|---|---|---|---|\n")
        parts += [_row(route) for route in found]
    return "".join(parts)


def _row(route: Route) -> str:
    acts = ", ".join(f"`{action}`" for action in route.actions) or "–"
    roles = sorted({str(role) for action in route.actions for role in RULES.get(Action(action), {})})
    if any(Action(action) in RECORD_ACTIONS for action in route.actions):
        roles = ["connector"]
    everyone = {str(role) for role in RULES[Action.TASK_READ]}
    who = "all accounts" if everyone <= {*roles} else ", ".join(roles) or "–"
    return f"| `{route.method} {route.path}` | {acts} | {who} | {route.text.replace('|', chr(92) + '|')} |\n"


def main() -> None:
    """Write the reference."""
    FILE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
