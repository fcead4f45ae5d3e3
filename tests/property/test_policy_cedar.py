"""The decision against Cedar, an engine with proven semantics, on 100,000 random requests; CI runs a tenth.

The rules stand here a second time, in Cedar's own language and in another form: for records one `forbid` a rule, of
which the first that matches, in the documented order, has to be the reason that `decide` gives; for control one
`permit` a right. Entities are parsed once and requests go in batches: Cedar takes 25 ms a request otherwise.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import cedarpy
import pytest

from exchange.access.decision.grant_rules import GRANT_RULES, Party
from exchange.access.decision.roles import RULES, Standing, decide_control
from schemas.access import AccessMode, Action, Actor, ActorKind, Allow, CaseRule, Deny, Grant, GrantState, Level, Role
from schemas.errors import Reason
from schemas.names import ResourceName, Topic
from tests.kit.cases.grants import NOW, a_connector, a_grant, a_person, a_resource, decided
from tests.kit.share import count, random_of

pytestmark = pytest.mark.counted
RECORDS, CONTROL, BATCH = count(70_000, 7_000), count(30_000, 3_000), 2_000
RARE = count(500, 10)  # each reason is met so often

RECORD_RULES = (Path(__file__).parent / "policy_records.cedar").read_text()

ORDER = [
    "no_identity", "certificate_revoked", "department_inactive", "contract_ended", "role_forbidden",
    "role_missing", "grant_unknown", "grant_forged", "grant_other_consumer",
    "resource_unknown", "resource_not_published", "not_provider", "grant_other_resource", "zone_mismatch",
    "zone_mismatch_topic", "grant_suspended", "grant_expired", "grant_not_active", "grant_expired_by_time",
    "grant_not_yet_valid", "purpose_missing", "purpose_mismatch", "case_missing", "case_mismatch",
    "contractor_plaintext", "level_above_ceiling", "grant_mode", "quota_exhausted",
]  # fmt: skip
"""The documented order; rules of different acts interleave freely."""

SAME = {"zone_mismatch_topic": "zone_mismatch", "grant_expired_by_time": "grant_expired"}

CONTROL_RULES = (Path(__file__).parent / "policy_control.cedar").read_text()

Request = dict[str, Any]


def world(rng: random.Random) -> tuple[list[Grant], dict[str, str]]:
    """500 grants of 30 departments on 60 topics, and who provides each topic."""
    departments = [f"d{i:02}" for i in range(30)]
    providers = {f"topic-{i:02}": departments[i % 30] for i in range(60)}
    grants = []
    for i in range(500):
        name = rng.choice(sorted(providers))
        start = NOW - timedelta(days=rng.randint(1, 200))
        standing = rng.random() < 0.7
        grants.append(
            a_grant(
                id=f"g{i:03}",
                provider=providers[name],
                consumer=rng.choice([d for d in departments if d != providers[name]]),
                topic=Topic(ResourceName(name), 1),
                purpose=rng.choice(["eligibility", "statistics", "supervision"]),
                case_rule=CaseRule.STANDING if standing else CaseRule.EACH_CALL,
                case=f"case-{i}" if standing else "",
                not_before=start,
                expires=start + timedelta(days=365),
                quota_per_day=rng.choice([None, 100, 5_000]),
                ceiling=rng.choice(list(Level)),
                zone=rng.choice(["default", "intranet"]),
                source_zone=rng.choice(["", "", "inner"]),
                access_mode=rng.choice([*[AccessMode.STREAM] * 3, *AccessMode]),
                requested_by=f"person-{rng.randint(1, 40)}",
                state=GrantState.ACTIVE,
                approved_by=None,  # who signed before, the tests of signatures compare
            )
        )
    return grants, providers


def record_requests(rng: random.Random, grants: list[Grant], providers: dict[str, str]) -> Iterator[Request]:
    """Requests that fit, most of them bent in one to three ways."""
    bends = [
        lambda r: r.update(actor=None),
        lambda r: r.update(standing=None),
        lambda r: r.update(standing=Standing.REVOKED),
        lambda r: r.update(standing=Standing.DEPARTMENT_INACTIVE),
        lambda r: r.update(standing=Standing.CONTRACT_ENDED),
        lambda r: r["actor"] and r.update(actor=replace(r["actor"], role=rng.choice([Role.OPERATOR, Role.AUDITOR]))),
        lambda r: r["actor"] and r.update(actor=replace(r["actor"], role=rng.choice(list(Role)))),
        lambda r: r.update(resource=None),
        lambda r: r["resource"] and r.update(resource=replace(r["resource"], published=False)),
        lambda r: r["resource"] and r.update(resource=replace(r["resource"], provider=rng.choice(["d00", "d01"]))),
        lambda r: r["resource"] and r.update(resource=replace(r["resource"], zone=rng.choice(["extranet", "default"]))),
        lambda r: (
            r["resource"]
            and r.update(resource=replace(r["resource"], topic=Topic(ResourceName("topic-00"), rng.choice([1, 2]))))
        ),
        lambda r: r["actor"] and r.update(actor=replace(r["actor"], zone="extranet")),
        lambda r: r["actor"] and r.update(actor=replace(r["actor"], department=rng.choice(["", "d05", "d07"]))),
        lambda r: r.update(grant=None),
        lambda r: r.update(proven=rng.choice([None, False])),
        lambda r: r["grant"] and r.update(grant=replace(r["grant"], state=GrantState.SUSPENDED)),
        lambda r: r["grant"] and r.update(grant=replace(r["grant"], state=rng.choice(list(GrantState)))),
        lambda r: r.update(now=rng.choice([None, NOW + timedelta(days=400)])),
        lambda r: r["grant"] and r.update(now=r["grant"].expires),
        lambda r: r["grant"] and r.update(now=r["grant"].not_before - timedelta(microseconds=1)),
        lambda r: r.update(purpose=""),
        lambda r: r.update(purpose=rng.choice(["research", "statistics"])),
        lambda r: r.update(case=""),
        lambda r: r.update(case="case-1"),
        lambda r: r.update(plaintext=rng.choice([("id_number",), None])),
        lambda r: r.update(level=rng.choice([None, Level.IMP, Level.G4])),
        lambda r: r.update(released_today=rng.choice([None, 100, 5_000, 99, 4_999])),
    ]
    weights = [1] * (len(bends) - 7) + [2, 3, 2, 4, 4, 4, 8]  # rules that are asked last are reached least
    acts = [Action.PUBLISH, Action.PUBLISH, Action.RESUME, Action.GRANT_READ]
    for _ in range(RECORDS):
        grant = rng.choice(grants)
        action = rng.choice([*acts, *_FITTING.get(grant.access_mode, _FITTING[AccessMode.STREAM]) * 7][:11])
        if rng.random() < 0.03:
            action = rng.choice([action for fitting in _FITTING.values() for action in fitting])
        provides = action in (Action.PUBLISH, Action.RESUME)
        request: Request = {
            "action": action,
            "actor": a_connector(grant.provider if provides else grant.consumer, zone=grant.zone),
            "standing": Standing.ACTIVE,
            "resource": a_resource(
                topic=grant.topic,
                provider=providers[grant.topic.name],
                zone=grant.zone if provides else grant.source_zone or grant.zone,
            ),
            "grant": None if provides else grant,
            "proven": None if provides else True,
            "now": NOW,
            "purpose": grant.purpose,
            "case": grant.case or "case-each",
            "level": Level.G1,
            "released_today": 99,
            "plaintext": (),
        }
        if rng.random() < 0.75:
            for bend in rng.sample(bends, rng.choice([1, 1, 1, 2, 3]), counts=weights):
                bend(request)
        yield request


_FITTING = {
    AccessMode.STREAM: [*[Action.FETCH] * 6, Action.COMMIT],
    AccessMode.LOOKUP: [Action.HUB_LOOKUP, Action.HUB_PREFILL],
    AccessMode.VERIFY: [Action.HUB_VERIFY, Action.HUB_INSTANT],
}


class Names:
    """Gives each distinct value one Cedar entity, parsed once."""

    def __init__(self) -> None:
        self.ids: dict[Any, dict[str, str]] = {}
        self.entities: list[dict[str, Any]] = []

    def of(self, kind: str, value: Any, attributes: dict[str, Any]) -> dict[str, str]:
        known = self.ids.get((kind, value))
        if known is None:
            known = {"type": kind, "id": f"{kind}{len(self.ids)}"}
            self.ids[(kind, value)] = known
            self.entities.append({"uid": known, "attrs": attributes, "parents": []})
        return known


def microseconds(moment: Any) -> int:
    return int(moment.timestamp() * 1_000_000)


def grant_attributes(grant: Grant | None) -> dict[str, Any]:
    if grant is None:
        return {}
    attributes = {
        "consumer": grant.consumer,
        "provider": grant.provider,
        "topic": str(grant.topic),
        "state": grant.state.value,
        "not_before": microseconds(grant.not_before),
        "expires": microseconds(grant.expires),
        "zone": grant.zone,
        "purpose": grant.purpose,
        "ceiling": int(grant.ceiling),
        "requested_by": grant.requested_by,
        "mode": str(grant.access_mode),
    }
    if grant.source_zone:
        attributes["source_zone"] = grant.source_zone
    if grant.case_rule is CaseRule.STANDING:
        attributes["case"] = grant.case
    if grant.quota_per_day is not None:
        attributes["quota"] = grant.quota_per_day
    return attributes


def to_cedar(request: Request, names: Names) -> dict[str, Any]:
    actor: Actor | None = request["actor"]
    resource = request["resource"]
    topic = names.of(
        "Topic",
        resource,
        {}
        if resource is None
        else {
            "name": str(resource.topic),
            "provider": resource.provider,
            "published": resource.published,
            "zone": resource.zone,
        },
    )
    context = {
        "standing": None if request["standing"] is None else request["standing"].value,
        "proven": request["proven"],
        "now": None if request["now"] is None else microseconds(request["now"]),
        "purpose": request["purpose"],
        "case": request["case"],
        "level": None if request["level"] is None else int(request["level"]),
        "released": request["released_today"],
        "plaintext": request["plaintext"] != (),
        "topic": {"__entity": topic},
    }
    provides = request["action"] in (Action.PUBLISH, Action.RESUME)
    return {
        "principal": names.of(
            "Actor",
            actor,
            {} if actor is None else {"role": actor.role.value, "department": actor.department, "zone": actor.zone},
        ),
        "action": {"type": "Action", "id": request["action"].value},
        "resource": topic if provides else names.of("Grant", request["grant"], grant_attributes(request["grant"])),
        "context": json.dumps({name: value for name, value in context.items() if value is not None}),
    }


def ask(rules: str, requests: list[dict[str, Any]], entities: list[dict[str, Any]]) -> Iterator[cedarpy.AuthzResult]:
    policies = cedarpy.PolicySet.from_str(rules)
    handle = cedarpy.Entities.from_json_str(json.dumps(entities))
    for start in range(0, len(requests), BATCH):
        yield from cedarpy.is_authorized_batch(requests[start : start + BATCH], policies, handle)


def action_entities() -> list[dict[str, Any]]:
    subjects = [Action.HUB_LOOKUP, Action.HUB_PREFILL, Action.HUB_VERIFY, Action.HUB_INSTANT]
    groups = {
        "provide": [Action.PUBLISH, Action.RESUME],
        "consume": [Action.FETCH, Action.COMMIT, Action.GRANT_READ, *subjects],
        "draw": [Action.FETCH, Action.COMMIT, *subjects],
        "release": [Action.FETCH, *subjects],
    }
    entity = lambda name: {"type": "Action", "id": name}  # noqa: E731
    members = [
        {"uid": entity(act.value), "attrs": {}, "parents": [entity(g) for g, acts in groups.items() if act in acts]}
        for act in Action
    ]
    return [*members, *({"uid": entity(group), "attrs": {}, "parents": []} for group in groups)]


def test_cedar_gives_the_same_answer_and_the_same_first_reason_for_records() -> None:
    rng = random_of("policy of records")
    grants, providers = world(rng)
    requests = list(record_requests(rng, grants, providers))
    ours = [decided(**request) for request in requests]

    names = Names()
    theirs = ask(
        RECORD_RULES, [to_cedar(request, names) for request in requests], [*names.entities, *action_entities()]
    )

    reasons: Counter[Reason] = Counter()
    for request, mine, answer in zip(requests, ours, theirs, strict=True):
        assert not answer.diagnostics.errors
        broken = set(answer.diagnostics.id_annotations_by_reason.values()) if not answer.allowed else set()
        first = next((rule for rule in ORDER if rule in broken), None)
        expected = None if first is None else SAME.get(first, first)
        assert (mine.reason.value if isinstance(mine, Deny) else None) == expected, request
        assert bool(mine) is answer.allowed
        if isinstance(mine, Deny):
            reasons[mine.reason] += 1

    assert sum(map(bool, ours)) >= 0.3 * RECORDS
    expected_reasons = {Reason(SAME.get(rule, rule)) for rule in ORDER}
    assert {reason for reason, times in reasons.items() if times >= RARE} == expected_reasons, reasons


PERSONS = {f"person-{which}": f"staff-{which}" for which in (*range(1, 41), *"abc")}


_OF_REQUESTS = {rule.action for rule in GRANT_RULES.values()}
_OF_CONSUMERS = {rule.action for rule in GRANT_RULES.values() if rule.party is Party.CONSUMER}


def control_requests(rng: random.Random, grants: list[Grant]) -> Iterator[Request]:
    """Half of them random; half fitting, of which half are bent in one way. Acts on grants come more often."""
    acts = [action for action in Action if action.value.split(":")[1] not in {"records", "lane"}]
    acts += [action for action in acts if action in _OF_REQUESTS] * 2 + [Action.GRANT_SUBMIT] * 6
    bends: list[Request] = [
        {"actor": None},
        {"standing": None},
        *({"standing": standing} for standing in Standing),
        {"department": None},
        {"department": "d04"},
        {"connector": "other"},
        {"grant": None},
        {"proven": None},
        {"proven": False},
        {"new_role": None},
        {"new_role": Role.CONNECTOR},
        {"new_role": Role.DATA_AUTHORITY},
        *({"persons": {**PERSONS, f"person-{letter}": "staff-7"}} for letter in "abc"),
        *[{"persons": {}}] * 8,
    ]
    for _ in range(CONTROL):
        grant, action = rng.choice(grants), rng.choice(acts)
        about_grant = action in _OF_REQUESTS or action is Action.GRANT_READ
        side = grant.consumer if action in _OF_CONSUMERS else grant.provider
        name = rng.choice([grant.requested_by, "person-a", "person-b", "person-c"])
        random_one = rng.random() < 0.5
        role = rng.choice(list(Role) if random_one else sorted(RULES.get(action) or Role))
        if random_one:
            side = rng.choice([grant.consumer, grant.provider, "", "d03"])
        machine = role is Role.CONNECTOR or rng.random() < 0.03
        actor = a_person(role, side, name, kind=ActorKind.MACHINE if machine else ActorKind.HUMAN)
        request: Request = {
            "actor": actor,
            "action": action,
            "standing": Standing.ACTIVE,
            "department": side,
            "connector": name,
            "grant": grant if about_grant and rng.random() < 0.95 else None,
            "proven": True,
            "new_role": rng.choice(list(Role)),
            "persons": PERSONS,
        }
        if rng.random() < 0.6:
            request |= rng.choice([*bends, *[{"actor": replace(actor, department=rng.choice(["", "d03"]))}] * 4])
        yield request


def control_to_cedar(request: Request, names: Names) -> dict[str, Any]:
    actor: Actor | None = request["actor"]
    known = actor is not None and request["standing"] is not None
    own = actor is not None and actor.department != "" and actor.department == request["department"]
    context = {
        "act": request["action"].value,
        "standing": request["standing"].value if known else "unknown",
        "department": "" if actor is None else actor.department,
        "name": "" if actor is None else actor.id,
        "human": actor is not None and actor.kind is ActorKind.HUMAN,
        "own": own,
        "itself": actor is not None and actor.id == request["connector"],
        "has_grant": request["grant"] is not None,
        "proven": request["proven"] is True,
        "person": "" if actor is None else request["persons"].get(actor.id, ""),
        "requester": "" if request["grant"] is None else request["persons"].get(request["grant"].requested_by, ""),
    }
    if request["new_role"] is not None:
        context["new_role"] = request["new_role"].value
    return {
        "principal": {"type": "Role", "id": "nobody" if actor is None else actor.role.value},
        "action": {"type": "Action", "id": "any"},
        "resource": names.of("Grant", request["grant"], grant_attributes(request["grant"])),
        "context": json.dumps(context),
    }


def test_cedar_gives_the_same_answer_for_control() -> None:
    rng = random_of("policy of control")
    requests = list(control_requests(rng, world(rng)[0]))
    ours: list[Allow | Deny] = [decide_control(**request) for request in requests]

    names = Names()
    theirs = ask(CONTROL_RULES, [control_to_cedar(request, names) for request in requests], names.entities)

    for request, mine, answer in zip(requests, ours, theirs, strict=True):
        assert not answer.diagnostics.errors
        assert bool(mine) is answer.allowed, (request, mine)
    reasons = Counter(mine.reason for mine in ours if isinstance(mine, Deny))
    assert sum(map(bool, ours)) >= 0.3 * CONTROL
    assert {reason for reason, times in reasons.items() if times >= RARE} == {
        Reason.NO_IDENTITY,
        Reason.CERTIFICATE_REVOKED,
        Reason.DEPARTMENT_INACTIVE,
        Reason.CONTRACT_ENDED,
        Reason.ROLE_FORBIDDEN,
        Reason.ROLE_MISSING,
        Reason.GRANT_UNKNOWN,
        Reason.GRANT_FORGED,
        Reason.GRANT_OTHER_CONSUMER,
        Reason.NOT_PROVIDER,
        Reason.OTHER_DEPARTMENT,
        Reason.SAME_PERSON,
        Reason.PERSON_UNKNOWN,
        Reason.CONTRACT_ENDED,
    }, reasons
