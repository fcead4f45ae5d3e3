"""What no decision may ever do, on thousands of requests that nobody thought of."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from exchange.access.decision.roles import Standing
from schemas.access import Action, CaseRule, Grant, GrantState, Level, Role
from tests.kit.cases.grants import (
    CONSUMER,
    NOW,
    POPULATION,
    PROVIDER,
    STRANGER,
    a_connector,
    a_grant,
    a_resource,
    decided,
)
from tests.kit.share import count

departments = st.sampled_from([CONSUMER, PROVIDER, STRANGER, ""])
sources = st.sampled_from(["default", "default", "default", "internet", "inner"])
zones = st.sampled_from(["default", "default", "default", "internet"])
moments = st.integers(-40, 400).map(lambda days: NOW + timedelta(days=days))
purposes = st.sampled_from(["eligibility", "eligibility", "statistics", ""])
cases = st.sampled_from(["HR-2026-0007", "HR-2026-0007", "HR-2", ""])
levels = st.sampled_from(list(Level))

grants = st.builds(
    a_grant,
    consumer=st.sampled_from([CONSUMER, CONSUMER, STRANGER]),
    state=st.sampled_from([GrantState.ACTIVE] * 8 + list(GrantState)),
    not_before=st.integers(-60, 5).map(lambda days: NOW + timedelta(days=days)),
    expires=st.integers(1, 300).map(lambda days: NOW + timedelta(days=days)),
    purpose=st.sampled_from(["eligibility", "statistics"]),
    case_rule=st.sampled_from(list(CaseRule)),
    quota_per_day=st.none() | st.integers(1, 50),
    ceiling=levels,
    zone=zones,
    source_zone=st.sampled_from(["", "", "inner"]),
)
requests = st.fixed_dictionaries(
    {
        "actor": st.builds(a_connector, st.sampled_from([CONSUMER, CONSUMER, STRANGER, PROVIDER, ""]), zone=zones),
        "action": st.sampled_from([Action.FETCH, Action.FETCH, Action.COMMIT, Action.GRANT_READ, Action.PUBLISH]),
        "standing": st.sampled_from([Standing.ACTIVE] * 6 + list(Standing)),
        "now": st.just(NOW) | moments,
        "resource": st.builds(a_resource, published=st.sampled_from([True] * 5 + [False]), zone=sources),
        "grant": grants,
        "proven": st.sampled_from([True] * 5 + [False]),
        "purpose": purposes,
        "case": cases,
        "level": levels,
        "released_today": st.integers(0, 60),
    }
)


def narrower(draw: Callable[[Any], Any], grant: Grant) -> Grant:
    """Return a grant that covers no more in any dimension, and less in at least one."""
    cuts: list[dict[str, Any]] = [
        {"state": draw(st.sampled_from([state for state in GrantState if state is not GrantState.ACTIVE]))},
        {"not_before": grant.not_before + timedelta(days=draw(st.integers(1, 80)))},
        {"expires": grant.expires - timedelta(days=draw(st.integers(1, 320)))},
        {"quota_per_day": draw(st.integers(0, grant.quota_per_day or 50))},
        {"ceiling": draw(st.sampled_from([level for level in Level if level <= grant.ceiling]))},
        {"fields": grant.fields[:-1]},
    ]
    if grant.case_rule is CaseRule.EACH_CALL:
        cuts.append({"case_rule": CaseRule.STANDING})
    narrowed = grant
    for cut in draw(st.lists(st.sampled_from(cuts), min_size=1, max_size=3)):
        narrowed = replace(narrowed, **cut)
    return narrowed


@pytest.mark.counted
@settings(max_examples=count(800, 250))
@given(requests, st.data())
def test_narrowing_a_grant_never_allows_more(request: dict[str, Any], data: st.DataObject) -> None:
    request["action"] = data.draw(st.sampled_from([Action.FETCH, Action.COMMIT]))
    narrowed = narrower(data.draw, request["grant"])
    assert not decided(**request | {"grant": narrowed}) or decided(**request)


NEEDED = {
    Action.FETCH: {
        "actor", "standing", "now", "resource", "grant", "proven", "purpose", "case", "level", "released_today",
    },
    Action.COMMIT: {"actor", "standing", "now", "resource", "grant", "proven", "purpose", "case"},
    Action.GRANT_READ: {"actor", "standing", "grant", "proven"},
    Action.PUBLISH: {"actor", "standing", "resource"},
    Action.RESUME: {"actor", "standing", "resource"},
}  # fmt: skip


@pytest.mark.counted
@settings(max_examples=count(500, 200))
@given(requests, st.sampled_from(sorted(NEEDED)))
def test_a_missing_attribute_denies(request: dict[str, Any], action: Action) -> None:
    fitting = request | {"action": action, "standing": Standing.ACTIVE, "proven": True, "now": NOW}
    provides = action in (Action.PUBLISH, Action.RESUME)
    fitting["actor"] = a_connector(PROVIDER if provides else CONSUMER)
    fitting["resource"] = a_resource()
    fitting["grant"] = a_grant()
    fitting |= {"purpose": "eligibility", "case": "HR-2026-0007", "level": Level.G1, "released_today": 0}
    assert decided(**fitting)
    for name in NEEDED[action]:
        missing: Any = "" if name in {"purpose", "case"} else None
        assert not decided(**fitting | {name: missing}), name


@settings(max_examples=400)
@given(requests, st.sampled_from(list(Role)))
def test_only_a_connector_touches_records(request: dict[str, Any], role: Role) -> None:
    assume(role is not Role.CONNECTOR)
    assert not decided(**request | {"actor": replace(request["actor"], role=role)})


@settings(max_examples=400)
@given(requests)
def test_what_is_allowed_is_within_the_grant(request: dict[str, Any]) -> None:
    grant: Grant = request["grant"]
    if request["action"] is not Action.FETCH or not decided(**request):
        return
    assert grant.consumer == request["actor"].department
    assert grant.topic == POPULATION
    assert grant.not_before <= request["now"] < grant.expires
    assert request["level"] <= grant.ceiling
    assert grant.quota_per_day is None or request["released_today"] < grant.quota_per_day
    crossed = request["resource"].zone, request["actor"].zone
    assert crossed == ((grant.source_zone, grant.zone) if grant.source_zone else (crossed[1], crossed[1]))
